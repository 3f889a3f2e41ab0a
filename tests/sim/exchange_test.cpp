/// The exchange's modes, its helpers, and links that break.

#include "tests/sim/exchange_world.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

TEST_CASE("every mode and codec gives every member the same bits, those of the sum in the order of the round",
          "[sim]") {
    for (const auto& codec : compress::codec_names()) {
        for (const bool sharded : {false, true}) {
            if (sharded && !(*compress::find_codec(codec))->fits_sums()) continue;
            INFO(codec << (sharded ? " shard" : " gather"));
            hall h(5);
            sim::world w(1);
            h.populate(w, usual_line);
            w.set_default_path({.delay = 20ms});
            const auto t = terms_for(h.everybody(), codec, sharded ? four_shards() : exchange_plan{});
            w.at(2s, [&] {
                h.open(t);
                for (const auto n : h.everybody()) h.contribute(n);
            });
            const bool done = w.run_while([&] { return !h.all_have(t); }, 1min);
            for (const auto& c : h.complaints) UNSCOPED_INFO(c);
            REQUIRE(done);
            h.check(t);
            CHECK(h.complaints.empty());
        }
    }
}

TEST_CASE("a payload is received while it is still made, and summed while it is still received", "[sim]") {
    hall h(2);
    sim::world w(1);
    h.populate(w, usual_line);
    w.set_default_path({.delay = 20ms});
    const auto t = terms_for({1, 2}, "f32");
    w.at(2s, [&] {
        h.open(t);
        for (auto& [n, p] : h.here) p->x.prepare();
    });
    w.run_until(3s);
    CHECK(h.here[1]->x.receiving());  // accepted before there is a byte of it
    w.at(3s, [&] {
        for (const auto n : h.everybody()) h.contribute(n);
    });
    REQUIRE(w.run_while([&] { return !h.all_have(t); }, 1min));
    // 600 KB at 20 Mbit/s and half a round trip: an exchange that waits anywhere for the whole takes longer.
    const double floor = 4.0 * static_cast<double>(elements) * 8 / 20e6 + 0.02;
    CHECK(core::to_seconds(w.now() - 3s) < 1.15 * floor);
    h.check(t);
}

TEST_CASE("a thin uplink sends its payload once, and a member with room passes it on", "[sim]") {
    const auto line = [](peer_number n) {
        sim::node_options o;
        o.up = {n == 4 ? 2e6 : 100e6};
        o.down = {100e6};
        return o;
    };
    std::map<bool, double> seconds;
    for (const bool relayed : {false, true}) {
        hall h(4);
        sim::world w(1);
        h.populate(w, line);
        w.set_default_path({.delay = 10ms});
        exchange_plan plan;
        if (relayed) plan.relays = {{4, 2, 1}, {4, 3, 1}};
        const auto t = terms_for(h.everybody(), "bf16", plan);
        w.at(2s, [&] { h.exchange(t); });
        REQUIRE(w.run_while([&] { return !h.all_have(t); }, 1min));
        h.check(t);
        CHECK(h.complaints.empty());
        seconds[relayed] = core::to_seconds(w.now() - 2s);
    }
    const double once = 2.0 * static_cast<double>(elements) * 8 / 2e6;
    CHECK(seconds[false] > 3 * once);
    CHECK(seconds[true] < 1.2 * once);
}

TEST_CASE("two peers that nobody can dial exchange through a third", "[sim]") {
    for (const bool sharded : {false, true}) {
        hall h(3);
        sim::world w(1);
        h.populate(w, [](peer_number n) {
            auto o = usual_line(n);
            o.reachable = n == 1;
            return o;
        });
        w.set_default_path({.delay = 10ms});
        exchange_plan plan;
        plan.relays = {{2, 3, 1}, {3, 2, 1}};
        if (sharded) plan.shards = {{2, 4}, {3, 6}};
        const auto t = terms_for(h.everybody(), "bf16", plan);
        w.at(3s, [&] {
            h.open(t);
            for (const auto n : h.everybody()) h.contribute(n);
        });
        REQUIRE(w.run_while([&] { return !h.all_have(t); }, 1min));
        CHECK_FALSE(h.here[2]->link_of(3));
        h.check(t);
    }
}

TEST_CASE(
    "members die in mid-exchange: the next attempt gives the survivors the same bits, without a second upload of "
    "what is there",
    "[sim]") {
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
        INFO("seed " << seed);
        core::seeded_entropy random(seed);
        const auto count = static_cast<peer_number>(3 + random.below(4));
        const bool sharded = random.below(2) == 0;
        const auto* codec = random.below(2) == 0 ? "f32" : "bf16";
        hall h(count);
        sim::world w(seed);
        h.populate(w, usual_line);
        w.set_default_path({.delay = core::duration(5ms) * (1 + static_cast<int>(random.below(8)))});
        exchange_plan plan;
        if (sharded) {
            for (peer_number n = 1; n <= count; ++n)
                plan.shards.push_back({n, 1 + static_cast<std::uint32_t>(random.below(4))});
        }
        if (random.below(2) == 0) plan.relays = {{count, 1, 2}, {1, count, 2}};
        auto t = terms_for(h.everybody(), codec, plan);
        const auto victim = static_cast<peer_number>(1 + random.below(count));
        const auto dies = 2s + core::from_seconds(random.unit() * 1.5);
        w.at(2s, [&] { h.exchange(t); });
        w.at(dies, [&] { w[hall::name(victim)].kill(); });
        w.run_until(dies + core::from_seconds(random.unit()));
        auto next = t;
        next.attempt = 2;
        std::erase(next.members, victim);
        // What everybody who sums has in whole may stay.
        bool everywhere = true;
        for (const auto m : next.members) {
            const auto held = h.here[m]->x.authors();
            everywhere = everywhere && std::ranges::binary_search(held, victim);
        }
        if (sharded || !everywhere) std::erase(next.contributors, victim);
        next.plan.relays.clear();
        for (auto& s : next.plan.shards) {
            if (s.owner == victim) s.owner = next.members[random.below(next.members.size())];
        }
        h.open(next);
        const bool done = w.run_while([&] { return !h.all_have(next); }, 1min);
        for (const auto& c : h.complaints) UNSCOPED_INFO(c);
        REQUIRE(done);
        h.check(next);
        CHECK(h.complaints.empty());
    }
}

TEST_CASE("a broken link in mid-exchange: the stream comes again and the sum is the same", "[sim]") {
    for (std::uint64_t seed = 1; seed <= 15; ++seed) {
        INFO("seed " << seed);
        core::seeded_entropy random(seed);
        hall h(3);
        sim::world w(seed);
        h.populate(w, usual_line);
        w.set_default_path({.delay = 10ms});
        const auto t = terms_for(
            h.everybody(), "f32", random.below(2) == 0 ? exchange_plan{} : [] {
                exchange_plan p;
                p.shards = {{1, 4}, {2, 3}, {3, 3}};
                return p;
            }());
        w.at(2s, [&] { h.exchange(t); });
        const auto a = static_cast<peer_number>(1 + random.below(3));
        const auto b = a % 3 + 1;
        w.at(2s + core::from_seconds(random.unit() * 0.6), [&] {
            if (const auto link = h.here[a]->link_of(b)) link->close("cut by the test");
        });
        REQUIRE(w.run_while([&] { return !h.all_have(t); }, 1min));
        h.check(t);
        CHECK(h.complaints.empty());
    }
}

TEST_CASE("a stream whose link breaks goes on over the next one from the chunks that were verified", "[sim]") {
    for (const bool by_helper : {false, true}) {
        INFO((by_helper ? "from a helper" : "from its author"));
        hall h(3);
        h.links.streams = 1;  // segments come one after the other
        sim::world w(1);
        h.populate(w, usual_line);
        w.set_default_path({.delay = 10ms});
        exchange_plan plan;
        if (by_helper) plan.relays = {{3, 1, 2}};
        auto t = terms_for(h.everybody(), "f32", plan);
        t.contributors = {3};
        const peer_number giver = by_helper ? 2 : 3;
        w.at(2s, [&] {
            h.open(t);
            h.contribute(3);
        });
        // Two of its three segments are there when the link breaks, and all chunks of the first one are checked.
        const std::uint64_t payload = 4 * elements;
        REQUIRE(w.run_while([&] { return h.here[1]->x.arrived_bytes() < payload * 8 / 10; }, 1min));
        w.run_for(1ms);
        h.here[1]->link_of(giver)->close("cut by the test");
        CHECK_FALSE(h.here[1]->x.result(1, 1, 1));
        REQUIRE(w.run_while([&] { return !h.all_have(t); }, 1min));
        h.check(t);
        CHECK(h.complaints.empty());
        const auto link = h.here[giver]->link_of(1);
        REQUIRE(link);
        // What was under way comes again; from the first chunk it would be all of it.
        CHECK(link->stats().wire_sent > payload / 10);
        CHECK(link->stats().wire_sent < payload * 7 / 10);
    }
}

namespace {

/// Bytes that links from peers up to `last` to the others have carried.
std::uint64_t crossed(const hall& h, peer_number last, bool back) {
    std::uint64_t sum = 0;
    for (const auto& [n, p] : h.here) {
        for (const auto& [m, other] : h.here) {
            const bool counts = back ? n > last && m <= last : n <= last && m > last;
            if (const auto l = counts ? p->link_of(m) : nullptr) sum += l->stats().wire_sent;
        }
    }
    return sum;
}

}  // namespace

TEST_CASE("two sites of four on one uplink each: a payload crosses once and is forwarded inside", "[sim]") {
    for (const auto* mode : {"gather", "auto"}) {
        hall h(8);
        sim::world w(1);
        h.populate(w, [](peer_number) {
            sim::node_options o;
            o.up = o.down = {1e9};
            return o;
        });
        w.set_default_path({.delay = 40ms});
        for (int s = 0; s < 2; ++s) w.network().add_site({100e6}, {100e6}, 100ms);
        exchange_planner planner({.chunks = chunk_grid::of(elements).count(),
                                  .payload_bytes = 4 * elements,
                                  .may_shard = true,
                                  .mode = mode});
        for (const auto a : h.everybody()) {
            w.network().set_site(a - 1, a <= 4 ? 0 : 1);
            lines_message said;
            said.up = said.down = 100e6 / 8 / 4;  // its share of the site's line
            for (const auto b : h.everybody()) {
                if (a == b) continue;
                const bool inside = (a <= 4) == (b <= 4);
                said.links.push_back({b, inside ? 1000U : 80'000U});
                if (inside) w.set_path(hall::name(a), hall::name(b), {.delay = 500us});
            }
            planner.heard(a, said, core::time_point{});
        }
        const auto choice = planner.plan(h.everybody(), h.everybody(), core::time_point{} + 1min, "");
        INFO(mode << ": " << choice.plan.reason);
        const auto t = terms_for(h.everybody(), "f32", choice.plan);
        std::array<std::uint64_t, 2> before{};
        w.at(5s, [&] {
            before = {crossed(h, 4, false), crossed(h, 4, true)};
            h.open(t);
            for (const auto n : h.everybody()) h.contribute(n);
        });
        REQUIRE(w.run_while([&] { return !h.all_have(t); }, 1min));
        h.check(t);
        CHECK(h.complaints.empty());
        // What links between the sites carry, their uplinks carry: each of a site's four payloads once.
        const std::uint64_t four_payloads = 4 * 4 * elements;
        for (const bool back : {false, true}) {
            const auto used = crossed(h, 4, back) - before[back ? 1 : 0];
            CHECK(used < four_payloads * 106 / 100);
            if (choice.mode == "gather") CHECK(used > four_payloads);
        }
        // As fast as foretold, and a round trip of offers, which in a run are made before the payload is; small shards
        // have nothing to overlap.
        if (choice.mode == "gather") CHECK(core::to_seconds(w.now() - 5s) < 0.08 + 1.2 * choice.plan.predicted_seconds);
    }
}

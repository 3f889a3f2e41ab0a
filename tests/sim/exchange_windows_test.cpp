/// Owners with little memory: they hold a window of chunks a sender.

#include "tests/sim/exchange_world.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

namespace {

/// A model of more chunks, as long as it lives.
struct larger_model {
    larger_model() { elements = 700'000; }
    ~larger_model() { elements = 150'000; }
};

/// Two owners of half the model each, with windows of so many chunks.
exchange_plan two_halves(std::uint32_t window) {
    const auto chunks = chunk_grid::of(elements).count();
    exchange_plan p;
    p.shards = {{1, chunks / 2, window}, {2, chunks - chunks / 2, window}};
    return p;
}

/// Three windows of so many chunks, and a frame beside each that its end cuts in two.
std::uint64_t three_windows(std::uint32_t window) {
    const auto frame = 4 * chunk_grid::of(elements).elements + chunk_header_bytes;
    return 3 * (window_bytes(frame, window) + frame);
}

}  // namespace

TEST_CASE("an owner with little memory holds a window of chunks a sender, and the sum is that of one who keeps all",
          "[sim]") {
    const larger_model large;
    std::map<std::uint32_t, core::digest> roots;
    std::map<std::uint32_t, std::uint64_t> most;
    for (const std::uint32_t window : {0U, 1U, 6U}) {
        INFO("window " << window);
        hall h(4);
        sim::world w(1);
        h.populate(w, usual_line);
        w.set_default_path({.delay = 20ms});
        const auto t = terms_for(h.everybody(), "f32", two_halves(window));
        w.at(2s, [&] { h.exchange(t); });
        w.run_until(2s);
        REQUIRE(w.run_while(
            [&] {
                most[window] = std::max(most[window], h.here[1]->x.held_bytes());
                return !h.all_have(t);
            },
            1min));
        h.check(t);
        CHECK(h.complaints.empty());
        roots[window] = h.here[3]->x.result(1, 1, 1)->root;
        // What it made itself and the sums of both halves it holds in any case.
        const auto always = 2 * 4 * elements * 101 / 100;
        if (window > 0) CHECK(most[window] <= always + three_windows(window));
        if (window == 0) CHECK(most[window] >= 2 * 4 * elements + 3 * 3 * elements / 2);
    }
    CHECK(roots[1] == roots[0]);
    CHECK(roots[6] == roots[0]);
    CHECK(most[1] < most[6]);
}

TEST_CASE("a slow sender holds up a window, and nothing stands still for ever", "[sim]") {
    const larger_model large;
    hall h(4);
    sim::world w(1);
    h.populate(w, [](peer_number n) {
        sim::node_options o;
        o.up = {n == 4 ? 2e6 : 50e6};
        o.down = {50e6};
        return o;
    });
    w.set_default_path({.delay = 20ms});
    const auto t = terms_for(h.everybody(), "f32", two_halves(1));
    w.at(2s, [&] {
        h.open(t);
        for (const auto n : h.everybody()) h.contribute(n);
    });
    w.run_until(2s);
    std::uint64_t most = 0;
    REQUIRE(w.run_while(
        [&] {
            most = std::max(most, h.here[2]->x.held_bytes());
            return !h.all_have(t);
        },
        1min));
    h.check(t);
    CHECK(h.complaints.empty());
    CHECK(most <= 2 * 4 * elements * 101 / 100 + three_windows(1));
    // The slow one sends all the time: its payload once, and half a window more at the end.
    CHECK(core::to_seconds(w.now() - 2s) < 1.1 * 4.0 * static_cast<double>(elements) * 8 / 2e6);
}

TEST_CASE("links break while owners hold windows: what is summed is not sent again, and the sum is the same", "[sim]") {
    const larger_model large;
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        INFO("seed " << seed);
        core::seeded_entropy random(seed);
        hall h(3);
        sim::world w(seed);
        h.populate(w, usual_line);
        w.set_default_path({.delay = core::duration(5ms) * (1 + static_cast<int>(random.below(8)))});
        auto t = terms_for(h.everybody(), "f32", two_halves(1 + static_cast<std::uint32_t>(random.below(3))));
        // A helper that loses its author's link takes back what it passes on.
        if (random.below(2) == 0) t.plan.relays = {{3, 1, 2}};
        w.at(2s, [&] { h.exchange(t); });
        for (int cuts = 0; cuts < 3; ++cuts) {
            const auto a = static_cast<peer_number>(1 + random.below(3));
            const auto b = a % 3 + 1;
            w.at(2s + core::from_seconds(random.unit() * 2), [&h, a, b] {
                if (const auto link = h.here[a]->link_of(b)) link->close("cut by the test");
            });
        }
        const bool done = w.run_while([&] { return !h.all_have(t); }, 2min);
        for (const auto& c : h.complaints) UNSCOPED_INFO(c);
        REQUIRE(done);
        h.check(t);
        CHECK(h.complaints.empty());
    }
}

TEST_CASE("a member dies while owners hold windows: the survivors exchange everything again", "[sim]") {
    const larger_model large;
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        INFO("seed " << seed);
        core::seeded_entropy random(seed);
        hall h(4);
        sim::world w(seed);
        h.populate(w, usual_line);
        w.set_default_path({.delay = core::duration(5ms) * (1 + static_cast<int>(random.below(8)))});
        const auto t = terms_for(h.everybody(), "f32", two_halves(2));
        const auto victim = static_cast<peer_number>(1 + random.below(4));
        const auto dies = 2s + core::from_seconds(random.unit() * 3);
        w.at(2s, [&] { h.exchange(t); });
        w.at(dies, [&] { w[hall::name(victim)].kill(); });
        w.run_until(dies + core::from_seconds(random.unit()));
        auto next = t;
        next.attempt = 2;
        std::erase(next.members, victim);
        next.contributors = next.members;
        for (auto& s : next.plan.shards) {
            if (s.owner == victim) s.owner = next.members[random.below(next.members.size())];
        }
        // They hear of it one after the other.
        for (const auto m : next.members) {
            w.after(core::from_seconds(random.unit() * 0.5), [&h, m, next] { h.here[m]->x.open(next); });
        }
        const bool done = w.run_while([&] { return !h.all_have(next); }, 2min);
        for (const auto& c : h.complaints) UNSCOPED_INFO(c);
        REQUIRE(done);
        h.check(next);
        CHECK(h.complaints.empty());
    }
}

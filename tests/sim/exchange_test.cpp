/// The exchange by itself, over simulated links: its modes, its helpers, and members that die in the middle. A
/// conductor outside of the nodes plays the log: it opens attempts.

#include "peers/exchange.hpp"

#include "compress/codec.hpp"
#include "core/hash.hpp"
#include "net/mesh.hpp"
#include "optim/aggregate.hpp"
#include "peers/planning.hpp"
#include "sim/world.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace std::chrono_literals;

namespace {

std::uint64_t elements = 150'000;  // ten chunks

core::tensor_manifest model() {
    core::tensor_spec w, b;
    w.name = "w";
    w.shape = {1, static_cast<std::int64_t>(elements) - 7};
    b.name = "running_mean";
    b.shape = {7};
    b.role = core::tensor_role::buffer;
    return *core::tensor_manifest::make({w, b});
}

work_done work_of(peer_number who) { return {100U + who, 10 + who % 3, 0.5 * who}; }

core::flat_buffer values_of(peer_number who) {
    core::flat_buffer v(elements);
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = 0.001F * static_cast<float>((i * 7 + who * 13) % 1000) - 0.3F;
    return v;
}

/// What the aggregate must be: decoded payloads summed in order, and in mode "shard" encoded once more by the owner.
core::flat_buffer expected(const std::vector<peer_number>& contributors, const std::string& codec, bool sharded) {
    const auto m = model();
    const auto c = *compress::find_codec(codec);
    const auto through = [&](const core::flat_buffer& v) {
        core::flat_buffer out(v.size());
        for (std::uint32_t i = 0; i < chunk_grid::of(elements, *c).count(); ++i) {
            const auto range = range_of_chunk(m, *c, i);
            const auto part = [&range](auto& whole) { return std::span(whole).subspan(range.first(), range.size()); };
            core::byte_vector wire(c->range_bytes(range));
            REQUIRE(c->encode(range, part(v), {}, wire));
            REQUIRE(c->decode(range, wire, part(out)));
        }
        return out;
    };
    std::vector<optim::contribution_weight> weights;
    for (const auto who : contributors) weights.push_back({work_of(who).tokens, work_of(who).steps});
    auto sum = optim::aggregator::begin(m, weights);
    REQUIRE(sum);
    for (std::size_t i = 0; i < contributors.size(); ++i) REQUIRE(sum->add(i, through(values_of(contributors[i]))));
    core::flat_buffer out(elements);
    sum->finish(out);
    return sharded ? through(out) : out;
}

struct hall;

/// One node's life: a mesh and an exchange.
struct party final : exchange_host {
    party(net::environment& e, hall& h, peer_number n);
    net::environment& env() override { return env_; }
    const net::identity& identity() const override { return self_; }
    core::digest run() const override { return core::digest{}; }
    peer_number self() const override { return number_; }
    const core::tensor_manifest& tensors() const override { return model_; }
    std::shared_ptr<net::link> link_of(peer_number who) const override { return mesh_.find(key(who)); }
    const net::peer_key* key_of(peer_number who) const override;
    core::scope& tasks() override { return tasks_; }
    core::wakeup& changed() override { return changed_; }
    void report(const core::error& e, std::string_view what) override;
    void caught(const net::peer_key& who, const core::error& lie, std::string_view what) override;
    void reconsider() override {
        for (const auto& link : mesh_.links()) offers(link);
    }
    const net::peer_key& key(peer_number who) const { return *key_of(who); }
    void offers(const std::shared_ptr<net::link>& link);
    void begin();

    net::environment& env_;
    hall& hall_;
    peer_number number_;
    net::identity self_;
    core::tensor_manifest model_ = model();
    net::mesh mesh_;
    core::wakeup changed_;
    exchange x;
    core::flat_buffer mine;
    std::map<std::pair<net::peer_key, std::string>, std::uint64_t> waiting;
    core::scope tasks_;
};

/// All of them, and what happened. Declared before its world.
struct hall {
    std::vector<net::identity> keys;
    std::map<peer_number, party*> here;
    std::vector<std::string> complaints;
    std::set<net::peer_key> caught;
    net::mesh_options links;
    sim::world* world = nullptr;

    static std::string name(peer_number n) { return fmt::format("n{}", n); }
    explicit hall(peer_number count) {
        for (peer_number n = 1; n <= count; ++n) {
            core::seeded_entropy random(n, "identity");
            keys.push_back(net::identity::generate(random));
        }
    }
    std::vector<peer_number> everybody() const {
        std::vector<peer_number> out;
        for (peer_number n = 1; n <= keys.size(); ++n) out.push_back(n);
        return out;
    }

    core::task<core::result<void>> live(net::environment& env, peer_number n);
    void populate(sim::world& w, const std::function<sim::node_options(peer_number)>& lines) {
        world = &w;
        for (const auto n : everybody()) w.add_node(name(n), lines(n));
        for (const auto n : everybody()) {
            w[name(n)].start([this, n](net::environment& env) { return live(env, n); });
        }
    }
    void open(const exchange_terms& t) {
        for (const auto& [n, p] : here) p->x.open(t);
    }
    void contribute(peer_number who) {
        if (here.contains(who)) here[who]->begin();
    }
    bool all_have(const exchange_terms& t) const {
        for (const auto m : t.members) {
            const auto it = here.find(m);
            if (it == here.end() || !it->second->x.result(t.generation, t.round, t.attempt)) return false;
        }
        return true;
    }
    /// Every member has the aggregate that it should have, the same bits everywhere.
    void check(const exchange_terms& t) const {
        const auto values = expected(t.contributors, t.codec, !t.plan.shards.empty());
        std::set<core::digest> roots;
        for (const auto m : t.members) {
            INFO("peer " << m);
            const auto a = here.at(m)->x.result(t.generation, t.round, t.attempt);
            REQUIRE(a);
            CHECK((a->values == values));
            CHECK(a->root == root_of(a->contributions, leaves_of(values)));
            REQUIRE(a->contributions.size() == t.contributors.size());
            for (std::size_t i = 0; i < t.contributors.size(); ++i) {
                const auto& c = a->contributions[i];
                CHECK(c.number == t.contributors[i]);
                CHECK(work_done{c.tokens, c.steps, c.loss} == work_of(c.number));
            }
            roots.insert(a->root);
        }
        CHECK(roots.size() == 1);
    }
};

party::party(net::environment& e, hall& h, peer_number n)
    : env_(e),
      hall_(h),
      number_(n),
      self_(h.keys[n - 1]),
      mesh_(
          e, self_, h.links, [](const net::remote_peer&, bool) { return core::ok(); },
          [this](std::shared_ptr<net::link> link) {
              std::weak_ptr weak = link;
              link->on_offer([this, weak](const std::string& tag, std::uint64_t bytes) {
                  const auto from = weak.lock();
                  if (!from) return;
                  waiting[{from->remote().key, tag}] = bytes;
                  offers(from);
              });
              changed_.notify();
          }),
      changed_(e.executor),
      x(*this),
      mine(values_of(n)),
      tasks_(e.executor) {}

const net::peer_key* party::key_of(peer_number who) const {
    return who >= 1 && who <= hall_.keys.size() ? &hall_.keys[who - 1].key() : nullptr;
}

void party::report(const core::error& e, std::string_view what) {
    hall_.complaints.push_back(fmt::format("n{}: {}: {}", number_, what, e.message));
}

void party::caught(const net::peer_key& who, const core::error& lie, std::string_view what) {
    report(lie, what);
    hall_.caught.insert(who);
    if (const auto link = mesh_.find(who)) link->close("it was caught");
}

void party::offers(const std::shared_ptr<net::link>& link) {
    const auto all = waiting;
    for (const auto& [which, bytes] : all) {
        if (which.first != link->remote().key) continue;
        peer_number sender = 0;
        for (peer_number n = 1; n <= hall_.keys.size(); ++n) {
            if (key(n) == which.first) sender = n;
        }
        if (x.consider(link, sender, which.second, bytes) != exchange::verdict::later) waiting.erase(which);
    }
}

core::task<core::result<void>> contribute_values(party& p) {
    auto made = co_await p.x.contribute(p.mine, work_of(p.number_));
    LONGHAUL_CO_TRY(made);
    co_return core::ok();
}

void party::begin() {
    tasks_.spawn_isolated("contribute", contribute_values(*this), [this](const core::error& e) { report(e, "begin"); });
}

/// Dials those with smaller numbers until they are linked; a firewall lets nobody in.
core::task<core::result<void>> stay_linked(party& p) {
    for (;;) {
        for (peer_number n = 1; n < p.number_; ++n) {
            if (p.link_of(n)) continue;
            net::endpoint to{hall::name(n), 7400};
            auto dialled = co_await p.mesh_.dial(to);
            if (dialled) p.changed_.notify();
        }
        for (const auto& link : p.mesh_.links()) p.offers(link);
        auto slept = co_await p.env_.clock.sleep_for(200ms);
        LONGHAUL_CO_TRY(slept);
    }
}

core::task<core::result<void>> hall::live(net::environment& env, peer_number n) {
    party p(env, *this, n);
    here[n] = &p;
    net::endpoint at{name(n), 7400};
    auto bound = p.mesh_.listen(at);
    if (bound) {
        p.tasks_.spawn("mesh", p.mesh_.serve());
        p.tasks_.spawn("dial", stay_linked(p));
    }
    auto ended = co_await p.tasks_.join();
    here.erase(n);
    co_return ended;
}

exchange_terms terms_for(std::vector<peer_number> members, std::string codec, exchange_plan plan = {}) {
    exchange_terms t;
    t.generation = 1;
    t.round = 1;
    t.attempt = 1;
    t.members = members;
    t.contributors = std::move(members);
    t.codec = std::move(codec);
    t.plan = std::move(plan);
    return t;
}

sim::node_options usual_line(peer_number) {
    sim::node_options o;
    o.up = {20e6};
    o.down = {50e6};
    return o;
}

/// Four unequal shares, one of them empty.
exchange_plan four_shards() {
    exchange_plan p;
    p.shards = {{1, 5}, {2, 3}, {3, 0}, {4, 2}};
    return p;
}

}  // namespace

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
        w.at(2s, [&] {
            h.open(t);
            for (const auto n : h.everybody()) h.contribute(n);
        });
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
        w.at(2s, [&] {
            h.open(t);
            for (const auto n : h.everybody()) h.contribute(n);
        });
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
        w.at(2s, [&] {
            h.open(t);
            for (const auto n : h.everybody()) h.contribute(n);
        });
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

namespace {

/// The frames of a payload, as an honest author makes them; `spoil` may change a header before it is signed, and its
/// data.
core::byte_vector frames_of(const hall& h, const exchange_terms& t, peer_number author,
                            const std::function<void(chunk_header&, core::mutable_bytes)>& spoil, bool spoil_the_last) {
    const auto& codec = **compress::find_codec(t.codec);
    const auto grid = chunk_grid::of(elements, codec);
    const auto m = model();
    const auto l = stream_layout::of(m, codec, 0, grid.count(), 0);
    core::byte_vector out(l.total());
    const auto values = values_of(author);
    std::vector<core::digest> hashes(l.count());
    for (std::uint32_t f = 0; f < l.count(); ++f) {
        const auto frame = core::mutable_bytes(out).subspan(l.offset(f), chunk_header_bytes + l.data_bytes(f));
        const auto data = frame.subspan(chunk_header_bytes);
        const auto part = std::span(values).subspan(grid.first(f), grid.size(f));
        REQUIRE(codec.encode(range_of_chunk(m, codec, f), part, {}, data));
        chunk_header header;
        header.stream.generation = t.generation;
        header.stream.round = t.round;
        header.stream.author = author;
        header.codec = codec.wire_id();
        header.work = work_of(author);
        header.index = f;
        const bool last = f + 1 == l.count();
        if (spoil_the_last ? last : f == 3) spoil(header, data);
        header.hash = hashes[f] = core::hash(data);
        if (last && header.root.is_zero()) header.root = root_of_stream(header, hashes);
        seal_chunk(header, frame, h.keys[author - 1]);
    }
    return out;
}

struct lie {
    std::string what, heard;
    std::function<void(chunk_header&, core::mutable_bytes)> before_signing = [](chunk_header&, core::mutable_bytes) {};
    std::function<void(core::mutable_bytes frame)> after_signing = [](core::mutable_bytes) {};
    bool in_the_last_chunk = false;
    std::size_t more_bytes = 0;
};

std::vector<lie> lies() {
    std::vector<lie> out(9);
    out[0].what = "another signature";
    out[0].heard = "sign";
    out[0].after_signing = [](core::mutable_bytes frame) { frame[chunk_header_bytes - 1] ^= std::byte{1}; };
    out[1].what = "other data than its hash";
    out[1].heard = "damaged";
    out[1].after_signing = [](core::mutable_bytes frame) { frame[chunk_header_bytes + 5] ^= std::byte{1}; };
    out[2].what = "another place";
    out[2].heard = "another run, stream or place";
    out[2].before_signing = [](chunk_header& c, core::mutable_bytes) { ++c.index; };
    out[3].what = "another round";
    out[3].heard = "another run, stream or place";
    out[3].before_signing = [](chunk_header& c, core::mutable_bytes) { ++c.stream.round; };
    out[4].what = "a value that is not finite";
    out[4].heard = "finite";
    out[4].before_signing = [](chunk_header&, core::mutable_bytes data) {
        for (std::size_t i = 0; i < 4; ++i) data[400 + i] = std::byte{0xff};
    };
    out[5].what = "other work than its first chunk";
    out[5].heard = "two versions";
    out[5].before_signing = [](chunk_header& c, core::mutable_bytes) { ++c.work.tokens; };
    out[6].what = "more steps than anybody may claim";
    out[6].heard = "inner steps";
    out[6].before_signing = [](chunk_header& c, core::mutable_bytes) { c.work.steps = 1'000'000; };
    out[7].what = "another root than that of its chunks";
    out[7].heard = "its root is not that of its chunks";
    out[7].before_signing = [](chunk_header& c, core::mutable_bytes) { c.root = core::hash({}); };
    out[7].in_the_last_chunk = true;
    out[8].what = "another size than it must have";
    out[8].heard = "bytes instead of";
    out[8].more_bytes = 1;
    return out;
}

core::task<core::result<void>> give(party& p, peer_number to, std::string tag,
                                    std::shared_ptr<const core::byte_vector> bytes) {
    auto sending = p.link_of(to)->send_transfer(std::move(tag), std::move(bytes));
    co_return co_await std::move(sending);
}

}  // namespace

TEST_CASE("a chunk that cannot be true is neither summed nor passed on, whoever sends it", "[sim]") {
    for (const bool by_author : {true, false}) {
        for (const auto& l : lies()) {
            // What a helper can change, and what its author once signed for another place.
            const bool forged = l.what == "another signature" || l.what == "other data than its hash";
            const bool repeated = l.what == "another place" || l.what == "another round";
            if (!by_author && !forged && !repeated) continue;
            INFO(l.what << (by_author ? ", from its author" : ", from a helper"));
            hall h(4);
            sim::world w(1);
            h.populate(w, usual_line);
            w.set_default_path({.delay = 10ms});
            exchange_plan plan;
            // 1 passes on to 2 what it gets.
            plan.relays = {{3, 2, 1}};
            if (!by_author) plan.relays.push_back({3, 1, 4});
            auto t = terms_for({1, 2, 3, 4}, "f32", plan);
            t.contributors = {1, 2, 3};
            t.max_steps = 1000;
            stream_name name;
            name.generation = name.round = 1;
            name.author = 3;
            auto bytes = std::make_shared<core::byte_vector>(frames_of(h, t, 3, l.before_signing, l.in_the_last_chunk));
            const auto layout =
                stream_layout::of(model(), **compress::find_codec(t.codec), 0, chunk_grid::of(elements).count(), 0);
            const auto frame = core::mutable_bytes(*bytes).subspan(layout.offset(3));
            l.after_signing(frame.first(chunk_header_bytes + layout.data_bytes(3)));
            bytes->resize(bytes->size() + l.more_bytes);
            const peer_number liar = by_author ? 3 : 4;
            w.at(2s, [&] {
                h.open(t);
                for (const peer_number n : {1U, 2U}) h.contribute(n);
                auto& p = *h.here[liar];
                p.tasks_.spawn_isolated("lie", give(p, 1, tag_of(name, 1), bytes));
            });
            w.run_until(6s);
            REQUIRE_FALSE(h.complaints.empty());
            for (const auto& c : h.complaints) {
                INFO(c);
                CHECK(c.starts_with("n1: "));  // nobody else ever sees it
                CHECK(c.find(l.heard) != std::string::npos);
            }
            for (const peer_number n : {1U, 2U}) CHECK_FALSE(h.here[n]->x.result(1, 1, 1));
            CHECK(h.caught == std::set{h.keys[liar - 1].key()});
            // Without it the round goes on; and what only a helper spoilt is still good from its author.
            auto next = t;
            next.attempt = 2;
            next.members = {1, 2, 3};
            next.plan.relays.clear();
            if (by_author) {
                next.members = next.contributors = {1, 2};
            }
            h.open(next);
            if (!by_author) h.contribute(3);
            REQUIRE(w.run_while([&] { return !h.all_have(next); }, 1min));
            h.check(next);
        }
    }
}

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
        w.at(2s, [&] {
            h.open(t);
            for (const auto n : h.everybody()) h.contribute(n);
        });
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
        w.at(2s, [&] {
            h.open(t);
            for (const auto n : h.everybody()) h.contribute(n);
        });
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
        w.at(2s, [&] {
            h.open(t);
            for (const auto n : h.everybody()) h.contribute(n);
        });
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

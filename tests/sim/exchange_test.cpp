/// The exchange by itself, over simulated links: its modes, its helpers, and members that die in the middle. A
/// conductor outside of the nodes plays the log: it opens attempts.

#include "peers/exchange.hpp"

#include "compress/codec.hpp"
#include "net/mesh.hpp"
#include "optim/aggregate.hpp"
#include "sim/world.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t elements = 150'000;  // ten chunks

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
          e, self_, net::mesh_options{}, [](const net::remote_peer&, bool) { return core::ok(); },
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
    const double floor = 4.0 * elements * 8 / 20e6 + 0.02;
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
    const double once = 2.0 * elements * 8 / 2e6;
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

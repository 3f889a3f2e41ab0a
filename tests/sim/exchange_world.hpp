#pragma once
/// The exchange by itself, over simulated links. A conductor outside of the nodes plays the log: it opens attempts.

#include "peers/exchange.hpp"

#include "compress/codec.hpp"
#include "core/hash.hpp"
#include "net/mesh.hpp"
#include "optim/aggregate.hpp"
#include "peers/planning.hpp"
#include "sim/world.hpp"
#include "tests/test.hpp"

namespace longhaul::peers::testing {

using namespace std::chrono_literals;

inline std::uint64_t elements = 150'000;  // ten chunks

inline core::tensor_manifest model() {
    core::tensor_spec w, b;
    w.name = "w";
    w.shape = {1, static_cast<std::int64_t>(elements) - 7};
    b.name = "running_mean";
    b.shape = {7};
    b.role = core::tensor_role::buffer;
    return *core::tensor_manifest::make({w, b});
}

inline work_done work_of(peer_number who) { return {100U + who, 10 + who % 3, 0.5 * who}; }

inline core::flat_buffer values_of(peer_number who) {
    core::flat_buffer v(elements);
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = 0.001F * static_cast<float>((i * 7 + who * 13) % 1000) - 0.3F;
    return v;
}

/// What the aggregate must be: decoded payloads summed in order, and in mode "shard" encoded once more by the owner.
inline core::flat_buffer expected(const std::vector<peer_number>& contributors, const std::string& codec,
                                  bool sharded) {
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
    const core::tensor_manifest& tensors(std::uint64_t /*round*/) const override { return model_; }
    std::uint64_t most_elements() const override { return model_.elements(); }
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
    /// Everybody who is here takes part.
    void exchange(const exchange_terms& t) {
        open(t);
        for (const auto n : everybody()) contribute(n);
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

inline party::party(net::environment& e, hall& h, peer_number n)
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

inline const net::peer_key* party::key_of(peer_number who) const {
    return who >= 1 && who <= hall_.keys.size() ? &hall_.keys[who - 1].key() : nullptr;
}

inline void party::report(const core::error& e, std::string_view what) {
    hall_.complaints.push_back(fmt::format("n{}: {}: {}", number_, what, e.message));
}

inline void party::caught(const net::peer_key& who, const core::error& lie, std::string_view what) {
    report(lie, what);
    hall_.caught.insert(who);
    if (const auto link = mesh_.find(who)) link->close("it was caught");
}

inline void party::offers(const std::shared_ptr<net::link>& link) {
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

inline core::task<core::result<void>> contribute_values(party& p) {
    auto made = co_await p.x.contribute(p.mine, work_of(p.number_));
    LONGHAUL_CO_TRY(made);
    co_return core::ok();
}

inline void party::begin() {
    tasks_.spawn_isolated("contribute", contribute_values(*this), [this](const core::error& e) { report(e, "begin"); });
}

/// Dials those with smaller numbers until they are linked; a firewall lets nobody in.
inline core::task<core::result<void>> stay_linked(party& p) {
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

inline core::task<core::result<void>> hall::live(net::environment& env, peer_number n) {
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

inline exchange_terms terms_for(std::vector<peer_number> members, std::string codec, exchange_plan plan = {}) {
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

inline sim::node_options usual_line(peer_number) {
    sim::node_options o;
    o.up = {20e6};
    o.down = {50e6};
    return o;
}

/// Four unequal shares, one of them empty.
inline exchange_plan four_shards() {
    exchange_plan p;
    p.shards = {{1, 5}, {2, 3}, {3, 0}, {4, 2}};
    return p;
}

}  // namespace longhaul::peers::testing

#pragma once
/// Whole peers in a simulated world: the peer code of production on a quadratic.

#include <algorithm>
#include <array>
#include <map>

#include "core/counter_random.hpp"
#include "net/ticket.hpp"
#include "optim/schedule.hpp"
#include "optim/trainer.hpp"
#include "peers/peer.hpp"
#include "sim/checkers.hpp"
#include "sim/play.hpp"
#include "sim/world.hpp"
#include "tests/seeds.hpp"

namespace longhaul::sim::testing {

using namespace std::chrono_literals;
using longhaul::testing::seeds_of;

inline peers::run_config quadratic_run(std::int64_t rounds, std::int64_t members) {
    peers::run_config c;
    c.name = "quadratic";
    c.model.kind = "quadratic";
    c.model.width = 64;
    c.data.kind = "quadratic";
    c.inner.optimizer = "sgd";
    c.inner.lr = 0.05;
    c.inner.steps = 10;
    c.inner.warmup = 0;
    c.inner.schedule = "constant";
    c.stop.rounds = rounds;
    c.peers.min = members;
    c.eval.every = 10;
    c.checkpoint.every = 20;
    return c;
}

/// A trainer that trains honestly and then tells `times` what it has learnt.
class poisoned_trainer final : public optim::trainer {
public:
    poisoned_trainer(std::unique_ptr<optim::trainer> honest, float times) : honest_(std::move(honest)), times_(times) {}
    const core::tensor_manifest& manifest() const override { return honest_->manifest(); }
    core::digest data_hash() const override { return honest_->data_hash(); }
    std::string data_description() const override { return honest_->data_description(); }
    void assign(std::uint64_t shard, std::uint64_t seed, std::uint64_t position) override {
        honest_->assign(shard, seed, position);
    }
    void read(std::span<float> out) const override {
        honest_->read(out);
        for (std::size_t k = 0; k < began_.size(); ++k) out[k] = began_[k] + times_ * (out[k] - began_[k]);
    }
    void write(std::span<const float> values) override {
        began_.assign(values.begin(), values.end());
        honest_->write(values);
    }
    core::result<optim::step_report> step(const optim::step_context& at) override { return honest_->step(at); }
    core::result<double> evaluate() override { return honest_->evaluate(); }
    void reset_inner_state() override { honest_->reset_inner_state(); }
    core::result<core::byte_vector> save_inner_state() const override { return honest_->save_inner_state(); }
    core::result<void> load_inner_state(core::const_bytes saved) override { return honest_->load_inner_state(saved); }
    core::duration modelled_step_time() const override { return honest_->modelled_step_time(); }
    std::string description() const override { return honest_->description(); }

private:
    std::unique_ptr<optim::trainer> honest_;
    float times_;
    core::flat_buffer began_;
};

/// A run among simulated nodes. Declared before its world: nodes write here when the world ends.
struct swarm {
    std::string ticket;                          ///< by which nodes join: first the founder's
    std::map<std::string, std::string> tickets;  ///< what each node said of itself when it was ready
    core::duration step_time{};
    std::map<std::string, core::duration> step_times;  ///< of nodes with a speed of their own
    std::map<std::string, std::int64_t> other_widths;  ///< of nodes whose program builds another model than the run's
    std::map<std::string, float> poison;               ///< of nodes that send so many times what they have learnt
    std::map<std::string, std::uint64_t> memory;       ///< of nodes that may not use as much as they like
    /// What a node's links go through, by its name; it is given the node's key.
    std::map<std::string, std::function<std::shared_ptr<net::link>(std::shared_ptr<net::link>, net::identity)>> liars;
    std::map<std::string, peers::peer*> alive;

    node::main_function main_of(std::string name, std::optional<peers::run_config> found) {
        return [this, name, found](net::environment& env) -> core::task<core::result<void>> {
            return live(env, name, found);
        };
    }

    core::task<core::result<void>> live(net::environment& env, std::string name,
                                        std::optional<peers::run_config> found) {
        auto self = co_await kept_identity(env);
        LONGHAUL_CO_TRY(self);
        peers::peer_options o{.self = *self,
                              .name = name,
                              .listen = {name, 7400},
                              .advertised = {},
                              .found = std::nullopt,
                              .join = std::nullopt,
                              .make_trainer =
                                  [this, name](optim::trainer_options t) {
                                      if (other_widths.contains(name)) t.model.width = other_widths.at(name);
                                      auto made = optim::make_quadratic_trainer(t);
                                      if (made && poison.contains(name)) {
                                          *made = std::make_unique<poisoned_trainer>(std::move(*made), poison.at(name));
                                      }
                                      return made;
                                  },
                              .data_path = {},
                              .on_ready = {}};
        o.step_time = step_times.contains(name) ? step_times.at(name) : step_time;
        o.on_ready = [this, name](const peers::ready_report& r) {
            if (ticket.empty()) ticket = r.ticket;
            tickets[name] = r.ticket;
        };
        if (memory.contains(name)) o.memory_limit = memory.at(name);
        if (liars.contains(name)) {
            o.links_through = [lies = liars.at(name), key = *self](auto link) { return lies(std::move(link), key); };
        }
        if (found) {
            o.found = peers::founding{*found};
        } else {
            auto parsed = net::parse_ticket(ticket);
            LONGHAUL_CO_TRY(parsed);
            o.join = peers::joining{*parsed, std::nullopt};
        }
        peers::peer p(env, std::move(o));
        alive[name] = &p;
        auto ended = co_await p.run();
        if (alive[name] == &p) alive.erase(name);
        co_return ended;
    }
};

inline std::uint64_t newest_round(const node& n) {
    for (auto it = n.events().rbegin(); it != n.events().rend(); ++it) {
        if (it->event.name != "round_committed") continue;
        return std::get<std::uint64_t>(*it->event.find("round"));
    }
    return 0;
}

/// The error events of a node, for a failure's message.
inline std::string errors_of(const node& n) {
    std::string out;
    for (const auto& [at, e] : n.events()) {
        if (e.name == "error" || e.name == "peer_down") {
            out += fmt::format("  {} at {}: {}\n", n.name(), core::format_duration(at),
                               core::to_json_line(e, 0, n.name()));
        }
    }
    return out;
}

/// What all nodes have lived through in a world, in the order of time, without what every round brings.
inline std::string story(const world& w) {
    constexpr std::array dull = {"inner", "link", "reach", "eval", "plan", "checkpoint"};
    std::multimap<core::duration, std::string> lines;
    for (const auto& n : w.nodes()) {
        for (const auto& [at, e] : n->events()) {
            if (std::ranges::find(dull, e.name) != dull.end()) continue;
            auto line = core::to_json_line(e, core::to_seconds(at), n->name());
            if (e.name == "round_committed") line = line.substr(0, line.find("\"merged\""));
            lines.emplace(at, std::move(line));
        }
    }
    std::string out;
    for (const auto& [at, line] : lines) out += line.back() == '\n' ? line : line + "\n";
    return out;
}

/// Peers n0 to n(count - 1), of which n0 founds the run; `lines` makes their machines. Every peer but the dead ends
/// with it.
struct small_run {
    swarm s;
    world w;
    explicit small_run(std::uint64_t seed) : w(seed) {}

    void start(const peers::run_config& c, std::int64_t count, const std::function<node_options(int)>& lines) {
        for (int i = 0; i < count; ++i) w.add_node(fmt::format("n{}", i), lines(i));
        w.set_default_path({.delay = 15ms});
        w["n0"].start(s.main_of("n0", c));
        for (int i = 1; i < count; ++i) {
            const auto name = fmt::format("n{}", i);
            w.at(1s + i * 10ms, [this, name] { w[name].start(s.main_of(name, std::nullopt)); });
        }
    }
    bool until_round(std::uint64_t r) {
        return w.run_while([this, r] { return newest_round(w["n0"]) < r; }, 1h);
    }
    /// So many order records: while there are two of them, on the way from one to three, none may die.
    bool until_ordered_by(std::uint64_t count) {
        const auto voters = [this] {
            std::uint64_t n = 1;
            for (const auto& [at, e] : w["n0"].events()) {
                if (e.name == "voters") n = std::get<std::uint64_t>(*e.find("count"));
            }
            return n;
        };
        return w.run_while([&] { return voters() < count; }, 1h);
    }
    std::string finish(std::int64_t rounds, const std::string& dead) {
        const auto running = [this] {
            return std::ranges::any_of(w.nodes(), [](const auto& n) { return n->running(); });
        };
        std::string problem;
        if (!w.run_while(running, 1h)) problem = "the run did not end\n" + w.report();
        for (const auto& n : w.nodes()) {
            if (n->name() == dead) continue;
            if (newest_round(*n) != static_cast<std::uint64_t>(rounds)) {
                problem += fmt::format("{} ended at round {}\n{}", n->name(), newest_round(*n), errors_of(*n));
            }
        }
        for (const auto& sentence : check_invariants(w).broken) problem += sentence + "\n";
        return problem;
    }
};

inline node_options usual_line(int) {
    node_options o;
    o.up = {50e6};
    o.down = {100e6};
    return o;
}

/// The trainers of peers 1 to `members` of a quadratic run, for loops that are compared with it.
inline std::vector<std::unique_ptr<optim::trainer>> trainers_of(const peers::run_config& c, std::uint64_t members) {
    optim::trainer_options o;
    o.model = c.model;
    o.data = c.data;
    o.inner = c.inner;
    std::vector<std::unique_ptr<optim::trainer>> out;
    for (std::uint64_t number = 1; number <= members; ++number) {
        out.push_back(std::move(*optim::make_quadratic_trainer(o)));
        out.back()->assign(number, core::combine_key(static_cast<std::uint64_t>(c.data.seed), number), 0);
    }
    return out;
}
/// The steps of a round that begins at `position`; returns their tokens. All but the founder got their state from
/// elsewhere.
inline std::uint64_t steps_by_hand(const peers::run_config& c, optim::trainer& t, std::uint64_t position, bool founder,
                                   std::uint64_t steps = 0) {
    std::uint64_t tokens = 0;
    const auto all = static_cast<std::uint64_t>(c.inner.steps);
    for (std::uint64_t j = 0; j < (steps > 0 ? steps : all); ++j) {
        optim::step_context at;
        at.position = position + j;
        at.lr = optim::learning_rate(c.inner, at.position, c.total_steps());
        if (!founder) at.lr *= optim::ramp(at.position);
        tokens += t.step(at)->tokens;
    }
    return tokens;
}

/// Of the last state that a node had.
inline std::string last_root(const node& n) {
    std::string root;
    for (const auto& [at, e] : n.events()) {
        if (e.name == "round_committed") root = std::get<std::string>(*e.find("root"));
    }
    return root;
}

/// A run of five, of whom some are killed, stopped and started again, drawn from the seed: what is wrong at its end,
/// and the hash of its trace.
inline std::pair<std::string, core::digest> troubled_run(const peers::run_config& c, std::uint64_t seed) {
    small_run r(seed);
    r.s.step_time = 50ms;
    r.start(c, 5, usual_line);
    r.w.set_default_path({.delay = 100ms});
    core::seeded_entropy random(seed, "trouble");
    if (!r.until_round(3)) return {"no round was committed", {}};
    for (int i = 0; i < 6; ++i) {
        const auto name = fmt::format("n{}", random.below(5));
        r.w.run_for(core::from_seconds(3 * random.unit()));
        if (i % 3 == 2) {
            r.w[name].pause();
            r.w.run_for(4s);
            r.w[name].resume();
            continue;
        }
        r.w[name].kill();
        r.w.run_for(core::from_seconds(2 * random.unit()));
        r.w[name].restart();
    }
    auto problem = r.finish(c.stop.rounds, "");
    return {std::move(problem), r.w.trace_hash()};
}

}  // namespace longhaul::sim::testing

/// Runs whose payloads are under way while their authors do the next steps (exchange.delay = 1).

#include "optim/aggregate.hpp"
#include "optim/outer.hpp"
#include "peers/replica.hpp"
#include "tests/sim/swarm.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::sim::testing;
using namespace std::chrono_literals;

namespace {

peers::run_config late_run(std::int64_t rounds, std::int64_t members, std::int64_t delay = 1) {
    auto c = quadratic_run(rounds, members);
    c.exchange.codec = "f32";
    c.exchange.delay = delay;
    return c;
}

/// The same run in a few lines: every peer's steps begin from the anchor less its own pseudo-gradient that was not
/// merged then, and all outer steps are taken by the mean.
std::string root_by_hand(const peers::run_config& c, std::uint64_t members) {
    const auto plan = optim::fixed_plan(c.inner, c.outer, **compress::find_codec(c.exchange.codec));
    struct worker {
        std::unique_ptr<optim::trainer> trainer;
        core::flat_buffer start, delta;
    };
    std::vector<worker> workers(members);
    auto trainers = trainers_of(c, members);
    for (std::uint64_t i = 0; i < members; ++i) workers[i].trainer = std::move(trainers[i]);
    const auto& manifest = workers[0].trainer->manifest();
    const auto elements = manifest.elements();
    peers::model_state s;
    s.anchor.resize(elements);
    s.momentum.resize(elements);
    workers[0].trainer->read(s.anchor);
    const auto H = static_cast<std::uint64_t>(c.inner.steps);
    for (std::int64_t round = 1; round <= c.stop.rounds; ++round) {
        std::vector<optim::contribution_weight> weights;
        auto before = s.anchor;  // what they knew when they began
        for (auto& w : workers) {
            if (w.start.empty()) w.start = before;
            w.trainer->write(w.start);
            const auto tokens = steps_by_hand(c, *w.trainer, s.position, &w == workers.data());
            core::flat_buffer local(elements), next(elements);
            w.trainer->read(local);
            w.delta.resize(elements);
            for (std::size_t k = 0; k < elements; ++k) {
                w.delta[k] = w.start[k] - local[k];
                next[k] = round == 1 ? local[k] : before[k] - w.delta[k];
            }
            if (c.exchange.delay > 0) {
                w.start = std::move(next);
            } else {
                w.start.clear();
            }
            weights.push_back({tokens, H});
            s.tokens += tokens;
        }
        auto sum = optim::aggregator::begin(manifest, weights);
        REQUIRE(sum);
        for (std::size_t i = 0; i < workers.size(); ++i) REQUIRE(sum->add(i, workers[i].delta));
        core::flat_buffer mean(elements);
        sum->finish(mean);
        optim::outer_step(manifest, plan.nesterov, plan.outer_lr, plan.outer_momentum, s.anchor, s.momentum, mean);
        ++s.round;
        s.position += H;
    }
    peers::seal(s);
    return s.root.hex();
}

/// How long such a run takes, once all take part.
core::duration time_of(std::int64_t delay, std::int64_t rounds) {
    auto c = late_run(rounds, 3, delay);
    c.model.width = 100'000;
    c.eval.every = 0;
    small_run r(7);
    r.s.step_time = 100ms;
    r.start(c, 3, [](int) {
        sim::node_options o;
        o.up = {8e6};
        o.down = {8e6};
        return o;
    });
    REQUIRE(r.until_round(2));
    const auto begun = r.w.now();
    const auto problem = r.finish(rounds, "");
    INFO(problem);
    REQUIRE(problem.empty());
    return r.w.now() - begun;
}

}  // namespace

TEST_CASE("a run is, bit for bit, the loop that its description says, late or not", "[sim]") {
    for (const std::int64_t delay : {0, 1}) {
        INFO("delay " << delay);
        const auto c = late_run(12, 3, delay);
        small_run r(3);
        r.s.step_time = 20ms;
        r.start(c, 3, usual_line);
        const auto problem = r.finish(12, "");
        INFO(problem);
        REQUIRE(problem.empty());
        CHECK(last_root(r.w["n1"]) == root_by_hand(c, 3));
    }
}

TEST_CASE("a round late, an exchange as long as the steps costs no time", "[sim]") {
    const std::int64_t rounds = 22;
    // Ten steps of 100 ms; 400 kB to each of two others over 1 MB/s.
    const auto at_once = time_of(0, rounds), late = time_of(1, rounds);
    const auto steps = 1s * static_cast<int>(rounds - 2);
    INFO(core::to_seconds(at_once) << " s and " << core::to_seconds(late) << " s, " << core::to_seconds(steps)
                                   << " s of them steps");
    CHECK(at_once > 1.7 * steps);
    CHECK(late >= steps);
    CHECK(late < 1.25 * steps);
}

TEST_CASE("a late run goes on through deaths, stops and joiners, the same way twice", "[sim]") {
    for (std::uint64_t seed = 1; seed <= seeds_of(4); ++seed) {
        auto c = late_run(60, 4);
        c.eval.every = 1;
        c.exchange.codec = seed % 2 == 0 ? "f32" : "int8";
        const auto first = troubled_run(c, seed);
        INFO("seed " << seed << "\n" << first.first);
        REQUIRE(first.first.empty());
        CHECK(troubled_run(c, seed) == first);
    }
}

TEST_CASE("whoever joins a late run begins with the others one round after it is there", "[sim]") {
    auto c = late_run(30, 2);
    small_run r(5);
    r.s.step_time = 50ms;
    r.start(c, 2, usual_line);
    r.w.add_node("late", usual_line(0));
    REQUIRE(r.until_round(5));
    r.w["late"].start(r.s.main_of("late", std::nullopt));
    const auto problem = r.finish(30, "");
    INFO(problem);
    REQUIRE(problem.empty());
    // As a member that does not contribute it has begun the next round's steps: nobody waits for it then.
    std::vector<double> seconds;
    std::uint64_t merged = 0;
    for (const auto& [at, e] : r.w["n0"].events()) {
        if (e.name != "round_committed") continue;
        if (std::get<std::uint64_t>(*e.find("merged")) == 3) ++merged;
        if (std::get<std::uint64_t>(*e.find("round")) > 3) seconds.push_back(std::get<double>(*e.find("seconds")));
    }
    CHECK(merged >= 18);
    CHECK(std::ranges::max(seconds) < 0.9);
}

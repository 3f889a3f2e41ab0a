/// Runs whose rounds exchange a part of the model each, in turn (exchange.fragments).

#include "optim/aggregate.hpp"
#include "optim/outer.hpp"
#include "peers/replica.hpp"
#include "tests/sim/swarm.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::sim::testing;
using namespace std::chrono_literals;

namespace {

peers::run_config run_in_parts(std::int64_t rounds, std::int64_t members, std::int64_t parts, std::int64_t delay) {
    auto c = quadratic_run(rounds, members);
    c.model.width = 64 * 100;
    c.exchange.codec = "f32";
    c.exchange.fragments = parts;
    c.exchange.delay = delay;
    c.exchange.mix = 0.25;
    return c;
}

/// The same run in a few lines (Streaming DiLoCo, arXiv 2501.18512, algorithm 2): peers go on from their own
/// parameters; each round all give the anchor less those for one part, the outer step moves that part, and they take
/// it, at once or, when it is late, mixed with what they have by then: here, after the next round's steps.
std::string root_in_parts(const peers::run_config& c, std::uint64_t members) {
    const auto plan = optim::fixed_plan(c.inner, c.outer, **compress::find_codec(c.exchange.codec));
    const auto workers = trainers_of(c, members);
    const auto& manifest = workers[0]->manifest();
    const auto parts = *peers::fragments::cut(manifest, static_cast<std::size_t>(c.exchange.fragments));
    const auto elements = manifest.elements();
    peers::model_state s;
    s.anchor.resize(elements);
    s.momentum.resize(elements);
    workers[0]->read(s.anchor);
    std::vector<core::flat_buffer> local(members, s.anchor);
    const auto H = static_cast<std::uint64_t>(c.inner.steps);
    const auto take = [&](const peers::fragment& part, float own) {
        for (auto& all : local) {
            const auto to = part.of(std::span(all));
            const auto anchor = part.of(std::span(s.anchor));
            for (std::size_t k = 0; k < to.size(); ++k) to[k] = own * to[k] + (1 - own) * anchor[k];
        }
    };
    for (std::uint64_t round = 1; round <= static_cast<std::uint64_t>(c.stop.rounds); ++round) {
        std::vector<optim::contribution_weight> weights;
        for (std::size_t i = 0; i < members; ++i) {
            workers[i]->write(local[i]);
            const auto tokens = steps_by_hand(c, *workers[i], s.position, i == 0);
            workers[i]->read(local[i]);
            weights.push_back({tokens, H});
            s.tokens += tokens;
        }
        if (c.exchange.delay > 0 && round > 1) take(parts.of_round(round - 1), static_cast<float>(c.exchange.mix));
        const auto& part = parts.of_round(round);
        const auto anchor = part.of(std::span(s.anchor));
        auto sum = optim::aggregator::begin(part.tensors, weights);
        REQUIRE(sum);
        core::flat_buffer mean(anchor.size());
        for (std::size_t i = 0; i < members; ++i) {
            const auto own = part.of(std::span(local[i]));
            for (std::size_t k = 0; k < mean.size(); ++k) mean[k] = anchor[k] - own[k];
            REQUIRE(sum->add(i, mean));
        }
        sum->finish(mean);
        optim::outer_step(part.tensors, plan.nesterov, plan.outer_lr, plan.outer_momentum, anchor,
                          part.of(std::span(s.momentum)), mean);
        if (c.exchange.delay == 0) take(part, 0);
        ++s.round;
        s.position += H;
    }
    peers::seal(s);
    return s.root.hex();
}

}  // namespace

TEST_CASE("a run in parts is, bit for bit, the loop that its description says, late or not", "[sim]") {
    for (const std::int64_t delay : {0, 1}) {
        INFO("delay " << delay);
        const auto c = run_in_parts(14, 3, 4, delay);
        small_run r(3);
        // An exchange takes longer than the steps of a round.
        r.s.step_time = 2ms;
        r.start(c, 3, usual_line);
        r.w.set_default_path({.delay = 80ms});
        const auto problem = r.finish(14, "");
        INFO(problem);
        REQUIRE(problem.empty());
        CHECK(last_root(r.w["n1"]) == root_in_parts(c, 3));
    }
}

TEST_CASE("a run in parts goes on through deaths, stops and joiners, the same way twice", "[sim]") {
    for (std::uint64_t seed = 1; seed <= seeds_of(4); ++seed) {
        auto c = run_in_parts(60, 4, 3, static_cast<std::int64_t>(seed % 2));
        c.exchange.codec = seed % 3 == 0 ? "ecsq-3" : "f32";
        const auto first = troubled_run(c, seed);
        INFO("seed " << seed << "\n" << first.first);
        REQUIRE(first.first.empty());
        CHECK(troubled_run(c, seed) == first);
    }
}

TEST_CASE("parts of one and of two chunks have shards of their own, and a straggler takes nobody else with it",
          "[sim]") {
    auto c = run_in_parts(24, 3, 3, 0);
    c.model.width = 64 * 769;  // 16,384, 16,448 and 16,384 elements
    c.exchange.mode = "shard";
    c.peers.pace = "equal";
    c.peers.grace = 1s;
    small_run r(4);
    r.s.step_time = 50ms;
    r.start(c, 3, usual_line);
    REQUIRE(r.until_round(6));
    r.w["n2"].pause();
    r.w.run_for(5s);
    r.w["n2"].resume();
    const auto problem = r.finish(24, "");
    INFO(problem << story(r.w));
    REQUIRE(problem.empty());
    for (const auto& [at, e] : r.w["n0"].events()) {
        if (e.name == "round_committed") CHECK(std::get<std::uint64_t>(*e.find("merged")) >= 2);
    }
}

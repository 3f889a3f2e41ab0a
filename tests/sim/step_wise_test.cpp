/// Runs whose rounds have several exchanges: D-SGD, and with delay and feedback DeCo-SGD (arXiv 2507.17346).

#include "optim/aggregate.hpp"
#include "optim/outer.hpp"
#include "peers/chunk.hpp"
#include "peers/replica.hpp"
#include "tests/sim/swarm.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::sim::testing;
using namespace std::chrono_literals;

namespace {

struct exchanges {
    std::int64_t every = 1, staleness = 0;
    std::string codec = "f32", feedback = "none";
};

peers::run_config run_by_exchanges(std::int64_t rounds, std::int64_t members, const exchanges& x) {
    auto c = quadratic_run(rounds, members);
    c.inner.steps = 7;
    c.exchange.codec = x.codec;
    c.exchange.feedback = x.feedback;
    c.exchange.beta = 0.9;
    c.exchange.every = x.every;
    c.exchange.staleness = x.staleness;
    return c;
}

/// Of each round that the node committed, how many contributed to it.
std::vector<std::uint64_t> merged_of(const sim::node& n) {
    std::vector<std::uint64_t> out;
    for (const auto& [at, e] : n.events()) {
        if (e.name == "round_committed") out.push_back(std::get<std::uint64_t>(*e.find("merged")));
    }
    return out;
}

/// What a payload of these values says to everybody.
core::flat_buffer said_by(const compress::codec& codec, const core::tensor_manifest& manifest,
                          std::span<const float> values) {
    core::flat_buffer out(values.size());
    const auto chunks = peers::chunk_grid::of(values.size(), codec).count();
    for (std::uint32_t i = 0; i < chunks; ++i) {
        const auto range = peers::range_of_chunk(manifest, codec, i);
        core::byte_vector bytes(codec.range_bytes(range));
        REQUIRE(codec.encode(range, values.subspan(range.first(), range.size()), {}, bytes));
        REQUIRE(codec.decode(range, bytes, std::span(out).subspan(range.first(), range.size())));
    }
    return out;
}

/// The same run in a few lines. Algorithm DD-EF-SGD: at each step the gradient is taken where all are, what the codec
/// says of it and of the residual goes out, and what everybody said `staleness` exchanges ago moves where all are.
std::string root_by_exchanges(const peers::run_config& c, std::uint64_t members) {
    const auto codec = *compress::find_codec(c.exchange.codec);
    const auto plan = peers::configured_plan(c, *codec);
    const auto workers = trainers_of(c, members);
    const auto& manifest = workers[0]->manifest();
    const auto elements = manifest.elements();
    peers::model_state s;
    s.anchor.resize(elements);
    s.momentum.resize(elements);
    workers[0]->read(s.anchor);
    const bool keeps = c.exchange.feedback == "ef";
    std::vector<core::flat_buffer> residual(members, core::flat_buffer(elements));
    core::flat_buffer unused(elements);
    for (std::int64_t round = 0; round < c.stop.rounds; ++round) {
        auto here = s.anchor;
        std::vector<core::flat_buffer> means;
        core::flat_buffer all(elements);
        for (std::uint64_t step = 0; step < plan.exchanges(); ++step) {
            const auto first = step * plan.exchange_every;
            const auto steps = std::min(plan.exchange_every, plan.inner_steps - first);
            std::vector<optim::contribution_weight> weights;
            std::vector<core::flat_buffer> said;
            for (std::size_t i = 0; i < members; ++i) {
                workers[i]->write(here);
                const auto tokens = steps_by_hand(c, *workers[i], s.position + first, i == 0, steps);
                weights.push_back({tokens, steps});
                s.tokens += tokens;
                core::flat_buffer p(elements);
                workers[i]->read(p);
                for (std::size_t k = 0; k < elements; ++k) p[k] = here[k] - p[k] + 0.9F * residual[i][k];
                said.push_back(said_by(*codec, manifest, p));
                for (std::size_t k = 0; k < elements && keeps; ++k) residual[i][k] = p[k] - said[i][k];
            }
            auto sum = optim::aggregator::begin(manifest, weights);
            REQUIRE(sum);
            for (std::size_t i = 0; i < members; ++i) REQUIRE(sum->add(i, said[i]));
            means.emplace_back(elements);
            sum->finish(means.back());
            for (std::size_t k = 0; k < elements; ++k) all[k] += means.back()[k];
            if (step < plan.staleness || step + 1 == plan.exchanges()) continue;
            optim::outer_step(manifest, false, plan.outer_lr, 0, here, unused, means[step - plan.staleness]);
        }
        optim::outer_step(manifest, false, plan.outer_lr, 0, s.anchor, s.momentum, all);
        ++s.round;
        s.position += plan.inner_steps;
    }
    peers::seal(s);
    return s.root.hex();
}

}  // namespace

TEST_CASE("rounds of several exchanges are, bit for bit, the loop that their description says", "[sim]") {
    const std::vector<exchanges> all{
        {},                            // D-SGD
        {.every = 2, .staleness = 0},  // local steps, and a shorter last exchange
        {.every = 1, .staleness = 3},  // delayed
        {.every = 1, .staleness = 2, .codec = "topk-4/64", .feedback = "ef"},  // DeCo-SGD
        {.every = 3, .staleness = 1, .codec = "int4", .feedback = "ef"},
    };
    for (const auto& x : all) {
        INFO("every " << x.every << ", staleness " << x.staleness << ", " << x.codec);
        const auto c = run_by_exchanges(6, 3, x);
        small_run r(3);
        // A result takes longer than a few steps.
        r.s.step_time = 20ms;
        r.start(c, 3, usual_line);
        r.w.set_default_path({.delay = 80ms});
        const auto problem = r.finish(6, "");
        INFO(problem);
        REQUIRE(problem.empty());
        CHECK(last_root(r.w["n1"]) == root_by_exchanges(c, 3));
    }
}

TEST_CASE("rounds of one exchange after each step learn as rounds of one step do", "[sim]") {
    // The same sums, once applied one by one and once together: equal up to rounding.
    const auto losses_of = [](peers::run_config c) {
        c.eval.every = 1;
        small_run r(5);
        r.start(c, 3, usual_line);
        REQUIRE(r.finish(c.stop.rounds, "").empty());
        std::vector<double> out;
        for (int i = 0; i < 3; ++i) {
            for (const auto& [at, e] : r.w[fmt::format("n{}", i)].events()) {
                if (e.name == "eval") out.push_back(std::get<double>(*e.find("loss")));
            }
        }
        std::ranges::sort(out);
        return out;
    };
    auto by_exchanges = run_by_exchanges(5, 3, {});
    auto by_rounds = by_exchanges;
    by_rounds.exchange.every = 0;
    by_rounds.inner.steps = 1;
    by_rounds.stop.rounds = 35;
    by_rounds.outer.optimizer = "sgd";
    by_rounds.peers.pace = "equal";
    const auto some = losses_of(by_exchanges), all = losses_of(by_rounds);
    REQUIRE(some.size() >= 5);
    for (const double loss : some) {
        const auto near = std::ranges::any_of(all, [loss](double l) { return std::abs(l - loss) <= 1e-5 * loss; });
        CHECK(near);
    }
}

TEST_CASE("staleness hides the latency of exchanges, and nothing else", "[sim]") {
    const auto seconds_of = [](std::int64_t staleness) {
        auto c = run_by_exchanges(4, 3, {.every = 1, .staleness = staleness});
        c.inner.steps = 40;
        small_run r(7);
        r.s.step_time = 50ms;
        r.start(c, 3, usual_line);
        r.w.set_default_path({.delay = 100ms});
        REQUIRE(r.finish(4, "").empty());
        double last = 0;
        for (const auto& [at, e] : r.w["n1"].events()) {
            if (e.name == "round_committed") last = std::get<double>(*e.find("seconds"));
        }
        return last;
    };
    // A result takes a step, half a round trip and a little.
    const double at_once = seconds_of(0), late = seconds_of(4);
    CHECK(at_once > 40 * 0.150);
    CHECK(at_once < 40 * 0.200);
    CHECK(late > 40 * 0.050);
    CHECK(late < 40 * 0.065);
}

TEST_CASE("runs of several exchanges a round go on through deaths, stops and joiners, the same way twice", "[sim]") {
    for (std::uint64_t seed = 1; seed <= seeds_of(4); ++seed) {
        auto c = run_by_exchanges(30, 4, {.every = 1, .staleness = static_cast<std::int64_t>(seed % 3)});
        c.inner.steps = 10;
        if (seed % 2 == 0) {
            c.exchange.codec = "topk-4/64";
            c.exchange.feedback = "ef";
        }
        const auto first = troubled_run(c, seed);
        INFO("seed " << seed << "\n" << first.first);
        REQUIRE(first.first.empty());
        CHECK(troubled_run(c, seed) == first);
    }
}

TEST_CASE("who dies in the middle of a round of several exchanges takes its own steps with it, and no other's",
          "[sim]") {
    auto c = run_by_exchanges(12, 4, {.every = 1, .staleness = 1});
    c.inner.steps = 40;
    small_run r(9);
    r.s.step_time = 50ms;
    r.start(c, 4, usual_line);
    r.w.set_default_path({.delay = 40ms});
    REQUIRE(r.until_round(3));
    r.w.run_for(1500ms);
    r.w["n3"].kill();
    const auto problem = r.finish(12, "n3");
    INFO(problem << story(r.w));
    REQUIRE(problem.empty());
    const auto merged = merged_of(r.w["n0"]);
    CHECK(merged.size() == 12);
    CHECK(std::ranges::all_of(merged, [](auto n) { return n >= 3; }));
}

TEST_CASE("who lives and gives no exchange is left out at the deadline, alone", "[sim]") {
    auto c = run_by_exchanges(8, 4, {.every = 1, .staleness = 1});
    c.inner.steps = 20;
    c.peers.first_deadline = 20s;
    small_run r(11);
    r.s.step_times = {{"n0", 50ms}, {"n1", 50ms}, {"n2", 50ms}, {"n3", 10min}};
    r.start(c, 4, usual_line);
    r.w.set_default_path({.delay = 40ms});
    const auto problem = r.finish(8, "n3");
    INFO(problem);
    REQUIRE(problem.empty());
    const auto merged = merged_of(r.w["n0"]);
    REQUIRE(merged.size() == 8);
    CHECK(std::ranges::all_of(merged, [](auto n) { return n >= 3; }));
}

TEST_CASE("what a left-out peer had said comes again, and moves the others by no more than its share", "[sim]") {
    for (const std::string feedback : {"none", "ef"}) {
        auto c = run_by_exchanges(16, 4, {.every = 1, .staleness = 1});
        c.exchange.feedback = feedback;
        c.exchange.beta = 1;
        c.inner.steps = 20;
        c.eval.every = 1;
        small_run r(13);
        r.s.step_time = 50ms;
        r.start(c, 4, usual_line);
        r.w.set_default_path({.delay = 40ms});
        REQUIRE(r.until_round(4));
        r.w.run_for(700ms);
        r.w["n3"].pause();
        r.w.run_for(6s);
        r.w["n3"].resume();
        const auto problem = r.finish(16, "");
        INFO(feedback << "\n" << problem << story(r.w));
        REQUIRE(problem.empty());
        std::map<std::uint64_t, double> losses;
        bool left_out = false;
        for (int i = 0; i < 4; ++i) {
            for (const auto& [at, e] : r.w[fmt::format("n{}", i)].events()) {
                if (e.name == "eval")
                    losses[std::get<std::uint64_t>(*e.find("round"))] = std::get<double>(*e.find("loss"));
                if (e.name == "round_committed") left_out |= std::get<std::uint64_t>(*e.find("merged")) == 3;
            }
        }
        CHECK(left_out);
        double before = losses.begin()->second;
        for (const auto& [round, loss] : losses) {
            INFO("round " << round);
            CHECK(loss < 1.1 * before);
            before = loss;
        }
    }
}

TEST_CASE("the controller finds the staleness that hides what exchanges take, and goes back when lines are near",
          "[sim]") {
    const auto staleness_of = [](core::duration delay) {
        auto c = run_by_exchanges(14, 3, {.every = 1, .staleness = 0, .codec = "topk-4/64", .feedback = "ef"});
        c.inner.steps = 40;
        c.controller.enabled = true;
        c.model.width = 200'000;
        small_run r(17);
        r.s.step_time = 50ms;
        r.start(c, 3, usual_line);
        r.w.set_default_path({.delay = delay});
        const auto problem = r.finish(14, "");
        INFO(problem);
        REQUIRE(problem.empty());
        std::uint64_t tau = 0;
        double last = 0;
        for (const auto& [at, e] : r.w["n1"].events()) {
            if (e.name == "plan") tau = std::get<std::uint64_t>(*e.find("tau_steps"));
            if (e.name == "round_committed") last = std::get<double>(*e.find("seconds"));
        }
        return std::pair(tau, last);
    };
    const auto [far, far_seconds] = staleness_of(100ms);
    CHECK(far >= 2);
    CHECK(far <= 4);
    CHECK(far_seconds < 40 * 0.075);
    const auto [near, near_seconds] = staleness_of(1ms);
    CHECK(near <= 1);
    CHECK(near_seconds < 40 * 0.060);
}

#include "peers/command/fit_budget.hpp"

#include <algorithm>
#include <cmath>

namespace longhaul::peers::command {

namespace {

constexpr int unmeasured_steps = 3;  // the first ones allocate
constexpr int measured_steps = 20;
constexpr std::int64_t least_rounds = 20;
/// Fewer inner steps a round would be another algorithm, with another outer step (DESIGN §6).
constexpr std::int64_t least_steps = 10;
constexpr std::int64_t most_growth = 10;

/// A core that several trainers share does each one's step in as many turns.
double slowdown(const sharing& with) {
    return std::max(1.0, static_cast<double>(with.peers) * with.threads / std::max(1, with.cores));
}

/// Evaluation, in turns, and what else a round takes beside its inner steps.
double beside_steps(const run_config& c, const step_timing& t, const sharing& with) {
    const double eval = c.eval.every > 0 ? t.eval_seconds * slowdown(with) / static_cast<double>(c.eval.every) : 0;
    return with.exchange_seconds + eval;
}

}  // namespace

double expected_seconds(const run_config& c, const step_timing& t, const sharing& with) {
    const double steps = static_cast<double>(c.inner.steps) * t.step_seconds * slowdown(with);
    return static_cast<double>(c.stop.rounds) * (steps + beside_steps(c, t, with));
}

run_config fit(run_config c, const step_timing& t, const sharing& with, double budget_seconds) {
    const auto configured_steps = static_cast<double>(c.total_steps());
    const double one_round = expected_seconds(c, t, with) / static_cast<double>(c.stop.rounds);
    const auto floor = std::min(least_rounds, c.stop.rounds);
    const double affordable = budget_seconds / one_round;
    const auto most = static_cast<double>(c.stop.rounds * most_growth);
    c.stop.rounds = std::max(floor, static_cast<std::int64_t>(std::min(affordable, most)));
    if (affordable < static_cast<double>(floor)) {
        // Even the fewest rounds are too long: shorter ones.
        const double per_round = budget_seconds / static_cast<double>(floor) - beside_steps(c, t, with);
        const double steps = per_round / (t.step_seconds * slowdown(with));
        const auto fewest = std::min(least_steps, c.inner.steps);
        c.inner.steps = std::clamp(static_cast<std::int64_t>(std::max(1.0, steps)), fewest, c.inner.steps);
    }
    const double share = static_cast<double>(c.total_steps()) / configured_steps;
    c.inner.warmup = static_cast<std::int64_t>(std::round(static_cast<double>(c.inner.warmup) * std::min(1.0, share)));
    return c;
}

core::task<core::result<step_timing>> time_steps(net::environment& env, optim::trainer_factory make,
                                                 optim::trainer_options options) {
    core::result<std::unique_ptr<optim::trainer>> trainer = core::fail(core::errc::internal, "no trainer was made");
    const auto create = [&] { trainer = make(options); };
    auto created = co_await env.workers.run(create, core::duration{});
    LONGHAUL_CO_TRY(created);
    LONGHAUL_CO_TRY(trainer);
    step_timing timing;
    core::result<void> failed = core::ok();
    optim::step_context at;
    at.lr = options.inner.lr / 100;
    core::time_point begun = env.clock.now();
    for (int i = 0; i < unmeasured_steps + measured_steps && failed; ++i) {
        if (i == unmeasured_steps) begun = env.clock.now();
        // One job a step: a person who stops the run now waits for one of them.
        const auto step = [&] {
            auto done = (*trainer)->step(at);
            if (!done) failed = core::fail(done.error());
        };
        auto ran = co_await env.workers.run(step, core::duration{});
        LONGHAUL_CO_TRY(ran);
        ++at.position;
    }
    LONGHAUL_CO_TRY(failed);
    timing.step_seconds = std::max(1e-6, core::to_seconds(env.clock.now() - begun) / measured_steps);
    begun = env.clock.now();
    const auto evaluate = [&] {
        auto done = (*trainer)->evaluate();
        if (!done) failed = core::fail(done.error());
    };
    auto ran = co_await env.workers.run(evaluate, core::duration{});
    LONGHAUL_CO_TRY(ran);
    LONGHAUL_CO_TRY(failed);
    timing.eval_seconds = core::to_seconds(env.clock.now() - begun);
    const auto destroy = [&] { trainer->reset(); };
    auto destroyed = co_await env.workers.run(destroy, core::duration{});
    LONGHAUL_CO_TRY(destroyed);
    co_return timing;
}

}  // namespace longhaul::peers::command

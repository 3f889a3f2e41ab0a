#pragma once
/// --fit-budget: a run that takes about as long as a person wants, on the machine that it is founded on.

#include "core/task.hpp"
#include "net/environment.hpp"
#include "optim/trainer.hpp"
#include "peers/run_config.hpp"

namespace longhaul::peers::command {

/// What twenty steps of the trainer took on this machine.
struct step_timing {
    double step_seconds = 0;
    double eval_seconds = 0;  ///< one evaluation
};

/// How many trainers share the machine: each of `peers` keeps `threads` of `cores` cores busy. Exchange and agreement
/// take so long a round beside the steps; the default is that of peers on one machine.
struct sharing {
    int peers = 1;
    int threads = 1;
    int cores = 1;
    double exchange_seconds = 0.05;
};

/// The run, scaled so that it takes about `budget_seconds`: rounds first, never fewer than 20 (or than configured, if
/// that is less); then inner steps, in the same way never fewer than 10. The warm-up keeps its share of the run.
run_config fit(run_config config, const step_timing& timing, const sharing& with, double budget_seconds);
/// What `fit` expects a run to take.
double expected_seconds(const run_config& config, const step_timing& timing, const sharing& with);

/// Times twenty steps and one evaluation of a trainer made for this.
core::task<core::result<step_timing>> time_steps(net::environment& env, optim::trainer_factory make,
                                                 optim::trainer_options options);

}  // namespace longhaul::peers::command

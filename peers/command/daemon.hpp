#pragma once
/// A node that takes part: the environment of production, one peer, and what surrounds it: events on disk, the console,
/// the control socket, signals and the launcher's lifeline.

#include "peers/command/arguments.hpp"
#include "peers/peer.hpp"

namespace longhaul::peers::command {

/// Which trainer a node makes: auto takes the analytic one for model.kind = "quadratic" and LibTorch for all others.
optim::trainer_factory trainer_factory(const std::string& choice);

/// Founds or joins (exactly one of the two) and takes part until the run ends for this node; the exit code.
core::result<int> run_daemon(const arguments& a, resolved r, std::optional<founding> found,
                             std::optional<joining> join);

}  // namespace longhaul::peers::command

#pragma once
/// `longhaul lab S.toml`: a scenario with real daemons, real kernels' TCP and real time.

#include "sim/outcome.hpp"

namespace longhaul::sim::lab {

struct experiment_options {
    std::uint64_t seed = 1;
    std::string binary;  ///< the longhaul to run
    std::string folder;  ///< for everything that the daemons write; it exists
};

/// Runs the scenario to its end: everybody's run is over, or `expect.within` has passed. Faults that only a simulation
/// can do (clock, disk) are errc::unsupported. Single-threaded processes only.
core::result<outcome> run_experiment(const scenario& s, const experiment_options& o);

}  // namespace longhaul::sim::lab

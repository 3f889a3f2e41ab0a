#pragma once
/// Scenarios drawn from seeds: another network, run and series of misfortunes for each (FoundationDB's "swarm
/// testing"). docs/SIMULATION.md tells how to read what it finds.

#include <cstdint>
#include <string>
#include <vector>

#include "sim/outcome.hpp"

namespace longhaul::sim {

/// A scenario as a file has it (sim/scenario.hpp), a pure function of the seed: 3 to 8 peers, their lines and sites, a
/// codec and a way of exchange, and then faults, all of which end. What it expects is a recovery (sim/recovery.hpp).
std::string draw_scenario(std::uint64_t seed);

/// What became of many of them.
struct swarm_tally {
    std::uint64_t seeds = 0, rounds = 0, commits = 0, faults = 0;  ///< rounds committed; commits seen by nodes
    double virtual_seconds = 0;
    struct failure {
        std::uint64_t seed = 0;
        std::vector<std::string> broken;  ///< invariants and expectations
    };
    std::vector<failure> failed;

    void add(const outcome& o);
};

/// One line of JSON.
std::string to_json(const swarm_tally& t);
/// For people, a line each.
std::string describe(const swarm_tally& t);
std::string describe_drawn(const outcome& o);

}  // namespace longhaul::sim

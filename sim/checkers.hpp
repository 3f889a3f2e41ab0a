#pragma once
/// Invariants of a run (DESIGN §5), checked over the events of all nodes. Each finding is one sentence.

#include <map>
#include <string>
#include <vector>

#include "sim/world.hpp"

namespace longhaul::sim {

/// What a finished world's events say: which invariants broke and how; empty when all hold.
struct findings {
    std::vector<std::string> broken;
    std::uint64_t commits_seen = 0;  ///< round_committed events of all nodes
    std::uint64_t newest_round = 0;
};

/// Checks I2 (each node's rounds grow by one, but for a state that it downloaded or restored), I3 (equal generation and
/// round mean equal roots on all nodes), I4 and I6 (equal rounds merged equally many payloads and tokens on all nodes).
findings check_invariants(const world& w);

}  // namespace longhaul::sim

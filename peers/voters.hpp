#pragma once
/// Who orders records: one peer, three when there are three to choose from, five when there are five (DESIGN §5 has
/// five of seven: docs/CONSENSUS.md). Pure; the coordinator carries out one change after another
/// (peers/keep_voters.cpp).

#include <optional>
#include <vector>

#include "peers/raft.hpp"

namespace longhaul::peers {

/// One peer that the run lets vote.
struct voter_candidate {
    raft::voter_id key;
    bool linked = false;  ///< answers now
    bool gone = false;    ///< left, or has not answered for so long that it is replaced
};

/// How many voters a run has that so many peers could be chosen from.
std::size_t voters_wanted(std::size_t eligible);

/// The next step from `now` towards the voters that these peers allow, nothing when they are chosen well. `candidates`
/// are in the order of choice, with `self` among them, who leads and stays.
std::optional<raft::change> next_voter_change(const raft::configuration& now,
                                              const std::vector<voter_candidate>& candidates,
                                              const raft::voter_id& self);

}  // namespace longhaul::peers

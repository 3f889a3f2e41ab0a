#pragma once
/// Invariants of a run (DESIGN §5), checked over the events of all nodes, simulated or real. Each finding is one
/// sentence.

#include <map>
#include <span>
#include <string>
#include <vector>

#include "sim/world.hpp"

namespace longhaul::sim {

/// What a run's events say: which invariants broke and how; empty when all hold.
struct findings {
    std::vector<std::string> broken;           ///< "I3: round 7 has root …"
    std::map<std::string, std::string> first;  ///< of each invariant that broke, the first sentence
    std::uint64_t commits_seen = 0;            ///< round_committed events of all nodes
    std::uint64_t newest_round = 0;
};

/// All events of a node, of all its lives, in order.
struct node_history {
    std::string name;
    const std::deque<seen_event>* events = nullptr;
};

/// Checks
///   I1 equal generation and round mean one and the same attempt on all nodes;
///   I2 each node's rounds grow by one, but for a state that it downloaded or restored, or opened a generation with;
///   I3 equal generation and round mean equal roots on all nodes, and no node finds that it has diverged;
///   I4 and they merged equally many payloads; I6 and equally many tokens, never more than were trained;
///   I5 no more peers say that their payload was merged than were merged;
///   I13 what a node produced it sent, holds, or counts lost; and it sent no mass in a round that did not merge it;
///   I9 committed rounds are taken back only when nobody who is linked with who does it has them;
///   I8 what a node checkpoints, I10 what it downloads, has the root that was committed;
///   honesty: nobody finds that another one breaks the rules of the protocol, where all run the same code.
findings check_invariants(std::span<const node_history> nodes);
findings check_invariants(const world& w);

/// The invariants that check_invariants decides.
std::span<const std::string_view> checked_invariants();

/// The field of an event, of that very type.
template <typename T>
std::optional<T> field(const core::event& e, std::string_view name) {
    const auto* v = e.find(name);
    if (v == nullptr) return std::nullopt;
    const auto* t = std::get_if<T>(v);
    return t == nullptr ? std::nullopt : std::optional<T>(*t);
}

}  // namespace longhaul::sim

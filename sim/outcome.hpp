#pragma once
/// What became of a scenario, in virtual time or in the lab: the JSON of `longhaul sim|lab --json`.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sim/checkers.hpp"
#include "sim/recovery.hpp"
#include "sim/scenario.hpp"

namespace longhaul::sim {

struct peer_outcome {
    std::string name;
    bool alive = false;  ///< took part to the end: still running, or ended as it should
    std::string ended;   ///< why it does not run any more; empty while it runs
    std::uint64_t applied = 0;
    std::string root;            ///< of the anchor at `applied`
    std::optional<double> loss;  ///< the last training loss that it reported
    std::uint64_t wire_sent = 0, wire_received = 0;
    double compute_utilisation = 0;  ///< share of its rounds' time in which it trained
};

struct outcome {
    std::uint64_t seed = 0;
    std::string trace_hash;  ///< of a simulation; empty in the lab
    bool in_virtual_time = false;
    double seconds = 0;
    std::uint64_t rounds = 0;                       ///< the newest that was committed
    double round_seconds = 0;                       ///< median over the rounds of the first peer, without its first one
    std::vector<peer_outcome> peers;                ///< in the order of the scenario
    std::map<std::string, std::string> invariants;  ///< "ok", or what broke
    std::map<std::string, std::string> expect;      ///< the same
    std::string network;                            ///< of the lab: the relay's statistics, JSON
    std::uint64_t commits = 0;                      ///< rounds that peers applied, all together
    std::uint64_t faults = 0;                       ///< that befell somebody, in a simulation
    bool ok = false;
};

/// A peer as the world or the lab left it.
struct peer_end {
    bool alive = false;
    std::string ended;
    const std::deque<seen_event>* events = nullptr;
};

/// Checks invariants and expectations. `ends` as the scenario's peers; `after` knows what everybody who lives has to
/// reach, if the scenario asks for a recovery.
outcome judge(const scenario& s, std::span<const peer_end> ends, core::duration took, const recovery& after);

/// One line.
std::string to_json(const outcome& o);
/// For people, a few lines.
std::string describe(const outcome& o);

}  // namespace longhaul::sim

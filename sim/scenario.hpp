#pragma once
/// A scenario file: a run, the machines and links that it lives on, what goes wrong when, and what is expected.
/// `longhaul sim` and `longhaul lab` read the same one; sim/README.md has every key.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.hpp"
#include "peers/run_config.hpp"
#include "sim/topology.hpp"

namespace longhaul::sim {

enum class fault_kind : std::uint8_t {
    kill,
    power,
    restart,
    stop,
    partition,
    one_way,
    reset,
    rate,
    clock,
    disk,
    join,
    leave
};
std::string_view name_of(fault_kind k);

struct fault {
    fault_kind what = fault_kind::kill;
    core::duration at{};                ///< since the founder was started, or
    std::uint64_t round = 0;            ///< when somebody has committed it; 0: by time
    core::duration lasting{};           ///< then it is undone; zero: never
    bool coordinator = false;           ///< whoever coordinates when it begins, instead of `peers`
    std::vector<std::uint32_t> peers;   ///< whom it befalls; one_way: from these
    std::vector<std::uint32_t> others;  ///< partition: from all the others, or these; one_way: to these
    std::int64_t voters = 0;            ///< only while at least so many order records
    double factor = 0;                  ///< rate: of the access lines' rates
    core::duration offset{};            ///< clock: of the wall clock, negative too
    std::int64_t drift = 0;             ///< clock: parts per million that the monotonic one gains
    std::string error;                  ///< disk: "full", "fsync", "rot", "lost", "older"
};

/// The peers from 0 to `count` - 1 that are not among `some`, which ascend.
std::vector<std::uint32_t> all_but(const std::vector<std::uint32_t>& some, std::uint32_t count);

/// What must hold at the end, beside the invariants.
struct expectations {
    std::int64_t rounds = 0;  ///< committed by everybody who lives; 0: as [run] stop.rounds says
    std::int64_t alive = 0;   ///< peers that live at the end, at least; 0: no matter
    core::duration within = std::chrono::minutes(10);  ///< from the start: the limit of a run
    /// So long after the last fault has ended everybody who lives has committed `recovery_rounds` more, and the
    /// scenario ends there; zero: it goes on to the run's end.
    core::duration recovers_within{};
    static constexpr std::uint64_t recovery_rounds = 3;
};

/// What a peer is beside its place in the network.
struct peer_spec {
    core::duration step_time{};  ///< of an inner step; zero: as the trainer takes
    core::duration
        restart_after{};       ///< when it ended by an error, a service manager starts it again; zero: nobody does
    bool joins_later = false;  ///< a `join` fault starts it
};

struct scenario {
    core::config_values run_values;  ///< [run], for RUN.toml
    peers::run_config run;
    topology net;
    std::vector<peer_spec> peers;  ///< as net.peers; the first one founds the run
    std::vector<fault> faults;     ///< in the order of the file
    expectations expect;
};

/// Reads a file that the scenario names (a trace), by its name there.
using file_reader = std::function<core::result<std::string>(const std::string& name)>;

inline constexpr std::size_t max_scenario_peers = 10'000;

/// errc::config: a sentence with file and line; an unknown key or name comes with the nearest known one.
core::result<scenario> parse_scenario(std::string_view text, const std::string& file_name, const file_reader& read);

/// The same from disk; traces are looked for beside the scenario.
core::result<scenario> load_scenario(const std::string& path);

/// A trace of a changing line, CSV "seconds,factor": ascending times, factors from 0 to 1000; the first line may be a
/// heading. At most 100,000 lines.
core::result<rate_trace> parse_rate_trace(std::string_view text, const std::string& file_name);

}  // namespace longhaul::sim

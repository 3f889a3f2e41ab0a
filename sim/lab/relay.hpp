#pragma once
/// The emulator in real time: reads packets from the machines' devices, lets the emulator decide, and writes each to
/// its receiver when it is due. One process, one thread; it tells the truth about its own delays.

#include <cstdint>
#include <string>
#include <vector>

#include "sim/lab/emulator.hpp"
#include "sim/lab/namespaces.hpp"

namespace longhaul::sim::lab {

/// How late packets were handed over, beyond the time at which they were due.
class lag_counter {
public:
    void add(core::duration late, std::uint64_t packets);
    std::uint64_t packets() const { return packets_; }
    /// Of all, later than a millisecond.
    double late_share() const;
    /// No better than a sixteenth of the value.
    core::duration quantile(double q) const;
    core::duration worst() const { return worst_; }

private:
    static constexpr std::size_t buckets = 256;
    std::uint64_t counts_[buckets]{};
    std::uint64_t packets_ = 0, late_ = 0;
    core::duration worst_{};
};

struct relay_report {
    double seconds = 0;
    std::uint64_t packets = 0, bytes = 0;  ///< that reached their receivers
    std::uint64_t reads = 0, writes = 0;   ///< of devices
    std::uint64_t dropped_queue = 0, dropped_loss = 0, dropped_cut = 0;
    std::vector<std::uint64_t> sent_bytes;  ///< of each peer, headers included, as its uplink got them
    std::uint64_t refused = 0;              ///< the receiver's device took no more: the machine cannot keep up
    double cpu_seconds = 0;
    double late_share = 0;  ///< of the packets, handed over more than 1 ms late
    double lag_p99_seconds = 0, lag_worst_seconds = 0;
    bool kept_up = true;  ///< at most 1 % late, none refused
};
std::string to_json(const relay_report& r);

/// Runs until `control` (a stream socket) is closed by the other end. Commands on it, one a line, numbers of peers as
/// in the topology:
///     cut FROM TO 0|1 · factor PEER X · stats
/// "stats" is answered by one line of JSON about the time since the last one; so is the end.
void run_relay(const topology& t, std::uint64_t seed, const std::vector<machine_space>& machines, int control);

}  // namespace longhaul::sim::lab

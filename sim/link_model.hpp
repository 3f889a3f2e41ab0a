#pragma once
/// The small parts that a simulated path is made of, in the spirit of quiche's simulator. Each is a few numbers and a
/// closed form, knows nothing of streams, and is exact to the nanosecond:
///
///     sender's uplink         the path                       receiver's downlink
///     [ rate_line ] ────► delay + jitter (in order) ────► [ rate_line ] ────► + penalty of lost packets (in order)
///
/// A transfer of S bytes over lines of r1 and r2 bytes/s and a delay d arrives at ceil(S / min(r1, r2)) + d.

#include <cstdint>

#include "core/entropy.hpp"
#include "core/units.hpp"
#include "sim/event_queue.hpp"

namespace longhaul::sim {

/// Payload of one packet: what is lost is lost by packets.
inline constexpr std::uint64_t packet_bytes = 1448;

/// Serialises bytes at a rate, in the order given, never idle while it has work.
class rate_line {
public:
    /// Rate zero: unlimited.
    explicit rate_line(core::bit_rate rate = {}) { set_rate(rate); }
    /// For all bytes from now on; what was already passed keeps its time.
    void set_rate(core::bit_rate rate);
    bool limited() const { return bits_per_second_ != 0; }
    /// How long n bytes take on an idle line, rounded up to a nanosecond.
    core::duration time_for(std::uint64_t bytes) const { return time_for_bits(bytes * 8); }
    /// Passes bytes of which the first reaches the line at `first` and the last at `last`; returns when the last has
    /// left it. Calls come in the order of `last`. Within a busy period nothing is rounded twice.
    virtual_time pass(virtual_time first, virtual_time last, std::uint64_t bytes);
    /// When it will be idle.
    virtual_time free_at() const { return free_; }
    /// Bytes that a fair scheduler sends of one stream before the next has its turn: 2 ms of the line, between one
    /// packet and 64 KiB.
    std::uint64_t quantum() const;

private:
    core::duration time_for_bits(std::uint64_t bits) const;
    std::uint64_t bits_per_second_ = 0;
    virtual_time busy_since_{};    // the current busy period
    std::uint64_t busy_bits_ = 0;  // passed in it
    virtual_time free_{};
};

/// One direction between two hosts.
struct path_options {
    core::duration delay{};   ///< one way
    core::duration jitter{};  ///< each segment takes up to this much longer, uniformly; the order is kept
    double loss = 0;          ///< probability that a packet is lost: its stream waits for the repetition
};

/// The time that a segment of `bytes` spends on the path beyond the delay.
core::duration draw_jitter(core::entropy& entropy, core::duration jitter);

/// What the lost packets of a segment cost its stream, as TCP recovers: one round trip when packets behind them reveal
/// the gap (fast retransmission), otherwise a retransmission timeout, doubled each time that the repetition is lost,
/// too. `lost` counts packets. Losses within one segment are repaired together.
struct loss_penalty {
    core::duration delay{};
    std::uint64_t lost = 0;
};
loss_penalty draw_loss(core::entropy& entropy, double loss, std::uint64_t bytes, bool more_behind, core::duration rtt);

/// TCP's retransmission timeout on a path of that round trip: Linux's minimum of 200 ms above it, as of RFC 6298 with
/// a settled variance.
core::duration retransmission_timeout(core::duration rtt);
/// When a sender that has heard nothing since `stalled` first tries again at or after `healed`: at stalled + RTO·(2^k −
/// 1), the waits growing up to two minutes.
virtual_time next_retry(virtual_time stalled, virtual_time healed, core::duration rtt);

}  // namespace longhaul::sim

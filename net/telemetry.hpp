#pragma once
/// Passive measurement of what a link carries (DESIGN §4): no probe traffic.

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

#include "core/clock.hpp"

namespace longhaul::net {

/// Quantiles of the latest samples.
class quantiles {
public:
    explicit quantiles(std::size_t most = 128) : most_(most) {}
    void add(double sample);
    /// The smallest sample that at least the share `q` of them does not exceed; 0 without samples.
    double at(double q) const;
    bool empty() const { return samples_.empty(); }

private:
    std::size_t most_;
    std::deque<double> samples_;
};

/// The least round trip of the latest ten minutes: a path may become longer for good, and a queue that stands for a
/// while must not pass for the path (as LEDBAT keeps its base delay, RFC 6817).
class least_round_trip {
public:
    static constexpr std::size_t minutes = 10;
    void add(core::time_point now, core::duration rtt);
    /// Zero: not measured yet.
    core::duration least() const;

private:
    std::deque<std::pair<core::time_point, core::duration>> by_minute_;  ///< its beginning, its least
};

/// The queue on the way to the other end, told apart from that on the way back: the other end says when it read what
/// was sent, by its own clock, and how far that is from this clock is in the least of these delays (the one-way delays
/// of LEDBAT, RFC 6817 §3.4.2 and appendix A). What the other end says can only lessen what the round trip shows.
class outward_queueing {
public:
    /// `apart` is the other clock's reading less this one's when the message was sent, in microseconds, modulo 2⁶⁴.
    /// `round_trip` is by how much the round trip exceeds its least. Returns the outward part of that.
    core::duration add(core::time_point now, std::uint64_t apart, core::duration round_trip);

private:
    std::optional<std::uint64_t> base_;  ///< without a queue
    core::time_point at_{};
};

/// Payload bytes per second of one direction, counted only while some transfer was under way: idle time is not
/// slowness. Quantiles over windows of busy time.
class goodput_meter {
public:
    /// Busy seconds after which a window becomes a sample; shorter ones count when the direction falls idle.
    static constexpr double window_seconds = 1.0;
    /// One with fewer bytes than `least_bytes` goes on, for so long.
    static constexpr double longest_window = 4.0;
    /// A window with fewer bytes measures latency, not goodput.
    static constexpr std::uint64_t least_bytes = 128 * 1024;
    /// Samples that count.
    static constexpr std::size_t samples = 32;

    /// Some transfer is under way from now on.
    void busy(core::time_point now);
    void add(std::uint64_t bytes, core::time_point now);
    /// No transfer is under way any more.
    void idle(core::time_point now);
    /// The median; 0: not measured yet.
    double bytes_per_second() const { return rates_.at(0.5); }
    /// The 25th percentile: what a plan may count on.
    double cautious() const { return rates_.at(0.25); }

private:
    void sample(core::time_point now);
    bool busy_ = false;
    core::time_point since_{};
    std::uint64_t bytes_ = 0;
    quantiles rates_{samples};
};

}  // namespace longhaul::net

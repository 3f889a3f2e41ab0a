#pragma once
/// Passive measurement of what a link carries (DESIGN §4): no probe traffic.

#include <algorithm>
#include <cstdint>

#include "core/clock.hpp"

namespace longhaul::net {

/// Payload bytes per second of one direction, counted only while some transfer was under way: idle time is not
/// slowness. A smoothed value over windows of busy time.
class goodput_meter {
public:
    /// Busy seconds after which a window becomes a sample; shorter ones count when the direction falls idle.
    static constexpr double window_seconds = 1.0;
    /// A window with fewer bytes measures latency, not goodput.
    static constexpr std::uint64_t least_bytes = 128 * 1024;

    /// Some transfer is under way from now on.
    void busy(core::time_point now) {
        if (busy_) return;
        busy_ = true;
        since_ = now;
        bytes_ = 0;
    }
    void add(std::uint64_t bytes, core::time_point now) {
        bytes_ += bytes;
        if (busy_ && core::to_seconds(now - since_) >= window_seconds) sample(now);
    }
    /// No transfer is under way any more.
    void idle(core::time_point now) {
        if (busy_) sample(now);
        busy_ = false;
    }
    /// 0: not measured yet.
    double bytes_per_second() const { return rate_; }

private:
    void sample(core::time_point now) {
        const double seconds = core::to_seconds(now - since_);
        if (bytes_ >= least_bytes && seconds > 0) {
            const double rate = static_cast<double>(bytes_) / seconds;
            rate_ = rate_ > 0 ? (rate_ + rate) / 2 : rate;
        }
        since_ = now;
        bytes_ = 0;
    }

    bool busy_ = false;
    core::time_point since_{};
    std::uint64_t bytes_ = 0;
    double rate_ = 0;
};

}  // namespace longhaul::net

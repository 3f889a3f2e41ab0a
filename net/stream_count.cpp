#include "net/stream_count.hpp"

#include <algorithm>
#include <cmath>

namespace longhaul::net {

namespace {

/// The first number serves a wire of this rate, bytes per second, with a third to spare: nobody knows the real one.
constexpr double hoped_for = 1e9 / 8 * 4 / 3;
/// What a connection can have in flight where no kernel says.
constexpr double usual_window = 2.0 * 1024 * 1024;
/// A measurement: at least this long, and so many round trips, and so many bytes (or the longer time).
constexpr double least_seconds = 1, least_round_trips = 10, least_bytes = 4.0 * 1024 * 1024, long_enough = 4;
/// Not measured: round trips after a pause, after the number grew (slow start), and after it shrank (what was given up
/// empties its buffers first).
constexpr double ramp_warm = 2, ramp_cold = 10, ramp_reduced = 40;
/// More connections must bring this much, fewer may cost this much.
constexpr double gain = 1.05, loss = 0.95;
/// Goodput that differs so much from the last one: another link.
constexpr double changed_down = 0.7, changed_up = 1.4;
/// Share of a measurement with a queue in the path, beyond which the wire is full.
constexpr double crowded_share = 0.3;
constexpr double first_hold = 20, longest_hold = 600;
/// Connections that do not come within so many busy seconds are not waited for.
constexpr double patience = 15;

double window_of(const stream_sample& s) { return s.window > 0 ? static_cast<double>(s.window) : usual_window; }

/// What the window asks for at this goodput: k·window/RTT ≥ rate, with a quarter to spare.
double demand(double goodput, const stream_sample& s) {
    return 1.25 * goodput * core::to_seconds(s.rtt) / window_of(s);
}

unsigned bounded(double count, unsigned most) {
    return static_cast<unsigned>(std::clamp(std::ceil(count), 1.0, static_cast<double>(most)));
}

}  // namespace

void stream_count::set(unsigned count, phase next, const stream_sample& s) {
    before_ = wanted_;
    wanted_ = count;
    phase_ = next;
    ramp_ = (next == phase::reducing ? ramp_reduced : ramp_cold) * core::to_seconds(s.rtt);
    missing_ = 0;
}

void stream_count::hold(const stream_sample& s) {
    hold_ = std::clamp(hold_ * 2, first_hold, longest_hold);
    next_try_ = s.now + core::from_seconds(hold_);
}

void stream_count::step(const stream_sample& s) {
    const auto last = std::exchange(last_, s);
    if (fixed_ != 0 || s.rtt <= core::duration{}) return;
    const double rtt = core::to_seconds(s.rtt);
    if (!guessed_) {
        wanted_ = bounded(hoped_for * rtt / window_of(s), most_unmeasured);
        guessed_ = true;
        ramp_ = ramp_cold * rtt;
    }
    if (!s.saturated || !last.saturated) {
        ramp_ = std::max(ramp_, ramp_warm * rtt);
        return;
    }
    const double elapsed = core::to_seconds(s.now - last.now);
    if (s.open < wanted_) {
        missing_ += elapsed;
        if (missing_ < patience) return;
        set(std::max(1U, s.open), phase::steady, s);
        hold(s);
    }
    ramp_ -= elapsed;
    if (ramp_ > 0) return;
    seconds_ += elapsed;
    // The kernel counts segments: when the path's MTU falls, all that it ever delivered shrinks.
    if (s.delivered > last.delivered) bytes_ += static_cast<double>(s.delivered - last.delivered);
    if (s.queueing) queueing_seconds_ += elapsed;
    if (seconds_ < std::max(least_seconds, least_round_trips * rtt)) return;
    if (bytes_ < least_bytes && seconds_ < long_enough) return;
    const double goodput = bytes_ / seconds_;
    const bool crowded = queueing_seconds_ > crowded_share * seconds_;
    seconds_ = queueing_seconds_ = bytes_ = 0;
    if (goodput > 0) judge(goodput, crowded, s);
}

void stream_count::judge(double goodput, bool crowded, const stream_sample& s) {
    if (phase_ == phase::climbing) {
        if (goodput >= gain * base_) {
            base_ = goodput;
            phase_ = phase::steady;
            next_try_ = s.now;  // further up
        } else {
            set(before_, phase::steady, s);
            hold(s);
        }
        return;
    }
    if (phase_ == phase::reducing) {
        if (goodput >= loss * base_) {
            base_ = goodput;
            phase_ = phase::steady;
        } else {
            set(before_, phase::steady, s);
        }
        hold(s);
        return;
    }
    if (goodput < changed_down * base_ || goodput > changed_up * base_) {
        hold_ = 0;
        next_try_ = s.now;
        base_ = goodput;
    } else {
        base_ = (base_ + goodput) / 2;
    }
    if (s.now < next_try_) return;
    if (!crowded) {
        if (wanted_ < most) set(std::min(most, wanted_ + std::max(1U, wanted_ / 2)), phase::climbing, s);
        return;
    }
    const double asked = demand(base_, s);
    const unsigned enough = asked < 0.5 ? 1 : bounded(3 * asked, most);
    if (wanted_ > enough) set(enough, phase::reducing, s);
}

}  // namespace longhaul::net

#include "net/stream_count.hpp"

#include <algorithm>
#include <cmath>

namespace longhaul::net {

namespace {

/// The first number serves a wire of this rate, bytes per second, with a third to spare: nobody knows the real one.
constexpr double hoped_for = 1e9 / 8 * 4 / 3;
/// What a connection can have in flight where no kernel says.
constexpr double usual_window = 2.0 * 1024 * 1024;
/// Until the wire has been full, a connection more carries for so many bytes that are offered: what it saves is a few
/// round trips of slow start.
constexpr std::uint64_t bytes_each = 1024 * 1024;
/// A measurement: at least this long, and so many round trips, and so many bytes (or the longer time).
constexpr double least_seconds = 1, least_round_trips = 10, least_bytes = 4.0 * 1024 * 1024, long_enough = 4;
/// Not measured: round trips after a pause, after the number grew (slow start), and after it shrank (what was given up
/// empties its buffers first).
constexpr double ramp_warm = 2, ramp_cold = 10, ramp_reduced = 40;
/// More connections must bring this much where the window asks for them; where it does not, only what noise does not.
constexpr double gain = 1.05, clear_gain = 1.1;
/// Fewer connections may cost this much when a queue stands in the path; when only the window says that they are
/// enough, what noise may.
constexpr double loss = 0.95, clear_loss = 0.8;
/// A path is full when goodput, over windows of so many seconds (or a round trip), has not grown so much for so many of
/// them: BBR's test for the end of its startup.
constexpr double flat_seconds = 0.1, growth = 1.25;
constexpr unsigned flat_windows = 3;
/// Goodput that differs so much from the last one: another link.
constexpr double changed_down = 0.7, changed_up = 1.4;
/// Share of a measurement with a queue in the path, beyond which the wire is full.
constexpr double crowded_share = 0.3;
constexpr double first_hold = 20, longest_hold = 600;
/// More than the window asks for is tried so rarely: it costs while it is tried, and seldom pays.
constexpr double first_venture = 60;
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

/// So many carry this goodput and three times more.
unsigned enough_for(double goodput, const stream_sample& s) {
    const double asked = demand(goodput, s);
    return asked < 0.5 ? 1 : bounded(3 * asked, stream_count::most);
}

}  // namespace

unsigned stream_count::carrying(std::uint64_t offered) const {
    if (fixed_ != 0 || filled_) return wanted_;
    return static_cast<unsigned>(std::min<std::uint64_t>(wanted_, 1 + offered / bytes_each));
}

/// What was guessed for larger transfers is given up: the wire is known.
void stream_count::fill(std::uint64_t offered) {
    wanted_ = carrying(offered);
    filled_ = true;
}

void stream_count::set(unsigned count, phase next, double needed, const stream_sample& s) {
    before_ = wanted_;
    wanted_ = count;
    phase_ = next;
    needed_ = needed;
    ramp_ = (next == phase::reducing ? ramp_reduced : ramp_cold) * core::to_seconds(s.rtt);
    missing_ = seconds_ = queueing_seconds_ = bytes_ = 0;
}

void stream_count::hold(const stream_sample& s) {
    hold_ = std::clamp(hold_ * 2, first_hold, longest_hold);
    next_try_ = s.now + core::from_seconds(hold_);
    next_venture_ = s.now + core::from_seconds(std::max(hold_, first_venture));
}

void stream_count::step(const stream_sample& s) {
    const auto last = std::exchange(last_, s);
    if (s.rtt <= core::duration{}) return;
    const double rtt = core::to_seconds(s.rtt);
    if (!guessed_ && fixed_ == 0) {
        wanted_ = bounded(hoped_for * rtt / window_of(s), most_unmeasured);
        guessed_ = true;
        ramp_ = ramp_cold * rtt;
        next_venture_ = s.now + core::from_seconds(first_venture);
    }
    const double elapsed = core::to_seconds(s.now - last.now);
    // The kernel counts segments: when the path's MTU falls, all that it ever delivered shrinks.
    const auto delivered = s.delivered > last.delivered ? static_cast<double>(s.delivered - last.delivered) : 0;
    if (!filled_ && s.flowing && last.flowing) watch_startup(elapsed, delivered, s);
    if (fixed_ != 0) return;
    if (!s.saturated || !last.saturated) {
        ramp_ = std::max(ramp_, ramp_warm * rtt);
        return;
    }
    if (s.open < carrying(s.offered)) {
        missing_ += elapsed;
        if (missing_ < patience) return;
        set(std::max(1U, s.open), phase::steady, 0, s);
        hold(s);
    }
    ramp_ -= elapsed;
    if (ramp_ > 0) return;
    seconds_ += elapsed;
    bytes_ += delivered;
    if (s.queueing) queueing_seconds_ += elapsed;
    if (seconds_ < std::max(least_seconds, least_round_trips * rtt)) return;
    // A doubtful gain is not judged by one lucky transfer.
    const bool doubtful =
        phase_ != phase::steady && wanted_ != before_ && std::max(wanted_, before_) > enough_for(base_, s);
    if ((doubtful || bytes_ < least_bytes) && seconds_ < long_enough) return;
    const double goodput = bytes_ / seconds_;
    const bool crowded = queueing_seconds_ > crowded_share * seconds_;
    seconds_ = queueing_seconds_ = bytes_ = 0;
    if (!filled_) fill(s.offered);
    if (goodput > 0) judge(goodput, crowded, s);
}

/// The first number was guessed for a fat pipe. Where several connections start at once on a thin one, they overflow
/// its queue and lose more than they bring: as soon as the pipe is full, those that its window does not ask for go.
void stream_count::watch_startup(double elapsed, double delivered, const stream_sample& s) {
    window_seconds_ += elapsed;
    window_bytes_ += delivered;
    if (window_seconds_ < std::max(flat_seconds, core::to_seconds(s.rtt))) return;
    const double goodput = window_bytes_ / window_seconds_;
    window_seconds_ = window_bytes_ = 0;
    if (goodput > growth * fastest_) {
        fastest_ = goodput;
        flat_ = 0;
        return;
    }
    if (++flat_ < flat_windows || fastest_ <= 0) return;
    fill(s.offered);
    const unsigned enough = enough_for(fastest_, s);
    if (fixed_ != 0 || wanted_ <= enough) return;
    base_ = fastest_;
    set(enough, phase::reducing, clear_loss * base_, s);
}

void stream_count::judge(double goodput, bool crowded, const stream_sample& s) {
    if (phase_ != phase::steady) {
        const bool climbed = phase_ == phase::climbing;
        if (goodput < needed_) {
            set(before_, phase::steady, 0, s);
            hold(s);
            return;
        }
        base_ = goodput;
        phase_ = phase::steady;
        if (climbed && wanted_ < most) {
            climb(s);
        } else {
            hold(s);
        }
        return;
    }
    if (goodput < changed_down * base_ || goodput > changed_up * base_) {
        hold_ = 0;
        next_try_ = s.now;
        base_ = goodput;
    } else {
        base_ = (base_ + goodput) / 2;
    }
    const unsigned enough = enough_for(base_, s);
    if (crowded) {
        if (wanted_ > enough && s.now >= next_try_) set(enough, phase::reducing, loss * base_, s);
        return;
    }
    if (s.now < (wanted_ < enough ? next_try_ : next_venture_)) return;
    // What was gained beyond what the window asks for may have been chance, and is put to the test in turn.
    if (wanted_ > enough && std::exchange(doubt_, !doubt_)) {
        set(enough, phase::reducing, base_ / clear_gain, s);
    } else if (wanted_ < most) {
        climb(s);
    }
}

void stream_count::climb(const stream_sample& s) {
    const double needed = wanted_ < enough_for(base_, s) ? gain : clear_gain;
    set(std::min(most, wanted_ + std::max(1U, wanted_ / 2)), phase::climbing, needed * base_, s);
}

}  // namespace longhaul::net

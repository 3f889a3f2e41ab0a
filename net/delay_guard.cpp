#include "net/delay_guard.hpp"

#include <algorithm>

namespace longhaul::net {

namespace {

/// Over which delivery is averaged.
constexpr auto rate_window = std::chrono::milliseconds(100);
/// The queue that draining aims for, and below which the rate is raised: enough to keep the wire busy.
constexpr auto wanted_queueing = std::chrono::milliseconds(15);
/// Draining takes this long, or a round trip if that is longer.
constexpr double drain_seconds = 0.1;
/// Pacing never takes more than this share away: a delay that has another cause must not stop bulk.
constexpr double least_share = 0.5, most_share = 0.95;
/// Under a limit the path delivers at least so much of it.
constexpr double held_back = 0.8;
/// A round trip, by how much the rate is raised: up to what the path has delivered with a queue; beyond that while no
/// queue is seen, but by no more than makes so many seconds of queue on a full wire; and otherwise.
constexpr double raise_below = 0.25, raise_free = 0.02, raise_beyond = 0.02;
/// Beyond this multiple of what the path delivers the limit means nothing and goes.
constexpr double meaningless = 1.5;

}  // namespace

void delay_guard::delivered(core::time_point now, std::uint64_t total) {
    // The kernel counts segments: when the path's MTU falls, all that it ever delivered shrinks.
    if (!flowing_ || total < window_total_) {
        flowing_ = true;
        window_began_ = now;
        window_total_ = total;
        return;
    }
    if (now - window_began_ < rate_window) return;
    rates_[next_rate_++ % rates_.size()] =
        static_cast<double>(total - window_total_) / core::to_seconds(now - window_began_);
    window_began_ = now;
    window_total_ = total;
}

void delay_guard::idle() {
    flowing_ = false;
    // The queue is empty when bulk comes again.
    if (limit_ > 0) limit_ = std::max(limit_, full_ * most_share);
}

double delay_guard::capacity() const { return *std::ranges::max_element(rates_); }

void delay_guard::round_trip(core::time_point now, core::duration last, core::duration queueing) {
    // The smaller of two: a single late answer is jitter, a queue delays all.
    const auto excess = std::min(queueing, std::exchange(excess_before_, queueing));
    const bool before = std::exchange(queueing_, excess > most_queueing);
    if (queueing_ && !before) crowded_since_ = now;
    // The effect of the last change shows after a round trip, and what the path delivers after the queue formed.
    if (!flowing_ || now - changed_ < last || capacity() <= 0) return;
    if (queueing_) {
        if (limit_ <= 0 && now - crowded_since_ < (last - queueing) / 2) return;
        const double drain =
            core::to_seconds(excess - wanted_queueing) / std::max(drain_seconds, core::to_seconds(last));
        // What is delivered under a limit is the limit, and says nothing of the path unless it is less: the queue may
        // be another link's, whose guard drains it, too.
        if (limit_ <= 0 || capacity() > limit_ || capacity() < held_back * limit_) full_ = capacity();
        limit_ = full_ * std::clamp(1 - drain, least_share, most_share);
        changed_ = now;
    } else if (limit_ > 0) {
        if (excess > 2 * wanted_queueing) {
            limit_ = capacity() * most_share;
        } else {
            const double now_at = std::max(limit_, capacity());
            const double free = std::min(raise_below, raise_free / std::max(core::to_seconds(last), 1e-3));
            if (now_at < full_) {
                limit_ = std::min(full_, now_at * (1 + raise_below));
            } else {
                limit_ = now_at * (1 + (excess <= wanted_queueing ? std::max(free, raise_beyond) : raise_beyond));
            }
        }
        if (limit_ > meaningless * capacity()) limit_ = 0;
        changed_ = now;
    }
}

}  // namespace longhaul::net

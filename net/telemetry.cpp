#include "net/telemetry.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace longhaul::net {

namespace {

/// A round trip so near to the least one met no queue, on either way.
constexpr auto no_queue = std::chrono::milliseconds(2);
/// Seconds a second by which two clocks may run apart: quartz keeps within half of it.
constexpr double most_drift = 1e-4;

}  // namespace

void quantiles::add(double sample) {
    samples_.push_back(sample);
    if (samples_.size() > most_) samples_.pop_front();
}

double quantiles::at(double q) const {
    if (samples_.empty()) return 0;
    std::vector<double> sorted(samples_.begin(), samples_.end());
    const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(sorted.size())));
    const auto place = sorted.begin() + static_cast<std::ptrdiff_t>(std::max<std::size_t>(rank, 1) - 1);
    std::nth_element(sorted.begin(), place, sorted.end());
    return *place;
}

void least_round_trip::add(core::time_point now, core::duration rtt) {
    if (by_minute_.empty() || now - by_minute_.back().first >= std::chrono::minutes(1)) {
        by_minute_.emplace_back(now, rtt);
        if (by_minute_.size() > minutes) by_minute_.pop_front();
    }
    by_minute_.back().second = std::min(by_minute_.back().second, rtt);
}

core::duration least_round_trip::least() const {
    const auto found = std::ranges::min_element(by_minute_, {}, [](const auto& m) { return m.second; });
    return found == by_minute_.end() ? core::duration{} : found->second;
}

core::duration outward_queueing::add(core::time_point now, std::uint64_t apart, core::duration round_trip) {
    const double since = core::to_seconds(now - std::exchange(at_, now));
    // The clocks drift apart: a base of long ago creeps after them.
    if (base_) *base_ += static_cast<std::uint64_t>(since * most_drift * 1e6);
    if (!base_ || round_trip < no_queue || static_cast<std::int64_t>(apart - *base_) < 0) base_ = apart;
    const auto above = std::min<std::uint64_t>(apart - *base_, std::numeric_limits<std::int32_t>::max());
    return std::min<core::duration>(std::chrono::microseconds(above), round_trip);
}

void goodput_meter::busy(core::time_point now) {
    if (busy_) return;
    busy_ = true;
    since_ = now;
    bytes_ = 0;
}

void goodput_meter::add(std::uint64_t bytes, core::time_point now) {
    bytes_ += bytes;
    const double seconds = busy_ ? core::to_seconds(now - since_) : 0;
    // A thin line takes longer for as much.
    if (seconds >= window_seconds && (bytes_ >= least_bytes || seconds >= longest_window)) sample(now);
}

void goodput_meter::idle(core::time_point now) {
    if (busy_) sample(now);
    busy_ = false;
}

void goodput_meter::sample(core::time_point now) {
    const double seconds = core::to_seconds(now - since_);
    if (bytes_ >= least_bytes && seconds > 0) rates_.add(static_cast<double>(bytes_) / seconds);
    since_ = now;
    bytes_ = 0;
}

}  // namespace longhaul::net

#include "peers/line_rate.hpp"

#include <algorithm>

namespace longhaul::peers {

void rate_of_exchange::begin(core::time_point now, std::uint64_t already) {
    if (begun_) return;
    begun_ = true;
    since_ = now;
    already_ = already;
}

void rate_of_exchange::look(core::time_point now, std::uint64_t total) {
    if (!begun_ || now <= since_ || total < already_ + least_bytes) return;
    const double seconds = core::to_seconds(now - since_);
    best_ = std::max(best_, static_cast<double>(total - already_) / seconds);
    seconds_ = seconds;
}

double line_rate::with(const rate_of_exchange& latest) const {
    const double rate = latest.bytes_per_second();
    if (rate <= 0) return believed_;
    const bool slow_now = latest.seconds() >= a_while && rate < fallen * believed_;
    return slow_now ? rate : std::max(rate, fade * believed_);
}

}  // namespace longhaul::peers

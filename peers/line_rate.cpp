#include "peers/line_rate.hpp"

#include <algorithm>

namespace longhaul::peers {

void rate_of_exchange::begin(core::time_point now, std::uint64_t already) {
    if (begun()) return;
    since_ = now;
    marks_.push_back({now, already});
}

void rate_of_exchange::look(core::time_point now, std::uint64_t total) {
    if (!begun() || now <= marks_.back().at) return;
    if (total < marks_.back().total) {
        marks_.assign(1, {now, total});
        return;
    }
    const auto long_enough = [&](const mark& m) { return now - m.at >= window && total - m.total >= least_bytes; };
    while (marks_.size() > 1 && long_enough(marks_[1])) marks_.pop_front();
    const auto& from = marks_.front();
    if (const auto bytes = total - from.total; bytes >= least_bytes) {
        const double rate = static_cast<double>(bytes) / core::to_seconds(now - from.at);
        if (now - from.at >= interval) best_ = std::max(best_, rate);
        short_ = rate;
        seconds_ = core::to_seconds(now - since_);
    }
    if (marks_.size() > 1 && total == marks_.back().total) {
        marks_.back().at = now;  // nothing was under way: that time is not the line's
    } else if (now - marks_.back().at >= interval) {
        marks_.push_back({now, total});
    }
}

void rate_of_exchange::look_at_queue(core::time_point now, std::uint64_t total, bool stands) {
    if (!queue_ || stands != queue_stands_ || total < queue_->total) {
        queue_ = mark{now, total};
        queue_stands_ = stands;
        return;
    }
    const auto bytes = total - queue_->total;
    if (now - queue_->at < (stands ? strained_window : window) || (stands && bytes < least_bytes)) return;
    const double rate = static_cast<double>(bytes) / core::to_seconds(now - queue_->at);
    if (stands) strained_ = rate;
    if (!stands && rate > 2 * strained_) strained_ = 0;
    queue_ = mark{now, total};
}

double line_rate::with(const rate_of_exchange& latest) const {
    const double rate = latest.bytes_per_second();
    if (latest.strained() > 0 && latest.strained() < fallen * std::max(rate, believed_)) return latest.strained();
    if (rate <= 0) return believed_;
    const bool slow_now = !latest.in_bursts() && latest.seconds() >= a_while && rate < fallen * believed_;
    if (slow_now && way_ == way::sends) return rate;
    return std::max(rate, (slow_now ? fallen : fade) * believed_);
}

}  // namespace longhaul::peers

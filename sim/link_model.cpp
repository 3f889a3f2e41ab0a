#include "sim/link_model.hpp"

#include <algorithm>

namespace longhaul::sim {

namespace {

__extension__ using wide = unsigned __int128;
constexpr core::duration longest_wait = std::chrono::seconds(120);

}  // namespace

void rate_line::set_rate(core::bit_rate rate) {
    bits_per_second_ =
        rate.bits_per_second <= 0 ? 0 : std::max<std::uint64_t>(1, static_cast<std::uint64_t>(rate.bits_per_second));
    busy_since_ = free_;
    busy_bits_ = 0;
}

core::duration rate_line::time_for_bits(std::uint64_t bits) const {
    if (bits_per_second_ == 0) return {};
    const wide ns = (static_cast<wide>(bits) * 1'000'000'000 + bits_per_second_ - 1) / bits_per_second_;
    return core::duration(static_cast<std::int64_t>(std::min<wide>(ns, std::numeric_limits<std::int64_t>::max() / 4)));
}

virtual_time rate_line::pass(virtual_time first, virtual_time last, std::uint64_t bytes) {
    if (!limited()) return last;
    // The work is placed as late as it can be without delaying the last byte: a slow sender does not occupy a fast
    // line for longer than its bytes need.
    const virtual_time earliest = std::max(first, last - time_for(bytes));
    if (earliest > free_) {
        busy_since_ = earliest;
        busy_bits_ = 0;
    }
    busy_bits_ += bytes * 8;
    free_ = busy_since_ + time_for_bits(busy_bits_);
    return std::max(free_, last);
}

std::uint64_t rate_line::quantum() const {
    if (!limited()) return std::numeric_limits<std::uint64_t>::max();
    return std::clamp<std::uint64_t>(bits_per_second_ / 8 / 500, packet_bytes, 64 * 1024);
}

core::duration draw_jitter(core::entropy& entropy, core::duration jitter) {
    if (jitter <= core::duration::zero()) return {};
    return core::duration(static_cast<std::int64_t>(entropy.below(static_cast<std::uint64_t>(jitter.count()) + 1)));
}

loss_penalty draw_loss(core::entropy& entropy, double loss, std::uint64_t bytes, bool more_behind, core::duration rtt) {
    loss_penalty out;
    if (loss <= 0) return out;
    const auto packets = std::max<std::uint64_t>(1, (bytes + packet_bytes - 1) / packet_bytes);
    bool last_lost = false;
    for (std::uint64_t i = 0; i < packets; ++i) {
        last_lost = entropy.unit() < loss;
        if (last_lost) ++out.lost;
    }
    if (out.lost == 0) return out;
    const core::duration rto = retransmission_timeout(rtt);
    const bool revealed = more_behind || !last_lost;
    out.delay = revealed ? rtt : rto;
    // Each repetition may be lost as well; then only the timeout helps.
    for (core::duration wait = rto; entropy.unit() < loss && wait < longest_wait; wait *= 2) {
        ++out.lost;
        out.delay += wait;
    }
    return out;
}

core::duration retransmission_timeout(core::duration rtt) { return rtt + std::chrono::milliseconds(200); }

virtual_time next_retry(virtual_time stalled, virtual_time healed, core::duration rtt) {
    virtual_time at = stalled;
    for (core::duration wait = retransmission_timeout(rtt); at < healed; wait = std::min(2 * wait, longest_wait))
        at += wait;
    return at;
}

}  // namespace longhaul::sim

#include "sim/recovery.hpp"

#include <algorithm>

#include "sim/checkers.hpp"

namespace longhaul::sim {

recovery::recovery(const scenario& s)
    : peers_(static_cast<std::uint32_t>(s.peers.size())), limit_(s.expect.recovers_within) {}

void recovery::saw(std::uint32_t peer, const core::event& e) {
    if (e.name != "round_committed" && e.name != "catch_up") return;
    const auto round = field<std::uint64_t>(e, "round").value_or(0);
    applied_[peer] = round;
    if (field<bool>(e, "own_merged").value_or(false)) merged_[peer] = round;
    newest_ = std::max(newest_, round);
}

void recovery::faults_ended(core::duration now) {
    if (ended_at_) return;
    ended_at_ = now;
    round_then_ = newest_;
}

std::uint64_t recovery::wanted() const {
    return ended_at_ && limit_ > core::duration{} ? round_then_ + expectations::recovery_rounds : 0;
}

bool recovery::merged_again(std::uint32_t peer) const {
    const auto m = merged_.find(peer);
    return m != merged_.end() && m->second > round_then_;
}

bool recovery::over(core::duration now, const std::set<std::uint32_t>& taken_out) const {
    const auto goal = wanted();
    if (goal == 0) return false;
    if (now > *ended_at_ + limit_) return true;
    for (std::uint32_t i = 0; i < peers_; ++i) {
        const auto a = applied_.find(i);
        if (taken_out.contains(i)) continue;
        if (a == applied_.end() || a->second < goal || !merged_again(i)) return false;
    }
    return true;
}

}  // namespace longhaul::sim

#include "peers/raft_progress.hpp"

#include <algorithm>

namespace longhaul::peers::raft {

bool progress::paused() const {
    if (!linked_) return true;
    switch (state_) {
        case flow::probe: return waiting_;
        case flow::replicate: return in_flight_.size() >= window;
        case flow::snapshot: return true;
    }
    return true;
}

void progress::sent(std::uint64_t last) {
    if (state_ == flow::probe) waiting_ = true;
    if (state_ != flow::replicate || last < next_) return;
    next_ = last + 1;
    in_flight_.push_back(last);
}

void progress::sent_snapshot(std::uint64_t index) {
    state_ = flow::snapshot;
    snapshot_ = index;
    next_ = index + 1;
    in_flight_.clear();
}

bool progress::accepted(std::uint64_t index) {
    if (index < match_) return false;
    const bool news = index > match_;
    match_ = index;
    next_ = std::max(next_, index + 1);
    while (!in_flight_.empty() && in_flight_.front() <= index) in_flight_.pop_front();
    if (state_ == flow::replicate || (state_ == flow::snapshot && index < snapshot_)) return news;
    state_ = flow::replicate;
    waiting_ = false;
    next_ = index + 1;
    return true;
}

bool progress::rejected(std::uint64_t index, std::uint64_t agreed) {
    // Only an answer to the latest message says that what went before it did not arrive. What a follower acknowledged
    // it still has, or it must not be asked again and again: its disk is an older one.
    if (index <= match_ || (state_ != flow::replicate && index != next_ - 1)) return false;
    probe_from(std::max(std::min(index, agreed + 1), match_ + 1));
    return true;
}

void progress::link_down() {
    linked_ = false;
    probe_from(match_ + 1);
}

void progress::link_up() {
    linked_ = true;
    probe_from(match_ + 1);
}

void progress::probe_from(std::uint64_t next) {
    state_ = flow::probe;
    waiting_ = false;
    in_flight_.clear();
    next_ = next;
}

}  // namespace longhaul::peers::raft

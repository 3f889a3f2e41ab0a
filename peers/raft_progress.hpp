#pragma once
/// What a leader knows of one follower, and what it may send to it next.
///
/// probe: where the logs agree is not known; one message at a time.
/// replicate: it is known; messages follow each other without waiting, up to a window.
/// snapshot: the follower needs what was compacted; nothing is sent until it has the snapshot.

#include <deque>
#include <optional>

#include "core/clock.hpp"
#include "peers/raft_message.hpp"

namespace longhaul::peers::raft {

enum class flow : std::uint8_t { probe, replicate, snapshot };

class progress {
public:
    static constexpr std::size_t window = 32;  ///< append messages under way

    progress(std::uint64_t next, core::time_point now) : next_(next), heard_(now) {}

    std::uint64_t match() const { return match_; }
    std::uint64_t next() const { return next_; }
    flow state() const { return state_; }
    core::time_point heard() const { return heard_; }
    std::size_t in_flight() const { return in_flight_.size(); }
    /// Whether entries have to wait: for an answer, for room in the window, or for a link.
    bool paused() const;
    bool linked() const { return linked_; }

    /// The commit that it was last told of.
    std::uint64_t told() const { return told_; }

    void tell(std::uint64_t commit) { told_ = commit; }
    void hear(core::time_point now) { heard_ = now; }
    /// An append message up to `last` went out; `last` is next() - 1 for one without entries.
    void sent(std::uint64_t last);
    void sent_snapshot(std::uint64_t index);
    /// Entries may be probed for once more although no answer came: it is time for a heartbeat.
    void beat() { waiting_ = false; }
    /// The follower holds everything up to `index`. False when that is old news.
    bool accepted(std::uint64_t index);
    /// The follower does not hold the entry `index` that a message followed on, and may agree at `agreed`. False when
    /// the answer is to a message from before what is known by now.
    bool rejected(std::uint64_t index, std::uint64_t agreed);
    /// What was under way is lost, and nothing gets through until `link_up`.
    void link_down();
    void link_up();

private:
    void probe_from(std::uint64_t next);

    std::uint64_t match_ = 0;
    std::uint64_t next_ = 1;
    flow state_ = flow::probe;
    bool waiting_ = false;  ///< a probe is under way
    bool linked_ = true;
    std::uint64_t told_ = 0;
    std::uint64_t snapshot_ = 0;  ///< the one under way
    std::deque<std::uint64_t> in_flight_;
    core::time_point heard_;
};

}  // namespace longhaul::peers::raft

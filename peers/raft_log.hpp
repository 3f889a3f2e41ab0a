#pragma once
/// The log of one voter in memory: a snapshot and the entries behind it. The configuration that counts is the latest in
/// the log, committed or not, so one that is truncated away takes its effect with it.

#include <deque>

#include "peers/raft_message.hpp"

namespace longhaul::peers::raft {

class log {
public:
    log() = default;
    log(snapshot base, std::vector<entry> entries);

    const snapshot& base() const { return base_; }
    std::uint64_t last_index() const { return base_.index + entries_.size(); }
    std::uint64_t last_term() const { return entries_.empty() ? base_.term : entries_.back().term; }
    /// Of an entry that is here or the snapshot's last one; otherwise nothing.
    std::optional<std::uint64_t> term_of(std::uint64_t index) const;
    bool matches(std::uint64_t index, std::uint64_t term) const { return term_of(index) == term; }
    /// base().index < index ≤ last_index().
    const entry& at(std::uint64_t index) const;
    /// Entries `first` to `last`, as many as fit into one message (at least one, if there are any).
    std::vector<entry> from(std::uint64_t first, std::uint64_t last) const;
    /// Whether a log that ends so has all that this one may have committed: the paper's rule for voters.
    bool up_to_date(std::uint64_t last_index, std::uint64_t last_term) const;
    /// The last entry at or before `index` whose term is at most `term`: where two logs that differ at `index` may
    /// agree. (0, 0) when that lies before the snapshot.
    std::pair<std::uint64_t, std::uint64_t> last_below(std::uint64_t index, std::uint64_t term) const;

    /// The configuration that counts, and the entry that brought it.
    const configuration& members() const;
    std::uint64_t members_index() const { return changes_.empty() ? base_.index : changes_.back(); }
    /// The configuration as of an entry: base().index ≤ index ≤ last_index().
    const configuration& members_at(std::uint64_t index) const;

    void append(entry e);
    /// Removes the entries from `first` on, which must be behind the snapshot.
    void truncate(std::uint64_t first);
    /// Replaces everything by a snapshot.
    void reset(snapshot s);
    /// Replaces the entries up to `index` by the state machine's `data`.
    void compact(std::uint64_t index, core::byte_vector data);

private:
    snapshot base_;
    std::deque<entry> entries_;
    std::vector<std::uint64_t> changes_;  ///< indices of the membership entries
};

}  // namespace longhaul::peers::raft

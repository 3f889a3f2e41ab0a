#pragma once
/// What voters of one log say to each other, and what they write down. All of it may come from another machine, so
/// `check` looks at every number and size before anything is believed. The sender is not in a message: it is who the
/// channel belongs to.

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/bytes.hpp"
#include "net/identity.hpp"

namespace longhaul::peers::raft {

using voter_id = net::peer_key;

inline constexpr std::size_t max_voters = 7;                         ///< 5, and room for replacing some
inline constexpr std::size_t max_learners = 8;                       ///< standbys that are not promoted yet
inline constexpr std::size_t max_entry_bytes = 256 * 1024;           ///< of one entry's data
inline constexpr std::size_t max_append_entries = 256;               ///< in one message
inline constexpr std::size_t max_append_bytes = 512 * 1024;          ///< in one message, unless it is a single entry
inline constexpr std::size_t max_snapshot_bytes = 1024 * 1024;       ///< it travels as one message
inline constexpr std::uint64_t max_number = std::uint64_t{1} << 62;  ///< of terms and indices: sums cannot overflow
/// Terms and indices grow by one at a time: who claims to be further ahead lies, and few such lies would use them up.
inline constexpr std::uint64_t max_step = std::uint64_t{1} << 32;

/// Who votes, and who only follows so that it may vote later. Sorted; nobody is in both.
struct configuration {
    std::vector<voter_id> voters;
    std::vector<voter_id> learners;

    bool votes(const voter_id& who) const;
    bool has(const voter_id& who) const;
    /// The only voter.
    bool decides_alone(const voter_id& who) const;
    /// The smallest number of voters of which any two sets share a member.
    std::size_t quorum() const { return voters.size() / 2 + 1; }
    bool operator==(const configuration&) const = default;
};

/// What an entry is for. Barriers are the first entries of a leader's term: nothing older is committed without one.
enum class entry_kind : std::uint8_t { barrier = 0, record = 1, membership = 2 };

struct entry {
    std::uint64_t term = 0;
    entry_kind kind = entry_kind::barrier;
    core::byte_vector data;  ///< of a record
    configuration members;   ///< of a membership change: the whole new configuration
    bool operator==(const entry&) const = default;
};

/// The state machine after entry `index`, with the configuration as of that entry (never a later one, which may yet be
/// taken back).
struct snapshot {
    std::uint64_t index = 0;
    std::uint64_t term = 0;
    configuration members;
    core::byte_vector data;
    bool operator==(const snapshot&) const = default;
};

/// The latest term that a voter has seen, and whom it voted for in it.
struct ballot {
    std::uint64_t term = 0;
    std::optional<voter_id> vote;
    bool operator==(const ballot&) const = default;
};

/// "Vote for me", or with `pre` "would you?", in which case the message's term is one that nobody has entered yet.
/// `handed_over`: the leader asked for this election, so that voters need not wait for its silence.
struct vote_request {
    std::uint64_t last_index = 0, last_term = 0;
    bool pre = false, handed_over = false;
    bool operator==(const vote_request&) const = default;
};
struct vote_response {
    bool pre = false, granted = false;
    bool operator==(const vote_response&) const = default;
};
/// Entries behind (prev_index, prev_term); without any a heartbeat.
struct append_request {
    std::uint64_t prev_index = 0, prev_term = 0, commit = 0;
    std::vector<entry> entries;
    bool operator==(const append_request&) const = default;
};
/// accepted: everything up to `index` is on this follower's disk as the leader has it. Otherwise: the entry before
/// `index + 1` was not the leader's; (hint_index, hint_term) is the last one of the follower's that may be.
struct append_response {
    bool accepted = false;
    std::uint64_t index = 0;
    std::uint64_t hint_index = 0, hint_term = 0;
    bool operator==(const append_response&) const = default;
};
struct snapshot_request {
    raft::snapshot state;
    bool operator==(const snapshot_request&) const = default;
};
/// From a leader that hands over: campaign now.
struct campaign_request {
    bool operator==(const campaign_request&) const = default;
};

/// How many writes a voter's disk has taken, and how many of them before its present life, which has a drawn number.
struct disk_mark {
    std::uint64_t before = 0, written = 0, life = 0;
    /// Whether a disk with this mark may once have had the other one: who has fewer writes than were heard of was put
    /// back to an older disk, and has forgotten.
    bool follows_on(const disk_mark& earlier) const {
        return earlier.written <= (earlier.life == life ? written : before);
    }
    bool operator==(const disk_mark&) const = default;
};

/// When a link comes up: it says what a message's envelope says, and nothing else.
struct greeting {
    bool operator==(const greeting&) const = default;
};

struct message {
    core::digest generation;  ///< of the run: messages of another one are not for us
    std::uint64_t term = 0;
    std::variant<vote_request, vote_response, append_request, append_response, snapshot_request, campaign_request,
                 greeting>
        body;
    disk_mark own;   ///< of the sender's disk
    disk_mark seen;  ///< what the sender has last heard of the receiver's
    bool operator==(const message&) const = default;
};

/// errc::protocol unless the configuration is sorted, disjoint, within its limits, and has a voter.
core::result<void> check(const configuration& c);
/// errc::protocol unless every number and size of the message is possible. What it means for the receiver is for the
/// receiver to check.
core::result<void> check(const message& m);

/// What an entry counts as against byte limits.
std::size_t size_of(const entry& e);

}  // namespace longhaul::peers::raft

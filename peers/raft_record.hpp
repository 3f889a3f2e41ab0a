#pragma once
/// What a voter's disk holds, as bytes. It is read back after power cuts and bit rot, so nothing in it is believed
/// before its check and its bounds were looked at.
///
/// state: everything at one instant, with a hash over it. log: what changed since, one frame a write:
/// `u32 length | u64 number | body | check`; the check covers the hash of the state and all before it, so a frame
/// cannot be missing, doubled, or another state's.

#include "peers/raft.hpp"

namespace longhaul::peers::raft {

/// The state file: whose it is, which one of it, and what it says.
struct disk_state {
    voter_id self;
    core::digest generation;
    std::uint64_t number = 0;  ///< grows with each that is written; names the log behind it
    durable_state content;
    bool operator==(const disk_state&) const = default;
};

core::byte_vector serialize(const disk_state& s);
/// errc::malformed.
core::result<disk_state> parse_disk_state(core::const_bytes bytes);

/// A longer frame is not read back.
inline constexpr std::size_t max_frame_bytes = 64 << 20;

/// Frame `number`, from 0, behind the state with this hash; of any number of writes without snapshots.
core::byte_vector frame_of(const core::digest& state, std::uint64_t number, const std::vector<disk_write>& writes);

struct frame {
    std::vector<disk_write> writes;
    std::size_t bytes = 0;  ///< that it takes
};
/// The frame that `bytes` begin with. Nothing: it is not frame `number`, or not whole; errc::malformed: it is, and its
/// content makes no sense.
core::result<std::optional<frame>> next_frame(const core::digest& state, std::uint64_t number, core::const_bytes bytes);
/// Whether a whole frame, number `from` or a later one, begins anywhere in `bytes`: then what is before it was not cut
/// off by a crash.
bool has_frame(const core::digest& state, std::uint64_t from, core::const_bytes bytes);

}  // namespace longhaul::peers::raft

#pragma once
/// The link's own control messages as plain structs, and their Protocol Buffers encoding (net/wire.proto). Whatever
/// `parse_control` returns has been checked: identifiers are not zero, texts are bounded and printable, sizes are
/// within the limits of net/link.hpp, enumerations are known.

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/bytes.hpp"

namespace longhaul::net::wire {

struct heartbeat {
    std::uint64_t sequence = 0;
};
struct heartbeat_echo {
    std::uint64_t sequence = 0;
    std::uint64_t heard_us = 0;  ///< when the heartbeat was read, by the clock of whoever echoes; 0: not told
};
struct transfer_offer {
    std::uint64_t id = 0;
    std::string tag;
    std::uint64_t bytes = 0;
};
/// The sender may send the bytes below `credit`.
struct transfer_accept {
    std::uint64_t id = 0;
    std::uint64_t credit = 0;
};
struct transfer_refuse {
    std::uint64_t id = 0;
    std::string reason;
};
/// Segments that arrived: pairs of first and count.
struct transfer_progress {
    std::uint64_t id = 0;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
};
struct transfer_done {
    std::uint64_t id = 0;
};
/// By the receiver.
struct transfer_abandon {
    std::uint64_t id = 0;
};
/// By the sender.
struct transfer_withdraw {
    std::uint64_t id = 0;
};
/// By the end that does not dial bulk connections: how many would serve what it sends.
struct streams_wanted {
    std::uint32_t count = 0;
};
using control = std::variant<heartbeat, heartbeat_echo, transfer_offer, transfer_accept, transfer_refuse,
                             transfer_progress, transfer_done, transfer_abandon, transfer_withdraw, streams_wanted>;

/// A link message is never larger than one record.
inline constexpr std::size_t max_control_bytes = 16 * 1024;
/// Longest text for people; longer ones are cut before they are sent.
inline constexpr std::size_t max_reason = 512;
/// Bulk connections of a link.
inline constexpr std::uint32_t max_streams = 64;
/// Most pairs in one transfer_progress.
inline constexpr std::size_t max_progress_ranges = 256;

core::byte_vector serialize(const control& message);
/// errc::protocol with the field and its value.
core::result<control> parse_control(core::const_bytes bytes);

}  // namespace longhaul::net::wire

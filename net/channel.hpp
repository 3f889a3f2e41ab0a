#pragma once
/// A connection after its handshake: a stream and the keys of its records.

#include "core/task.hpp"
#include "net/handshake.hpp"
#include "net/stream.hpp"

namespace longhaul::net {

/// Record types of longhaul's channels, beside those of the record layer (net/PROTOCOL.md §6, §7).
enum class channel_record : std::uint8_t {
    link = first_channel_record_type,  ///< control: a message of net/wire.proto
    message = 17,                      ///< control: a piece of an application's message
    segment = 18,                      ///< bulk: data records of a segment follow
    idle = 19,                         ///< bulk: nothing, to show that the connection works or to warm it
};
constexpr std::uint8_t code(channel_record type) { return static_cast<std::uint8_t>(type); }
/// Flag of `channel_record::message`: more pieces of the same message follow.
inline constexpr std::uint8_t more_follows = 1;

/// One secured connection. At most one reader and one writer at a time.
struct channel {
    channel(std::unique_ptr<net::stream> s, secured keys, wire_count spent)
        : stream(std::move(s)), sealer(std::move(keys.sealer)), opener(std::move(keys.opener)), count(spent) {}

    std::unique_ptr<net::stream> stream;
    record_sealer sealer;
    record_opener opener;
    record_buffer buffer;
    wire_count count;

    /// The next record's ciphertext, borrowed until the next call. errc::closed when the stream ended or broke,
    /// errc::protocol.
    core::task<core::result<core::mutable_bytes>> next_ciphertext();
    /// The next record, opened in place; borrowed until the next call.
    core::task<core::result<record>> next_record();
    /// Writes sealed records.
    core::task<core::result<void>> write(core::const_bytes sealed);
};

}  // namespace longhaul::net

#pragma once
/// From a fresh stream to a secured channel: the waiting around net/hello.hpp and net/handshake.hpp. The caller sets
/// the deadline. Before the other end is authenticated nothing but buffers of fixed small sizes is held for it.

#include "net/channel.hpp"
#include "net/environment.hpp"

namespace longhaul::net {

/// A stream before its records, with its bytes counted.
struct raw_connection {
    explicit raw_connection(std::unique_ptr<net::stream> s) : stream(std::move(s)) {}
    std::unique_ptr<net::stream> stream;
    wire_count count;

    core::task<core::result<void>> read(core::mutable_bytes out);
    core::task<core::result<void>> write(core::const_bytes data);
    /// Reads and drops what comes until the other end closes, so that what was written last is not lost to a reset;
    /// at most `limit`.
    core::task<core::result<void>> linger(core::clock& clock, core::duration limit);
};

/// Both hellos of a connection, and the prologue that they make.
struct greeting {
    hello mine, theirs;
    core::byte_vector prologue;
};

/// Sends our hello, reads the answer and compares. errc::unreachable when the other end hung up before it said
/// anything, errc::version_mismatch, errc::run_mismatch, errc::protocol.
core::task<core::result<greeting>> greet(raw_connection& c, const hello& mine);
/// Reads a hello and answers it; whether the two fit is not judged. errc::closed, errc::protocol.
core::task<core::result<greeting>> answer_greeting(raw_connection& c, const core::digest& our_run);

/// Moves a control_handshake or bulk_handshake on by one message.
template <typename Handshake>
core::task<core::result<void>> step(raw_connection& c, Handshake& h) {
    if (h.my_turn()) {
        const auto message = h.write();
        LONGHAUL_CO_TRY(message);
        const auto framed = frame(*message);
        co_return co_await c.write(framed);
    }
    std::array<std::byte, 2> prefix{};
    auto read = co_await c.read(prefix);
    LONGHAUL_CO_TRY(read);
    const auto length = frame_length(prefix, h.max_next());
    LONGHAUL_CO_TRY(length);
    core::byte_vector message(*length);
    read = co_await c.read(message);
    LONGHAUL_CO_TRY(read);
    co_return h.read(message);
}

/// Dials bulk connection `number` of the session founded with `exporter`, whose control connection this end dialled.
/// Both deadlines count from their beginning.
core::task<core::result<std::unique_ptr<channel>>> dial_bulk(environment& env, endpoint to, core::digest run,
                                                             noise::secret_key exporter, std::uint32_t number,
                                                             core::duration connect_deadline,
                                                             core::duration handshake_deadline);

}  // namespace longhaul::net

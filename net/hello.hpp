#pragma once
/// The cleartext hello: what each side says before any key exists, so that a wrong version or a wrong run is named
/// instead of looking like a wrong key. Both hellos are the prologue of the Noise handshake: tampering with one makes
/// the handshake fail. Nothing in a hello is trusted before that. Layout: net/PROTOCOL.md §2.

#include <array>

#include "core/bytes.hpp"
#include "core/result.hpp"

namespace longhaul::net {

/// A build that does not encrypt tells what encryption costs (the preset null-cipher). It speaks a wire version of its
/// own, so that no node takes it for one of its kind.
#ifdef LONGHAUL_NULL_CIPHER
inline constexpr bool null_cipher = true;
#else
inline constexpr bool null_cipher = false;
#endif

/// The wire versions that this build speaks.
inline constexpr std::uint16_t wire_version_min = null_cipher ? 0xFFFF : 1;
inline constexpr std::uint16_t wire_version_max = wire_version_min;

/// Which end of a connection: the initiator dialled it.
enum class side : std::uint8_t { initiator = 0, responder = 1 };
inline side other(side s) { return s == side::initiator ? side::responder : side::initiator; }

/// What a connection is for.
enum class hello_role : std::uint8_t {
    control = 1,  ///< XXpsk0 on first contact (zero session), NNpsk0 when it resumes a session
    bulk = 2,     ///< NNpsk0 under a session of a control connection
    probe = 3,    ///< hellos only, then the connection ends
};
std::string_view name_of(hello_role role);

/// Names a session of a control connection in the clear; see `session_of` in net/handshake.hpp.
using session_id = std::array<std::byte, 16>;

inline constexpr std::size_t hello_size = 96;
using hello_bytes = std::array<std::byte, hello_size>;

struct hello {
    std::uint16_t wire_min = wire_version_min;
    std::uint16_t wire_max = wire_version_max;
    hello_role role = hello_role::control;
    /// 0 on first contact and for probes; otherwise 1 or more, never used twice by one dialler in a session.
    std::uint32_t connection = 0;
    core::digest run;      ///< zero: "tell me yours" (a bare address, a probe), or a tool without a run
    session_id session{};  ///< zero on first contact and for probes
    bool operator==(const hello&) const = default;

    hello_bytes encode() const;
    /// The responder's answer to this hello: its role, connection and session, our versions and our run.
    hello answer(const core::digest& our_run) const;
};

/// Parses exactly `hello_size` bytes of the other side. errc::protocol when they are not a longhaul hello or break a
/// rule of §2. Of a hello whose versions this build does not speak only `wire_min` and `wire_max` are set:
/// `compare` refuses it by name.
core::result<hello> parse_hello(core::const_bytes bytes);

/// Whether two ends may go on, as `mine_is` sees it: the wire version they will speak, the highest that both know.
/// errc::version_mismatch or errc::run_mismatch with both sides' values, errc::protocol when the responder did not
/// echo role, connection and session. A zero run of the initiator accepts the responder's.
core::result<std::uint16_t> compare(const hello& mine, const hello& theirs, side mine_is);

/// The Noise prologue: the hellos as they were on the wire, the initiator's first.
core::byte_vector prologue_of(const hello_bytes& initiator, const hello_bytes& responder);

}  // namespace longhaul::net

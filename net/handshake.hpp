#pragma once
/// longhaul's use of Noise, sans I/O (net/PROTOCOL.md §3, §4). After the hellos:
///
///     control (XXpsk0)   initiator                     responder
///                        write ── message 1 ─────────► read
///                        read  ◄───────── message 2 ── write      (who I am)
///                        write ── message 3 ─────────► read       (who I am, token)
///                        open  ◄─────── verdict record ── seal    (accepted, or a refusal and a sentence)
///     bulk (NNpsk0)      write ── message 1 ─────────► read
///                        read  ◄───────── message 2 ── write
///
/// Each message is framed as `u16 length | message`. A caller loops: `done()` → `finish()`; `my_turn()` → send
/// `frame(write())`; else read two bytes, `frame_length(…, max_next())`, that many bytes, `read()`. Any error is final:
/// close the connection. An error of `read` on message 1 is answered by silence; so an initiator whose connection ends
/// between its message 1 and message 2 says errc::not_admitted: its run secret is most likely wrong.

#include "net/hello.hpp"
#include "net/link.hpp"
#include "net/noise.hpp"
#include "net/printable.hpp"
#include "net/record.hpp"

namespace longhaul::net {

inline constexpr std::size_t max_name_bytes = 64;
inline constexpr std::size_t max_advertised = 8;
/// Of a host in an advertised endpoint (the longest DNS name).
inline constexpr std::size_t max_host_bytes = 253;
inline constexpr std::size_t max_refusal_sentence = 200;

/// `u16 length | message`, little-endian.
core::byte_vector frame(core::const_bytes message);
/// The length that a frame's first two bytes announce. errc::protocol when zero or beyond `max`.
core::result<std::size_t> frame_length(core::const_bytes prefix, std::size_t max);

/// Both ends' result: the ciphers of this connection, and the secret that binds further connections to it.
struct secured {
    record_sealer sealer;
    record_opener opener;
    noise::secret_key exporter;
    core::digest transcript;  ///< public; equal on both ends
};

/// What a node says of itself on control.
struct self_description {
    std::uint64_t incarnation = 1;
    std::uint64_t features = 0;
    std::string name;                   ///< at most 64 bytes of printable UTF-8; may be empty
    std::vector<endpoint> advertised;   ///< at most 8
    std::optional<core::digest> token;  ///< sent by an initiator only
};

/// The control connection's first contact.
class control_handshake {
public:
    /// `run`: the run that both hellos agreed on. `prologue`: prologue_of both hellos. `psk`: the run's secret, zero in
    /// open runs. `self` and `entropy` must outlive the handshake. A description out of bounds makes the first call
    /// fail with errc::limit.
    control_handshake(side mine, const identity& self, self_description description, const core::digest& run,
                      core::const_bytes prologue, const core::digest& psk, core::entropy& entropy);

    bool my_turn() const { return noise_.my_turn(); }
    bool done() const { return noise_.complete(); }
    /// The largest message that may come next.
    std::size_t max_next() const;
    core::result<core::byte_vector> write();
    /// errc::not_admitted when message 1 does not open (the other side has another run secret), errc::protocol for
    /// everything else, connecting to oneself included.
    core::result<void> read(core::const_bytes message);
    /// The other side as far as it is authenticated: the initiator knows it after message 2, before it sends its
    /// token; the responder after message 3. `observed` is left empty: it is the caller's.
    const std::optional<remote_peer>& remote() const { return remote_; }
    /// Once, when done.
    secured finish();

private:
    core::result<void> read_message(core::const_bytes message);
    core::byte_vector encode_payload() const;
    core::result<remote_peer> parse_payload(core::const_bytes payload) const;

    side mine_;
    const identity& self_;
    self_description description_;
    core::digest run_;
    noise::handshake_state noise_;
    std::size_t messages_read_ = 0;
    std::optional<remote_peer> remote_;
};

/// The session that a control handshake founded, as later hellos name it: derived from the exporter, so both ends
/// know it and nobody else can predict it.
session_id session_of(const noise::secret_key& exporter);
/// The PSK of a further connection: HKDF(exporter, "longhaul-bulk" ‖ dialler ‖ connection). `dialler` is the side that
/// the connection's dialler had in the control handshake. A pair (dialler, connection) must never be used twice in a
/// session: the responder refuses a number that it has seen.
noise::secret_key connection_key(const noise::secret_key& exporter, side dialler, std::uint32_t connection);

/// A further connection of a session: bulk, or a resumed control connection.
class bulk_handshake {
public:
    bulk_handshake(side mine, const noise::secret_key& connection_key, core::const_bytes prologue,
                   core::entropy& entropy);
    bool my_turn() const { return noise_.my_turn(); }
    bool done() const { return noise_.complete(); }
    std::size_t max_next() const { return noise_.message_size(0); }
    core::result<core::byte_vector> write();
    /// errc::protocol. Message 1 may be a replay: the responder trusts the dialler only when its first record opened.
    core::result<void> read(core::const_bytes message);
    secured finish();

private:
    noise::handshake_state noise_;
};

/// Why a responder turned an authenticated initiator away.
enum class refusal : std::uint8_t {
    none = 0,          ///< accepted
    not_admitted = 1,  ///< errc::not_admitted
    run_mismatch = 2,  ///< errc::run_mismatch
    busy = 3,          ///< errc::limit: too many links; try another member
    duplicate = 4,     ///< errc::cancelled: another link with this peer stays
    closing = 5,       ///< errc::closed: this node is leaving
};

/// The payload of the record of type `verdict`, the responder's first one.
struct verdict {
    refusal code = refusal::none;
    std::string sentence;  ///< for a person; empty when accepted
    bool accepted() const { return code == refusal::none; }
    /// The sentence is cut to max_refusal_sentence at a character's border.
    core::byte_vector encode() const;
    /// Success, or the refusal as an error with the sentence.
    core::result<void> as_result() const;
};
/// errc::protocol when it is no verdict.
core::result<verdict> parse_verdict(core::const_bytes payload);

}  // namespace longhaul::net

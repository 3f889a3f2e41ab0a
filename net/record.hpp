#pragma once
/// Records: `u16 length | AEAD(type, flags, payload)` (net/PROTOCOL.md §5). One key a direction, implicit 64-bit
/// counters, a deterministic rekey, an authenticated end. The first failure is final: the object is poisoned and the
/// connection must be closed.
///
/// A data record (bulk only) carries no type and flags: the SEGMENT record before it said that it comes. The two kinds
/// differ in their associated data, so one never passes for the other.

#include <optional>

#include "net/noise.hpp"

namespace longhaul::net {

/// A record's length prefix and the most it may announce.
inline constexpr std::size_t record_prefix = 2;
inline constexpr std::size_t max_record_ciphertext = 65535;
/// Largest payload of a record with type and flags, and of a data record.
inline constexpr std::size_t max_record_payload = max_record_ciphertext - noise::tag_size - 2;
inline constexpr std::size_t max_data_payload = max_record_ciphertext - noise::tag_size;
/// Bytes that a record costs beside its payload: 20; a data record: 18.
inline constexpr std::size_t record_overhead = record_prefix + 2 + noise::tag_size;
inline constexpr std::size_t data_overhead = record_prefix + noise::tag_size;
/// Records under one key: at most 16 GiB.
inline constexpr std::uint64_t rekey_interval = std::uint64_t{1} << 18;
/// Longest reason that an end carries, in bytes of UTF-8.
inline constexpr std::size_t max_end_reason = 200;

/// Types below 16 are the record layer's; a channel takes its own from 16 on.
enum class record_type : std::uint8_t {
    end = 1,      ///< FIN: nothing follows; the payload says why (printable UTF-8, at most max_end_reason bytes)
    verdict = 2,  ///< the responder's answer to a handshake (net/handshake.hpp)
};
inline constexpr std::uint8_t first_channel_record_type = 16;

/// Seals the records of one direction, in order.
class record_sealer {
public:
    /// `rekey_every` is for tests: both ends must agree, and the protocol says rekey_interval.
    explicit record_sealer(noise::cipher_state cipher, std::uint64_t rekey_every = rekey_interval);

    /// Writes prefix and ciphertext to the front of `out` and returns their length: payload + record_overhead.
    /// `payload` may not overlap `out`. errc::limit: payload or `out` of a wrong size (nothing is spent);
    /// errc::closed after the end.
    core::result<std::size_t> seal(std::uint8_t type, std::uint8_t flags, core::const_bytes payload,
                                   core::mutable_bytes out);
    /// The same without type and flags, at least one byte: plain + data_overhead.
    core::result<std::size_t> seal_data(core::const_bytes plain, core::mutable_bytes out);
    /// The authenticated end, `reason` made printable and cut to max_end_reason; nothing may be sealed after it.
    core::result<core::byte_vector> seal_end(std::string_view reason);
    /// Records sealed so far.
    std::uint64_t count() const { return cipher_.counter(); }

private:
    core::result<std::size_t> write(core::const_bytes ad, core::const_bytes plain, core::mutable_bytes out);
    noise::cipher_state cipher_;
    std::uint64_t rekey_every_;
    bool ended_ = false;
};

/// One opened record; `payload` is borrowed from the buffer that was decrypted.
struct record {
    std::uint8_t type = 0;
    std::uint8_t flags = 0;
    core::const_bytes payload;
    bool is(record_type t) const { return type == static_cast<std::uint8_t>(t); }
};

/// Opens the records of one direction, in order; ciphertexts come without their prefix.
class record_opener {
public:
    /// `rekey_every` is for tests: both ends must agree, and the protocol says rekey_interval.
    explicit record_opener(noise::cipher_state cipher, std::uint64_t rekey_every = rekey_interval);

    /// Decrypts in place. errc::protocol when it does not authenticate or is no record; errc::closed after the end. An
    /// end is returned like any record, once.
    core::result<record> open(core::mutable_bytes ciphertext);
    /// Decrypts a data record straight into `destination`, of exactly ciphertext.size() - tag_size bytes. On failure
    /// the destination may hold anything: its bytes count only after success.
    core::result<void> open_data(core::const_bytes ciphertext, core::mutable_bytes destination);
    /// The authenticated end was seen: only then is the end of the stream an orderly one.
    bool ended() const { return ended_; }
    bool poisoned() const { return poisoned_; }
    /// Records opened so far.
    std::uint64_t count() const { return cipher_.counter(); }

private:
    core::result<void> decrypt(core::const_bytes ad, core::const_bytes ciphertext, core::mutable_bytes out);
    noise::cipher_state cipher_;
    std::uint64_t rekey_every_;
    bool ended_ = false;
    bool poisoned_ = false;
};

/// Finds records in a stream, sans I/O: read into `space()`, `commit(n)`, then take `next()` until it is empty. One
/// fixed buffer of two full records; nothing is allocated by what the other side announces.
class record_buffer {
public:
    record_buffer();
    /// Where to read to; never empty while `next()` has been drained. Invalidates what `next` returned.
    core::mutable_bytes space();
    void commit(std::size_t n);
    /// The next whole ciphertext without its prefix, borrowed until `space` is called; empty optional: more bytes are
    /// needed. errc::protocol when a prefix announces less than any record has.
    core::result<std::optional<core::mutable_bytes>> next();
    /// Bytes that are held but make no whole record yet: not zero at the end of the stream means truncation.
    std::size_t pending() const { return end_ - begin_; }

private:
    core::byte_vector buffer_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

}  // namespace longhaul::net

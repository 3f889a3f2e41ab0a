#pragma once
/// Bytes in and out: little-endian, bounded. A reader never reads past its end and never allocates by a length that
/// the input announced; a writer appends to a growing buffer.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"

namespace longhaul::core {

using byte_vector = std::vector<std::byte>;
using const_bytes = std::span<const std::byte>;
using mutable_bytes = std::span<std::byte>;

inline const_bytes as_bytes(std::string_view s) { return {reinterpret_cast<const std::byte*>(s.data()), s.size()}; }
inline std::string_view as_text(const_bytes b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

/// Lower-case hexadecimal.
std::string to_hex(const_bytes b);
/// Parses exactly `out.size()` bytes of hexadecimal of either case; errc::malformed otherwise, `out` unchanged.
result<void> from_hex(std::string_view text, mutable_bytes out);

/// URL-safe base64 without padding (RFC 4648 §5).
std::string to_base64url(const_bytes b);
/// errc::malformed on any character outside the alphabet, an impossible length or stray bits; errc::limit beyond
/// `max_bytes`.
result<byte_vector> from_base64url(std::string_view text, std::size_t max_bytes);

/// Reads from a borrowed buffer; errc::malformed past its end. After the first error every further read fails with
/// errc::malformed.
class byte_reader {
public:
    explicit byte_reader(const_bytes input) : input_(input) {}
    result<std::uint8_t> u8();
    result<std::uint16_t> u16();
    result<std::uint32_t> u32();
    result<std::uint64_t> u64();
    /// The next n bytes, borrowed from the input.
    result<const_bytes> take(std::size_t n);
    /// Copies the next out.size() bytes.
    result<void> copy_to(mutable_bytes out);
    /// A u32 length, then that many bytes, borrowed; errc::limit if the length exceeds `max`.
    result<const_bytes> sized(std::size_t max);
    std::size_t remaining() const { return input_.size() - position_; }
    /// errc::malformed unless everything was read: trailing bytes are an error.
    result<void> end() const;

private:
    const_bytes input_;
    std::size_t position_ = 0;
    bool failed_ = false;
};

/// Appends to an owned buffer.
class byte_writer {
public:
    byte_writer& u8(std::uint8_t v);
    byte_writer& u16(std::uint16_t v);
    byte_writer& u32(std::uint32_t v);
    byte_writer& u64(std::uint64_t v);
    byte_writer& raw(const_bytes b);
    /// A u32 length, then the bytes.
    byte_writer& sized(const_bytes b);
    const byte_vector& bytes() const { return out_; }
    byte_vector take() { return std::move(out_); }

private:
    byte_vector out_;
};

/// A 32-byte value: a BLAKE3 hash, a public key, a run id. Ordered by its bytes.
struct digest {
    std::array<std::byte, 32> bytes{};
    auto operator<=>(const digest&) const = default;
    bool is_zero() const { return *this == digest{}; }
    /// 64 hexadecimal digits.
    std::string hex() const { return to_hex(bytes); }
    /// The first 8 hexadecimal digits: for people, never for comparison.
    std::string brief() const { return to_hex(std::span(bytes).first(4)); }
};

}  // namespace longhaul::core

#include "core/bytes.hpp"

#include <algorithm>
#include <bit>
#include <limits>

namespace longhaul::core {

static_assert(std::endian::native == std::endian::little, "flat buffers are hashed and sent as they lie in memory");

namespace {

constexpr std::string_view hex_digits = "0123456789abcdef";
constexpr std::string_view base64_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '-') return 62;
    if (c == '_') return 63;
    return -1;
}

template <typename T>
T load(const_bytes b) {
    T v = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) v = static_cast<T>(v | (static_cast<T>(b[i]) << (8 * i)));
    return v;
}

template <typename T>
void store(byte_vector& out, T v) {
    for (std::size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<std::byte>(v >> (8 * i)));
}

}  // namespace

std::string to_hex(const_bytes b) {
    std::string out;
    out.reserve(b.size() * 2);
    for (std::byte x : b) {
        const auto v = std::to_integer<unsigned>(x);
        out.push_back(hex_digits[v >> 4U]);
        out.push_back(hex_digits[v & 15U]);
    }
    return out;
}

result<void> from_hex(std::string_view text, mutable_bytes out) {
    if (text.size() != out.size() * 2)
        return fail(errc::malformed, "expected {} hexadecimal digits, found {} characters", out.size() * 2,
                    text.size());
    for (char c : text)
        if (hex_value(c) < 0) return fail(errc::malformed, "a character that is not a hexadecimal digit");
    for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<std::byte>((hex_value(text[2 * i]) << 4) | hex_value(text[2 * i + 1]));
    return ok();
}

std::string to_base64url(const_bytes b) {
    std::string out;
    out.reserve((b.size() * 4 + 2) / 3);
    std::uint32_t bits = 0;
    unsigned held = 0;
    for (std::byte x : b) {
        bits = (bits << 8U) | std::to_integer<std::uint32_t>(x);
        held += 8;
        while (held >= 6) {
            held -= 6;
            out.push_back(base64_digits[(bits >> held) & 63U]);
        }
    }
    if (held > 0) out.push_back(base64_digits[(bits << (6 - held)) & 63U]);
    return out;
}

result<byte_vector> from_base64url(std::string_view text, std::size_t max_bytes) {
    const std::size_t tail = text.size() % 4;
    if (tail == 1) return fail(errc::malformed, "base64url text cannot have {} characters", text.size());
    const std::size_t size = text.size() / 4 * 3 + (tail == 0 ? 0 : tail - 1);
    if (size > max_bytes) return fail(errc::limit, "base64url text of {} bytes exceeds {}", size, max_bytes);
    byte_vector out;
    out.reserve(size);
    std::uint32_t bits = 0;
    unsigned held = 0;
    for (char c : text) {
        const int v = base64_value(c);
        if (v < 0) return fail(errc::malformed, "a character outside the base64url alphabet");
        bits = (bits << 6U) | static_cast<std::uint32_t>(v);
        held += 6;
        if (held >= 8) {
            held -= 8;
            out.push_back(static_cast<std::byte>(bits >> held));
        }
    }
    // One text for one value: bits that encode nothing must be zero.
    if ((bits & ((1U << held) - 1U)) != 0) return fail(errc::malformed, "base64url text with stray bits at its end");
    return out;
}

result<const_bytes> byte_reader::take(std::size_t n) {
    if (failed_) return fail(errc::malformed, "an earlier part did not parse");
    if (n > remaining()) {
        const auto had = remaining();
        failed_ = true;
        position_ = input_.size();
        return fail(errc::malformed, "{} bytes are missing at byte {}", n - had, input_.size());
    }
    const auto out = input_.subspan(position_, n);
    position_ += n;
    return out;
}

result<std::uint8_t> byte_reader::u8() { return take(1).map(load<std::uint8_t>); }
result<std::uint16_t> byte_reader::u16() { return take(2).map(load<std::uint16_t>); }
result<std::uint32_t> byte_reader::u32() { return take(4).map(load<std::uint32_t>); }
result<std::uint64_t> byte_reader::u64() { return take(8).map(load<std::uint64_t>); }

result<void> byte_reader::copy_to(mutable_bytes out) {
    LONGHAUL_TRY_ASSIGN(const auto piece, take(out.size()));
    std::copy(piece.begin(), piece.end(), out.begin());
    return ok();
}

result<const_bytes> byte_reader::sized(std::size_t max) {
    LONGHAUL_TRY_ASSIGN(const std::uint32_t n, u32());
    if (n > max) {
        failed_ = true;
        position_ = input_.size();
        return fail(errc::limit, "a length of {} bytes exceeds {}", n, max);
    }
    return take(n);
}

result<void> byte_reader::end() const {
    if (failed_) return fail(errc::malformed, "an earlier part did not parse");
    if (remaining() != 0) return fail(errc::malformed, "{} bytes too many at byte {}", remaining(), position_);
    return ok();
}

byte_writer& byte_writer::u8(std::uint8_t v) { return store(out_, v), *this; }
byte_writer& byte_writer::u16(std::uint16_t v) { return store(out_, v), *this; }
byte_writer& byte_writer::u32(std::uint32_t v) { return store(out_, v), *this; }
byte_writer& byte_writer::u64(std::uint64_t v) { return store(out_, v), *this; }

byte_writer& byte_writer::raw(const_bytes b) {
    out_.insert(out_.end(), b.begin(), b.end());
    return *this;
}

byte_writer& byte_writer::sized(const_bytes b) {
    LONGHAUL_ENSURE(b.size() <= std::numeric_limits<std::uint32_t>::max(), "a sized field holds less than 4 GiB");
    return u32(static_cast<std::uint32_t>(b.size())).raw(b);
}

}  // namespace longhaul::core

#include "net/printable.hpp"

#include <cstdint>

namespace longhaul::net {

namespace {

bool is_printable(std::uint32_t c) {
    if (c < 0x20 || (c >= 0x7F && c < 0xA0)) return false;  // C0, DEL, C1
    if (c >= 0xD800 && c < 0xE000) return false;            // surrogates
    if (c == 0x061C || c == 0x200E || c == 0x200F || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069)) {
        return false;  // separators and direction marks
    }
    return c != 0xFEFF && c <= 0x10FFFF;
}

/// The length of the printable character that `text` starts with, or 0.
std::size_t printable_at(std::string_view text) {
    const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const auto first = byte(0);
    if (first < 0x80) return is_printable(first) ? 1 : 0;
    const std::size_t length = first >= 0xF0 && first < 0xF8   ? 4
                               : first >= 0xE0 && first < 0xF0 ? 3
                               : first >= 0xC0 && first < 0xE0 ? 2
                                                               : 0;
    if (length == 0 || text.size() < length) return 0;
    std::uint32_t c = first & (0x7FU >> length);
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xC0U) != 0x80U) return 0;
        c = c << 6U | (byte(i) & 0x3FU);
    }
    // The shortest form only: anything else is a second spelling of the same text.
    const std::uint32_t smallest = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
    return c >= smallest && is_printable(c) ? length : 0;
}

}  // namespace

bool is_printable_utf8(std::string_view text, std::size_t max) {
    if (text.size() > max) return false;
    while (!text.empty()) {
        const auto n = printable_at(text);
        if (n == 0) return false;
        text.remove_prefix(n);
    }
    return true;
}

std::string to_printable_utf8(std::string_view text, std::size_t max) {
    std::string out;
    while (!text.empty()) {
        const auto n = printable_at(text);
        if (out.size() + (n == 0 ? 1 : n) > max) break;
        if (n == 0) {
            out += '?';
        } else {
            out += text.substr(0, n);
        }
        text.remove_prefix(n == 0 ? 1 : n);
    }
    return out;
}

}  // namespace longhaul::net

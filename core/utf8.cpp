#include "core/utf8.hpp"

namespace longhaul::core {

utf8_character first_utf8(std::string_view text) {
    if (text.empty()) return {};
    const auto lead = static_cast<unsigned char>(text[0]);
    if (lead < 0x80) return {lead, 1};
    const std::size_t length = lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead >= 0xf5 || text.size() < length) return {};
    char32_t code = lead & (0xffU >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        const auto next = static_cast<unsigned char>(text[i]);
        if ((next & 0xc0U) != 0x80U) return {};
        code = (code << 6U) | (next & 0x3fU);
    }
    const char32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return {};
    return {code, length};
}

bool is_printable_utf8(std::string_view text) {
    while (!text.empty()) {
        const auto c = first_utf8(text);
        if (c.length == 0 || c.code < 0x20 || (c.code >= 0x7f && c.code < 0xa0)) return false;
        text.remove_prefix(c.length);
    }
    return true;
}

}  // namespace longhaul::core

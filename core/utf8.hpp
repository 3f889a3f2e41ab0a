#pragma once
/// UTF-8, strictly: one decoder for all that is shown to people or handed to a parser.

#include <cstddef>
#include <string_view>

namespace longhaul::core {

/// The first character of a text.
struct utf8_character {
    char32_t code = 0;
    std::size_t length = 0;  ///< in bytes; 0 when the text does not start with a well-formed character
};

/// Overlong forms, surrogates and codes beyond U+10FFFF are not well-formed.
utf8_character first_utf8(std::string_view text);

/// Whether `text` is UTF-8 without control characters.
bool is_printable_utf8(std::string_view text);

}  // namespace longhaul::core

#pragma once
/// Text that another node sent and a person will read on a terminal.

#include <string>
#include <string_view>

namespace longhaul::net {

/// Whether `text` is well-formed UTF-8 of at most `max` bytes, without control characters, line separators or marks
/// that change the direction of writing: safe to print inside a line.
bool is_printable_utf8(std::string_view text, std::size_t max);
/// `text` as is_printable_utf8 accepts it: each byte of anything else becomes '?', and it is cut to `max` bytes at a
/// character's border.
std::string to_printable_utf8(std::string_view text, std::size_t max);

}  // namespace longhaul::net

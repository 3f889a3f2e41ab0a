#include "peers/command/address.hpp"

#include <unistd.h>

#include <cstdio>

namespace longhaul::peers::command {

namespace {

/// More than the longest ticket; net::parse_ticket says what is too long.
constexpr std::size_t longest_line = 16384;

}  // namespace

core::result<net::ticket> read_address(const std::string& argument) {
    if (argument != "-") return net::parse_ticket(argument);
    if (::isatty(STDIN_FILENO) == 1) std::fputs("ticket: ", stderr);
    std::string line;
    for (int c = std::getchar(); c != EOF && c != '\n' && line.size() < longest_line; c = std::getchar()) {
        line += static_cast<char>(c);
    }
    while (line.ends_with('\r') || line.ends_with(' ')) line.pop_back();
    if (line.empty()) {
        return core::fail(core::errc::usage,
                          "stdin ended before there was an address: write a ticket and a line's end to it");
    }
    return net::parse_ticket(line);
}

}  // namespace longhaul::peers::command

#pragma once
/// The address that a person gives to a command.

#include <string>

#include "net/ticket.hpp"

namespace longhaul::peers::command {

inline constexpr const char* address_help =
    "longhaul://HOST:PORT/NAME#KEY, or HOST[:PORT] of an open run; \"-\" reads it from stdin";

/// Parses a ticket or a bare address; "-" takes the first line of stdin. A ticket is a password, and what stands on a
/// command line can be read by every user of the machine. errc::usage.
core::result<net::ticket> read_address(const std::string& argument);

}  // namespace longhaul::peers::command

#pragma once
/// longhaul://HOST[:PORT][,HOST[:PORT]…]/NAME#KEY: all that a joiner needs (DESIGN §4).

#include <optional>
#include <string>
#include <vector>

#include "core/bytes.hpp"
#include "net/stream.hpp"

namespace longhaul::net {

inline constexpr std::uint16_t default_port = 7400;

/// What the fragment after '#' carries.
struct ticket_key {
    core::digest run;                    ///< run id
    std::optional<core::digest> secret;  ///< invite runs: the PSK of every pair of members
    std::optional<core::digest> token;   ///< invite runs: sent encrypted in handshake message 3
    bool operator==(const ticket_key&) const = default;
};

/// A ticket; `key` is absent for a bare HOST[:PORT]: trust on first use, open runs only.
struct ticket {
    std::vector<endpoint> addresses;  ///< 1 to 16
    std::string name;                 ///< of the run, for people
    std::optional<ticket_key> key;
    std::string text() const;
    bool operator==(const ticket&) const = default;
};

/// Parses a ticket or a bare address. errc::usage with what is wrong and an example; IPv6 needs brackets.
core::result<ticket> parse_ticket(std::string_view text);
/// Parses HOST[:PORT], [IPv6][:PORT].
core::result<endpoint> parse_endpoint(std::string_view text, std::uint16_t port_if_absent = default_port);

}  // namespace longhaul::net

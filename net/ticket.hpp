#pragma once
/// longhaul://HOST[:PORT][,HOST[:PORT]…]/NAME#KEY: all that a joiner needs (DESIGN §4).

#include <optional>
#include <string>
#include <vector>

#include "core/bytes.hpp"
#include "net/stream.hpp"

namespace longhaul::net {

inline constexpr std::uint16_t default_port = 7400;
inline constexpr std::size_t max_ticket_addresses = 16;
/// Of a run's name; longer ones and other characters than [A-Za-z0-9._-] have no ticket.
inline constexpr std::size_t max_run_name = 64;

/// What the fragment after '#' carries: base64url (no padding) of 32 bytes, run, or of 96, run ‖ secret ‖ token.
struct ticket_key {
    core::digest run;                    ///< run id
    std::optional<core::digest> secret;  ///< invite runs: the PSK of every pair of members
    std::optional<core::digest> token;   ///< invite runs: sent encrypted in handshake message 3
    bool operator==(const ticket_key&) const = default;
};

/// A ticket; `key` is absent for a bare HOST[:PORT]: trust on first use, open runs only.
struct ticket {
    std::vector<endpoint> addresses;  ///< 1 to 16; exactly one without a key
    std::string name;                 ///< of the run, for people; empty without a key
    std::optional<ticket_key> key;    ///< with a secret and a token, or with neither
    /// Parses back to the same ticket. Holds the run's secret: for the terminal, never for a log.
    std::string text() const;
    bool operator==(const ticket&) const = default;
};

/// Parses a ticket or a bare address. errc::usage with what is wrong and an example; IPv6 needs brackets. No message
/// quotes the key.
core::result<ticket> parse_ticket(std::string_view text);
/// Parses HOST[:PORT], [IPv6][:PORT] of somebody to dial: the port is 1 to 65535. errc::usage.
core::result<endpoint> parse_endpoint(std::string_view text, std::uint16_t port_if_absent = default_port);
/// The same for an address to listen on: port 0 picks a free one, and :PORT or *:PORT (host "") is every address.
core::result<endpoint> parse_listen_endpoint(std::string_view text);
/// Whether `host` is an IPv4 or IPv6 literal, without brackets or zone.
bool is_address(std::string_view host);
/// Whether `host` is a literal or could be a DNS name: labels of 1 to 63
/// letters, digits, '-' and '_', 253 characters in all, the last label not a number.
bool is_host(std::string_view host);
/// Whether a run may have this name: [A-Za-z0-9._-]{1,64}.
bool is_run_name(std::string_view name);

}  // namespace longhaul::net

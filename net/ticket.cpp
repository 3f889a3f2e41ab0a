#include "net/ticket.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

#include "net/printable.hpp"

namespace longhaul::net {

namespace {

constexpr std::string_view scheme = "longhaul://";
constexpr std::string_view ticket_example = "longhaul://192.0.2.1:7400/my-run#KEY";
constexpr std::size_t max_ticket_text = 8192;
constexpr std::size_t open_key_bytes = 32;
constexpr std::size_t invite_key_bytes = 96;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alphanumeric(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// As an error may quote it.
std::string quoted(std::string_view text) { return "'" + to_printable_utf8(text, 80) + "'"; }

bool is_literal(int family, std::string_view host) {
    std::array<unsigned char, sizeof(in6_addr)> address{};
    return host.size() < INET6_ADDRSTRLEN && host.find('\0') == std::string_view::npos &&
           inet_pton(family, std::string(host).c_str(), address.data()) == 1;
}

bool is_label(std::string_view label) {
    return !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
           std::ranges::all_of(label, [](char c) { return is_alphanumeric(c) || c == '-' || c == '_'; });
}

core::result<std::uint16_t> parse_port(std::string_view text, std::uint16_t smallest, std::string_view whole) {
    std::uint16_t port = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (text.empty() || code != std::errc{} || end != text.data() + text.size() || port < smallest) {
        return core::fail(core::errc::usage, "the port of {} is not a number from {} to 65535; example: 192.0.2.1:7400",
                          quoted(whole), smallest);
    }
    return port;
}

/// Splits "HOST[:PORT]"; the port text is absent when there is no colon after the host.
struct host_and_port {
    std::string_view host;
    std::optional<std::string_view> port;
};
core::result<host_and_port> split(std::string_view text) {
    if (text.starts_with('[')) {
        const auto close = text.find(']');
        const auto host = text.substr(1, close == std::string_view::npos ? close : close - 1);
        if (close == std::string_view::npos || !is_literal(AF_INET6, host)) {
            return core::fail(core::errc::usage, "{} has no IPv6 address in its brackets; example: [2001:db8::1]:7400",
                              quoted(text));
        }
        const auto rest = text.substr(close + 1);
        if (rest.empty()) return host_and_port{host, std::nullopt};
        if (!rest.starts_with(':')) {
            return core::fail(core::errc::usage, "{} goes on after ']' without ':'; example: [2001:db8::1]:7400",
                              quoted(text));
        }
        return host_and_port{host, rest.substr(1)};
    }
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) return host_and_port{text, std::nullopt};
    if (text.find(':', colon + 1) != std::string_view::npos) {
        return core::fail(core::errc::usage, "{} has several colons: an IPv6 address needs brackets, as in [::1]:7400",
                          quoted(text));
    }
    return host_and_port{text.substr(0, colon), text.substr(colon + 1)};
}

core::result<void> check_host(std::string_view host, std::string_view whole) {
    if (is_host(host)) return core::ok();
    return core::fail(core::errc::usage,
                      "{} does not name a host: give an IPv4 address, an IPv6 address in brackets or a DNS name; "
                      "example: node1.example.org:7400",
                      quoted(whole));
}

core::result<ticket_key> parse_key(std::string_view text) {
    const auto bytes = core::from_base64url(text, invite_key_bytes);
    if (!bytes || (bytes->size() != open_key_bytes && bytes->size() != invite_key_bytes)) {
        return core::fail(core::errc::usage,
                          "the ticket's key, after '#', is not 43 or 128 characters of A-Z a-z 0-9 - _ (it has {}): "
                          "copy the whole ticket that the founder's node printed; example: {}",
                          text.size(), ticket_example);
    }
    core::byte_reader in(*bytes);
    ticket_key key;
    LONGHAUL_TRY(in.copy_to(key.run.bytes));
    if (in.remaining() > 0) {
        LONGHAUL_TRY(in.copy_to(key.secret.emplace().bytes));
        LONGHAUL_TRY(in.copy_to(key.token.emplace().bytes));
    }
    return key;
}

}  // namespace

std::string ticket::text() const {
    LONGHAUL_ENSURE(!addresses.empty(), "a ticket has an address");
    if (!key) return addresses.front().text();
    LONGHAUL_ENSURE(key->secret.has_value() == key->token.has_value(), "a secret and a token come together");
    std::string out(scheme);
    for (std::size_t i = 0; i < addresses.size(); ++i) out += (i == 0 ? "" : ",") + addresses[i].text();
    core::byte_writer bytes;
    bytes.raw(key->run.bytes);
    if (key->secret) bytes.raw(key->secret->bytes).raw(key->token->bytes);
    return out + "/" + name + "#" + core::to_base64url(bytes.bytes());
}

core::result<ticket> parse_ticket(std::string_view text) {
    if (text.size() > max_ticket_text) {
        return core::fail(core::errc::usage, "a ticket has at most {} characters, this has {}; example: {}",
                          max_ticket_text, text.size(), ticket_example);
    }
    ticket t;
    if (!text.starts_with(scheme)) {
        if (text.find("://") != std::string_view::npos || text.find_first_of("/#,") != std::string_view::npos) {
            return core::fail(core::errc::usage,
                              "a ticket starts with {}, and without it only one HOST[:PORT] may stand; examples: {} or "
                              "192.0.2.1:7400",
                              scheme, ticket_example);
        }
        LONGHAUL_TRY_ASSIGN(auto only, parse_endpoint(text));
        t.addresses.push_back(std::move(only));
        return t;
    }
    text.remove_prefix(scheme.size());
    const auto hash = text.find('#');
    if (hash == std::string_view::npos) {
        return core::fail(core::errc::usage,
                          "the ticket has no key after '#' (a shell takes an unquoted '#' for a comment: quote the "
                          "ticket); example: '{}'",
                          ticket_example);
    }
    const auto before_key = text.substr(0, hash);
    const auto slash = before_key.find('/');
    if (slash == std::string_view::npos || !is_run_name(before_key.substr(slash + 1))) {
        return core::fail(core::errc::usage,
                          "the ticket has no run name between '/' and '#' of 1 to {} characters A-Z a-z 0-9 . _ -; "
                          "example: {}",
                          max_run_name, ticket_example);
    }
    t.name = before_key.substr(slash + 1);
    auto addresses = before_key.substr(0, slash);
    for (bool more = true; more;) {
        if (t.addresses.size() == max_ticket_addresses) {
            return core::fail(core::errc::usage, "a ticket has at most {} addresses; example: {}", max_ticket_addresses,
                              ticket_example);
        }
        const auto comma = addresses.find(',');
        LONGHAUL_TRY_ASSIGN(auto at, parse_endpoint(addresses.substr(0, comma)));
        t.addresses.push_back(std::move(at));
        more = comma != std::string_view::npos;
        if (more) addresses.remove_prefix(comma + 1);
    }
    LONGHAUL_TRY_ASSIGN(t.key, parse_key(text.substr(hash + 1)));
    return t;
}

core::result<endpoint> parse_endpoint(std::string_view text, std::uint16_t port_if_absent) {
    LONGHAUL_TRY_ASSIGN(const auto parts, split(text));
    LONGHAUL_TRY(check_host(parts.host, text));
    endpoint at{std::string(parts.host), port_if_absent};
    if (parts.port) {
        LONGHAUL_TRY_ASSIGN(at.port, parse_port(*parts.port, 1, text));
    }
    return at;
}

core::result<endpoint> parse_listen_endpoint(std::string_view text) {
    LONGHAUL_TRY_ASSIGN(const auto parts, split(text));
    const bool everywhere = parts.host == "*" || (parts.host.empty() && parts.port);
    if (!everywhere) LONGHAUL_TRY(check_host(parts.host, text));
    endpoint at{everywhere ? std::string{} : std::string(parts.host), default_port};
    if (parts.port) {
        LONGHAUL_TRY_ASSIGN(at.port, parse_port(*parts.port, 0, text));
    }
    return at;
}

bool is_address(std::string_view host) { return is_literal(AF_INET, host) || is_literal(AF_INET6, host); }

bool is_host(std::string_view host) {
    if (is_address(host)) return true;
    if (host.empty() || host.size() > 253) return false;
    for (auto rest = host;;) {
        const auto dot = rest.find('.');
        const auto label = rest.substr(0, dot);
        if (!is_label(label)) return false;
        // A name that ends in a number is a mistyped IPv4 address.
        if (dot == std::string_view::npos) return !std::ranges::all_of(label, is_digit);
        rest.remove_prefix(dot + 1);
    }
}

bool is_run_name(std::string_view name) {
    return !name.empty() && name.size() <= max_run_name &&
           std::ranges::all_of(name, [](char c) { return is_alphanumeric(c) || c == '.' || c == '_' || c == '-'; });
}

}  // namespace longhaul::net

/// Any text as a ticket or an address: refused with one printable sentence, or printed to a text that parses to the
/// same.
#include "net/ticket.hpp"

#include "net/printable.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

FUZZ_TARGET(ticket) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto parsed = net::parse_ticket(text);
    if (parsed) {
        FUZZ_CHECK(!parsed->addresses.empty() && parsed->addresses.size() <= net::max_ticket_addresses);
        FUZZ_CHECK(net::parse_ticket(parsed->text()) == *parsed);
    } else {
        FUZZ_CHECK(parsed.error().code == core::errc::usage);
        FUZZ_CHECK(net::is_printable_utf8(parsed.error().message, 600));
    }
    for (const auto& at : {net::parse_endpoint(text), net::parse_listen_endpoint(text)}) {
        if (!at) {
            FUZZ_CHECK(net::is_printable_utf8(at.error().message, 600));
        } else if (!at->host.empty()) {
            FUZZ_CHECK(net::is_host(at->host));
            FUZZ_CHECK(net::parse_listen_endpoint(at->text()) == *at);
        }
    }
}

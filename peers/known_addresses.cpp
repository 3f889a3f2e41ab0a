#include "peers/known_addresses.hpp"

#include "net/ticket.hpp"

namespace longhaul::peers {

namespace {

constexpr const char* path = "run/addresses";
constexpr std::uint64_t max_known_bytes = 64 * 1024;
constexpr std::size_t addresses_per_member = 2;

}  // namespace

std::vector<net::endpoint> member_addresses(const ledger& run, const net::peer_key& self) {
    std::vector<net::endpoint> known;
    for (const auto& [number, m] : run.members()) {
        if (!m.present || m.revoked || m.admitted.key == self) continue;
        const auto count = std::min(m.admitted.addresses.size(), addresses_per_member);
        for (std::size_t i = 0; i < count && known.size() < max_known_addresses; ++i) {
            known.push_back(m.admitted.addresses[i]);
        }
    }
    return known;
}

core::task<core::result<std::vector<net::endpoint>>> load_known_addresses(core::storage& storage) {
    std::vector<net::endpoint> known;
    auto bytes = co_await storage.read(path, max_known_bytes);
    if (!bytes && bytes.error().code == core::errc::not_found) co_return known;
    LONGHAUL_CO_TRY(bytes);
    auto rest = core::as_text(*bytes);
    while (!rest.empty() && known.size() < max_known_addresses) {
        const auto end = std::min(rest.find('\n'), rest.size());
        if (auto address = net::parse_endpoint(rest.substr(0, end))) known.push_back(std::move(*address));
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    co_return known;
}

core::task<core::result<void>> save_known_addresses(core::storage& storage, std::vector<net::endpoint> addresses) {
    std::string text;
    for (const auto& a : addresses) text += a.text() + "\n";
    co_return co_await core::put_bytes(storage, path, core::byte_writer().raw(core::as_bytes(text)).take());
}

}  // namespace longhaul::peers

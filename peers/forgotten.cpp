/// A voter whose disk is refused has forgotten what it agreed to, and could agree to something else: it never votes
/// again. The machine goes on as another node, with an identity of its own, and gets the log and the state from the
/// others.

#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

constexpr std::string_view former_file = "run/former";
constexpr std::size_t max_former = 1024;

core::task<core::result<std::vector<net::peer_key>>> load_former(core::storage& storage) {
    std::vector<net::peer_key> keys;
    auto bytes = co_await storage.read(std::string(former_file), max_former * sizeof(net::peer_key));
    if (!bytes && bytes.error().code == errc::not_found) co_return keys;
    LONGHAUL_CO_TRY(bytes);
    core::byte_reader in(*bytes);
    while (in.remaining() > 0) {
        net::peer_key key;
        LONGHAUL_CO_TRY(in.copy_to(key.bytes));
        keys.push_back(key);
    }
    co_return keys;
}

core::task<core::result<void>> note_former(core::storage& storage, const net::peer_key& key) {
    auto keys = co_await load_former(storage);
    LONGHAUL_CO_TRY(keys);
    if (keys->size() == max_former) co_return fail(errc::limit, "this node has lost its log {} times", max_former);
    core::byte_writer out;
    for (const auto& k : *keys) out.raw(k.bytes);
    out.raw(key.bytes);
    co_return co_await core::put_bytes(storage, std::string(former_file), out.take());
}

}  // namespace

bool knows_others(const node& n) { return n.options.join || !n.known_addresses.empty(); }

core::task<core::result<net::identity>> become_another(node& n, const core::error& why) {
    // The founder of an open run could not be replaced: nobody else may order its records.
    const bool irreplaceable = n.options.found && !n.secrets.token;
    if (!n.run || !knows_others(n) || irreplaceable) {
        co_return fail(
            errc::config,
            "{}: this node cannot vote with it any more, and {}; restore the folder 'raft' from a copy, or "
            "begin a new run in another --state-dir",
            why.message,
            irreplaceable ? "nobody else may order the records of an open run" : "knows no other member to go on with");
    }
    auto noted = co_await note_former(n.env.storage, n.self());
    LONGHAUL_CO_TRY(noted);
    const auto former = "former/" + n.self().hex();
    auto old = co_await core::put_bytes(n.env.storage, fmt::format("{}/{}", former, identity_file),
                                        n.options.self.serialize());
    LONGHAUL_CO_TRY(old);
    auto fresh = net::identity::generate(n.env.entropy);
    auto kept = co_await core::put_bytes(n.env.storage, identity_file, fresh.serialize());
    LONGHAUL_CO_TRY(kept);
    // Only now: without its log, and with the identity that had it, this node would vote as if it never had.
    auto names = co_await n.env.storage.list("");
    LONGHAUL_CO_TRY(names);
    for (auto name : *names) {
        if (!name.starts_with("raft") && name != "branch") continue;
        if (name.ends_with('/')) name.pop_back();
        auto moved = co_await n.env.storage.rename(name, fmt::format("{}/{}", former, name));
        LONGHAUL_CO_TRY(moved);
    }
    core::event e("became_another");
    e.with("key", fresh.key().hex()).with("before", n.self().hex());
    e.with("reason", fmt::format("{}: it goes on as a new node", why.message));
    n.emit(std::move(e));
    co_return fresh;
}

core::task<core::result<bool>> was_founder(node& n) {
    if (!n.options.found || !n.run || n.run->manifest.founder == n.self()) co_return false;
    auto former = co_await load_former(n.env.storage);
    LONGHAUL_CO_TRY(former);
    co_return std::ranges::count(*former, n.run->manifest.founder) > 0;
}

void rejoin_own_run(node& n) {
    joining as;
    as.ticket.addresses = n.known_addresses;
    as.ticket.name = n.config().name;
    as.ticket.key = net::ticket_key{n.run->run_id, n.secrets.psk, n.secrets.token};
    n.options.join = std::move(as);
    n.options.found.reset();
}

}  // namespace longhaul::peers

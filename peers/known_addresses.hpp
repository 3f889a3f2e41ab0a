#pragma once
/// Where the members of the run were last reached, kept for the next start (DESIGN §4): a ticket names a few of them,
/// and those may be gone by then.

#include <vector>

#include "core/storage.hpp"
#include "core/task.hpp"
#include "net/stream.hpp"
#include "peers/ledger.hpp"

namespace longhaul::peers {

/// As many addresses are kept.
inline constexpr std::size_t max_known_addresses = 64;

/// The addresses of the other present members, in order of their numbers; two a member at most.
std::vector<net::endpoint> member_addresses(const ledger& run, const net::peer_key& self);

/// What the file `run/addresses` holds, one address a line; empty when there is none. A line that is no address is
/// skipped: the file is a help, not a condition.
core::task<core::result<std::vector<net::endpoint>>> load_known_addresses(core::storage& storage);
core::task<core::result<void>> save_known_addresses(core::storage& storage, std::vector<net::endpoint> addresses);

}  // namespace longhaul::peers

#pragma once
/// Something large in chunks of values, from several donors at once: each chunk travels packed (compress/planes) and is
/// checked when it arrives. A donor that dies or lies costs the pieces that it had under way.

#include <functional>
#include <set>
#include <string>

#include "core/task.hpp"
#include "net/identity.hpp"
#include "peers/download_plan.hpp"
#include "peers/messages.hpp"

namespace longhaul::peers {

struct node;
struct linked_peer;

/// Who may hold it now, the best first; asked again and again, so that donors may come and go while it lasts.
using donors_question = std::function<std::vector<std::shared_ptr<linked_peer>>()>;

/// What is drawn, and where it goes.
struct chunked {
    std::string name;               ///< for people: "the state of round 7"
    fetch_message what;             ///< of chunks; which ones is filled in
    std::uint32_t chunks = 0;       ///< at least 1
    std::uint64_t chunk_bytes = 0;  ///< of the longest
    donors_question donors;
    std::function<core::mutable_bytes(std::uint32_t)> place;     ///< of chunk i; must outlive the download
    std::function<bool(std::uint32_t, core::const_bytes)> fits;  ///< whether these are its bytes; CPU work
    /// Whether a donor has said that it holds exactly this, so that other bytes are a lie and not another state.
    std::function<bool(const net::peer_key&)> promised;
};

struct downloaded {
    std::set<net::peer_key> donors;  ///< who brought something
    std::uint64_t wire_bytes = 0;    ///< of the pieces that were used, as they came
};

/// When nobody has been left for a while: why the last donor stopped (errc::not_found: nobody holds it). Who sends what
/// does not fit is named in an event, and cut off if it had promised it.
core::task<core::result<downloaded>> download(node& n, chunked wanted);

}  // namespace longhaul::peers

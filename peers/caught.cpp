#include "peers/caught.hpp"

#include <algorithm>

namespace longhaul::peers {

core::duration caught_peers::note(const net::peer_key& who, core::time_point now) {
    if (terms_.size() >= most && !terms_.contains(who)) {
        terms_.erase(std::ranges::min_element(terms_, {}, [](const auto& entry) { return entry.second.until; }));
    }
    auto& t = terms_[who];
    if (now < t.until) return t.until - now;  // what it had sent before it was cut off
    t.length = now > t.until + forgiven ? first : std::clamp<core::duration>(2 * t.length, first, longest);
    t.until = now + t.length;
    return t.length;
}

std::optional<core::duration> caught_peers::refused(const net::peer_key& who, core::time_point now) const {
    const auto found = terms_.find(who);
    if (found == terms_.end() || now >= found->second.until) return std::nullopt;
    return found->second.until - now;
}

}  // namespace longhaul::peers

#pragma once
/// Peers that were seen to send what cannot be true, which only a liar or a broken machine does: nobody links with them
/// for a while, longer each time, so that what they do next costs nobody a round. Pure.

#include <map>
#include <optional>

#include "core/clock.hpp"
#include "net/identity.hpp"

namespace longhaul::peers {

class caught_peers {
public:
    /// The first time is shorter than any run's patience without a coordinator, and the longest than that of a node
    /// that waits for others: a machine that computes wrong once costs no generation, and its victims never give up.
    static constexpr core::duration first = std::chrono::seconds(8), longest = std::chrono::minutes(5);
    static constexpr core::duration forgiven = std::chrono::hours(1);  ///< after so long without a lie it begins anew
    /// Remembered at once; then the one that is free first is forgotten.
    static constexpr std::size_t most = 1024;

    /// It was caught. How long it is refused now: twice as long as the last time, unless that was `forgiven`.
    core::duration note(const net::peer_key& who, core::time_point now);
    /// For how long it is refused yet; nothing: it is not.
    std::optional<core::duration> refused(const net::peer_key& who, core::time_point now) const;

private:
    struct term {
        core::duration length{};
        core::time_point until{};
    };
    std::map<net::peer_key, term> terms_;
};

}  // namespace longhaul::peers

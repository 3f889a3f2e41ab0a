#pragma once
/// Who has been silent for so long that a round goes on without it, although its connections stand: a process that was
/// stopped, a machine that hangs. Whoever is suspect is not dead: it takes part again as soon as it is heard. Pure.

#include <cstdint>
#include <map>

#include "core/clock.hpp"
#include "net/identity.hpp"

namespace longhaul::peers {

class suspicion {
public:
    /// How often to look. A look that comes much later than that says that this node itself was held up: then what the
    /// others said is still to be read, and their silence counts anew.
    static constexpr core::duration interval = std::chrono::milliseconds(250);

    /// To be called before the looks at the peers.
    void look_at(core::time_point now);
    /// For how long nothing came from `who`, of whom `received` bytes came so far, of whatever kind: a slow line is not
    /// a dead peer while its bytes come.
    core::duration silence_of(const net::peer_key& who, std::uint64_t received);
    /// It need not say anything for now: its silence counts from later on.
    void excuse(const net::peer_key& who) { heard_.erase(who); }

    /// How long a peer may say nothing: a share of the time after which its connections are given up, and the time that
    /// its answers take at worst; more in a round that has gone on for long already, since more would have to be sent
    /// again. Never more than that limit.
    static core::duration patience(core::duration silence_limit, core::duration rtt_worst, core::duration round_so_far);

private:
    struct heard {
        std::uint64_t received = 0;
        core::time_point at;
    };
    std::map<net::peer_key, heard> heard_;
    core::time_point now_{};
};

}  // namespace longhaul::peers

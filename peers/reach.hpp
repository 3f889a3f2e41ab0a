#pragma once
/// Whether others can connect to this node: a firewall or a translating router lets its own connections out and nobody
/// in, and it cannot see that by itself. So it asks a few members to connect back, and looks who did so unasked.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.hpp"
#include "net/identity.hpp"
#include "peers/messages.hpp"

namespace longhaul::peers {

/// Members that are asked, and how often each is asked again: addresses and firewalls change.
inline constexpr std::size_t max_reach_witnesses = 3;
inline constexpr auto reach_asked_again = std::chrono::minutes(10);

/// What one member says.
struct reach_witness {
    std::string name;
    core::time_point asked{};
    std::optional<reach_reply> reply;  ///< the last one
    bool waiting = true;               ///< for an answer to the last question
};

/// What this node knows of its own reach.
struct reach_knowledge {
    std::vector<net::endpoint> advertised;
    std::map<net::peer_key, reach_witness> witnesses;
    std::string connected_by;  ///< the last peer whose connection came in; empty: none ever did
    std::optional<bool> told;  ///< the verdict of the last event
};

struct reach_verdict {
    std::optional<bool> reachable;  ///< empty: nobody has tried
    std::string seen;
    std::string advice;  ///< what to do; empty: nothing
};

reach_verdict judge_reach(const reach_knowledge& known, std::uint16_t port);

/// Notes that a member is asked. What it said before counts until it answers, or has been asked twice in vain.
void ask_witness(reach_knowledge& known, const net::peer_key& whom, const std::string& name, core::time_point now);
/// Notes what a witness says. False: it was not asked, or has answered.
bool hear_witness(reach_knowledge& known, const net::peer_key& from, reach_reply m);

}  // namespace longhaul::peers

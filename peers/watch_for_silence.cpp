/// A connection that stays open says nothing about whoever is behind it: members are watched for silence.

#include <set>

#include "peers/node.hpp"
#include "peers/suspicion.hpp"

namespace longhaul::peers {

using namespace std::chrono_literals;

namespace {

/// A linked peer says nothing any more: the open round goes on without it, and so does the log.
void fell_silent(node& n, const net::link& link) {
    const auto& who = link.remote();
    n.log->silent(who.key, link.stats().rtt_last);
    const auto* member = n.led().find(who.key);
    if (!n.coordinator || member == nullptr) return;
    core::event e("peer_silent");
    e.with("peer", who.key.hex()).with("number", std::uint64_t{member->admitted.number}).with("name", who.name);
    n.emit(std::move(e));
    n.coordinator->gone(member->admitted.number);
    n.changed.notify();
}

/// Of any two, one that orders records is needed to notice a silence: the others would only know what they are told by
/// it anyway (DESIGN §5). Between them heartbeats are few, or their number would grow with that of all pairs.
bool is_watched(const node& n, const net::peer_key& who) {
    const auto& voters = n.led().voters();
    return !n.log_known || voters.votes(n.self()) || voters.votes(who);
}

}  // namespace

core::task<core::result<void>> watch_for_silence(node& n) {
    suspicion watch;
    std::set<net::peer_key> silent;
    std::uint64_t office = 0, round = 0;
    core::time_point opened{};
    for (;;) {
        auto slept = co_await n.env.clock.sleep_for(suspicion::interval);
        LONGHAUL_CO_TRY(slept);
        const auto now = n.env.clock.now();
        watch.look_at(now);
        // A new coordinator does not know yet of whom nothing comes.
        const bool took_office = std::exchange(office, n.office) != n.office;
        const auto open = n.led().open() ? n.led().open()->round : 0;
        if (std::exchange(round, open) != open) opened = now;
        // First looked at, then told: what the log does about it may change the links.
        std::vector<shared_linked> back, fallen;
        const auto limit = n.config().peers.silence_limit;
        for (const auto& [key, peer] : n.links) {
            const bool watched = is_watched(n, key);
            peer->link->beat_often(watched);
            if (!watched) {
                watch.excuse(key);
                if (silent.erase(key) > 0) back.push_back(peer);
                continue;
            }
            const auto silence = watch.silence_of(key, peer->link->wire().received);
            if (silence < suspicion::patience(limit, 0s, 0s)) {
                if (silent.erase(key) > 0) back.push_back(peer);
            } else if (is_member(n, key) && (took_office || !silent.contains(key)) &&
                       silence >= suspicion::patience(limit, peer->link->stats().rtt_p99, now - opened)) {
                silent.insert(key);
                fallen.push_back(peer);
            }
        }
        for (const auto& peer : back) {
            if (n.log_known && !is_elsewhere(n, *peer)) n.log->link_up(peer->link->remote().key);
        }
        for (const auto& peer : fallen) fell_silent(n, *peer->link);
    }
}

}  // namespace longhaul::peers

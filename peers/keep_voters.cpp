/// Who orders the run log: one, three or five members (DESIGN §5), replaced when they are gone.

#include <algorithm>

#include "peers/node.hpp"
#include "peers/voters.hpp"

namespace longhaul::peers {

using namespace std::chrono_literals;

namespace {

/// How often the voters are looked at, between two changes of them too (the log survives a death only when all are
/// made), and how long one that does not answer keeps its seat.
constexpr auto voters_look = 500ms, next_change = 20ms, hurry = 1000ms;
constexpr auto seat_kept = 10s;

}  // namespace

bool may_vote(const node& n, const net::peer_key& key) {
    if (key == n.run->manifest.founder) return true;
    if (!n.run->manifest.invite()) return false;
    const auto* m = n.led().find(key);
    // A node that knows nothing yet goes by the door: who dials shows the token there, and whom it dialled itself its
    // ticket or a member named.
    if (m == nullptr) return !n.log_known;
    return !m->revoked && m->admitted.token_hash == n.run->manifest.token_hash;
}

bool may_bring_log(const node& n, const net::peer_key& key) { return n.log_known || may_vote(n, key); }

core::task<core::result<void>> keep_voters(node& n) {
    std::map<net::peer_key, core::time_point> away;  ///< voters and others that do not answer, since when
    std::uint64_t office = 0;
    core::time_point hurry_until{};
    for (;;) {
        const auto leads = [&n] { return n.log->leads() && n.coordinator; };
        auto woken = co_await core::wait_until(n.changed, leads);
        LONGHAUL_CO_TRY(woken);
        auto slept = co_await n.env.clock.sleep_for(n.env.clock.now() < hurry_until ? next_change : voters_look);
        LONGHAUL_CO_TRY(slept);
        if (!leads() || n.leaving || n.finished) continue;
        if (std::exchange(office, n.office) != n.office) away.clear();
        const auto now = n.env.clock.now();
        const auto& voters = n.led().voters();
        std::vector<voter_candidate> candidates;
        for (const auto& [number, m] : n.led().members()) {
            const auto& key = m.admitted.key;
            if (!may_vote(n, key)) continue;
            const auto peer = n.find(key);
            if (peer || key == n.self()) {
                away.erase(key);
            } else {
                away.try_emplace(key, now);
            }
            // Those who order records talk to each other: who cannot reach the others is of no use among them.
            const auto reaches = [&](const net::peer_key& other) {
                const auto* o = n.led().find(other);
                return o == nullptr || n.coordinator->reach(number, o->admitted.number, now);
            };
            const bool fit = peer && peer->caught_up && !is_elsewhere(n, *peer) &&
                             std::ranges::all_of(voters.voters, reaches) &&
                             std::ranges::all_of(voters.learners, reaches);
            const bool gone = !m.present || m.revoked || (away.contains(key) && now >= away[key] + seat_kept);
            candidates.push_back({key, fit, gone});
        }
        const auto change = next_voter_change(voters, candidates, n.self());
        // It may have to wait for the change before, to be committed or to be seen here, or for a standby that is not
        // caught up yet.
        if (change && n.log->change(*change)) hurry_until = now + hurry;
    }
}

}  // namespace longhaul::peers

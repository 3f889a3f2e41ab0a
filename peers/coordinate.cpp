#include <algorithm>

#include "core/hash.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

/// How long a restarted coordinator waits for peers that may hold a newer state than its own checkpoint.
constexpr auto recovery_wait = 20s;
constexpr int max_admission_tries = 16;

std::string event_name_of(const record& r) {
    if (std::holds_alternative<round_record>(r)) return "ROUND";
    if (std::holds_alternative<commit_record>(r)) return "COMMIT";
    return "record";
}

}  // namespace

core::task<core::result<void>> coordinate(node& n) {
    if (!n.coordinator) co_return core::ok();
    std::uint64_t reported_divergence = 0;
    while (!n.finished && !n.leaving) {
        const auto now = n.env.clock.now();
        if (n.wanted_phase && !n.led().open()) {
            record wanted = *n.wanted_phase;
            n.wanted_phase.reset();
            auto proposed = co_await n.log->propose(std::move(wanted));
            LONGHAUL_CO_TRY(proposed);
            continue;
        }
        auto decision = n.coordinator->decide(n.led(), now);
        if (decision.problem != n.waiting_for) {
            n.waiting_for = decision.problem;
            core::event e("waiting");
            e.with("round", n.led().committed() + 1).with("reason", n.waiting_for);
            if (!n.waiting_for.empty()) n.emit(std::move(e));
        }
        if (n.led().open() && reported_divergence != n.led().open()->round) {
            for (const auto who : n.coordinator->diverged()) {
                reported_divergence = n.led().open()->round;
                n.report(
                    core::error(errc::run_mismatch, fmt::format("peer {} holds another state than the majority", who)),
                    "comparing roots");
            }
        }
        if (decision.propose) {
            const auto what = event_name_of(*decision.propose);
            if (const auto* r = std::get_if<round_record>(&*decision.propose); r != nullptr && r->attempt > 1) {
                core::event e("attempt_failed");
                e.with("round", r->round).with("attempt", std::uint64_t{r->attempt - 1}).with("reason", r->reason);
                n.emit(std::move(e));
            }
            const auto committed = n.led().committed();
            const auto attempt = n.led().open() ? n.led().open()->attempt : 0;
            auto proposed = co_await n.log->propose(std::move(*decision.propose));
            if (!proposed) co_return fail(proposed.error().within(fmt::format("proposing {}", what)));
            // The ledger has the last word. What it ignored would be decided again, for ever.
            if (n.led().committed() == committed && (n.led().open() ? n.led().open()->attempt : 0) == attempt) {
                co_return fail(errc::internal, "the log ignored a {} after round {} that its own coordinator proposed",
                               what, committed);
            }
            continue;
        }
        const auto wake = decision.wake_at.value_or(now + 10s);
        auto woken = co_await n.changed.wait(n.env.clock, wake);
        if (!woken && woken.error().code != errc::timeout) co_return woken;
    }
    co_return core::ok();
}

namespace {

/// A present member that died without a goodbye and has not come back.
std::optional<peer_number> who_is_away(const node& n) {
    for (const auto& [number, m] : n.led().members()) {
        const bool here =
            number == n.number || n.find(m.admitted.key) || (n.coordinator && n.coordinator->knows(number));
        if (m.present && !here) return number;
    }
    return std::nullopt;
}

}  // namespace

core::task<core::result<void>> admit(node& n, net::peer_key who, join_request request) {
    const auto peer = n.find(who);
    if (!peer) co_return core::ok();
    join_reply reply;
    admit_record r;
    r.key = who;
    r.name = request.name;
    r.addresses = std::move(request.addresses);
    // Behind a wildcard address, the address that we see is the one that works.
    for (auto& a : r.addresses) {
        if (a.host == "0.0.0.0" || a.host == "::") a.host = peer->link->remote().observed.host;
    }
    if (const auto& token = peer->link->remote().token) r.token_hash = core::hash(token->bytes);
    // While one record is written, another peer may take the number that this one would have got: look again.
    for (int tries = 0; tries < max_admission_tries; ++tries) {
        const auto* known = n.led().find(who);
        if (known != nullptr && known->revoked) {
            reply.reason = "this key was revoked from the run";
            break;
        }
        const auto present = std::ranges::count_if(n.led().members(), [](const auto& m) { return m.second.present; });
        if (known == nullptr && present >= n.config().peers.max) {
            if (const auto away = who_is_away(n)) {
                // Its key stays known: it is admitted again when it comes back, also beyond the limit.
                depart_record gives_way;
                gives_way.number = *away;
                gives_way.reason = "away while another peer wanted its place";
                auto departed = co_await n.log->propose(std::move(gives_way));
                LONGHAUL_CO_TRY(departed);
                continue;
            }
            reply.reason =
                fmt::format("the run is full: {} peers are present and peers.max is {}", present, n.config().peers.max);
            break;
        }
        r.number = known != nullptr ? known->admitted.number : n.led().next_number();
        // Whoever asks again with nothing new does not grow the log.
        reply.admitted = known != nullptr && known->present && known->admitted == r;
        if (reply.admitted) break;
        auto proposed = co_await n.log->propose(r);
        LONGHAUL_CO_TRY(proposed);
    }
    peer->admitting = false;
    if (!reply.admitted) {
        if (reply.reason.empty()) reply.reason = "too many peers join at the same time: try again";
        n.send(who, reply);
        co_return core::ok();
    }
    // It asks once in its life: what an earlier process of that node held is gone.
    if (n.coordinator) n.coordinator->restarted(r.number);
    core::event e("joined");
    e.with("peer", who.hex()).with("number", std::uint64_t{r.number}).with("name", r.name);
    n.emit(std::move(e));
    n.send(who, reply);
    if (peer->caught_up && n.coordinator) n.coordinator->caught_up(r.number, peer->generation, peer->applied);
    n.changed.notify();
    co_return core::ok();
}

void answer_early_joiners(node& n) {
    for (const auto& [key, peer] : n.links) {
        if (!peer->wants_to_join) continue;
        const auto request = *std::exchange(peer->wants_to_join, std::nullopt);
        if (n.log->leads()) {
            n.tasks.spawn_isolated("admission", admit(n, key, request));
            continue;
        }
        join_reply reply;
        reply.coordinator_key = n.log->leader();
        if (const auto* c = n.led().find(reply.coordinator_key)) reply.coordinator = c->admitted.addresses;
        n.send(key, reply);
    }
}

namespace {

/// Whether the log allows `s` to be the state that a new generation starts from.
bool is_of_this_log(const ledger& l, const model_state& s) {
    if (s.generation != l.generation() || s.round > l.committed()) return false;
    const auto* next = l.commit_of(s.round + 1);
    return next == nullptr || next->commit.state_root == s.root;
}

/// The newest state that linked peers hold and that is newer than `ours`.
core::task<core::result<shared_state>> newest_state_of_others(node& n, shared_state ours) {
    std::vector<shared_linked> holders;
    for (const auto& [key, peer] : n.links) {
        const bool newer = !ours || peer->applied > ours->round;
        if (peer->caught_up && peer->generation == n.led().generation() && newer) holders.push_back(peer);
    }
    std::ranges::stable_sort(holders, std::greater(), [](const shared_linked& p) { return p->applied; });
    for (const auto& holder : holders) {
        fetch_message what;
        what.kind = fetch_kind::state;
        what.generation = n.led().generation();
        auto bytes = co_await fetch(n, holder, what, state_bytes(n.tensors()));
        if (!bytes && bytes.error().code == errc::cancelled) co_return fail(bytes.error());
        if (!bytes) continue;
        core::result<shared_state> parsed = fail(errc::internal, "nothing was parsed");
        const auto job = [&] { parsed = parse_state(n.tensors(), *bytes); };
        auto ran = co_await n.env.workers.run(job, 0s);
        LONGHAUL_CO_TRY(ran);
        if (parsed && is_of_this_log(n.led(), **parsed) && (!ours || (*parsed)->round > ours->round)) co_return *parsed;
    }
    co_return ours;
}

}  // namespace

core::task<core::result<void>> recover_generation(node& n) {
    const auto holds_newest = [&n](std::uint64_t generation, std::uint64_t round) {
        return generation == n.led().generation() && round >= n.led().committed();
    };
    if (n.state && holds_newest(n.state->generation, n.state->round)) co_return core::ok();
    const bool alone = n.led().members().size() < 2;
    const auto found = [&n, &holds_newest] {
        return std::ranges::any_of(n.links, [&](const auto& entry) {
            return entry.second->caught_up && holds_newest(entry.second->generation, entry.second->applied);
        });
    };
    auto met = co_await core::wait_until(n.changed, found, n.env.clock,
                                         n.env.clock.now() + (alone ? core::duration(0) : recovery_wait));
    if (met) co_return core::ok();  // the member's own catch-up takes it from there
    if (met.error().code != errc::timeout) co_return met;
    // Nobody who is back holds the last commit: go on from the newest state that is left.
    auto newest = co_await newest_state_of_others(n, n.state);
    LONGHAUL_CO_TRY(newest);
    const auto best = *newest;
    if (!best) {
        co_return fail(errc::quorum_lost,
                       "no checkpoint of this run can be read and no peer holds its state: restore one of the "
                       "checkpoints folder from a copy, or found a new run");
    }
    generation_record g;
    g.generation = n.led().generation() + 1;
    g.round = best->round;
    g.position = best->position;
    g.tokens = best->tokens;
    g.state_root = best->root;
    g.reason = fmt::format("round {} is the newest state left of {} committed", best->round, n.led().committed());
    core::event e("generation");
    e.with("generation", g.generation).with("round", g.round).with("lost_rounds", n.led().committed() - g.round);
    n.emit(std::move(e));
    n.state = best;
    auto proposed = co_await n.log->propose(std::move(g));
    co_return proposed;
}

}  // namespace longhaul::peers

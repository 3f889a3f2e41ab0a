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
            auto proposed = co_await n.log->propose(std::move(*decision.propose));
            if (!proposed) co_return fail(proposed.error().within(fmt::format("proposing {}", what)));
            continue;
        }
        const auto wake = decision.wake_at.value_or(now + 10s);
        auto woken = co_await core::race(n.changed.wait(), n.env.clock.sleep_until(wake));
        const auto& outcome = woken.index() == 0 ? std::get<0>(woken) : std::get<1>(woken);
        LONGHAUL_CO_TRY(outcome);
    }
    co_return core::ok();
}

core::task<core::result<void>> admit(node& n, net::peer_key who, join_request request) {
    const auto refuse = [&](std::string why) {
        join_reply reply;
        reply.reason = std::move(why);
        n.send(who, reply);
    };
    const auto peer = n.find(who);
    if (!peer) co_return core::ok();
    admit_record r;
    r.key = who;
    r.name = request.name;
    r.addresses = std::move(request.addresses);
    // Behind a wildcard address or a name of its own network, the address that we see is the one that works.
    for (auto& a : r.addresses) {
        if (a.host == "0.0.0.0" || a.host == "::" || a.host.empty()) a.host = peer->link->remote().observed.host;
    }
    if (const auto& token = peer->link->remote().token) r.token_hash = core::hash(token->bytes);
    if (const auto* known = n.led().find(who)) {
        if (known->revoked) {
            refuse("this key was revoked from the run");
            co_return core::ok();
        }
        r.number = known->admitted.number;
    } else {
        const auto present = std::ranges::count_if(n.led().members(), [](const auto& m) { return m.second.present; });
        if (present >= n.config().peers.max) {
            refuse(fmt::format("the run is full: {} peers are present and peers.max is {}", present,
                               n.config().peers.max));
            co_return core::ok();
        }
        r.number = n.led().next_number();
    }
    const auto number = r.number;
    if (n.coordinator) n.coordinator->restarted(number);
    // Whoever asks again and again with nothing new does not grow the log.
    const auto* known = n.led().find(number);
    if (known == nullptr || !known->present || known->admitted != r) {
        auto proposed = co_await n.log->propose(std::move(r));
        LONGHAUL_CO_TRY(proposed);
    }
    core::event e("joined");
    e.with("peer", who.hex()).with("number", std::uint64_t{number}).with("name", request.name);
    n.emit(std::move(e));
    join_reply reply;
    reply.admitted = true;
    n.send(who, reply);
    if (peer->caught_up && n.coordinator) n.coordinator->caught_up(number, peer->generation, peer->applied);
    n.changed.notify();
    co_return core::ok();
}

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
    auto met = co_await core::with_deadline(n.env.clock, core::wait_until(n.changed, found),
                                            n.env.clock.now() + (alone ? core::duration(0) : recovery_wait));
    if (met) co_return core::ok();  // the member's own catch-up takes it from there
    if (met.error().code != errc::timeout) co_return met;
    // Nobody who is back holds the last commit: go on from the newest state that is left.
    shared_state best = n.state;
    const auto key_of_best = [&]() -> shared_linked {
        shared_linked at;
        std::uint64_t round = best ? best->round : 0;
        for (const auto& [key, peer] : n.links) {
            if (!peer->caught_up || peer->generation != n.led().generation()) continue;
            if (peer->applied > round || (!best && !at)) {
                at = peer;
                round = peer->applied;
            }
        }
        return at;
    };
    if (const auto donor = key_of_best()) {
        fetch_message what;
        what.kind = fetch_kind::state;
        what.generation = n.led().generation();
        auto bytes = co_await fetch(n, donor, what, state_bytes(n.tensors()));
        if (bytes) {
            auto parsed = parse_state(n.tensors(), *bytes);
            if (parsed && (!best || (*parsed)->round > best->round)) best = *parsed;
        }
    }
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

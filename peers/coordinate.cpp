/// What the run log's leader does for the rounds (DESIGN §5): it decides, and after a restart of everybody it finds the
/// newest state that is left.

#include <algorithm>

#include "peers/node.hpp"
#include "peers/state_download.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

/// How long a restarted coordinator waits for peers that may hold a newer state than its own checkpoint.
constexpr auto recovery_wait = 20s;
/// How long after a restart the members of an open round have to come back.
constexpr auto return_deadline = 20s;
/// How long one that orders records alone looks for the others.
constexpr auto first_look = 5s;

std::string event_name_of(const record& r) {
    if (std::holds_alternative<round_record>(r)) return "ROUND";
    if (std::holds_alternative<commit_record>(r)) return "COMMIT";
    return "record";
}

std::string name_of(const optim::weighed_plan& w) {
    const auto late = w.plan.staleness > 0 ? fmt::format(" {} late", w.plan.staleness) : "";
    return fmt::format("{} {}{}", w.plan.inner_steps, w.plan.codec, w.plan.delay > 0 ? " late" : late);
}

/// What the controller chose and from what.
void tell_decision(node& n, std::uint64_t round, const optim::plan_decision& d) {
    constexpr std::size_t shown = 5;
    std::string others;
    for (const auto& w : d.alternatives) {
        if (&w - d.alternatives.data() >= static_cast<std::ptrdiff_t>(shown)) break;
        others +=
            fmt::format("{}{}: {:.3g} s, {:.3g}", others.empty() ? "" : "; ", name_of(w), w.round_seconds, w.cost);
    }
    core::event e("decision");
    e.with("round", round).with("H", std::uint64_t{d.chosen.plan.inner_steps}).with("codec", d.chosen.plan.codec);
    e.with("tau_steps", d.chosen.plan.late_steps()).with("tau_rounds", std::uint64_t{d.chosen.plan.delay});
    e.with("predicted_seconds", d.chosen.round_seconds).with("exchange_seconds", d.chosen.exchange_seconds);
    e.with("cost", d.chosen.cost).with("reason", d.reason).with("cheapest", others);
    n.emit(std::move(e));
}

/// How the last prediction came out.
void tell_outcome(node& n, std::uint64_t& told) {
    const auto& o = n.coordinator->outcome();
    if (!o || o->round == told || !n.config().controller.enabled) return;
    told = o->round;
    core::event e("outcome");
    e.with("round", o->round).with("predicted_seconds", o->predicted_seconds).with("seconds", o->seconds);
    n.emit(std::move(e));
}

/// Who is a member of that round and does not contribute, because its last payloads did not arrive; when it changes.
void tell_sitting_out(node& n, const round_record& opened, std::set<peer_number>& told) {
    std::set<peer_number> out;
    for (const auto who : opened.members) {
        if (!n.coordinator->sits_out(who)) continue;
        out.insert(who);
        const auto* m = n.led().find(who);
        if (told.contains(who) || m == nullptr) continue;
        core::event e("sits_out");
        e.with("peer", m->admitted.key.hex()).with("name", m->admitted.name).with("round", opened.round);
        e.with("reason", "its payloads did not arrive in the last rounds that began with it");
        n.emit(std::move(e));
    }
    told = std::move(out);
}

/// Who held another sum than was committed: it lies, or its machine computes wrong.
void tell_dissent(node& n, std::uint64_t& told) {
    if (n.led().committed() == told) return;
    told = n.led().committed();
    for (const auto who : n.coordinator->dissenters()) {
        const auto sentence = fmt::format("peer {} held another sum than was committed", who);
        n.report(core::error(errc::run_mismatch, sentence), fmt::format("round {}", told));
    }
}

bool goes_on_elsewhere(const node& n) { return n.led().dissolved_into() || better_log(n).first; }

/// The last record of this log; then this node leaves it (keep_generation).
core::task<core::result<void>> dissolve(node& n, std::uint64_t office) {
    if (const auto [peer, why] = better_log(n); peer && !n.led().dissolved_into()) {
        dissolved_record r;
        r.into = peer->log_generation;
        r.reason = why;
        r.by = n.self();
        auto proposed = co_await n.log->propose(std::move(r));
        LONGHAUL_CO_TRY(proposed);
    }
    const auto left = [&n, office] { return n.log->office() != office || n.finished || n.leaving; };
    co_return co_await core::wait_until(n.changed, left);
}

/// Whether the state of the last commit, or a later one, is in anybody's hands.
bool somebody_holds_newest(const node& n) {
    const auto newest = [&n](std::uint64_t generation, std::uint64_t round) {
        return generation == n.led().generation() && round >= n.led().committed();
    };
    if (n.state && newest(n.state->generation, n.state->round)) return true;
    return std::ranges::any_of(n.links, [&](const auto& entry) {
        return entry.second->caught_up && newest(entry.second->generation, entry.second->applied);
    });
}

/// Proposes what the round coordinator decides, as long as this node leads and somebody can be a member.
core::task<core::result<void>> coordinate(node& n, std::uint64_t office) {
    std::uint64_t reported_divergence = 0, told_outcome = 0, told_dissent = n.led().committed();
    std::set<peer_number> told_out;
    while (!n.finished && !n.leaving && n.log->office() == office) {
        const auto now = n.env.clock.now();
        if (goes_on_elsewhere(n)) co_return co_await dissolve(n, office);
        if (!n.departed.empty()) {
            // Nobody dials a peer that said goodbye; it is admitted again when it comes back.
            const auto [key, reason] = *n.departed.begin();
            if (const auto* m = n.led().find(key); m != nullptr && m->present) {
                depart_record r;
                r.number = m->admitted.number;
                r.reason = reason.substr(0, max_reason);
                auto departed = co_await n.log->propose(std::move(r));
                LONGHAUL_CO_TRY(departed);
            }
            n.departed.erase(key);
            const auto* gone = n.led().find(key);
            if (const auto peer = n.find(key); gone != nullptr && peer && peer->said_leaving.empty()) {
                // Meanwhile it came back, and was told that it is admitted, as it still was then.
                auto admitted = co_await n.log->propose(gone->admitted);
                LONGHAUL_CO_TRY(admitted);
            }
            continue;
        }
        if (n.wanted_phase && !n.led().open()) {
            record wanted = *n.wanted_phase;
            n.wanted_phase.reset();
            auto proposed = co_await n.log->propose(std::move(wanted));
            LONGHAUL_CO_TRY(proposed);
            continue;
        }
        tell_outcome(n, told_outcome);
        tell_dissent(n, told_dissent);
        auto decision = n.coordinator->decide(n.led(), now);
        if (decision.stranded && !somebody_holds_newest(n)) co_return core::ok();
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
            const auto* opens = std::get_if<round_record>(&*decision.propose);
            if (opens != nullptr && opens->attempt == 1) tell_sitting_out(n, *opens, told_out);
            if (opens != nullptr && opens->attempt > 1) {
                core::event e("attempt_failed");
                e.with("round", opens->round).with("attempt", std::uint64_t{opens->attempt - 1});
                e.with("reason", opens->reason);
                n.emit(std::move(e));
            }
            if (decision.plan && decision.plan->changed) tell_decision(n, n.led().committed() + 1, *decision.plan);
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

/// The newest state that linked peers hold and that is newer than `ours`.
core::task<core::result<shared_state>> newest_state_of_others(node& n, shared_state ours) {
    const auto holders = [&n, ours] {
        std::vector<shared_linked> out;
        for (const auto& [key, peer] : n.links) {
            const bool newer = !ours || peer->applied > ours->round;
            if (peer->caught_up && peer->generation == n.led().generation() && newer) out.push_back(peer);
        }
        return out;
    };
    std::set<std::uint64_t, std::greater<>> rounds;
    for (const auto& holder : holders()) rounds.insert(holder->applied);
    for (const auto round : rounds) {
        const auto would_do = [&n, round](const state_index& s) -> core::result<void> {
            if (s.round >= round && s.generation == n.led().generation() && n.led().descends_from(s)) return core::ok();
            return fail(errc::not_found, "the state of round {} is not the newest of this log", s.round);
        };
        auto downloaded = co_await download_state(n, holders, would_do);
        if (downloaded) co_return downloaded->state;
        if (downloaded.error().code == errc::cancelled) co_return fail(downloaded.error());
    }
    co_return ours;
}

/// Goes on from the newest state that can be had: after a restart of everybody, or when its holders died.
core::task<core::result<void>> recover_generation(node& n, std::uint64_t office) {
    const bool alone = n.led().members().size() < 2;
    const auto found = [&n, office] {
        return n.log->office() != office || goes_on_elsewhere(n) || n.leaving || somebody_holds_newest(n);
    };
    auto met = co_await core::wait_until(n.changed, found, n.env.clock,
                                         n.env.clock.now() + (alone ? core::duration(0) : recovery_wait));
    if (met) co_return core::ok();  // the member's own catch-up takes it from there
    if (met.error().code != errc::timeout) co_return met;
    // Nobody who is back holds the last commit: go on from the newest state that is left.
    shared_state ours;
    if (n.state && n.led().descends_from(*n.state)) ours = n.state;
    auto newest = co_await newest_state_of_others(n, ours);
    LONGHAUL_CO_TRY(newest);
    if (n.log->office() != office || goes_on_elsewhere(n) || somebody_holds_newest(n)) co_return core::ok();
    auto best = *newest;
    const auto every = static_cast<std::uint64_t>(n.config().checkpoint.every);
    // Before the second checkpoint is due, none may have reached a disk: the run begins again.
    if (!best && (every == 0 || n.led().committed() < 2 * every)) best = first_state(n);
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
    e.with("generation", g.generation).with("parent", n.led().generation()).with("round", g.round);
    e.with("lost_rounds", n.led().committed() - g.round);
    e.with("reason", g.reason);
    n.emit(std::move(e));
    n.state = best;
    n.local.reset();
    auto proposed = co_await n.log->propose(std::move(g));
    co_return proposed;
}

round_rules rules_of(const node& n) {
    const auto& c = n.config();
    round_rules rules;
    rules.total_steps = c.total_steps();
    rules.min_members = static_cast<std::size_t>(c.peers.min);
    rules.per_round = static_cast<std::size_t>(c.peers.per_round);
    rules.grace = c.peers.grace;
    rules.first_deadline = c.peers.first_deadline;
    // An exchange takes as many steps of each.
    rules.own_pace = c.peers.pace == "own" && c.exchange.every == 0;
    rules.choices = choices_of(c, n.parts());
    return rules;
}

/// The members of a round that was open when everybody went down hold its payloads: they have a moment to come back.
core::task<core::result<void>> await_open_members(node& n, std::uint64_t office) {
    const auto back = [&n, office] {
        if (n.log->office() != office || !n.led().open()) return true;
        return std::ranges::all_of(n.led().open()->members, [&n](peer_number m) {
            const auto peer = n.find(m);
            return m == n.number || (peer && peer->greeted);
        });
    };
    auto waited = co_await core::wait_until(n.changed, back, n.env.clock, n.env.clock.now() + return_deadline);
    if (!waited && waited.error().code != errc::timeout) co_return waited;
    co_return core::ok();
}

/// Who orders records alone may have been away for so long that the others went on without it: it hears them first.
core::task<core::result<void>> hear_others(node& n, std::uint64_t office) {
    const auto heard = [&n, office] {
        if (n.log->office() != office) return true;
        return std::ranges::all_of(n.led().members(), [&n](const auto& entry) {
            const auto peer = n.find(entry.second.admitted.key);
            return entry.first == n.number || !entry.second.present || (peer && peer->greeted);
        });
    };
    auto waited = co_await core::wait_until(n.changed, heard, n.env.clock, n.env.clock.now() + first_look);
    if (!waited && waited.error().code != errc::timeout) co_return waited;
    co_return core::ok();
}

core::task<core::result<void>> hold_office(node& n, std::uint64_t office) {
    const bool restarted = n.recovering;
    if (restarted && n.log->alone()) {
        auto heard = co_await hear_others(n, office);
        LONGHAUL_CO_TRY(heard);
    }
    auto recovered = co_await recover_generation(n, office);
    LONGHAUL_CO_TRY(recovered);
    n.recovering = false;
    n.changed.notify();
    const bool goes_on = n.found_stopped || (restarted && n.led().phase() == run_phase::paused);
    if (goes_on && n.log->office() == office) {
        run_state_record running;
        running.reason = "started again";
        auto resumed = co_await n.log->propose(std::move(running));
        LONGHAUL_CO_TRY(resumed);
    }
    if (restarted) {
        auto back = co_await await_open_members(n, office);
        LONGHAUL_CO_TRY(back);
    }
    while (n.log->office() == office && !n.finished && !n.leaving) {
        auto coordinated = co_await coordinate(n, office);
        LONGHAUL_CO_TRY(coordinated);
        if (n.log->office() != office || n.finished || n.leaving) break;
        // Those who held the last commits died with them.
        auto again = co_await recover_generation(n, office);
        LONGHAUL_CO_TRY(again);
    }
    co_return core::ok();
}

}  // namespace

void take_office(node& n) {
    const auto office = n.log_known ? n.log->office() : 0;
    if (office == n.office) return;
    n.office = office;
    n.coordinator.reset();
    if (office == 0) return;
    n.coordinator.emplace(rules_of(n), n.number);
    const auto& l = n.led();
    n.coordinator->log_advanced(l, n.env.clock.now());
    if (l.open() && n.missed == std::pair(l.generation(), l.open()->round)) n.coordinator->restarted(n.number);
    if (n.state) n.coordinator->caught_up(n.number, n.state->generation, n.state->round, n.env.clock.now());
    for (const auto& [number, m] : l.members()) {
        const auto peer = n.find(m.admitted.key);
        if (peer && peer->caught_up && !is_elsewhere(n, *peer))
            n.coordinator->caught_up(number, peer->generation, peer->applied, n.env.clock.now());
        if (n.dead.contains(m.admitted.key)) n.coordinator->gone(number);
    }
    tell_lines(n);
    repeat_standing(n);
}

core::task<core::result<void>> coordinate_when_leading(node& n) {
    for (;;) {
        const auto due = [&n] { return n.coordinator || n.finished || n.leaving; };
        auto woken = co_await core::wait_until(n.changed, due);
        LONGHAUL_CO_TRY(woken);
        if (n.finished || n.leaving) co_return core::ok();
        const auto office = n.office;
        auto held = co_await hold_office(n, office);
        // Whoever does not lead any more, or leads anew, has done nothing wrong.
        if (!held && (n.log->office() == office || held.error().code == errc::cancelled)) co_return held;
        n.recovering = false;
        n.waiting_for.clear();
    }
}

}  // namespace longhaul::peers

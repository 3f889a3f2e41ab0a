#include <algorithm>
#include <set>

#include "compress/codec.hpp"
#include "core/hash.hpp"
#include "peers/node.hpp"
#include "peers/suspicion.hpp"
#include "peers/voters.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

/// How long a restarted coordinator waits for peers that may hold a newer state than its own checkpoint.
constexpr auto recovery_wait = 20s;
/// How long after a restart the members of an open round have to come back.
constexpr auto return_deadline = 20s;
/// How often the voters are looked at, between two changes of them too, and how long one that does not answer keeps its
/// seat. On the way from one voter to three there are two for a moment, who survive no death: a short one.
constexpr auto voters_look = 500ms, next_change = 20ms, hurry = 1000ms;
constexpr auto seat_kept = 10s;
constexpr int max_admission_tries = 16;

std::string event_name_of(const record& r) {
    if (std::holds_alternative<round_record>(r)) return "ROUND";
    if (std::holds_alternative<commit_record>(r)) return "COMMIT";
    return "record";
}

/// Proposes what the round coordinator decides, as long as this node leads.
core::task<core::result<void>> coordinate(node& n, std::uint64_t office) {
    std::uint64_t reported_divergence = 0;
    while (!n.finished && !n.leaving && n.log->office() == office) {
        const auto now = n.env.clock.now();
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
            continue;
        }
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

/// A present member that died without a goodbye and has not come back.
std::optional<peer_number> who_is_away(const node& n) {
    for (const auto& [number, m] : n.led().members()) {
        const bool here =
            number == n.number || n.find(m.admitted.key) || (n.coordinator && n.coordinator->knows(number));
        if (m.present && !here) return number;
    }
    return std::nullopt;
}

/// Logs that the peer of `r` is admitted, under a number of its own, or says why it is not.
core::task<core::result<void>> log_admission(node& n, admit_record& r, join_reply& reply) {
    // While one record is written, another peer may take the number that this one would have got: look again.
    for (int tries = 0; tries < max_admission_tries; ++tries) {
        const auto* known = n.led().find(r.key);
        if (known != nullptr && known->revoked) {
            reply.reason = "this key was revoked from the run";
            co_return core::ok();
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
            co_return core::ok();
        }
        r.number = known != nullptr ? known->admitted.number : n.led().next_number();
        // Whoever asks again with nothing new does not grow the log.
        reply.admitted = known != nullptr && known->present && known->admitted == r;
        if (reply.admitted) co_return core::ok();
        auto proposed = co_await n.log->propose(r);
        LONGHAUL_CO_TRY(proposed);
    }
    reply.reason = "too many peers join at the same time: try again";
    co_return core::ok();
}

}  // namespace

core::task<core::result<void>> admit(node& n, net::peer_key who, join_request request) {
    const auto peer = n.find(who);
    if (!peer) co_return core::ok();
    join_reply reply;
    admit_record r;
    r.key = who;
    r.name = request.name;
    r.addresses = request.addresses;
    // Behind a wildcard address, the address that we see is the one that works.
    for (auto& a : r.addresses) {
        if (a.host == "0.0.0.0" || a.host == "::") a.host = peer->link->remote().observed.host;
    }
    // Which may be longer than the one that was told.
    if (!r.addresses.empty()) r.addresses = admissible_addresses(std::move(r.addresses), peer->link->remote().observed);
    // Only who dials shows its token: a member that we dialled has shown it before, or was let in without one.
    if (const auto* known = n.led().find(who)) r.token_hash = known->admitted.token_hash;
    if (const auto& token = peer->link->remote().token) r.token_hash = core::hash(token->bytes);
    auto decided = co_await log_admission(n, r, reply);
    peer->admitting = false;
    if (!decided) {
        const auto code = decided.error().code;
        if (code == errc::quorum_lost || code == errc::limit) {
            // Whoever leads next has the answer; a log that is full for the moment, when it is asked again.
            peer->wants_to_join = std::move(request);
            if (!n.log->leads()) answer_early_joiners(n);
        } else if (code != errc::cancelled) {
            reply.reason = decided.error().message;
            n.send(who, reply);
        }
        co_return decided;
    }
    if (!reply.admitted) {
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
        if (!peer->wants_to_join || n.log->leader() == net::peer_key{} || n.log->leader() == key) continue;
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

/// Goes on from the newest state that can be had: after a restart of everybody, or when its holders died.
core::task<core::result<void>> recover_generation(node& n, std::uint64_t office) {
    const auto holds_newest = [&n](std::uint64_t generation, std::uint64_t round) {
        return generation == n.led().generation() && round >= n.led().committed();
    };
    const bool alone = n.led().members().size() < 2;
    const auto found = [&n, &holds_newest, office] {
        if (n.log->office() != office) return true;
        if (n.state && holds_newest(n.state->generation, n.state->round)) return true;
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

round_rules rules_of(const node& n) {
    const auto& c = n.config();
    round_rules rules;
    rules.rounds = static_cast<std::uint64_t>(c.stop.rounds);
    rules.min_members = static_cast<std::size_t>(c.peers.min);
    rules.grace = c.peers.grace;
    rules.first_deadline = c.peers.first_deadline;
    const auto codec = compress::find_codec(c.exchange.codec).value();
    rules.plan = optim::fixed_plan(c.inner, c.outer, *codec);
    rules.exchange = {chunk_grid::of(n.tensors().elements(), *codec).count(), payload_bytes(n.tensors(), *codec),
                      codec->fits_sums(), c.exchange.mode};
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

core::task<core::result<void>> hold_office(node& n, std::uint64_t office) {
    auto recovered = co_await recover_generation(n, office);
    LONGHAUL_CO_TRY(recovered);
    const bool restarted = std::exchange(n.recovering, false);
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
    co_return co_await coordinate(n, office);
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
    if (n.state) n.coordinator->caught_up(n.number, n.state->generation, n.state->round);
    for (const auto& [number, m] : l.members()) {
        const auto peer = n.find(m.admitted.key);
        if (peer && peer->caught_up) n.coordinator->caught_up(number, peer->generation, peer->applied);
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
            const auto silence = watch.silence_of(key, peer->link->wire().received);
            if (silence < suspicion::patience(limit, 0s, 0s)) {
                if (silent.erase(key) > 0) back.push_back(peer);
            } else if (is_member(n, key) && (took_office || !silent.contains(key)) &&
                       silence >= suspicion::patience(limit, peer->link->stats().rtt_p99, now - opened)) {
                silent.insert(key);
                fallen.push_back(peer);
            }
        }
        for (const auto& peer : back) n.log->link_up(peer->link->remote().key);
        for (const auto& peer : fallen) fell_silent(n, *peer->link);
    }
}

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
            const bool fit = peer && peer->caught_up && std::ranges::all_of(voters.voters, reaches) &&
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

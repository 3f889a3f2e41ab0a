/// Who orders records may be gone for good, and then the run goes on in a log of its own (a branch, peers/generation):
/// while fewer than three order records, or as `peers.on_quorum_loss` says. When two logs of one run meet, the one with
/// more committed tokens is the run; the other is dissolved by a last record, and everybody in it comes over. So no
/// death and no partition needs a person, and within a generation all invariants hold as ever (docs/CONSENSUS.md).

#include <algorithm>
#include <limits>

#include "core/hash.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

constexpr auto look = 1s;
/// Without a coordinator for so long, and for three silence limits, a run goes on in another log.
constexpr auto least_patience = 10s;
constexpr int silences = 3;
/// Who looks so much later than it wanted was asleep itself.
constexpr auto asleep = 5s;
/// Whoever has just linked says within so long what it holds and whom it hears.
constexpr auto longest_greeting = 5s;
/// A pause that a person notices.
constexpr auto worth_a_word = 4s;

core::duration patience_of(const node& n) {
    return std::max<core::duration>(least_patience, silences * n.config().peers.silence_limit);
}

/// Which of two logs of a run is the run.
auto weight(const linked_peer& p) { return std::pair(p.log_tokens, p.log_generation); }

/// A linked peer of this node's own log that takes part.
bool is_fellow(const node& n, const net::peer_key& key, const linked_peer& p) {
    return p.greeted && !p.observer && p.log_generation != 0 && !is_elsewhere(n, p) && is_member(n, key);
}

/// The log that this node's state is of, which a branch goes on from; null: it has none.
const ledger* log_of_state(const node& n) {
    if (!n.state) return nullptr;
    if (n.log_known && n.state->generation == n.led().generation()) return &n.led();
    // It came over from another log, and the state of this one has not arrived.
    return n.came_from && n.state->generation == n.came_from->generation() ? &*n.came_from : nullptr;
}

/// Whether this node has what a branch begins with.
bool can_branch_off(const node& n) { return may_vote(n, n.self()) && log_of_state(n) != nullptr; }

bool may_branch_off(const node& n) {
    const auto& policy = n.config().peers.on_quorum_loss;
    if (policy == "pause" || !can_branch_off(n)) return false;
    return policy == "continue" || n.led().voters().voters.size() < 3;
}

/// How many of the peers here should open a branch rather than this node: who holds a newer state, and among equals the
/// smallest key.
int turn_of(const node& n) {
    int before = 0;
    if (!n.state) return before;
    for (const auto& [key, p] : n.links) {
        if (!is_fellow(n, key, *p) || !may_vote(n, key) || p->generation != n.state->generation) continue;
        if (p->applied > n.state->round || (p->applied == n.state->round && key < n.self())) ++before;
    }
    return before;
}

/// Whether that key may order records somewhere: as far as this log knows it, or by the token that it showed, if it was
/// admitted where this log knows nothing of.
bool is_trusted(const node& n, const net::peer_key& key, const linked_peer& p) {
    if (may_vote(n, key)) return true;
    const auto& shown = p.link->remote().token;
    const bool stranger = n.led().find(key) == nullptr;
    return stranger && n.run->manifest.invite() && shown && core::hash(shown->bytes) == *n.run->manifest.token_hash;
}

/// A peer in another log of the run, which somebody coordinates, the one with the most behind it; or null.
shared_linked somebody_led(const node& n) {
    shared_linked best;
    for (const auto& [key, p] : n.links) {
        const bool would_do = p->greeted && !p->observer && p->coordinator != net::peer_key{} && is_elsewhere(n, *p);
        if (would_do && is_trusted(n, key, *p) && (!best || weight(*p) > weight(*best))) best = p;
    }
    return best;
}

/// Somebody is linked of whom nothing is known yet.
bool somebody_is_new(const node& n) {
    return std::ranges::any_of(n.links, [](const auto& l) { return !l.second->greeted && !l.second->observer; });
}

bool a_fellow_is_led(const node& n) {
    return std::ranges::any_of(n.links, [&n](const auto& entry) {
        return is_fellow(n, entry.first, *entry.second) && entry.second->coordinator != net::peer_key{};
    });
}

/// What this node has of its own leaves the log with it: what it carries; and its last payload, unless the log has
/// counted that, or may still.
void leave_log(node& n) {
    if (n.led().dissolved_into()) {
        const bool mine = n.led().dissolved_by() == n.self() && n.state && n.led().descends_from(*n.state);
        if (mine) n.left = left_log{n.state, n.led().origins()};
        (void)n.mass.settle(n.led(), n.number, std::numeric_limits<std::uint64_t>::max());
    }
    give_up_payload(n);
    n.log_known = false;
    n.admitted = false;
    n.moving = true;
    n.admitted_by.reset();
    n.wanted_phase.reset();
    n.departed.clear();
    n.candidate.reset();
    n.last_checkpoint.reset();
    n.last_plan.reset();
    n.ready_for = {};
    n.lacking = {};
    n.eval_seen = 0;
}

/// For people: why nothing happens, and what will.
void tell_waiting(node& n, core::duration patience) {
    n.waiting_for = may_branch_off(n)
                        ? fmt::format("nobody coordinates: in {} the run goes on without those who did",
                                      core::format_duration(std::chrono::ceil<std::chrono::seconds>(patience)))
                        : "nobody coordinates: the run waits until those who order its records are back (or see "
                          "'longhaul recover')";
    core::event e("waiting");
    e.with("round", n.led().committed() + 1).with("reason", n.waiting_for);
    n.emit(std::move(e));
}

/// A node that knows no log makes one of itself alone; the others join it again.
ledger own_log(const node& n) {
    auto l = ledger::founded_by(n.self(), n.state->generation);
    l.apply(own_admission(n, l.next_number()));
    return l;
}

/// Opens a branch behind `old` with the state that this node holds. Without effect when somebody coordinates after all.
core::task<core::result<void>> branch_off(node& n, ledger old, std::string why) {
    const auto begins_with = n.state;
    const auto parent = std::max(old.generation(), begins_with->generation);
    LONGHAUL_CO_TRY_ASSIGN(const auto generation, generation_of_branch(n.run->run_id, parent, begins_with->round,
                                                                       n.self(), n.env.entropy.u64()));
    shared_state renamed;
    const auto rename = [&] { renamed = in_generation(*begins_with, generation); };
    auto ran = co_await n.env.workers.run(rename, 0s);
    LONGHAUL_CO_TRY(ran);
    // Meanwhile somebody may coordinate again, or a last commit was applied: everything is looked at anew.
    if (n.log->led() || n.state != begins_with) co_return core::ok();
    core::event e("generation");
    e.with("generation", generation).with("parent", old.generation()).with("round", begins_with->round);
    e.with("lost_rounds", old.committed() - std::min(old.committed(), begins_with->round));
    e.with("reason", std::move(why));
    n.emit(std::move(e));
    leave_log(n);
    if (trainer_goes_on(n)) n.local->generation = renamed->generation;
    n.state = renamed;
    n.admitted = true;
    n.left.reset();  // it goes on with that
    n.send_all(greeting_of(n));
    start_checkpoint(n);
    auto begun = co_await n.log->branch_off(old.in_branch(generation, n.self(), *begins_with));
    LONGHAUL_CO_TRY(begun);
    const auto leads = [&n] { return n.log_known && n.log->leads(); };
    co_return co_await core::wait_until(n.changed, leads);
}

/// Leaves this log for the one that the others are in. If they have gone in the meantime, this node goes on with what
/// it has, where it may.
core::task<core::result<void>> go_over(node& n, std::string why) {
    const auto old = n.led();
    // Nothing counts in a log that is dissolved: nobody waits for those who ordered it.
    const bool may_go_on = old.dissolved_into() ? can_branch_off(n) : may_branch_off(n);
    core::event e("leaving_log");
    e.with("generation", old.generation()).with("round", old.committed()).with("reason", std::move(why));
    n.emit(std::move(e));
    if (log_of_state(n) == &n.led()) n.came_from = old;
    leave_log(n);
    n.log->leave();
    n.send_all(greeting_of(n));
    n.to_dial.notify();
    auto patience = n.options.quorum_patience;
    if (may_go_on) patience = patience_of(n);
    const auto until = n.env.clock.now() + patience;
    core::error last(errc::quorum_lost, "nobody was found in the generation that the run went on as");
    // While somebody is here who is in it, what is here is only more of what will be left. But who says so may not be
    // able to help.
    const auto longest = until + 2 * patience;
    const auto goes_on = [&n, until, longest] {
        const auto now = n.env.clock.now();
        return !n.leaving && (now < until || (now < longest && somebody_hears_a_coordinator(n)));
    };
    while (goes_on()) {
        auto learnt = co_await learn_another_log(n, std::max(until - n.env.clock.now(), core::duration(look)));
        if (learnt || learnt.error().code == errc::cancelled) co_return learnt;
        last.message = learnt.error().message;
        n.admitted = false;
        n.admitted_by.reset();
        auto slept = co_await n.env.clock.sleep_for(look);
        LONGHAUL_CO_TRY(slept);
    }
    if (const auto* from = log_of_state(n); may_go_on && from != nullptr && !n.log->led()) {
        co_return co_await branch_off(n, *from, "nobody was found in the generation that the run went on as");
    }
    n.fatal = last;
    n.changed.notify();
    co_return core::ok();
}

}  // namespace

bool is_elsewhere(const node& n, const linked_peer& peer) {
    if (peer.log_generation == 0) return false;
    std::optional<std::uint64_t> own;
    if (n.log_known) {
        own = branch_of(n.led().generation());
    } else if (const auto by = n.admitted_by ? n.find(*n.admitted_by) : nullptr; by && by->log_generation != 0) {
        own = branch_of(by->log_generation);
    } else if (n.log) {
        own = n.log->branch_on_disk();
    }
    return own && branch_of(peer.log_generation) != *own;
}

std::pair<shared_linked, std::string> better_log(const node& n) {
    const auto best = somebody_led(n);
    if (!best || weight(*best) <= std::pair(n.led().most_tokens(), n.led().generation())) return {};
    return {best, fmt::format("generation {} has committed {} tokens, this one {}",
                              generation_name(best->log_generation), best->log_tokens, n.led().most_tokens())};
}

core::result<void> may_recover(const node& n) {
    if (!n.log || !n.run) return fail(errc::usage, "this node has not started yet: ask again in a moment");
    if (n.log->led()) return fail(errc::usage, "the run has a coordinator: there is nothing to recover");
    if (!may_vote(n, n.self())) {
        return fail(errc::usage, "in an open run only the founder may order records: recover at its node");
    }
    if (!n.state || (n.log_known && n.state->generation != n.led().generation())) {
        return fail(errc::usage, "this node holds no state of the run: recover at another one");
    }
    return core::ok();
}

std::string cost_of_recovery(const node& n) {
    const auto here = std::ranges::count_if(n.links, [&n](const auto& l) { return is_fellow(n, l.first, *l.second); });
    const auto lost = n.log_known ? n.led().committed() - n.state->round : 0;
    return fmt::format(
        "this node goes on from round {} in a generation of its own, with {} of the peers that are here; {}. When "
        "those who are gone come back, the log with more committed tokens stays, and the other one's model is averaged "
        "into it",
        n.state->round, here,
        lost > 0      ? fmt::format("{} committed rounds that it does not hold are lost unless they come back", lost)
        : n.log_known ? "no round that it has heard of is lost"
                      : "rounds after that are lost unless they come back");
}

core::task<core::result<void>> recover(node& n) {
    n.wanted_recovery = false;
    if (!may_recover(n)) co_return core::ok();  // meanwhile somebody coordinates
    auto old = own_log(n);
    if (n.log_known) old = n.led();
    co_return co_await branch_off(n, std::move(old), "a person asked this node to go on");
}

greeting greeting_of(const node& n) {
    greeting g;
    if (n.state) {
        g.generation = n.state->generation;
        g.applied = n.state->round;
        g.caught_up = true;
    }
    if (n.log_known) {
        g.log_generation = n.led().generation();
        g.tokens = n.led().most_tokens();
    }
    if (n.log && n.log->led() && !(n.log_known && n.led().dissolved_into())) g.coordinator = n.log->leader();
    return g;
}

core::task<core::result<void>> keep_generation(node& n) {
    auto led_at = n.env.clock.now(), looked_at = led_at;
    // Whom this node heard when it linked with the others may be gone by the first look.
    std::optional<net::peer_key> said;
    bool waits = false;
    std::optional<core::time_point> hears_since;  // until it is known what newcomers hold
    for (;;) {
        const auto dissolved = [&n] { return n.log_known && n.led().dissolved_into().has_value(); };
        const auto at_once = [&n, &dissolved] { return dissolved() || n.wanted_recovery; };
        auto waited = co_await core::wait_until(n.changed, at_once, n.env.clock, n.env.clock.now() + look);
        if (!waited && waited.error().code != errc::timeout) co_return waited;
        const auto now = n.env.clock.now();
        const bool slept = now - std::exchange(looked_at, now) > asleep;
        if (n.leaving || n.finished || n.fatal) co_return core::ok();
        if (dissolved()) {
            auto over = co_await go_over(
                n, fmt::format("the run goes on as generation {}", generation_name(*n.led().dissolved_into())));
            LONGHAUL_CO_TRY(over);
            led_at = looked_at = n.env.clock.now();
            continue;
        }
        if (n.wanted_recovery) {
            auto recovered = co_await recover(n);
            LONGHAUL_CO_TRY(recovered);
            led_at = looked_at = n.env.clock.now();
            continue;
        }
        // Others decide by whether somebody hears a coordinator.
        const auto greeting = greeting_of(n);
        if (said != greeting.coordinator) n.send_all(greeting);
        said = greeting.coordinator;
        if (!n.log_known || n.log->led() || slept) led_at = now;
        const auto alone = now - led_at, patience = patience_of(n);
        if (alone == core::duration{}) {
            if (std::exchange(waits, false) && !n.log->leads()) n.waiting_for.clear();
        } else if (alone >= worth_a_word && !std::exchange(waits, true)) {
            tell_waiting(n, patience);
        }
        if (!somebody_is_new(n)) hears_since.reset();
        if (alone < patience) continue;
        if (somebody_is_new(n) && now - hears_since.value_or(now) < longest_greeting) {
            hears_since = hears_since.value_or(now);
            continue;
        }
        const auto for_so_long = fmt::format("nobody has coordinated for {}", core::format_duration(alone));
        // Who opened a branch with a round less will have more in a moment.
        const int turn = turn_of(n) + (somebody_led(n) ? 1 : 0);
        if (better_log(n).first) {
            auto over = co_await go_over(n, for_so_long);
            LONGHAUL_CO_TRY(over);
            led_at = looked_at = n.env.clock.now();
        } else if (may_branch_off(n) && !a_fellow_is_led(n) && alone >= patience * (1 + turn)) {
            auto old = *log_of_state(n);
            auto branched = co_await branch_off(n, std::move(old), for_so_long);
            LONGHAUL_CO_TRY(branched);
            led_at = looked_at = n.env.clock.now();
        }
    }
}

}  // namespace longhaul::peers

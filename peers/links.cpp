#include <algorithm>

#include "core/hash.hpp"
#include "peers/known_addresses.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t max_outbox = 8192;
constexpr std::size_t max_outbox_bytes = 8 << 20;
/// For who is no member: it can ask for more than it reads.
constexpr std::size_t max_guest_outbox_bytes = 2 << 20;
constexpr auto first_backoff = 250ms;
constexpr auto longest_backoff = 10s;
constexpr auto redial_deadline = 3s;
/// Of the ticket, of earlier runs of this node and of redirections together.
constexpr std::size_t max_addresses_tried = 16 + max_known_addresses + 16;

core::task<core::result<void>> write_outbox(node& n, shared_linked peer) {
    while (peer->link->up()) {
        while (!peer->outbox.empty()) {
            auto next = std::move(peer->outbox.front());
            peer->outbox_bytes -= next.size();
            auto sent = co_await peer->link->send(std::move(next));
            LONGHAUL_CO_TRY(sent);
            peer->outbox.pop_front();  // only now: an empty outbox means that the link has all of it
        }
        n.flushed.notify();
        auto woken = co_await peer->outbox_changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return core::ok();
}

/// What a stranger, or a peer not admitted yet, may say: questions and the request to join. Anything else is a
/// violation.
core::result<void> dispatch(node& n, const shared_linked& from, message m);

struct dispatcher {
    node& n;
    const shared_linked& from;
    net::peer_key key;

    /// A node that joins does not know yet who is a member, and one that follows may hear of it a moment after the
    /// member itself: nothing to hold against anybody. Who orders the records knows whom it has admitted.
    core::result<void> only_members(std::string_view what) const {
        if (!n.log_known || !n.log->leads() || is_member(n, key)) return core::ok();
        return fail(errc::protocol, "{} from {}, who is not admitted", what, key.brief());
    }
    std::optional<peer_number> number() const {
        const auto* m = n.led().find(key);
        return m == nullptr ? std::nullopt : std::optional(m->admitted.number);
    }
    /// The member, if what it says is for the coordinator here.
    std::optional<peer_number> reports() const { return n.coordinator && n.log_known ? number() : std::nullopt; }

    core::result<void> operator()(const greeting& g) const {
        const bool was_elsewhere = is_elsewhere(n, *from);
        from->greeted = true;
        from->coordinator = g.coordinator;
        from->log_generation = g.log_generation;
        from->log_tokens = g.tokens;
        // Not before it has said of which log it is, or it would be asked for another one.
        if (n.log && was_elsewhere != is_elsewhere(n, *from)) {
            if (was_elsewhere) {
                if (may_bring_log(n, key)) n.log->link_up(key);
                tell_lines(n);
            } else {
                n.log->link_down(key);
                if (n.coordinator && number()) n.coordinator->gone(*number());
            }
        }
        from->observer = g.observer;
        from->caught_up = g.caught_up;
        from->generation = g.generation;
        from->applied = g.applied;
        if (n.coordinator && g.caught_up && is_member(n, key) && !is_elsewhere(n, *from)) {
            n.coordinator->caught_up(*number(), g.generation, g.applied, n.env.clock.now());
        }
        n.changed.notify();
        return core::ok();
    }
    core::result<void> operator()(const manifest_request&) const {
        if (n.run) n.send(key, manifest_reply{n.run->bytes});
        return core::ok();
    }
    core::result<void> operator()(const manifest_reply& m) const {
        if (n.run) return core::ok();
        // Asked for by become_admitted before anything else runs; checked against the ticket's run id.
        LONGHAUL_TRY_ASSIGN(n.run, parse_manifest(m.manifest, n.options.join->ticket.key->run));
        n.mesh->set_silence_limit(n.config().peers.silence_limit);
        n.changed.notify();
        return core::ok();
    }
    core::result<void> operator()(const join_request& m) const {
        if (!n.log_known || n.led().dissolved_into()) {
            from->wants_to_join = m;
            return core::ok();
        }
        if (n.log->leader() == net::peer_key{} || n.log->leader() == key) {
            from->wants_to_join = m;  // until somebody leads, and not who started again and asks
            return core::ok();
        }
        if (n.log->leads()) {
            if (from->admitting) return core::ok();
            from->admitting = true;
            n.tasks.spawn_isolated("admission", admit(n, key, m),
                                   [&n = n](const core::error& e) { n.report(e, "admitting a peer"); });
            return core::ok();
        }
        join_reply reply;
        reply.coordinator_key = n.log->leader();
        if (const auto* c = n.led().find(reply.coordinator_key)) reply.coordinator = c->admitted.addresses;
        reply.reason = "another peer coordinates";
        n.send(key, reply);
        return core::ok();
    }
    core::result<void> operator()(const join_reply& m) const {
        // Late, perhaps, by a partition: meanwhile another one was asked.
        if (n.asked_to_join != key) return core::ok();
        n.asked_to_join.reset();
        if (m.coordinator.empty() && n.run && !may_vote(n, key)) {
            return fail(errc::protocol, "a verdict on admission by {}, who may not coordinate this run", key.brief());
        }
        if (m.admitted) {
            n.admitted = true;
            n.admitted_by = key;
        } else if (m.coordinator.empty() && n.admitted) {
            n.report(core::error(errc::not_admitted, m.reason), "asking to be admitted again");
        } else if (m.coordinator.empty()) {
            n.fatal = core::error(errc::not_admitted, m.reason.empty() ? "the run did not admit this node" : m.reason);
        } else {
            n.redirects = m.coordinator;
            n.named = m.coordinator_key;
        }
        n.changed.notify();
        return core::ok();
    }
    core::result<void> operator()(const log_request& m) const {
        // Whoever was admitted a moment ago is not in the log yet as the other members have it, and who was admitted to
        // another log asks to be admitted to this one in the next message.
        if (!n.log || (n.log_known && !is_member(n, key))) return core::ok();
        return n.log->receive(key, m);
    }
    core::result<void> operator()(const log_entries& m) const { return n.log ? n.log->receive(key, m) : core::ok(); }
    core::result<void> operator()(const log_snapshot& m) const { return n.log ? n.log->receive(key, m) : core::ok(); }
    core::result<void> operator()(const leader_message& m) const { return n.log ? n.log->receive(key, m) : core::ok(); }
    core::result<void> operator()(const raft::message& m) const {
        if (!n.log) return core::ok();
        if (n.log_known && n.led().find(key) == nullptr) return core::ok();  // admitted while we were away, perhaps
        if (!may_vote(n, key)) {
            return fail(errc::protocol, "a voter's message from {}, who may not vote in this run", key.brief());
        }
        return n.log->receive(key, m);
    }
    core::result<void> operator()(const ready_message& m) const {
        LONGHAUL_TRY(only_members("READY"));
        if (const auto who = reports()) {
            n.coordinator->ready(*who, m, n.env.clock.now());
            n.changed.notify();
        }
        return core::ok();
    }
    core::result<void> operator()(const progress_message& m) const {
        LONGHAUL_TRY(only_members("PROGRESS"));
        if (const auto who = reports()) {
            n.coordinator->progress(*who, m, n.env.clock.now());
            n.changed.notify();
        }
        return core::ok();
    }
    core::result<void> operator()(const lines_message& m) const {
        LONGHAUL_TRY(only_members("LINES"));
        if (const auto who = reports()) {
            n.coordinator->lines(*who, m, n.env.clock.now());
            n.changed.notify();
        }
        return core::ok();
    }
    core::result<void> operator()(const applied_message& m) const {
        from->log_tokens = std::max(from->log_tokens, m.tokens);
        if (is_elsewhere(n, *from)) return core::ok();
        LONGHAUL_TRY(only_members("APPLIED"));
        from->caught_up = true;
        from->generation = m.generation;
        from->applied = m.round;
        if (const auto who = reports()) {
            n.coordinator->caught_up(*who, m.generation, m.round, n.env.clock.now());
            if (m.eval_round > 0) n.coordinator->evaluated(m.eval_round, m.eval_loss);
        }
        n.changed.notify();
        return core::ok();
    }
    core::result<void> operator()(const fetch_message& m) const {
        if (is_elsewhere(n, *from)) {
            n.send(key, fetch_refused{m, "this node takes part in another generation"});
            return core::ok();
        }
        LONGHAUL_TRY(only_members("a fetch"));
        if (!n.log_known) {
            n.send(key, fetch_refused{m, "this node is joining itself"});
            return core::ok();
        }
        if (!is_member(n, key)) {
            n.send(key, fetch_refused{m, "this node has not heard of your admission yet"});
            return core::ok();
        }
        serve_fetch(n, from, m);
        return core::ok();
    }
    core::result<void> operator()(const fetch_refused& m) const {
        if (from->refusals.size() > 64) return fail(errc::protocol, "refusals of what nobody asked for");
        from->refusals[tag_of(m.what)] = m.reason;
        n.changed.notify();
        return core::ok();
    }
    core::result<void> operator()(const leaving_message& m) const {
        from->said_leaving = m.reason;
        return core::ok();
    }
    core::result<void> operator()(const status_request&) const {
        if (n.status_json) n.send(key, status_reply{n.status_json()});
        return core::ok();
    }
    core::result<void> operator()(const status_reply&) const { return core::ok(); }
    core::result<void> operator()(const reach_request& m) const {
        answer_reach_request(n, from, m);
        return core::ok();
    }
    core::result<void> operator()(const reach_reply& m) const {
        hear_reach_reply(n, key, m);
        return core::ok();
    }
};

/// What makes no sense but in one and the same log. A fetch is answered all the same: somebody waits for that.
bool is_about_the_log(const message& m) {
    return std::visit(
        []<typename M>(const M&) {
            return std::is_same_v<M, log_request> || std::is_same_v<M, log_entries> ||
                   std::is_same_v<M, log_snapshot> || std::is_same_v<M, leader_message> ||
                   std::is_same_v<M, raft::message> || std::is_same_v<M, ready_message> ||
                   std::is_same_v<M, progress_message> || std::is_same_v<M, lines_message>;
        },
        m);
}

core::result<void> dispatch(node& n, const shared_linked& from, message m) {
    if (is_about_the_log(m) && is_elsewhere(n, *from)) return core::ok();
    return std::visit(dispatcher{n, from, from->link->remote().key}, m);
}

core::task<core::result<void>> read_messages(node& n, shared_linked peer) {
    for (;;) {
        auto bytes = co_await peer->link->receive();
        LONGHAUL_CO_TRY(bytes);
        auto m = parse_message(*bytes);
        LONGHAUL_CO_TRY(m);
        auto handled = dispatch(n, peer, std::move(*m));
        LONGHAUL_CO_TRY(handled);
    }
}

/// The last check before a peer counts as dead: one redial (DESIGN §5, failure detection).
core::task<core::result<void>> confirm_down(node& n, net::peer_key key, std::string why, core::duration rtt) {
    const auto* member = n.led().find(key);
    if (member == nullptr) co_return core::ok();
    const auto number = member->admitted.number;
    const auto addresses = member->admitted.addresses;
    const bool said_so = !why.empty();
    if (!said_so) {
        auto again = co_await core::with_deadline(n.env.clock, n.mesh->dial(addresses, key),
                                                  n.env.clock.now() + redial_deadline);
        if (again) co_return core::ok();
        why = "connection lost and one redial failed";
    }
    if (n.find(key)) co_return core::ok();  // it came back by itself meanwhile
    n.dead.insert(key);
    // Logged by whoever coordinates, or soon will.
    if (said_so) n.departed[key] = why;
    n.log->dead(key, rtt);
    if (!n.log->leads()) co_return core::ok();
    core::event down("peer_down");
    down.with("peer", key.hex()).with("number", std::uint64_t{number}).with("name", n.led().find(key)->admitted.name);
    down.with("reason", why);
    n.emit(std::move(down));
    if (n.coordinator) n.coordinator->gone(number);
    n.changed.notify();
    co_return core::ok();
}

core::task<core::result<void>> dial_one(node& n, net::peer_key key, std::vector<net::endpoint> addresses) {
    (void)co_await n.mesh->dial(std::move(addresses), key);
    n.dialling.erase(key);
    n.to_dial.notify();
    co_return core::ok();
}

}  // namespace

void node::send(const net::peer_key& to, const message& m) {
    const auto peer = find(to);
    if (!peer) return;
    auto bytes = serialize(m);
    const auto most = is_member(*this, to) ? max_outbox_bytes : max_guest_outbox_bytes;
    if (peer->outbox.size() >= max_outbox || peer->outbox_bytes + bytes.size() > most) {
        peer->link->close("too many unsent messages");
        return;
    }
    ++messages_sent;
    peer->outbox_bytes += bytes.size();
    peer->outbox.push_back(std::move(bytes));
    peer->outbox_changed.notify();
}

void node::send_all(const message& m) {
    for (const auto& [key, peer] : links) {
        if (!peer->observer) send(key, m);
    }
}

std::pair<std::uint64_t, std::uint64_t> node::wire_bytes() const {
    std::pair<std::uint64_t, std::uint64_t> total{wire_sent_closed, wire_received_closed};
    for (const auto& [key, peer] : links) {
        const auto bytes = peer->link->wire();
        total.first += bytes.sent;
        total.second += bytes.received;
    }
    return total;
}

std::pair<std::uint64_t, std::uint64_t> node::untold_wire_bytes() {
    // The bytes of a link that was replaced are missing from the sum until it has ended.
    auto [sent, received] = wire_bytes();
    sent = std::max(sent, wire_bytes_told.first);
    received = std::max(received, wire_bytes_told.second);
    const auto before = std::exchange(wire_bytes_told, {sent, received});
    return {sent - before.first, received - before.second};
}

void node::report(const core::error& e, std::string_view doing_what) {
    if (e.code == errc::cancelled) return;
    core::event event("error");
    event.with("code", std::string(name_of(e.code))).with("message", fmt::format("{}: {}", doing_what, e.message));
    emit(std::move(event));
}

void tell_lines(node& n) {
    if (!n.log_known || n.number == 0) return;
    lines_message m;
    m.up = n.line_up.with(n.held.sent());
    m.down = n.line_down.with(n.held.received());
    m.room = n.room;
    m.step_seconds = n.step_seconds;
    const bool no_exchange_yet = m.up == 0 && m.down == 0;
    for (const auto& [number, member] : n.led().members()) {
        const auto peer = n.find(number);
        if (!peer) continue;
        const auto s = peer->link->stats();
        if (no_exchange_yet) {  // then what single links carried is all that is known
            m.up = std::max(m.up, s.goodput_up_cautious);
            m.down = std::max(m.down, s.goodput_down_cautious);
        }
        const auto us = core::to_seconds(s.rtt_min) * 1e6;
        m.links.push_back({number, static_cast<std::uint32_t>(std::clamp(us, 0.0, 4e9))});
    }
    if (n.coordinator) {
        n.coordinator->lines(n.number, m, n.env.clock.now());
        n.changed.notify();
    } else {
        n.send(n.log->leader(), m);
    }
}

bool is_member(const node& n, const net::peer_key& key) {
    if (!n.log_known) return false;
    const auto* m = n.led().find(key);
    return m != nullptr && !m->revoked;
}

void cut_off(node& n, const net::peer_key& who, const core::error& lie, std::string_view doing_what) {
    n.report(lie, doing_what);
    // Without the one that orders the run's records alone there is no run.
    if (n.log_known && n.led().voters().voters.size() == 1 && n.led().voters().votes(who)) return;
    const auto* m = n.log_known ? n.led().find(who) : nullptr;
    core::event e("cut_off");
    e.with("peer", who.hex()).with("name", m != nullptr ? m->admitted.name : "").with("reason", lie.message);
    e.with("seconds", core::to_seconds(n.caught.note(who, n.env.clock.now())));
    n.emit(std::move(e));
    if (const auto peer = n.find(who)) peer->link->close("it sent what cannot be true: " + lie.message);
}

core::result<void> admit_link(const node& n, const net::remote_peer& who, bool they_dialled) {
    if (const auto left = n.caught.refused(who.key, n.env.clock.now())) {
        // No verdict on the peer: it may try again.
        return fail(errc::closed, "it sent what cannot be true, and is linked again in {} at the earliest",
                    core::format_duration(std::chrono::ceil<std::chrono::seconds>(*left)));
    }
    if (!they_dialled) return core::ok();
    if (n.log_known) {
        if (const auto* m = n.led().find(who.key)) {
            if (m->revoked) return fail(errc::not_admitted, "this key was revoked from the run");
            return core::ok();
        }
    }
    if (!n.run || !n.run->manifest.invite()) return core::ok();
    if (!who.token || core::hash(who.token->bytes) != *n.run->manifest.token_hash) {
        return fail(errc::not_admitted, "the ticket's token is not one of this run: ask for a new ticket");
    }
    return core::ok();
}

core::task<core::result<void>> serve_link(node& n, std::shared_ptr<net::link> link) {
    const auto key = link->remote().key;
    auto peer = std::make_shared<linked_peer>(link, n.env.executor);
    n.links[key] = peer;
    n.dead.erase(key);
    n.departed.erase(key);
    n.to_dial.notify();
    core::event up("peer_up");
    up.with("peer", key.hex()).with("name", link->remote().name);
    up.with("address", link->remote().observed.text());
    n.emit(std::move(up));
    link->on_offer([&n, weak = std::weak_ptr(peer)](const std::string& tag, std::uint64_t bytes) {
        if (const auto p = weak.lock()) {
            p->offers[tag] = bytes;
            consider_offers(n, p);
            n.changed.notify();
        }
    });
    link->hold_back_state([&n](std::uint64_t bytes) { return may_give_state(n, bytes); });
    n.send(key, greeting_of(n));
    // Before that the other end owes us no log.
    if (n.log && (n.admitted || n.log->votes()) && may_bring_log(n, key)) n.log->link_up(key);
    if (n.log_known && key == n.log->leader()) repeat_standing(n);
    tell_lines(n);
    n.changed.notify();

    core::scope own(n.env.executor);
    own.spawn("writer", write_outbox(n, peer));
    own.spawn("reader", read_messages(n, peer));
    auto ended = co_await own.join();
    const auto stats = link->stats();
    n.wire_sent_closed += stats.wire_sent;
    n.wire_received_closed += stats.wire_received;
    const auto held = n.links.find(key);
    const bool current = held != n.links.end() && held->second == peer;
    if (current) n.links.erase(held);
    n.flushed.notify();
    link->close(ended ? "done" : ended.error().message);
    if (!ended && ended.error().code != errc::closed && ended.error().code != errc::cancelled) {
        n.report(ended.error(), fmt::format("the link with {}", key.brief()));
    }
    if (current) {
        core::event lost("link_lost");
        lost.with("peer", key.hex()).with("reason", ended ? std::string("done") : ended.error().message);
        n.emit(std::move(lost));
        n.to_dial.notify();
        tell_lines(n);
        if (n.log) n.log->link_down(key);
        if (n.log_known && (n.log->leads() || n.log->votes()) && !n.leaving && !n.finished) {
            n.tasks.spawn_isolated("failure detection", confirm_down(n, key, peer->said_leaving, stats.rtt_last));
        }
        n.changed.notify();
    }
    if (!ended && ended.error().code == errc::cancelled) co_return ended;
    co_return core::ok();
}

std::vector<net::endpoint> node::advertised() const { return admissible_addresses(options.advertised, listen); }

namespace {

/// Where members were before the log that this node has now.
core::task<core::result<void>> dial_remembered(node& n) {
    auto addresses = n.known_addresses;
    if (n.options.join) {
        const auto& ticket = n.options.join->ticket.addresses;
        addresses.insert(addresses.end(), ticket.begin(), ticket.end());
    }
    if (!addresses.empty()) (void)co_await n.mesh->dial(std::move(addresses));
    co_return core::ok();
}

core::task<core::result<void>> dial_when_due(node& n, core::scope& dials) {
    struct target {
        core::time_point next{};
        core::duration backoff = first_backoff;
    };
    std::map<net::peer_key, target> targets;
    auto next_remembered = n.env.clock.now() + longest_backoff;
    for (;;) {
        const auto now = n.env.clock.now();
        core::time_point wake = now + longest_backoff;
        if (n.links.empty() && now >= next_remembered) {
            next_remembered = now + longest_backoff;
            dials.spawn_isolated("dial", dial_remembered(n));
        }
        // Who was dialled in vain is here again: so may others be, who were cut off together with it.
        const auto back = [&n](const auto& t) { return n.find(t.first) && t.second.backoff > 2 * first_backoff; };
        if (std::ranges::any_of(targets, back)) {
            for (auto& [key, t] : targets) t = {std::min(t.next, now), first_backoff};
        }
        std::erase_if(targets, [&n](const auto& t) { return n.find(t.first) != nullptr; });
        for (const auto& [number, m] : n.led().members()) {
            const auto& key = m.admitted.key;
            if (key == n.self() || !m.present || m.revoked || m.admitted.addresses.empty()) continue;
            if (n.find(key) || n.dialling.contains(key)) continue;
            if (const auto left = n.caught.refused(key, now)) {
                wake = std::min(wake, now + *left);
                continue;
            }
            // Both may dial; the larger key waits a moment, so that one connection is the rule. Everybody dials the
            // coordinator.
            const auto [it, fresh] = targets.try_emplace(key);
            if (fresh && n.self() > key && key != n.log->leader()) it->second.next = now + 1s;
            if (it->second.next > now) {
                wake = std::min(wake, it->second.next);
                continue;
            }
            it->second.next = now + it->second.backoff;
            it->second.backoff = std::min<core::duration>(2 * it->second.backoff, longest_backoff);
            n.dialling.insert(key);
            dials.spawn_isolated("dial", dial_one(n, key, m.admitted.addresses));
        }
        auto woken = co_await n.to_dial.wait(n.env.clock, wake);
        if (!woken && woken.error().code != errc::timeout) co_return woken;
    }
}

}  // namespace

core::task<core::result<void>> keep_connected(node& n) {
    // The loop is itself a child: a cancelled coroutine could not await the end of its dials any more.
    core::scope dials(n.env.executor);
    dials.spawn("dialling", dial_when_due(n, dials));
    co_return co_await dials.join();
}

namespace {

/// A linked peer, and how a sentence names it.
struct asked_peer {
    net::peer_key key;
    std::string name;
};

/// Of the linked peers who hear a coordinator, and were not asked yet, one of the log with the most behind it.
std::optional<net::peer_key> best_to_ask(const node& n, const std::set<net::peer_key>& asked) {
    const auto rank = [](const net::peer_key& key, const linked_peer& p) {
        return std::tuple(p.log_tokens, p.log_generation, p.coordinator == key);
    };
    std::optional<net::peer_key> best;
    for (const auto& [key, p] : n.links) {
        if (p->coordinator == net::peer_key{} || p->observer || asked.contains(key)) continue;
        // Whoever dialled us may be anybody: only who may coordinate has a say in this.
        if (!n.run || !may_vote(n, key)) continue;
        if (!best || rank(key, *p) > rank(*best, *n.find(*best))) best = key;
    }
    return best;
}

}  // namespace

bool somebody_hears_a_coordinator(const node& n) { return best_to_ask(n, {}).has_value(); }

namespace {

/// Somebody new who may admit this node: behind one of the addresses, which is then not among them any more, or else
/// one that dialled this node.
///
/// `by_name`: whom a member has just named as coordinator, before others who would only name the same.
core::task<core::result<asked_peer>> somebody_to_ask(node& n, std::vector<net::endpoint>& addresses,
                                                     std::set<net::peer_key>& asked, bool by_name) {
    const auto named = by_name ? n.find(n.named) : nullptr;
    if (named && !named->observer && may_vote(n, n.named) && asked.insert(n.named).second) {
        co_return asked_peer{n.named, n.named.brief()};
    }
    const auto is_named = [&n](const net::endpoint& a) {
        return std::ranges::find(n.redirects, a) != n.redirects.end();
    };
    const auto unnamed = by_name ? std::ranges::stable_partition(addresses, is_named).begin() : addresses.begin();
    // Who is linked has said where it stands: whoever coordinates has the last word. A node that does not know yet who
    // is a member goes by addresses that it was given in turn, or strangers who dial it could keep it busy.
    const bool knows = n.moving || asked.size() % 2 == 1;
    if (const auto best = knows ? best_to_ask(n, asked) : std::nullopt; best && unnamed == addresses.begin()) {
        asked.insert(*best);
        co_return asked_peer{*best, best->brief()};
    }
    for (;;) {
        auto made = co_await n.mesh->dial(addresses);
        if (!made) {
            if (made.error().code == errc::cancelled) co_return fail(made.error());
            for (const auto& [key, peer] : n.links) {
                // Whoever dialled us may be anybody: only who may coordinate has a say in this.
                if (n.run && may_vote(n, key) && !peer->observer && asked.insert(key).second)
                    co_return asked_peer{key, key.brief()};
            }
            co_return fail(made.error());
        }
        std::erase(addresses, made->asked);
        const auto key = made->link->remote().key;
        // The link's own coroutine starts at the next turn of the loop.
        const auto is_served = [&n, &key] { return n.find(key) != nullptr; };
        auto serving = co_await core::wait_until(n.changed, is_served, n.env.clock, n.env.clock.now() + 5s);
        if (!serving && serving.error().code == errc::cancelled) co_return fail(serving.error());
        if (!serving || !asked.insert(key).second) continue;
        co_return asked_peer{key, made->asked.text()};
    }
}

}  // namespace

core::task<core::result<void>> become_admitted(node& n) {
    // Those that were not asked yet, and all.
    std::vector<net::endpoint> addresses, known;
    const auto add = [&addresses, &known](const std::vector<net::endpoint>& more) {
        for (const auto& a : more) {
            if (known.size() == max_addresses_tried || std::ranges::find(known, a) != known.end()) continue;
            known.push_back(a);
            addresses.push_back(a);
        }
    };
    if (n.options.join) add(n.options.join->ticket.addresses);
    add(n.known_addresses);
    std::set<net::peer_key> asked;
    std::optional<core::error> last;
    bool by_name = false;
    n.redirects.clear();
    n.named = {};
    for (;;) {
        auto found = co_await somebody_to_ask(n, addresses, asked, by_name);
        // What a member answered says more than that others did not.
        if (!found && found.error().code != errc::cancelled && last) co_return fail(*last);
        LONGHAUL_CO_TRY(found);
        const auto& [key, name] = *found;
        const auto lost = [&n, key = key] { return n.find(key) == nullptr; };
        const auto answered = [&n, &lost] { return n.run.has_value() || n.fatal.has_value() || lost(); };
        if (!n.run) {
            n.send(key, manifest_request{});
            auto got = co_await core::wait_until(n.changed, answered, n.env.clock, n.env.clock.now() + 30s);
            if (n.fatal) co_return fail(*n.fatal);
            if (got && !n.run) got = fail(errc::closed, "the connection ended");
            if (!got) {
                last = got.error().within(fmt::format("waiting for the run's manifest from {}", name));
                if (last->code == errc::cancelled) co_return fail(*last);
                continue;
            }
        }
        if (!n.admission_wanted) co_return core::ok();
        n.redirects.clear();
        n.named = {};
        by_name = !by_name;  // every other time at most: who lies could name one address after another
        ask_for_admission(n, key);
        // Who was asked may have nobody to ask itself; somebody who has may be linked by now.
        const auto another = [&n, &asked, key = key] {
            const auto peer = n.find(key);
            return peer && peer->coordinator == net::peer_key{} && best_to_ask(n, asked).has_value();
        };
        const auto decided = [&n, &lost, &another] {
            return n.admitted || n.fatal.has_value() || !n.redirects.empty() || lost() || another() ||
                   (n.log && n.log->leads());
        };
        auto reply = co_await core::wait_until(n.changed, decided, n.env.clock, n.env.clock.now() + 30s);
        n.asked_to_join.reset();
        if (n.fatal) co_return fail(*n.fatal);
        if (n.log && n.log->leads()) co_return core::ok();
        if (reply && !n.admitted && another()) continue;
        if (reply && !n.admitted && n.redirects.empty()) reply = fail(errc::closed, "the connection ended");
        if (!reply) {
            last = reply.error().within(fmt::format("waiting for admission by {}", name));
            if (last->code == errc::cancelled) co_return fail(*last);
            continue;
        }
        if (n.admitted) co_return core::ok();
        add(n.redirects);
    }
}

}  // namespace longhaul::peers

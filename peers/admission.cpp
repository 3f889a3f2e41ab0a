/// Who asks to take part is admitted by a record of the run log, or told why not.

#include <algorithm>

#include "core/hash.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;

namespace {

constexpr int max_admission_tries = 16;
/// For how long a newcomer waits for those in front of it; each takes a round trip to the voters.
constexpr auto longest_queue = std::chrono::seconds(60);
/// A member that the log takes for gone asks so often.
constexpr auto ask_again = std::chrono::seconds(2);
constexpr auto too_many = "too many peers join at the same time: try again";

/// A present member that died without a goodbye and has not come back.
std::optional<peer_number> who_is_away(const node& n) {
    for (const auto& [number, m] : n.led().members()) {
        const bool here =
            number == n.number || n.find(m.admitted.key) || (n.coordinator && n.coordinator->knows(number));
        if (m.present && !here) return number;
    }
    return std::nullopt;
}

/// Newcomers are numbered in the order of the log: of several whose records were written at the same time all but one
/// would have the number of another. So they go one after another.
class numbering_turn {
public:
    explicit numbering_turn(node& n) : node_(n) { n.numbering = true; }
    numbering_turn(const numbering_turn&) = delete;
    numbering_turn& operator=(const numbering_turn&) = delete;
    ~numbering_turn() {
        node_.numbering = false;
        node_.changed.notify();
    }

private:
    node& node_;
};

/// Logs that the peer of `r` is admitted, under a number of its own, or says why it is not.
core::task<core::result<void>> log_admission(node& n, admit_record& r, join_reply& reply) {
    const auto newcomer = [&n, &r] { return n.led().find(r.key) == nullptr; };
    const auto patience = n.env.clock.now() + longest_queue;
    while (n.numbering && newcomer()) {
        auto free = co_await core::wait_until(n.changed, [&n] { return !n.numbering; }, n.env.clock, patience);
        if (!free && free.error().code == errc::timeout) {
            reply.reason = too_many;
            co_return core::ok();
        }
        LONGHAUL_CO_TRY(free);
    }
    std::optional<numbering_turn> turn;
    if (newcomer()) turn.emplace(n);
    // Whoever led before may have written a record, too: look again.
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
    reply.reason = too_many;
    co_return core::ok();
}

}  // namespace

void ask_for_admission(node& n, const net::peer_key& whom) {
    join_request request;
    request.name = n.options.name;
    request.addresses = n.advertised();
    if (n.run->manifest.invite()) request.token = n.secrets.token;
    n.asked_to_join = whom;
    n.send(whom, request);
}

core::task<core::result<void>> stay_admitted(node& n) {
    for (;;) {
        auto slept = co_await n.env.clock.sleep_for(ask_again);
        LONGHAUL_CO_TRY(slept);
        if (!n.log_known || n.leaving || n.finished || n.moving) continue;
        const auto* me = n.led().find(n.self());
        if (me == nullptr || me->present || me->revoked) continue;
        if (n.log->leads()) {
            auto admitted = co_await n.log->propose(own_admission(n, me->admitted.number));
            if (!admitted && admitted.error().code == errc::cancelled) co_return admitted;
        } else if (const auto leader = n.log->leader(); leader != net::peer_key{}) {
            ask_for_admission(n, leader);
        }
    }
}

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
    // At the door only who dials shows its token.
    if (const auto* known = n.led().find(who)) r.token_hash = known->admitted.token_hash;
    if (request.token) r.token_hash = core::hash(request.token->bytes);
    if (n.run->manifest.invite() && r.token_hash != *n.run->manifest.token_hash) {
        peer->admitting = false;
        reply.reason = "the ticket's token is not one of this run: ask for a new ticket";
        n.send(who, reply);
        co_return core::ok();
    }
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
    if (peer->caught_up && n.coordinator)
        n.coordinator->caught_up(r.number, peer->generation, peer->applied, n.env.clock.now());
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

}  // namespace longhaul::peers

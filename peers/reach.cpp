#include "peers/reach.hpp"

#include <algorithm>
#include <utility>

#include "net/printable.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using namespace std::chrono_literals;

namespace {

/// A connection back must have come to an end by then.
constexpr auto reach_deadline = 20s;

/// Connects back to a peer that asked for it.
core::task<core::result<void>> reach(node& n, shared_linked from, std::vector<net::endpoint> addresses) {
    const auto key = from->link->remote().key;
    // An authenticated dial of a peer that is linked ends as soon as it has shown who it is.
    auto made = co_await core::with_deadline(n.env.clock, n.mesh->dial(std::move(addresses), key),
                                             n.env.clock.now() + reach_deadline);
    from->reaching = false;
    if (!made && made.error().code == core::errc::cancelled) co_return core::fail(made.error());
    reach_reply reply;
    if (made) {
        reply.reached = std::move(made->asked);
    } else {
        reply.reason = net::to_printable_utf8(made.error().message, max_reason);
    }
    n.send(key, reply);
    co_return core::ok();
}

/// The next member to ask, if any. What a witness said stays for its time, also when it is gone.
shared_linked next_witness(node& n) {
    auto& asked = n.reach.witnesses;
    const auto now = n.env.clock.now();
    std::erase_if(asked, [&n, now](const auto& w) {
        return n.find(w.first) == nullptr && now - w.second.asked >= reach_asked_again;
    });
    for (const auto& [key, peer] : n.links) {
        if (!peer->greeted || peer->observer || !is_member(n, key)) continue;
        const auto found = asked.find(key);
        if (found == asked.end() ? asked.size() < max_reach_witnesses
                                 : now - found->second.asked >= reach_asked_again) {
            return peer;
        }
    }
    return nullptr;
}

void tell_reach(node& n) {
    const auto v = judge_reach(n.reach, n.listen.port);
    if (!v.reachable || v.reachable == n.reach.told) return;
    n.reach.told = v.reachable;
    core::event e("reach");
    e.with("reachable", *v.reachable).with("reason", v.advice.empty() ? v.seen : v.seen + "; " + v.advice);
    n.emit(std::move(e));
}

}  // namespace

reach_verdict judge_reach(const reach_knowledge& known, std::uint16_t port) {
    std::vector<std::string> failed, reached;
    std::string at, why;
    for (const auto& [key, w] : known.witnesses) {
        if (!w.reply) continue;
        if (w.reply->reached) {
            reached.push_back(w.name);
            at = w.reply->reached->text();
        } else {
            failed.push_back(w.name);
            why = w.reply->reason;
        }
    }
    reach_verdict v;
    if (reached.empty() && failed.empty() && known.connected_by.empty()) {
        v.seen = "nobody has tried to connect to you yet";
        return v;
    }
    v.reachable = !reached.empty() || !known.connected_by.empty();
    if (!*v.reachable) {
        v.seen = fmt::format(
            "nobody could connect to you from outside: {} tried ({}); you take part over connections that you opened, "
            "and exchange through a third with others who are like you",
            fmt::join(failed, ", "), why);
        v.advice =
            fmt::format("open port {} to the outside, or name an address that leads here with --advertise", port);
        return v;
    }
    v.seen = reached.empty() ? fmt::format("{} has connected to you", known.connected_by)
                             : fmt::format("{} could connect to you at {}", fmt::join(reached, ", "), at);
    if (!failed.empty()) v.seen += fmt::format(", and {} could not ({})", fmt::join(failed, ", "), why);
    const auto leads_here = [&at](const net::endpoint& e) { return e.text() == at; };
    if (!reached.empty() && std::ranges::none_of(known.advertised, leads_here)) {
        v.advice = fmt::format("others will not try that address: name it with --advertise {}", at);
    }
    return v;
}

void answer_reach_request(node& n, const shared_linked& from, const reach_request& m) {
    const auto now = n.env.clock.now();
    // Whoever asks more often than that wants us to dial, not to know.
    if (from->reaching || (from->reach_answered && now - *from->reach_answered < reach_asked_again / 2)) return;
    from->reaching = true;
    from->reach_answered = now;
    const auto& remote = from->link->remote();
    std::vector<net::endpoint> addresses;
    if (is_member(n, remote.key)) addresses = n.led().find(remote.key)->admitted.addresses;
    const net::endpoint seen{remote.observed.host, m.port};
    if (std::ranges::find(addresses, seen) == addresses.end()) addresses.push_back(seen);
    n.tasks.spawn_isolated("connecting back", reach(n, from, std::move(addresses)));
}

void ask_witness(reach_knowledge& known, const net::peer_key& whom, const std::string& name, core::time_point now) {
    auto& w = known.witnesses[whom];
    if (w.waiting) w.reply.reset();
    w.name = name;
    w.asked = now;
    w.waiting = true;
}

/// One answer to each question: each may change the verdict, and that is an event.
bool hear_witness(reach_knowledge& known, const net::peer_key& from, reach_reply m) {
    const auto witness = known.witnesses.find(from);
    if (witness == known.witnesses.end() || !std::exchange(witness->second.waiting, false)) return false;
    witness->second.reply = std::move(m);
    return true;
}

void hear_reach_reply(node& n, const net::peer_key& from, const reach_reply& m) {
    if (hear_witness(n.reach, from, m)) tell_reach(n);
}

core::task<core::result<void>> learn_reach(node& n) {
    n.reach.advertised = n.advertised();
    for (;;) {
        while (const auto witness = next_witness(n)) {
            const auto& remote = witness->link->remote();
            ask_witness(n.reach, remote.key, remote.name, n.env.clock.now());
            n.send(remote.key, reach_request{n.listen.port});
        }
        for (const auto& [key, peer] : n.links) {
            if (!peer->link->dialled_here() && is_member(n, key)) n.reach.connected_by = peer->link->remote().name;
        }
        tell_reach(n);
        auto slept = co_await n.env.clock.sleep_for(5s);
        LONGHAUL_CO_TRY(slept);
    }
}

}  // namespace longhaul::peers

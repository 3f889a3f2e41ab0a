#include <algorithm>
#include <nlohmann/json.hpp>

#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

std::string name_of(const node& n) {
    if (n.log_known && n.led().phase() == run_phase::paused && !n.led().open()) return "paused";
    switch (n.doing) {
        case member_state::joining: return "joining";
        case member_state::catching_up: return "catching up";
        case member_state::training: return "training";
        case member_state::exchanging: return "exchanging";
        case member_state::waiting: return "waiting";
        case member_state::stopped: return "stopped";
    }
    return "unknown";
}

/// As many as are committed, and the rest of the steps in rounds like the present one.
std::uint64_t rounds_in_all(const node& n) {
    const auto total = n.config().total_steps();
    if (n.state && n.state->position >= total) return n.state->round;
    if (!n.log_known) return static_cast<std::uint64_t>(n.config().stop.rounds);
    const auto H = n.last_plan ? n.last_plan->inner_steps : static_cast<std::uint64_t>(n.config().inner.steps);
    const auto left = total > n.led().position() ? total - n.led().position() : 0;
    return n.led().committed() + (left + H - 1) / H;
}

}  // namespace

peer_status status_of(const node& n) {
    peer_status s;
    s.key = n.self();
    s.name = n.options.name;
    s.state = name_of(n);
    s.waiting_for = n.waiting_for;
    s.plan_reason = n.last_way.reason;
    std::tie(s.wire_sent, s.wire_received) = n.wire_bytes();
    s.train_loss = n.train_loss;
    s.eval_loss = n.eval_loss;
    if (n.state) {
        s.applied = n.state->round;
        s.root = n.state->root;
        s.tokens = n.state->tokens;
    }
    s.listen = n.listen;
    if (n.mesh) s.strangers = n.mesh->door();
    const auto reach = judge_reach(n.reach, n.listen.port);
    s.reachable = reach.reachable;
    s.reach = reach.seen;
    s.reach_advice = reach.advice;
    const auto possible = may_recover(n);
    s.may_recover = possible.has_value();
    s.recovery = possible ? cost_of_recovery(n) : possible.error().message;
    if (!n.run) return s;
    s.run_name = n.config().name;
    s.run = n.run->run_id;
    s.rounds_total = rounds_in_all(n);
    s.ticket = n.ready().ticket;
    if (!n.log_known) return s;
    const auto& l = n.led();
    s.generation = l.generation();
    s.run_stopped = l.phase() == run_phase::stopped;
    s.round = l.committed() + 1;
    s.attempt = l.open() ? l.open()->attempt : 0;
    s.coordinator = n.log->leader();
    s.coordinator_reachable = n.log->leads() || n.find(s.coordinator) != nullptr;
    const auto* last = l.commit_of(l.committed());
    const bool in_rounds = l.open() || l.phase() == run_phase::running;
    for (const auto& [number, m] : l.members()) {
        peer_row row;
        row.key = m.admitted.key;
        row.name = m.admitted.name;
        row.address = m.admitted.addresses.empty() ? std::string() : m.admitted.addresses.front().text();
        const auto link = n.find(m.admitted.key);
        const bool self = m.admitted.key == n.self();
        row.alive = self || link != nullptr;
        row.participating = in_rounds && has(n.last_members, number);
        row.merged = last != nullptr &&
                     std::ranges::any_of(last->commit.contributions, [&](const auto& c) { return c.number == number; });
        row.applied = self ? s.applied : (link ? link->applied : 0);
        if (link) {
            const auto stats = link->link->stats();
            row.rtt_seconds = core::to_seconds(stats.rtt_last);
            row.wire_sent = stats.wire_sent;
            row.wire_received = stats.wire_received;
            row.link = stats;
        }
        s.alive += row.alive ? 1 : 0;
        s.participating += row.participating ? 1 : 0;
        s.merged += row.merged ? 1 : 0;
        s.peers.push_back(std::move(row));
    }
    return s;
}

namespace {

/// Rates in bits per second.
nlohmann::ordered_json link_json(const net::link_stats& s) {
    nlohmann::ordered_json j;
    j["rtt_min_seconds"] = core::to_seconds(s.rtt_min);
    j["rtt_median_seconds"] = core::to_seconds(s.rtt_median);
    j["rtt_p99_seconds"] = core::to_seconds(s.rtt_p99);
    j["goodput_up"] = 8 * s.goodput_up;
    j["goodput_down"] = 8 * s.goodput_down;
    j["goodput_up_p25"] = 8 * s.goodput_up_cautious;
    j["goodput_down_p25"] = 8 * s.goodput_down_cautious;
    j["loss"] = s.loss;
    j["window"] = s.window;
    j["streams"] = s.streams;
    j["streams_used"] = s.streams_used;
    j["pace"] = 8 * s.pace;
    j["resent"] = s.resent;
    return j;
}

}  // namespace

std::string to_json(const peer_status& s) {
    nlohmann::ordered_json j;
    j["run_name"] = s.run_name;
    j["run"] = s.run.hex();
    j["key"] = s.key.hex();
    j["name"] = s.name;
    j["state"] = s.state;
    j["waiting_for"] = s.waiting_for;
    j["may_recover"] = s.may_recover;
    j["recovery"] = s.recovery;
    j["plan_reason"] = s.plan_reason;
    j["generation"] = s.generation;
    j["round"] = s.round;
    j["attempt"] = s.attempt;
    j["applied"] = s.applied;
    j["rounds_total"] = s.rounds_total;
    j["alive"] = s.alive;
    j["participating"] = s.participating;
    j["merged"] = s.merged;
    j["root"] = s.root.hex();
    j["train_loss"] = s.train_loss ? nlohmann::ordered_json(*s.train_loss) : nlohmann::ordered_json(nullptr);
    j["eval_loss"] = s.eval_loss ? nlohmann::ordered_json(*s.eval_loss) : nlohmann::ordered_json(nullptr);
    j["tokens"] = s.tokens;
    j["wire_sent"] = s.wire_sent;
    j["wire_received"] = s.wire_received;
    j["coordinator"] = s.coordinator.hex();
    j["coordinator_reachable"] = s.coordinator_reachable;
    j["listen"] = s.listen.text();
    j["reachable"] = s.reachable ? nlohmann::ordered_json(*s.reachable) : nlohmann::ordered_json(nullptr);
    j["reach"] = s.reach;
    j["reach_advice"] = s.reach_advice;
    j["strangers"] = {{"waiting", s.strangers.waiting}, {"turned_away", s.strangers.turned_away}};
    j["peers"] = nlohmann::ordered_json::array();
    for (const auto& p : s.peers) {
        nlohmann::ordered_json row;
        row["key"] = p.key.hex();
        row["name"] = p.name;
        row["address"] = p.address;
        row["alive"] = p.alive;
        row["participating"] = p.participating;
        row["merged"] = p.merged;
        row["applied"] = p.applied;
        row["rtt_seconds"] = p.rtt_seconds;
        row["wire_sent"] = p.wire_sent;
        row["wire_received"] = p.wire_received;
        if (p.link) row["link"] = link_json(*p.link);
        j["peers"].push_back(std::move(row));
    }
    // Names come from strangers: what is not UTF-8 is replaced rather than thrown about.
    return j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace longhaul::peers

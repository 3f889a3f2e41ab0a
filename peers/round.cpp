#include "peers/round.hpp"

#include <algorithm>

namespace longhaul::peers {

namespace {

constexpr std::size_t history_length = 16;

std::string brief_list(const std::vector<peer_number>& numbers) {
    std::string out;
    for (const auto n : numbers) out += (out.empty() ? "" : ", ") + std::to_string(n);
    return out.substr(0, max_reason / 2);
}

}  // namespace

void round_coordinator::caught_up(peer_number who, std::uint64_t generation, std::uint64_t applied) {
    peers_[who] = standing{generation, applied, false};
}

void round_coordinator::gone(peer_number who) { peers_.erase(who); }

void round_coordinator::restarted(peer_number who) {
    peers_.erase(who);
    views_.erase(who);
    if (round_ != 0) lost_.insert(who);
}

void round_coordinator::progress(peer_number who, const progress_message& m, core::time_point now) {
    if (m.generation != generation_ || m.round != round_) return;
    auto& v = views_[who];
    if (m.steps > v.steps || m.verified_bytes > v.verified_bytes || m.payloads.size() > v.payloads.size()) {
        v.last_progress = now;
    }
    v.steps = std::max(v.steps, m.steps);
    v.verified_bytes = std::max(v.verified_bytes, m.verified_bytes);
    v.payloads.insert(m.payloads.begin(), m.payloads.end());
}

void round_coordinator::ready(peer_number who, const ready_message& m, core::time_point now) {
    if (m.generation != generation_ || m.round != round_ || m.attempt != attempt_) return;
    auto& v = views_[who];
    v.ready = m;
    v.ready_at = now;
    if (const auto it = peers_.find(who); it != peers_.end()) it->second.holds_next = true;
}

void round_coordinator::evaluated(std::uint64_t round, double loss) {
    if (round <= eval_round_) return;
    eval_round_ = round;
    eval_loss_ = loss;
}

void round_coordinator::log_advanced(const ledger& l, core::time_point now) {
    const bool fresh_generation = l.generation() != generation_;
    if (fresh_generation) {
        generation_ = l.generation();
        history_.clear();
        if (eval_round_ > l.committed()) eval_round_ = 0;
    }
    if (!fresh_generation && round_ != 0 && l.committed() >= round_) {
        history_.push_back(now - round_started_);
        if (history_.size() > history_length) history_.erase(history_.begin());
        // Who held the aggregate applies it without further traffic.
        for (auto& [who, s] : peers_) {
            if (s.holds_next) s.applied = std::max(s.applied, round_);
            s.holds_next = false;
        }
    }
    const std::uint64_t open_round = l.open() ? l.open()->round : 0;
    const std::uint32_t open_attempt = l.open() ? l.open()->attempt : 0;
    if (fresh_generation || open_round != round_) {
        round_ = open_round;
        round_started_ = now;
        views_.clear();
        lost_.clear();
        attempt_ = 0;
    }
    if (open_attempt != attempt_) {
        attempt_ = open_attempt;
        // Whoever started again while this attempt was being logged is lost for it, too, if it counts on their payload.
        std::erase_if(lost_, [&l](peer_number who) {
            return !l.open() || !std::ranges::binary_search(l.open()->contributors, who);
        });
        for (auto& [who, v] : views_) v.ready.reset();
    }
}

round_decision round_coordinator::decide(const ledger& l, core::time_point now) const {
    if (l.phase() == run_phase::stopped || l.committed() >= rules_.rounds) return {};
    if (l.open()) return advance_open(l, *l.open(), now);
    if (l.phase() == run_phase::paused) return {};
    return open_next(l);
}

std::vector<peer_number> round_coordinator::candidates(const ledger& l) const {
    std::vector<peer_number> out;
    for (const auto& [who, s] : peers_) {
        const auto* m = l.find(who);
        // One round behind will do: a joiner hears of each commit a moment after it, and fetches that aggregate first.
        const bool current = s.generation == l.generation() && s.applied + 1 >= l.committed();
        if (m != nullptr && m->present && current) out.push_back(who);
    }
    return out;
}

round_decision round_coordinator::open_next(const ledger& l) const {
    round_record r;
    r.members = candidates(l);
    if (r.members.empty() || (l.committed() == 0 && r.members.size() < rules_.min_members)) return {};
    r.contributors = r.members;
    r.round = l.committed() + 1;
    r.attempt = 1;
    r.position = l.position();
    r.plan = rules_.plan;
    r.eval_round = eval_round_;
    r.eval_loss = eval_loss_;
    round_decision d;
    d.propose = std::move(r);
    return d;
}

std::size_t round_coordinator::holders(peer_number author, const std::vector<peer_number>& members) const {
    return static_cast<std::size_t>(std::ranges::count_if(members, [&](peer_number m) {
        const auto v = views_.find(m);
        return v != views_.end() && v->second.payloads.contains(author);
    }));
}

core::duration round_coordinator::allowance() const {
    if (history_.empty()) return rules_.first_deadline;
    auto sorted = history_;
    std::ranges::sort(sorted);
    // The 90th percentile of the last rounds and half of it again: never an absolute number.
    const auto q = sorted[(sorted.size() * 9) / 10 == sorted.size() ? sorted.size() - 1 : (sorted.size() * 9) / 10];
    return q + q / 2 + rules_.grace;
}

round_decision round_coordinator::advance_open(const ledger& l, const round_record& open, core::time_point now) const {
    round_decision d;
    std::vector<peer_number> alive, dead;
    for (const auto m : open.members) {
        const auto* member = l.find(m);
        const bool here = peers_.contains(m) && !lost_.contains(m) && member != nullptr && member->present;
        (here ? alive : dead).push_back(m);
    }
    auto next_attempt = [&](std::vector<peer_number> members, std::vector<peer_number> contributors, std::string why) {
        round_record r = open;
        r.attempt = open.attempt + 1;
        r.members = std::move(members);
        r.contributors = std::move(contributors);
        r.reason = std::move(why);
        d.propose = std::move(r);
    };
    if (!dead.empty()) {
        if (alive.empty()) {
            // Nobody is left who holds anything of it. There is no abandon (DESIGN §5): whoever is here commits it
            // empty. They sign nothing for it, so it does not matter what they sent before they started again.
            auto present = candidates(l);
            if (!present.empty()) next_attempt(std::move(present), {}, "lost every member");
            return d;
        }
        std::vector<peer_number> contributors;
        for (const auto c : open.contributors) {
            // One that died after full delivery stays: its work is in every survivor's hands.
            const bool lost = std::ranges::find(dead, c) != dead.end() && holders(c, alive) < alive.size();
            if (!lost) contributors.push_back(c);
        }
        next_attempt(std::move(alive), std::move(contributors), "lost peer " + brief_list(dead));
        return d;
    }
    // One root from a majority of the members and from the voter (f = 0: the coordinator itself, when it is a member).
    std::map<std::pair<core::digest, core::digest>, std::vector<peer_number>> by_roots;
    std::size_t answered = 0;
    for (const auto m : open.members) {
        const auto v = views_.find(m);
        if (v == views_.end() || !v->second.ready) continue;
        by_roots[{v->second.ready->aggregate_root, v->second.ready->state_root}].push_back(m);
        ++answered;
    }
    const bool self_is_member = std::ranges::binary_search(open.members, self_);
    for (const auto& [roots, holding] : by_roots) {
        const bool voter_agrees = !self_is_member || std::ranges::binary_search(holding, self_);
        if (2 * holding.size() <= open.members.size() || !voter_agrees) continue;
        core::time_point majority_at{};
        for (const auto h : holding) majority_at = std::max(majority_at, views_.at(h).ready_at);
        // The others are usually a moment behind: worth a short wait, never more than a quarter of the round.
        const auto patience = std::min(rules_.grace, (majority_at - round_started_) / 4);
        if (answered < open.members.size() && now < majority_at + patience) {
            d.wake_at = majority_at + patience;
            return d;
        }
        // The root covers the contributions; our own copy needs no trust.
        const auto& said = *views_.at(self_is_member ? self_ : holding.front()).ready;
        commit_record c;
        c.round = open.round;
        c.attempt = open.attempt;
        c.aggregate_root = said.aggregate_root;
        c.state_root = said.state_root;
        c.contributions = said.contributions;
        d.propose = std::move(c);
        return d;
    }
    // Stragglers: a contributor whose payload a majority still lacks when the deadline passed leaves the contributors.
    std::vector<peer_number> late, on_time;
    const auto limit = allowance();
    core::time_point next_deadline = core::time_point::max();
    for (const auto c : open.contributors) {
        if (2 * holders(c, open.members) > open.members.size()) {
            on_time.push_back(c);
            continue;
        }
        const auto v = views_.find(c);
        auto deadline = round_started_ + limit;
        // It stretches up to four times while its work or anybody's receipt of it moves.
        if (v != views_.end() && v->second.last_progress > core::time_point{}) {
            deadline = std::min(round_started_ + 4 * limit, std::max(deadline, v->second.last_progress + limit / 2));
        }
        if (now >= deadline) {
            late.push_back(c);
        } else {
            on_time.push_back(c);
            next_deadline = std::min(next_deadline, deadline);
        }
    }
    if (!late.empty()) {
        next_attempt(open.members, std::move(on_time), "deadline passed for peer " + brief_list(late));
        return d;
    }
    if (next_deadline != core::time_point::max()) d.wake_at = next_deadline;
    return d;
}

std::vector<peer_number> round_coordinator::diverged() const {
    std::map<core::digest, std::vector<peer_number>> by_state;
    for (const auto& [who, v] : views_) {
        if (v.ready) by_state[v.ready->state_root].push_back(who);
    }
    if (by_state.size() < 2) return {};
    const auto largest = std::ranges::max_element(
        by_state, [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
    std::vector<peer_number> out;
    for (const auto& [root, who] : by_state) {
        if (root != largest->first) out.insert(out.end(), who.begin(), who.end());
    }
    return out;
}

}  // namespace longhaul::peers

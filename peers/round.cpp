#include "peers/round.hpp"

#include <algorithm>
#include <cmath>

#include "core/hash.hpp"

namespace longhaul::peers {

namespace {

constexpr std::size_t history_length = 16;
/// How often a deadline fits into the time that progress may stretch it to.
constexpr int most_stretch = 4;
/// So many owners of a round are relieved: when others are no faster, it is not for them.
constexpr std::size_t most_relieved = 2;
constexpr int most_doublings = 8;
std::string brief_list(const std::vector<peer_number>& numbers) {
    std::string out;
    for (const auto n : numbers) out += (out.empty() ? "" : ", ") + std::to_string(n);
    return out.substr(0, max_reason / 2);
}

/// Who sums: all members, or the owners of shards. Sorted.
std::vector<peer_number> summing(const round_record& open) {
    if (open.exchange.shards.empty()) return open.members;
    std::set<peer_number> owners;
    for (const auto& s : open.exchange.shards) {
        if (s.chunks > 0) owners.insert(s.owner);
    }
    return {owners.begin(), owners.end()};
}

/// Who sums which shard: of each, in their order.
std::vector<peer_number> owners_of(const std::optional<round_record>& open) {
    std::vector<peer_number> out;
    if (!open) return out;
    for (const auto& s : open->exchange.shards) out.push_back(s.owner);
    return out;
}

/// Whether a member has to hold other payloads, or other parts of them, than it had to.
bool duty_changed(const std::vector<peer_number>& before, const std::vector<peer_number>& now, peer_number member) {
    const auto sums = [member](peer_number owner) { return owner == member; };
    return !std::ranges::equal(before, now, {}, sums, sums);
}

/// What a READY would commit, except for the state that its sender started from.
commit_record commit_from(const ready_message& m) {
    commit_record c;
    c.round = m.round;
    c.attempt = m.attempt;
    c.aggregate_root = m.aggregate_root;
    c.contributions = m.contributions;
    return c;
}

void wake_no_later(round_decision& d, core::time_point at) {
    if (!d.wake_at || at < *d.wake_at) d.wake_at = at;
}

/// Of the contributions: what one of them claims cannot move it far.
double middle_loss(const commit_record& commit) {
    std::vector<double> losses;
    for (const auto& c : commit.contributions) losses.push_back(c.loss);
    const auto middle = losses.begin() + static_cast<std::ptrdiff_t>(losses.size() / 2);
    std::ranges::nth_element(losses, middle);
    return *middle;
}

}  // namespace

round_record round_coordinator::next_attempt(const round_record& open, std::vector<peer_number> members,
                                             std::vector<peer_number> contributors, std::string why,
                                             core::time_point now) const {
    return next_attempt(open, std::move(members), std::move(contributors), std::move(why), now, relieved_);
}

round_record round_coordinator::next_attempt(const round_record& open, std::vector<peer_number> members,
                                             std::vector<peer_number> contributors, std::string why,
                                             core::time_point now, const std::set<peer_number>& relieved) const {
    round_record r = open;
    r.attempt = open.attempt + 1;
    r.members = std::move(members);
    r.contributors = std::move(contributors);
    r.reason = std::move(why);
    r.exchange = planner_.with(rules_.choices.model_of(r.plan.codec, r.round)).replan(r, now, relieved);
    return r;
}

std::optional<round_record> round_coordinator::relieve(const round_record& open, const std::vector<peer_number>& slow,
                                                       const std::vector<peer_number>& late,
                                                       core::time_point now) const {
    if (slow.empty() || relieved_.size() + slow.size() > most_relieved) return std::nullopt;
    auto who = relieved_;
    who.insert(slow.begin(), slow.end());
    const auto left = [&] {
        return std::ranges::any_of(open.members, [&who](peer_number m) { return !who.contains(m); });
    };
    if (!left()) return std::nullopt;
    // Rather one whose own payload came.
    const auto without = who;
    who.insert(late.begin(), late.end());
    if (!left()) who = without;
    // Whoever sums now needs all of it once more: from those who are here.
    auto contributors = open.contributors;
    std::erase_if(contributors, [&](peer_number c) { return !has(open.members, c); });
    const auto why = fmt::format("peer {} took too long to sum", brief_list(slow));
    return next_attempt(open, open.members, std::move(contributors), why, now, who);
}

std::vector<peer_number> round_coordinator::slow_owners(const round_record& open) const {
    std::vector<peer_number> out;
    if (open.exchange.shards.empty()) return out;
    const auto owners = summing(open);
    for (const auto owner : owners) {
        const auto given = [&](peer_number c) { return c != owner && holds(owner, c); };
        // What nobody else has got either may be late where it comes from.
        const auto sent = [&](peer_number c) {
            const auto v = views_.find(c);
            const bool made = v != views_.end() && v->second.steps >= open.steps_of(c);
            return owners.size() == 1 ? made : holders(c, owners) > 0;
        };
        const auto lacking = [&](peer_number c) { return c != owner && !holds(owner, c) && sent(c); };
        const auto lacks = std::ranges::count_if(open.contributors, lacking);
        if (lacks > 1 && lacks >= std::ranges::count_if(open.contributors, given)) out.push_back(owner);
    }
    return out;
}

void round_coordinator::caught_up(peer_number who, std::uint64_t generation, std::uint64_t applied,
                                  core::time_point now) {
    const auto [it, fresh] = peers_.try_emplace(who);
    auto& s = it->second;
    if (fresh || s.generation != generation) {
        s = {};
    } else if (applied > s.applied) {
        // It could not begin with the newest before that was committed.
        const auto from = applied == committed_ ? std::max(s.since, committed_at_) : s.since;
        s.step = std::max(s.step, now - from);
    }
    s.generation = generation;
    s.applied = applied;
    s.since = now;
}

void round_coordinator::gone(peer_number who) {
    planner_.gone(who);
    step_seconds_.erase(who);
    peers_.erase(who);
    awaited_.erase(who);
    std::erase(last_members_, who);
}

void round_coordinator::restarted(peer_number who) {
    std::erase(last_members_, who);
    peers_.erase(who);
    views_.erase(who);
    awaited_.erase(who);
    if (round_ != 0) lost_.insert(who);
}

void round_coordinator::progress(peer_number who, const progress_message& m, core::time_point now) {
    if (m.generation != generation_ || m.round != round_ || !has(open_members_, who)) return;
    awaited_.erase(who);
    if (m.restarted && !open_contributors_.empty()) {
        // Whoever coordinated when it was admitted anew knew; this one may not.
        views_.erase(who);
        lost_.insert(who);
        return;
    }
    auto& v = views_[who];
    const bool received = m.verified_bytes > v.verified_bytes || m.payloads.size() > v.payloads.size();
    if (received) v.last_receipt = now;
    if (received || m.steps > v.steps) v.last_progress = now;
    v.steps = std::max(v.steps, m.steps);
    v.verified_bytes = std::max(v.verified_bytes, m.verified_bytes);
    v.behind = m.behind;
    if (m.attempt >= v.holds_from) v.payloads.insert(m.payloads.begin(), m.payloads.end());
}

void round_coordinator::ready(peer_number who, const ready_message& m, core::time_point now) {
    if (m.generation != generation_ || m.round != round_ || m.attempt != attempt_ || !has(open_members_, who)) return;
    awaited_.erase(who);
    auto& v = views_[who];
    const auto vouches_for = core::hash(serialize(record(commit_from(m))));
    // Said again, it is no news: patience counts from the first time.
    if (v.ready && v.vouches_for == vouches_for && v.ready->state_root == m.state_root) return;
    v.ready = m;
    v.ready_at = now;
    v.vouches_for = vouches_for;
    for (const auto& c : m.contributions) v.payloads.insert(c.number);  // it has summed them
}

void round_coordinator::evaluated(std::uint64_t round, double loss) {
    if (round <= eval_round_ || round > committed_ || !std::isfinite(loss)) return;
    eval_round_ = round;
    eval_loss_ = loss;
}

void round_coordinator::log_advanced(const ledger& l, core::time_point now) {
    const bool first = generation_ == 0;
    const bool fresh_generation = l.generation() != generation_;
    committed_ = l.committed();
    if (fresh_generation) {
        generation_ = l.generation();
        history_.clear();
        absences_.clear();
        dissenters_.clear();
        if (eval_round_ > l.committed()) eval_round_ = 0;
    }
    if (!fresh_generation && round_ != 0 && l.committed() >= round_) {
        if (const auto* done = l.commit_of(round_)) {
            // A round that nobody contributed to says nothing about how long rounds take, nor does one that was open
            // before this coordinator; one that took several attempts took as long as something moved, or a stall would
            // lengthen the next deadlines, and they it.
            const bool fruitless = done->commit.contributions.empty();
            fruitless_ = fruitless ? std::min(fruitless_ + 1, most_doublings) : 0;
            if (!fruitless && saw_begin_) {
                history_.push_back((attempt_ > 1 ? std::max(last_moved(), round_started_) : now) - round_started_);
            }
            if (history_.size() > history_length) history_.erase(history_.begin());
            if (!fruitless && saw_begin_ && attempt_ == 1) note_outcome(now - round_started_);
            if (!fruitless) guard_.committed(done->plan, middle_loss(done->commit));
            if (!fruitless && saw_begin_) note_absences(done->commit);
            save_up_waiting(now - round_started_);
            committed_at_ = now;
            dissenters_.clear();
            // Who holds the aggregate, and the state that it belongs to, applies it without further traffic.
            for (const auto& [who, v] : views_) {
                if (v.ready && v.ready->aggregate_root != done->commit.aggregate_root) dissenters_.push_back(who);
                const auto it = peers_.find(who);
                if (it == peers_.end() || !v.ready || v.ready->aggregate_root != done->commit.aggregate_root ||
                    v.ready->state_root != done->commit.state_root) {
                    continue;
                }
                it->second.applied = std::max(it->second.applied, round_);
            }
        }
    }
    const std::uint64_t open_round = l.open() ? l.open()->round : 0;
    const std::uint32_t open_attempt = l.open() ? l.open()->attempt : 0;
    if (fresh_generation || open_round != round_) {
        if (round_ == 0 && open_round != 0) note_waiting(now - round_started_);
        round_ = open_round;
        round_started_ = now;
        views_.clear();
        lost_.clear();
        awaited_.clear();
        relieved_.clear();
        attempt_ = 0;
        saw_begin_ = !first;
        if (l.open()) {
            note_plan(*l.open());
            first_contributors_ = l.open()->contributors;
            last_steps_ = l.open()->own_steps;
            // Whoever was no member of the round before may have begun late.
            const auto perhaps = [this](const auto& s) {
                return !last_members_.empty() && !has(last_members_, s.peer);
            };
            std::erase_if(last_steps_, perhaps);
            for (auto& [who, s] : peers_) s.passed_over = has(l.open()->contributors, who) ? 0 : s.passed_over + 1;
        }
    }
    if (open_attempt != attempt_) {
        const auto same_but_the_way = [&] {
            return attempt_ != 0 && l.open() && l.open()->members == open_members_ &&
                   l.open()->contributors == open_contributors_;
        };
        forgetful_ = (attempt_ != 0 && forgetful_) || (l.open() && l.open()->exchange.streams());
        const auto owners = owners_of(l.open());
        const bool moved = owners != owners_;
        for (std::size_t i = 0; moved && attempt_ != 0 && i < std::min(owners.size(), owners_.size()); ++i) {
            if (owners[i] != owners_[i] && has(l.open()->members, owners_[i])) relieved_.insert(owners_[i]);
        }
        // Payloads that go another way, or all over again, have their time once more; and so have those who could not
        // go on while another one was waited for.
        const bool waited = l.open() && l.open()->plan.exchanges() > 1;
        if (attempt_ == 0 || forgetful_ || moved || waited || same_but_the_way()) deadlines_from_ = now;
        attempt_ = open_attempt;
        attempt_started_ = now;
        for (const auto m : l.open() ? l.open()->members : std::vector<peer_number>{}) {
            // What it said that it holds was what it had to hold then.
            if (!forgetful_ && !duty_changed(owners_, owners, m)) continue;
            views_[m].payloads.clear();
            views_[m].holds_from = attempt_;
        }
        for (auto& [who, v] : views_) v.ready.reset();
        owners_ = owners;
        // Whoever started again, also while this attempt was being logged, holds nothing of the round and stays lost
        // for it. But nobody holds or signs anything for an attempt that sums nothing.
        if (l.open() && l.open()->contributors.empty()) lost_.clear();
    }
    if (l.open()) {
        last_mode_ = l.open()->plan.mode;
        last_members_ = l.open()->members;
    }
    open_members_ = l.open() ? l.open()->members : std::vector<peer_number>{};
    open_contributors_ = l.open() ? l.open()->contributors : std::vector<peer_number>{};
    if (first) {
        awaited_.insert(open_members_.begin(), open_members_.end());
        awaited_.erase(self_);
    }
}

round_decision round_coordinator::decide(const ledger& l, core::time_point now) const {
    if (l.phase() == run_phase::stopped || l.position() >= rules_.total_steps) return {};
    if (l.open()) return advance_open(l, *l.open(), now);
    if (l.phase() == run_phase::paused) return {};
    return open_next(l, now);
}

const ready_message* round_coordinator::ready_of(peer_number who) const {
    const auto v = views_.find(who);
    return v == views_.end() || !v->second.ready ? nullptr : &*v->second.ready;
}

bool round_coordinator::holds(peer_number who, peer_number author) const {
    const auto v = views_.find(who);
    return v != views_.end() && v->second.payloads.contains(author);
}

std::size_t round_coordinator::holders(peer_number author, const std::vector<peer_number>& members) const {
    return static_cast<std::size_t>(std::ranges::count_if(members, [&](peer_number m) { return holds(m, author); }));
}

bool round_coordinator::delivered(const round_record& open, peer_number author,
                                  const std::vector<peer_number>& alive) const {
    if (open.exchange.shards.empty()) return holders(author, alive) == alive.size();
    if (open.exchange.streams()) return false;  // it would have to send it again
    const auto owners = summing(open);
    return std::ranges::includes(alive, owners) && holders(author, owners) == owners.size();
}

bool round_coordinator::arrived(const round_record& open, peer_number author) const {
    if (open.exchange.shards.empty()) return 2 * holders(author, open.members) > open.members.size();
    const auto owners = summing(open);
    return holders(author, owners) == owners.size();
}

std::vector<peer_number> round_coordinator::holding_up(const round_record& open) const {
    std::map<peer_number, std::size_t> waited_for;
    std::size_t most = 0;
    for (const auto& [who, v] : views_) {
        for (const auto c : v.behind) {
            if (has(open.contributors, c)) most = std::max(most, ++waited_for[c]);
        }
    }
    std::vector<peer_number> out;
    // One member's word is not enough.
    if (2 * most < open.members.size()) return out;
    for (const auto& [c, count] : waited_for) {
        if (count == most) out.push_back(c);
    }
    return out.size() == open.contributors.size() ? std::vector<peer_number>{} : out;
}

core::duration round_coordinator::allowance() const {
    // A deadline that everybody has missed was too short, or they died: the next one is twice as long.
    const auto patience = 1 << fruitless_;
    if (history_.empty()) return rules_.first_deadline * patience;
    auto sorted = history_;
    std::ranges::sort(sorted);
    // The 90th percentile of the last rounds and half of it again: never an absolute number.
    auto q = sorted[sorted.size() * 9 / 10];
    // A controller may have made this round longer than any of those.
    if (!rules_.choices.to_choose.empty()) {
        q = std::max(q, core::from_seconds(predicted_steps_ + predicted_exchange_));
    }
    return (q + q / 2 + rules_.grace) * patience;
}

namespace {

/// The voters among `members`, of whom so many must hold an aggregate that it survives the death of all but a quorum
/// (DESIGN §5, invariant I9).
std::vector<peer_number> voting(const ledger& l, const std::vector<peer_number>& members) {
    std::vector<peer_number> out;
    std::ranges::copy_if(members, std::back_inserter(out), [&l](peer_number m) {
        const auto* member = l.find(m);
        return member != nullptr && l.voters().votes(member->admitted.key);
    });
    return out;
}

}  // namespace

std::optional<round_coordinator::agreement> round_coordinator::agreed(const ledger& l, const round_record& open) const {
    std::map<core::digest, std::vector<peer_number>> groups;
    for (const auto m : open.members) {
        if (ready_of(m) != nullptr) groups[views_.at(m).vouches_for].push_back(m);
    }
    const bool self_is_member = has(open.members, self_);
    const auto voters = voting(l, open.members);
    const auto copies = (l.voters().voters.size() + 1) / 2;
    const auto needed = std::min(copies, voters.size());
    for (const auto& [what, holding] : groups) {
        // One root from a majority of the members and from f + 1 voters, the coordinator itself among them. Where fewer
        // voters take part, other members hold the copies that are missing.
        if (2 * holding.size() <= open.members.size() || (self_is_member && !has(holding, self_))) continue;
        const auto answered = [this](peer_number m) { return ready_of(m) != nullptr; };
        const bool may_grow = !std::ranges::all_of(open.members, answered);
        if (may_grow && holding.size() < std::min(copies, open.members.size())) continue;
        const auto holds_too = [&](peer_number v) { return has(holding, v); };
        if (static_cast<std::size_t>(std::ranges::count_if(voters, holds_too)) < needed) continue;
        agreement a;
        a.commit = commit_from(*ready_of(holding.front()));
        const auto same = [](const contribution& c, peer_number n) { return c.number == n; };
        if (!std::ranges::equal(a.commit.contributions, open.contributors, same)) continue;
        // The state that most of them started from; in doubt, the coordinator's own.
        std::map<core::digest, std::size_t> states;
        std::vector<core::time_point> times;
        for (const auto m : holding) {
            ++states[ready_of(m)->state_root];
            times.push_back(views_.at(m).ready_at);
        }
        const auto most = std::ranges::max_element(states, {}, [](const auto& s) { return s.second; });
        a.commit.state_root = most->first;
        if (self_is_member && states.at(ready_of(self_)->state_root) == most->second) {
            a.commit.state_root = ready_of(self_)->state_root;
        }
        std::ranges::sort(times);
        a.majority_at = times[open.members.size() / 2];
        if (self_is_member) a.majority_at = std::max(a.majority_at, views_.at(self_).ready_at);
        a.holding = holding;
        return a;
    }
    return std::nullopt;
}

core::time_point round_coordinator::last_moved() const {
    core::time_point moved{};
    for (const auto& [who, v] : views_) moved = std::max({moved, v.last_progress, v.last_receipt});
    return moved;
}

core::time_point round_coordinator::deadline_of(peer_number c, const round_record& open, core::duration limit) const {
    core::time_point moved{};
    if (const auto v = views_.find(c); v != views_.end()) moved = v->second.last_progress;
    for (const auto m : summing(open)) {
        if (const auto v = views_.find(m); v != views_.end() && !holds(m, c)) {
            moved = std::max(moved, v->second.last_receipt);
        }
    }
    const auto plain = deadlines_from_ + limit;
    if (moved == core::time_point{}) return plain;
    // It stretches up to four times while its work or anybody's receipt of it moves.
    return std::min(deadlines_from_ + most_stretch * limit, std::max(plain, moved + limit / 2));
}

void round_coordinator::unblock(const round_record& open, bool all_answered, core::time_point now,
                                round_decision& d) const {
    // An author of whom members hold different payloads signed twice: it leaves, nothing else is known to be wrong.
    std::map<peer_number, core::digest> seen;
    std::set<peer_number> contested;
    std::vector<peer_number> silent, answered;
    for (const auto m : open.members) {
        const auto* said = ready_of(m);
        (said == nullptr ? silent : answered).push_back(m);
        if (said == nullptr) continue;
        for (const auto& c : said->contributions) {
            const auto [it, fresh] = seen.emplace(c.number, c.payload);
            if (!fresh && it->second != c.payload) contested.insert(c.number);
        }
    }
    const auto without = [&open](const auto& drop) {
        std::vector<peer_number> rest;
        std::ranges::copy_if(open.contributors, std::back_inserter(rest), [&](peer_number c) { return !drop(c); });
        return rest;
    };
    if (auto rest = without([&](peer_number c) { return contested.contains(c); }); rest != open.contributors) {
        d.propose = next_attempt(open, open.members, std::move(rest),
                                 "two payloads of peer " + brief_list({contested.begin(), contested.end()}), now);
        return;
    }
    if (!all_answered) {
        // No majority holds all of them: those that everybody holds can be summed at once.
        const auto who = summing(open);
        auto rest = without([&](peer_number c) { return holders(c, who) < who.size(); });
        if (const auto slowest = holding_up(open); rest.empty() && !slowest.empty())
            rest = without([&](peer_number c) { return has(slowest, c); });
        if (rest != open.contributors) {
            std::string missed;
            for (const auto c : open.contributors) {
                if (has(rest, c)) continue;
                std::vector<peer_number> lack;
                std::ranges::copy_if(who, std::back_inserter(lack), [&](auto m) { return !holds(m, c); });
                missed += fmt::format("{}the payload of peer {} did not reach peer {}", missed.empty() ? "" : "; ", c,
                                      brief_list(lack));
            }
            d.propose = next_attempt(open, open.members, std::move(rest), missed.substr(0, max_reason), now);
            return;
        }
        // Whoever holds everything for so long and does not answer is suspect (DESIGN §5).
        if (!answered.empty()) {
            d.propose =
                next_attempt(open, std::move(answered), open.contributors, "no READY from " + brief_list(silent), now);
            return;
        }
        // Those who sum have all that they need, and nobody has what they made of it.
        if (auto other = relieve(open, summing(open), {}, now)) {
            d.propose = std::move(*other);
            return;
        }
    }
    d.problem = fmt::format("no majority of the members agrees on the aggregate of round {}: {} of {} answered",
                            open.round, answered.size(), open.members.size());
}

round_decision round_coordinator::advance_open(const ledger& l, const round_record& open, core::time_point now) const {
    round_decision d;
    // After its own restart a coordinator gives the others time to link again, before it takes them for dead.
    const bool awaiting = !awaited_.empty() && now < round_started_ + return_wait;
    if (awaiting) wake_no_later(d, round_started_ + return_wait);
    std::vector<peer_number> alive, dead;
    std::size_t unanswered = 0;
    for (const auto m : open.members) {
        const auto* member = l.find(m);
        const bool linked = peers_.contains(m) || (awaiting && awaited_.contains(m));
        const bool here = linked && !lost_.contains(m) && member != nullptr && member->present;
        (here ? alive : dead).push_back(m);
        if (here && ready_of(m) == nullptr) ++unanswered;
    }
    if (auto a = agreed(l, open)) {
        // The others are usually a moment behind: worth a short wait, never more than a quarter of the round.
        const auto patience = std::min(rules_.grace, (a->majority_at - round_started_) / 4);
        if (unanswered > 0 && now < a->majority_at + patience) {
            wake_no_later(d, a->majority_at + patience);
            return d;
        }
        d.propose = std::move(a->commit);
        return d;
    }
    if (!dead.empty() && !awaiting) {
        if (alive.empty()) {
            // Nobody is left who holds anything of it. There is no abandon (DESIGN §5): whoever is here commits it
            // empty. They sign nothing for it, so it does not matter what they sent before they started again.
            auto present = candidates(l);
            d.stranded = present.empty();
            if (!d.stranded) d.propose = next_attempt(open, std::move(present), {}, "lost every member", now);
            return d;
        }
        std::vector<peer_number> contributors;
        for (const auto c : open.contributors) {
            // One that died after full delivery stays: its work is in every survivor's hands.
            if (has(alive, c) || delivered(open, c, alive)) contributors.push_back(c);
        }
        d.propose = next_attempt(open, std::move(alive), std::move(contributors), "lost peer " + brief_list(dead), now);
        return d;
    }
    const auto limit = allowance();
    if (const auto step = planner_.missing(open)) {
        if (now < step->lost_at) {
            // It may come yet, and nobody is late for the lack of it. But links that come and go hold up nothing more.
            const auto until = std::min(step->lost_at, deadlines_from_ + limit + exchange_planner::time_to_link);
            if (now < until) {
                wake_no_later(d, until);
                return d;
            }
        } else {
            auto other =
                next_attempt(open, open.members, open.contributors,
                             fmt::format("peers {} and {} cannot reach each other", step->from, step->to), now);
            const auto left = planner_.missing(other);
            if (!left || now < left->lost_at) {
                d.propose = std::move(other);
                return d;
            }
        }
    }
    // Stragglers: a contributor whose payload a majority still lacks when the deadline passed leaves the contributors.
    std::vector<peer_number> late, on_time;
    for (const auto c : open.contributors) {
        if (arrived(open, c)) {
            on_time.push_back(c);
            continue;
        }
        const auto deadline = deadline_of(c, open, limit);
        (now >= deadline ? late : on_time).push_back(c);
        if (now < deadline) wake_no_later(d, deadline);
    }
    // Nobody has given all of such a round while one is waited for.
    const auto slowest = late.empty() ? std::vector<peer_number>{} : holding_up(open);
    if (!slowest.empty()) {
        on_time.clear();
        std::ranges::set_difference(open.contributors, slowest, std::back_inserter(on_time));
        late = slowest;
    }
    if (!late.empty()) {
        // Where most are late at the same place, it is for who takes nothing there, not for those who send.
        if (auto other = relieve(open, slow_owners(open), late, now)) {
            d.propose = std::move(*other);
            return d;
        }
        d.propose =
            next_attempt(open, open.members, std::move(on_time), "deadline passed for peer " + brief_list(late), now);
        return d;
    }
    const bool all_answered =
        std::ranges::all_of(open.members, [this](peer_number m) { return ready_of(m) != nullptr; });
    const auto stuck_at =
        std::clamp(last_moved() + limit / 2, attempt_started_ + limit, attempt_started_ + most_stretch * limit);
    if (all_answered || now >= stuck_at) {
        // Members may wait for the aggregate before. If those who held it are gone, they wait in vain.
        const auto holds_last = [&](peer_number m) {
            const auto p = peers_.find(m);
            return p != peers_.end() && p->second.generation == l.generation() && p->second.applied >= l.committed();
        };
        d.stranded = std::ranges::none_of(alive, holds_last);
        unblock(open, all_answered, now, d);
    } else {
        wake_no_later(d, stuck_at);
    }
    return d;
}

std::vector<peer_number> round_coordinator::diverged() const {
    std::map<core::digest, std::vector<peer_number>> by_state;
    for (const auto m : open_members_) {
        if (const auto* said = ready_of(m)) by_state[said->state_root].push_back(m);
    }
    if (by_state.size() < 2) return {};
    const auto weight = [this](const auto& group) { return std::pair(group.second.size(), has(group.second, self_)); };
    const auto largest = std::ranges::max_element(by_state, {}, weight);
    std::vector<peer_number> out;
    for (const auto& [root, who] : by_state) {
        if (root != largest->first) out.insert(out.end(), who.begin(), who.end());
    }
    std::ranges::sort(out);
    return out;
}

}  // namespace longhaul::peers

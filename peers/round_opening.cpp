/// How peers/round.hpp begins a round: with whom, by which plan, and whom it waits for.

#include <algorithm>
#include <cmath>

#include "core/counter_random.hpp"
#include "peers/round.hpp"

namespace longhaul::peers {

namespace {

/// Of a run's time, one part in so many may pass in waiting for those who return; all of it at once at most for so
/// long.
constexpr int share_of_waiting = 10;
constexpr core::duration longest_wait = std::chrono::seconds(30);
/// Less is of no use to anybody: it is saved up.
constexpr core::duration least_wait = std::chrono::seconds(1);
/// Nobody waits for one that will be here for the round after next anyway.
constexpr int rounds_without_it = 3;
/// A larger share of an exchange than that: the codec ends it, and not a line.
constexpr double most_coding = 0.9;
/// Whoever was missed k times in a row, and most others were not, sits out 2^(k−1) − 1 rounds, and at most 2^(this − 1)
/// − 1: a peer that lies, or whose payloads are always late, costs an attempt now and then rather than each round.
constexpr unsigned most_absences = 5;
/// Who begins later than that share of the time for steps, as in the last round, had better wait for the next one.
constexpr double share_of_late = 0.8;

}  // namespace

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

void round_coordinator::note_absences(const commit_record& done) {
    std::vector<peer_number> missed;
    for (const auto who : first_contributors_) {
        const bool merged =
            std::ranges::find(done.contributions, who, &contribution::number) != done.contributions.end();
        if (merged) {
            absences_.erase(who);
        } else {
            missed.push_back(who);
        }
    }
    // Where so many are missed, it is for one who takes nothing, not for those who send.
    if (2 * missed.size() >= first_contributors_.size()) return;
    for (const auto who : missed) {
        auto& a = absences_[who];
        a.rounds = std::min(a.rounds + 1, most_absences);
        a.until = done.round + (std::uint64_t{1} << (a.rounds - 1));
    }
}

bool round_coordinator::sits_out(peer_number who) const {
    const auto a = absences_.find(who);
    return a != absences_.end() && committed_ + 1 < a->second.until;
}

std::vector<peer_number> round_coordinator::able(const std::vector<peer_number>& members, const ledger& l) const {
    std::vector<peer_number> out;
    // The many never wait for the few.
    const auto sitting = std::ranges::count_if(members, [this](peer_number m) { return sits_out(m); });
    const bool some_sit = 2 * static_cast<std::size_t>(sitting) < members.size();
    std::ranges::copy_if(members, std::back_inserter(out), [&](peer_number m) {
        return !(some_sit && sits_out(m)) && (begins_with_others(m, l) || pays(m, members.size()));
    });
    if (out.empty()) out = members;
    auto most = rules_.per_round == 0 ? out.size() : rules_.per_round;
    const auto& plan = rules_.choices.first;
    if (plan.exchanges() > 1) {
        const auto payload = rules_.choices.model_of(plan.codec, l.committed() + 1).payload_bytes;
        most = std::min(most, planner_.most_contributors(members, plan.exchanges() * payload));
    }
    if (out.size() <= most) return out;
    // A sample by the round's number (as MoDeST draws, arXiv 2302.13837): whoever coordinates draws the same.
    const auto lot = [round = l.committed() + 1](peer_number m) { return core::random_bits(round, m); };
    std::ranges::sort(out, {}, lot);
    out.resize(most);
    std::ranges::sort(out);
    return out;
}

bool round_coordinator::begins_with_others(peer_number who, const ledger& l) const {
    // A member of the round before has most of its aggregate, or is about to.
    if (last_members_.empty() || has(last_members_, who)) return true;
    const auto s = peers_.find(who);
    return s != peers_.end() && s->second.applied >= l.committed();
}

core::duration round_coordinator::lateness(peer_number who, const ledger& l) const {
    const auto s = peers_.find(who);
    return begins_with_others(who, l) || s == peers_.end() ? core::duration{} : s->second.step;
}

bool round_coordinator::pays(peer_number who, std::size_t members) const {
    const auto step = peers_.at(who).step;
    if (step <= core::duration{} || history_.empty()) return false;
    // The others have begun already. As a member of this round it begins the next one with them.
    if (present_ && present_->delay > 0) return false;
    const bool shares = rules_.own_pace && present_ && present_->inner_steps >= optim::fewest_shared_steps;
    if (shares && predicted_steps_ > 0) return core::to_seconds(step) < share_of_late * predicted_steps_;
    auto rounds = history_;
    const auto median = rounds.begin() + static_cast<std::ptrdiff_t>(rounds.size() / 2);
    std::ranges::nth_element(rounds, median);
    return step * static_cast<int>(members - 1) < *median;
}

void round_coordinator::save_up_waiting(core::duration round) {
    to_wait_ = std::min(to_wait_ + round / share_of_waiting, longest_wait);
}

void round_coordinator::note_waiting(core::duration before_it_opened) {
    if (to_wait_ < worth_waiting()) return;
    const auto waited = std::min(to_wait_, before_it_opened);
    // In vain, perhaps: then more of it at once.
    if (waited >= least_wait && waited == to_wait_) last_in_vain_ = waited;
    to_wait_ -= waited;
}

core::duration round_coordinator::worth_waiting() const {
    return std::clamp(2 * last_in_vain_, least_wait, longest_wait);
}

bool round_coordinator::somebody_returns(const ledger& l, const std::vector<peer_number>& members) const {
    return std::ranges::any_of(peers_, [&](const auto& entry) {
        const auto& [who, s] = entry;
        const auto* m = l.find(who);
        const bool near = s.generation == l.generation() && s.applied + recent_commits >= l.committed();
        return m != nullptr && m->present && near && !has(members, who) && s.passed_over >= rounds_without_it;
    });
}

round_decision round_coordinator::open_next(const ledger& l, core::time_point now) const {
    round_record r;
    r.members = candidates(l);
    if (r.members.empty()) return {.stranded = true};
    if (l.committed() == 0 && r.members.size() < rules_.min_members) {
        round_decision d;
        d.problem = fmt::format("the first round begins with {} peers (peers.min); {} of them are here",
                                rules_.min_members, r.members.size());
        return d;
    }
    r.contributors = able(r.members, l);
    round_decision d;
    const auto until = round_started_ + to_wait_;
    if (to_wait_ >= worth_waiting() && now < until && somebody_returns(l, r.members)) {
        d.wake_at = until;
        return d;
    }
    r.round = l.committed() + 1;
    r.attempt = 1;
    r.position = l.position();
    d.plan = choose_plan(r, l, now);
    if (rules_.own_pace) r.own_steps = own_steps(r.contributors, r.plan.inner_steps, l);
    r.eval_round = eval_round_;
    r.eval_loss = eval_loss_;
    d.propose = std::move(r);
    return d;
}

std::optional<optim::plan_decision> round_coordinator::choose_plan(round_record& r, const ledger& l,
                                                                   core::time_point now) const {
    std::map<std::string, exchange_planner::choice> ways;
    const auto way_of = [&](const std::string& codec) -> const exchange_planner::choice& {
        const auto known = ways.find(codec);
        if (known != ways.end()) return known->second;
        const auto planner = planner_.with(rules_.choices.model_of(codec, r.round));
        auto way = planner.plan(r.members, r.contributors, now, last_mode_);
        return ways.emplace(codec, std::move(way)).first->second;
    };
    // What a plan's exchanges take beyond the steps of the round.
    const auto seconds_of = [&](const optim::round_plan& plan) {
        const auto& way = way_of(plan.codec);
        const auto predicted = way.plan.predicted_seconds;
        const auto exchanges = plan.exchanges();
        if (exchanges == 1 || predicted <= 0) return predicted;
        const double steps = static_cast<double>(plan.inner_steps) * pace_of(r.contributors);
        return optim::seconds_of_exchanges(exchanges, steps / static_cast<double>(exchanges), way.line_seconds,
                                           predicted - way.line_seconds, plan.staleness) -
               steps;
    };
    std::optional<optim::plan_decision> why;
    r.plan = rules_.choices.first;
    if (!rules_.choices.to_choose.empty()) {
        std::vector<optim::plan_alternative> all;
        for (const auto& p : rules_.choices.to_choose) all.push_back({p, seconds_of(p)});
        // A plan that made the loss rise is not chosen, and the one before it is.
        const auto& back = guard_.taken_back();
        const auto unwanted = [&](const auto& a) {
            return back ? !optim::same_setting(a.plan, back->back_to) : !guard_.allows(a.plan);
        };
        auto wanted = all;
        std::erase_if(wanted, unwanted);
        const bool goes_back = back && !wanted.empty();
        if (!wanted.empty()) all = std::move(wanted);
        const auto pace = pace_.with(pace_of(r.contributors));
        // Whoever coordinated before has left its plan in the log.
        auto present = present_;
        if (const auto* last = l.commit_of(l.committed()); !present && last != nullptr) present = last->plan;
        const optim::quality_model quality = [parts = rules_.choices.fragments()](const auto& plan) {
            return optim::prior_quality(plan, parts);
        };
        why = optim::choose_plan(all, pace, quality, present.value_or(rules_.choices.first), kept_for_);
        if (goes_back) why->reason = back->reason;
        r.plan = why->chosen.plan;
    }
    r.plan.inner_steps = std::min(r.plan.inner_steps, rules_.total_steps - l.position());
    const auto& way = way_of(r.plan.codec);
    r.plan.mode = way.mode;
    r.exchange = way.plan;
    if (const auto exchanges = r.plan.exchanges(); exchanges > 1) {
        r.exchange.predicted_seconds = seconds_of(r.plan);
        r.exchange.reason = fmt::format("{} exchanges of {:.3g} s, each at most {} late; {}", exchanges,
                                        way.plan.predicted_seconds, r.plan.staleness, r.exchange.reason)
                                .substr(0, max_reason);
    }
    if (why) r.exchange.reason = (why->reason + "; " + r.exchange.reason).substr(0, max_reason);
    return why;
}

void round_coordinator::note_plan(const round_record& opened) {
    const auto& p = opened.plan;
    kept_for_ = present_ && optim::same_setting(*present_, p) ? kept_for_ + 1 : 1;
    present_ = p;
    predicted_steps_ = static_cast<double>(p.inner_steps) * pace_of(opened.contributors);
    predicted_exchange_ = opened.exchange.predicted_seconds;
    const auto& model = rules_.choices.model_of(p.codec, opened.round);
    const auto mode = p.mode == "shard" ? optim::exchange_mode::shard : optim::exchange_mode::gather;
    const double coding =
        optim::coding_seconds(mode, model.encode_seconds, model.add_seconds, opened.contributors.size());
    coding_ends_it_ = coding > most_coding * predicted_exchange_;
}

void round_coordinator::note_outcome(core::duration took) {
    if (predicted_steps_ <= 0 || predicted_exchange_ <= 0) return;
    // The steps count as one, or the pace of those who made the plan would have to be remembered, too.
    auto all_steps = *present_;
    all_steps.inner_steps = 1;
    const auto predicted = pace_.with(predicted_steps_).round_seconds(all_steps, predicted_exchange_);
    outcome_ = round_outcome{round_, predicted, core::to_seconds(took)};
    // The first late round has begun with the others, like one without delay.
    if (present_->delay > 0 && kept_for_ == 1) return;
    // What the codec took says nothing of lines.
    if (coding_ends_it_) return;
    pace_.add(core::to_seconds(took), predicted_steps_, predicted_exchange_, present_->delay);
}

std::vector<double> round_coordinator::step_seconds_of(const std::vector<peer_number>& contributors) const {
    std::vector<double> seconds;
    for (const auto who : contributors) {
        const auto said = step_seconds_.find(who);
        seconds.push_back(said == step_seconds_.end() ? 0 : said->second);
    }
    return seconds;
}

double round_coordinator::pace_of(const std::vector<peer_number>& contributors) const {
    const auto seconds = step_seconds_of(contributors);
    if (rules_.own_pace) return optim::middle_step_seconds(seconds);
    return seconds.empty() ? 0 : std::ranges::max(seconds);
}

std::vector<peer_steps> round_coordinator::own_steps(const std::vector<peer_number>& contributors, std::uint64_t H,
                                                     const ledger& l) const {
    // What they did in a round of another length counts in proportion.
    const auto last_H = present_ ? present_->inner_steps : H;
    std::vector<std::uint64_t> before;
    std::vector<double> late;
    for (const auto who : contributors) {
        late.push_back(core::to_seconds(lateness(who, l)));
        const auto last = std::ranges::find(last_steps_, who, &peer_steps::peer);
        before.push_back(last == last_steps_.end() ? 0 : last->steps * H / last_H);
    }
    const auto steps = optim::balanced_steps(H, step_seconds_of(contributors), before, late);
    std::vector<peer_steps> out;
    for (std::size_t i = 0; i < steps.size(); ++i) {
        if (steps[i] != H) out.push_back({contributors[i], static_cast<std::uint32_t>(steps[i])});
    }
    return out;
}

}  // namespace longhaul::peers

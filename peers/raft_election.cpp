// Terms, votes and roles of peers/raft.hpp.
#include <algorithm>

#include "peers/raft.hpp"

namespace longhaul::peers::raft {

void server::become_follower(core::time_point now, std::uint64_t term, std::optional<voter_id> leader) {
    if (term > ballot_.term) {
        ballot_ = {term, std::nullopt};
        ballot_changed_ = true;
    }
    role_ = role::follower;
    leader_ = leader;
    if (leader) leader_heard_ = now;
    votes_.clear();
    followers_.clear();
    transfer_to_.reset();
    rest(now);
}

/// First a trial: whoever cannot win must not disturb a leader by a new term.
void server::campaign(core::time_point now, bool pre, bool handed_over) {
    rest(now);
    if (ballot_.term >= max_number) return;
    leader_.reset();
    votes_.clear();
    role_ = pre ? role::pre_candidate : role::candidate;
    const auto term = ballot_.term + 1;
    if (pre) {
        votes_[options_.self] = true;
    } else {
        ballot_ = {term, options_.self};
        ballot_changed_ = true;
        // Its own vote counts when it is on its disk, and not before: like anybody's.
        send(options_.self, term, vote_response{false, true});
    }
    const vote_request ask{log_.last_index(), log_.last_term(), pre, handed_over};
    for (const auto& voter : members().voters) {
        if (voter != options_.self) send(voter, term, ask);
    }
    tally(now);
}

void server::become_leader(core::time_point now) {
    role_ = role::leader;
    leader_ = options_.self;
    votes_.clear();
    follow_members(now, log_.last_index() + 1);
    uncommitted_bytes_ = 0;
    for (auto i = commit_ + 1; i <= log_.last_index(); ++i) uncommitted_bytes_ += log_.at(i).data.size();
    append_own({});
    beat(now);
}

void server::tally(core::time_point now) {
    std::size_t granted = 0, refused = 0;
    for (const auto& voter : members().voters) {
        const auto answer = votes_.find(voter);
        if (answer != votes_.end()) ++(answer->second ? granted : refused);
    }
    if (granted >= members().quorum()) {
        if (role_ == role::pre_candidate) {
            campaign(now, false, false);
        } else {
            become_leader(now);
        }
    } else if (members().voters.size() - refused < members().quorum()) {
        become_follower(now, ballot_.term, std::nullopt);
    }
}

void server::rest(core::time_point now) {
    const auto bound = static_cast<std::uint64_t>(std::max<core::duration::rep>(options_.election.count(), 1));
    campaign_at_ = now + options_.election + core::duration(random_.below(bound));
}

bool server::hears_leader(core::time_point now) const {
    return role_ == role::leader || (leader_ && now < leader_heard_ + options_.election);
}

/// A voter; and one whose own removal is not committed yet: it may be the only one that has all the others need.
bool server::may_lead() const {
    return members().votes(options_.self) || log_.members_at(commit_).votes(options_.self);
}

/// Takes over a later term and answers an earlier one. False: there is nothing more to do with the message.
bool server::obey(core::time_point now, const voter_id& from, const message& m) {
    if (m.term == ballot_.term) return true;
    const auto* asks = std::get_if<vote_request>(&m.body);
    if (m.term > ballot_.term) {
        // Who hears a leader has no reason to help to replace it, unless the leader itself wants it.
        if (asks && !asks->handed_over && hears_leader(now)) return false;
        const auto* answers = std::get_if<vote_response>(&m.body);
        const bool trial = (asks && asks->pre) || (answers && answers->pre && answers->granted);
        if (!trial) become_follower(now, m.term, std::nullopt);
        return true;
    }
    // A leader or candidate of the past would never learn of this term otherwise: nobody campaigns while it is heard.
    if (const auto* a = std::get_if<append_request>(&m.body)) {
        send(from, ballot_.term, append_response{false, a->prev_index, 0, 0});
    } else if (const auto* s = std::get_if<snapshot_request>(&m.body)) {
        send(from, ballot_.term, append_response{false, s->state.index, 0, 0});
    } else if (asks && asks->pre) {
        send(from, ballot_.term, vote_response{true, false});
    }
    return false;
}

/// A voter that does not know yet that it is one, or that the candidate is, votes all the same: the candidate knows.
void server::on(core::time_point now, const voter_id& from, const message& m, const vote_request& v) {
    const bool free = v.pre ? m.term > ballot_.term : ballot_.vote == from || (!ballot_.vote && !leader_);
    const bool granted = free && log_.up_to_date(v.last_index, v.last_term);
    if (granted && !v.pre) {
        ballot_changed_ = ballot_changed_ || ballot_.vote != from;
        ballot_.vote = from;
        rest(now);
    }
    send(from, v.pre && granted ? m.term : ballot_.term, vote_response{v.pre, granted});
}

void server::on(core::time_point now, const voter_id& from, const message& m, const vote_response& v) {
    if (role_ != (v.pre ? role::pre_candidate : role::candidate)) return;
    if (v.pre && v.granted && m.term != ballot_.term + 1) return;  // an answer to an earlier trial
    votes_.emplace(from, v.granted);
    tally(now);
}

void server::on(core::time_point now, const voter_id& from, const message&, const campaign_request&) {
    if (leader_ != from || role_ != role::follower || !members().votes(options_.self) || abstains(now)) return;
    campaign(now, false, true);
}

}  // namespace longhaul::peers::raft

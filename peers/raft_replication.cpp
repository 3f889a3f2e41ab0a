// Entries and snapshots of peers/raft.hpp: from a leader to its followers, and what counts as committed.
#include <algorithm>

#include "peers/raft.hpp"

namespace longhaul::peers::raft {

using core::errc;
using core::fail;

/// What no voter that follows the rules can say, whatever was lost or came late.
core::result<void> server::contradicts(const voter_id& from, const message& m) const {
    const auto other_leader = [&]() -> core::result<void> {
        if (m.term != ballot_.term || !leader_ || *leader_ == from) return core::ok();
        return fail(errc::protocol, "peers {} and {} both lead in term {}", leader_->brief(), from.brief(), m.term);
    };
    // Below the snapshot nothing can be compared; between it and the commit a leader has the same entries.
    const auto other_history = [&](std::uint64_t index, std::uint64_t term) -> core::result<void> {
        if (index < log_.base().index || index > commit_ || log_.matches(index, term)) return core::ok();
        return fail(errc::protocol, "the leader {} has another entry {} than was committed: of term {}", from.brief(),
                    index, term);
    };
    if (m.term < ballot_.term) return core::ok();
    if (const auto* a = std::get_if<append_request>(&m.body)) {
        LONGHAUL_TRY(other_leader());
        LONGHAUL_TRY(other_history(a->prev_index, a->prev_term));
        auto index = a->prev_index;
        for (const auto& e : a->entries) LONGHAUL_TRY(other_history(++index, e.term));
    } else if (const auto* s = std::get_if<snapshot_request>(&m.body)) {
        LONGHAUL_TRY(other_leader());
        LONGHAUL_TRY(other_history(s->state.index, s->state.term));
        if (s->state.index > log_.last_index() + max_step) {
            return fail(errc::protocol, "peer {} has a snapshot of entry {}, and the log here ends at {}", from.brief(),
                        s->state.index, log_.last_index());
        }
    } else if (const auto* answer = std::get_if<append_response>(&m.body)) {
        if (role_ == role::leader && m.term == ballot_.term && answer->index > log_.last_index()) {
            return fail(errc::protocol, "peer {} answers about entry {}, and the log ends at {}", from.brief(),
                        answer->index, log_.last_index());
        }
    }
    return core::ok();
}

void server::follow(core::time_point now, const voter_id& from) {
    if (role_ != role::follower) {
        become_follower(now, ballot_.term, from);
        return;
    }
    leader_ = from;
    leader_heard_ = now;
    rest(now);
}

void server::on(core::time_point now, const voter_id& from, const message&, append_request& a) {
    follow(now, from);
    // Where the snapshot begins both have the same: it was committed.
    if (a.prev_index >= log_.base().index && !log_.matches(a.prev_index, a.prev_term)) {
        const auto [index, term] = log_.last_below(a.prev_index, a.prev_term);
        send(from, ballot_.term, append_response{false, a.prev_index, index, term});
        return;
    }
    auto index = a.prev_index;
    for (auto& e : a.entries) {
        ++index;
        // What is here already stays, with all that follows it: this message may be an old one.
        if (index <= log_.base().index || log_.matches(index, e.term)) continue;
        if (index <= log_.last_index()) {
            log_.truncate(index);
            stable_ = std::min(stable_, index - 1);
            cuts_ = true;
        }
        log_.append(std::move(e));
        note_change(index);
    }
    // Only this much is known to be the leader's: behind it may be what an earlier leader left.
    commit_ = std::max(commit_, std::min(a.commit, index));
    send(from, ballot_.term, append_response{true, index, 0, 0});
}

void server::on(core::time_point now, const voter_id& from, const message&, snapshot_request& s) {
    follow(now, from);
    const auto index = s.state.index;
    if (index > commit_ && !log_.matches(index, s.state.term)) {
        log_.reset(std::move(s.state));
        new_base_ = log_.base();
        stable_ = std::min(stable_, index - 1);
        cuts_ = true;
        note_change(index + 1);
    }
    commit_ = std::max(commit_, index);
    send(from, ballot_.term, append_response{true, index, 0, 0});
}

void server::on(core::time_point now, const voter_id& from, const message&, const append_response& a) {
    const auto f = followers_.find(from);
    if (f == followers_.end()) return;  // also: this node does not lead
    auto& p = f->second;
    p.hear(now);
    if (!a.accepted) {
        if (p.rejected(a.index, log_.last_below(a.hint_index, a.hint_term).first)) send_append(from, p, true);
        return;
    }
    if (!p.accepted(a.index)) return;
    hand_over_if_caught_up(from, p);
    if (commit_and_tell(now)) return;
    send_entries(from, p);
    if (p.told() < commit_ && !p.paused()) send_append(from, p, false);
}

void server::send_append(const voter_id& to, progress& p, bool with_entries) {
    const auto prev = p.next() - 1;
    const auto term = log_.term_of(prev);
    if (!term) {
        p.sent_snapshot(log_.base().index);
        send(to, ballot_.term, snapshot_request{log_.base()});
        return;
    }
    append_request a{prev, *term, commit_, {}};
    if (with_entries && !p.paused()) a.entries = log_.from(p.next(), last_to_send());
    p.sent(prev + a.entries.size());
    p.tell(commit_);
    send(to, ballot_.term, std::move(a));
}

void server::send_entries(const voter_id& to, progress& p) {
    while (!p.paused() && p.next() <= last_to_send()) send_append(to, p, true);
}

/// Who decided alone and made others voters could be outvoted by them when it forgets the change: it would lead alone
/// once more, and they without it. So its disk has the change first.
std::uint64_t server::last_to_send() const {
    const auto changed = log_.members_index();
    if (changed <= std::max(stable_, log_.base().index)) return log_.last_index();
    const auto& before = log_.members_at(changed - 1);
    const bool alone = before.decides_alone(options_.self) && before.voters != members().voters;
    return alone ? changed - 1 : log_.last_index();
}

void server::send_entries() {
    for (auto& [id, p] : followers_) send_entries(id, p);
}

/// An append without entries is a heartbeat: it carries the commit, and its answer says whether the logs still agree,
/// so what was lost on the way is found by it.
void server::beat(core::time_point now) {
    beat_at_ = now + options_.heartbeat;
    for (auto& [id, p] : followers_) {
        if (!p.linked()) continue;
        p.beat();
        send_append(id, p, true);
        send_entries(id, p);
    }
}

/// Counting copies commits only entries of this leader's own term, and with them all before (the paper's figure 8).
bool server::advance_commit() {
    std::vector<std::uint64_t> copies;
    for (const auto& voter : members().voters) {
        const auto f = followers_.find(voter);
        copies.push_back(voter == options_.self ? stable_ : f == followers_.end() ? 0 : f->second.match());
    }
    std::ranges::sort(copies, std::greater{});
    const auto at_quorum = copies[members().quorum() - 1];
    if (at_quorum <= commit_ || log_.term_of(at_quorum) != ballot_.term) return false;
    for (auto i = commit_ + 1; i <= at_quorum; ++i) uncommitted_bytes_ -= log_.at(i).data.size();
    commit_ = at_quorum;
    return true;
}

bool server::commit_and_tell(core::time_point now) {
    if (!advance_commit()) return false;
    for (auto& [id, p] : followers_) {
        if (p.state() != flow::replicate) continue;
        send_append(id, p, true);
        send_entries(id, p);
    }
    if (members().votes(options_.self) || log_.members_index() > commit_) return true;
    // The voters are others now, and know it. Whoever has everything need not wait for silence.
    const auto heir = std::ranges::find_if(
        followers_, [&](const auto& f) { return members().votes(f.first) && f.second.match() == log_.last_index(); });
    if (heir != followers_.end()) send(heir->first, ballot_.term, campaign_request{});
    become_follower(now, ballot_.term, std::nullopt);
    return true;
}

void server::hand_over_if_caught_up(const voter_id& to, const progress& p) {
    if (transfer_to_ == to && p.match() == log_.last_index()) send(to, ballot_.term, campaign_request{});
}

core::time_point server::quorum_heard() const {
    std::vector<core::time_point> heard;
    for (const auto& voter : members().voters) {
        const auto f = followers_.find(voter);
        heard.push_back(f == followers_.end() ? core::time_point::max() : f->second.heard());
    }
    std::ranges::sort(heard, std::greater{});
    return heard[members().quorum() - 1];
}

/// One peer's part in a change of `next`.
core::result<void> server::change_one(core::time_point now, configuration& next, change::kind what,
                                      const voter_id& who) const {
    const auto put = [&](std::vector<voter_id>& ids) { ids.insert(std::ranges::upper_bound(ids, who), who); };
    const bool votes = next.votes(who), known = next.has(who);
    std::erase(next.voters, who);
    std::erase(next.learners, who);
    switch (what) {
        case change::kind::add_learner:
            if (known) return fail(errc::usage, "peer {} follows the log already", who.brief());
            put(next.learners);
            break;
        case change::kind::promote: {
            if (votes || !known) return fail(errc::usage, "peer {} is not a standby", who.brief());
            const auto f = followers_.find(who);
            if (f->second.match() < commit_ || now >= f->second.heard() + options_.election) {
                return fail(errc::limit, "peer {} has {} of {} entries: it cannot vote yet", who.brief(),
                            f->second.match(), commit_);
            }
            put(next.voters);
            break;
        }
        case change::kind::demote:
            if (!votes) return fail(errc::usage, "peer {} is not a voter", who.brief());
            put(next.learners);
            break;
        case change::kind::remove:
            if (!known) return fail(errc::usage, "peer {} does not follow the log", who.brief());
            break;
    }
    return core::ok();
}

core::result<configuration> server::changed(core::time_point now, const change& c) const {
    if (role_ != role::leader) return fail(errc::quorum_lost, "this node does not lead the log");
    if (transfer_to_) return fail(errc::quorum_lost, "this node is handing the log over to {}", transfer_to_->brief());
    // Without either rule two leaders could each change the voters and share no quorum.
    if (log_.term_of(commit_) != ballot_.term) return fail(errc::limit, "no entry of this leader is committed yet");
    if (log_.members_index() > commit_) return fail(errc::limit, "the change of voters before is not committed yet");
    const bool several = c.what == change::kind::promote && members().decides_alone(options_.self);
    if (c.who.empty() || (c.who.size() > 1 && !several)) {
        return fail(errc::usage, "a change of {} peers at once is not one that keeps a quorum", c.who.size());
    }
    // The new voters could commit without this one what they have and its own disk has not yet; and when it forgot
    // that, it would decide alone on something else.
    if (c.who.size() > 1 && stable_ < log_.last_index()) {
        return fail(errc::limit, "the entries before the change are not on this node's disk yet");
    }
    auto next = members();
    for (const auto& who : c.who) LONGHAUL_TRY(change_one(now, next, c.what, who));
    if (auto possible = check(next); !possible) return fail(errc::usage, "{}", possible.error().message);
    // Otherwise the change could neither be committed nor taken back.
    const auto alive = std::ranges::count_if(next.voters, [&](const auto& v) {
        const auto f = followers_.find(v);
        return v == options_.self || (f != followers_.end() && now < f->second.heard() + options_.election);
    });
    if (next.voters != members().voters && static_cast<std::size_t>(alive) < next.quorum()) {
        return fail(errc::limit, "only {} of {} voters would answer", alive, next.voters.size());
    }
    return next;
}

/// Newcomers are sent what follows on entry `next - 1`, and say what they lack.
void server::follow_members(core::time_point now, std::uint64_t next) {
    const auto& c = members();
    std::erase_if(followers_, [&](const auto& f) { return !c.has(f.first); });
    for (const auto* ids : {&c.voters, &c.learners}) {
        for (const auto& id : *ids) {
            if (id != options_.self) followers_.try_emplace(id, next, now);
        }
    }
    if (transfer_to_ && !c.votes(*transfer_to_)) transfer_to_.reset();
}

}  // namespace longhaul::peers::raft

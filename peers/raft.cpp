#include "peers/raft.hpp"

#include <algorithm>

namespace longhaul::peers::raft {

using core::errc;
using core::fail;

namespace {

/// Whether a message rests on nothing that this node may still have to write. A leader's entries may travel while its
/// own disk writes them: it counts itself only when they are there, and a trial vote promises nothing.
bool rests_on_nothing(const decltype(message::body)& body) {
    if (const auto* v = std::get_if<vote_request>(&body)) return v->pre;
    return std::holds_alternative<append_request>(body) || std::holds_alternative<snapshot_request>(body) ||
           std::holds_alternative<campaign_request>(body) || std::holds_alternative<greeting>(body);
}

}  // namespace

core::result<void> apply(durable_state& disk, const disk_write& w) {
    const auto end = disk.base.index + disk.entries.size();
    if (w.base && w.first == 0 && (w.base->index < disk.base.index || w.base->index > end)) {
        return fail(errc::malformed, "a snapshot of entry {} does not follow on entries {} to {}", w.base->index,
                    disk.base.index, end);
    }
    const auto before = w.base ? w.base->index : disk.base.index;
    if (w.first != 0 && (w.first <= before || w.first > (w.base ? before : end) + 1)) {
        return fail(errc::malformed, "log entry {} does not follow on entries {} to {}", w.first, before, end);
    }
    ++disk.writes;
    if (w.ballot) disk.ballot = *w.ballot;
    if (w.base) {
        const auto dropped = w.first != 0 ? disk.entries.size() : w.base->index - disk.base.index;
        disk.entries.erase(disk.entries.begin(), disk.entries.begin() + static_cast<std::ptrdiff_t>(dropped));
        disk.base = *w.base;
    }
    if (w.first != 0) {
        disk.entries.resize(w.first - disk.base.index - 1);
        disk.entries.insert(disk.entries.end(), w.entries.begin(), w.entries.end());
    }
    return core::ok();
}

server::server(options o, durable_state from, core::time_point now)
    : options_(o),
      random_(o.seed, "raft"),
      ballot_(from.ballot),
      log_(std::move(from.base), std::move(from.entries)),
      commit_(log_.base().index),
      applied_(commit_),
      stable_(log_.last_index()),
      written_before_(from.writes) {
    if (from.writes > 0) unheard_.insert(members().voters.begin(), members().voters.end());
    unheard_.erase(options_.self);
    start(now);
}

void server::start(core::time_point now) {
    rest(now);
    abstains_until_ = now + options_.election;
}

core::result<actions> server::step(core::time_point now, event e) {
    out_ = {};
    LONGHAUL_TRY(std::visit([&](auto& x) { return handle(now, x); }, e));
    finish();
    return std::move(out_);
}

core::time_point server::wake_at() const {
    if (role_ != role::leader) return asked_ ? std::min(campaign_at_, abstains_until_) : campaign_at_;
    auto at = beat_at_;
    if (transfer_to_) at = std::min(at, transfer_until_);
    if (const auto heard = quorum_heard(); heard != core::time_point::max()) {
        at = std::min(at, heard + options_.election);
    }
    return at;
}

core::result<void> server::handle(core::time_point now, tick) {
    answer_asked(now);
    if (role_ != role::leader) {
        if (now < campaign_at_) return core::ok();
        if (may_lead()) {
            campaign(now, true, false);
        } else {
            rest(now);
        }
        return core::ok();
    }
    if (transfer_to_ && now >= transfer_until_) transfer_to_.reset();
    if (const auto heard = quorum_heard(); heard != core::time_point::max() && now >= heard + options_.election) {
        become_follower(now, ballot_.term, std::nullopt);
    } else if (now >= beat_at_) {
        beat(now);
    }
    return core::ok();
}

core::result<void> server::handle(core::time_point now, received& r) {
    LONGHAUL_TRY(check(r.what));
    if (r.from == options_.self) return fail(errc::protocol, "a message from this node itself came over a channel");
    if (r.what.generation != options_.generation) return core::ok();
    if (r.what.term > ballot_.term + max_step) {
        return fail(errc::protocol, "peer {} speaks of term {}, and this node is in term {}", r.from.brief(),
                    r.what.term, ballot_.term);
    }
    LONGHAUL_TRY_ASSIGN(const bool heeded, heed(r.from, r.what));
    if (!heeded) return core::ok();
    // Its vote could be a second one, before it has heard of what its disk may have forgotten.
    if (std::holds_alternative<vote_request>(r.what.body) && abstains(now)) {
        asked_ = std::move(r);
        return core::ok();
    }
    take(now, r);
    answer_asked(now);
    return core::ok();
}

void server::take(core::time_point now, received& r) {
    if (std::holds_alternative<greeting>(r.what.body)) return;
    if (obey(now, r.from, r.what)) std::visit([&](auto& body) { on(now, r.from, r.what, body); }, r.what.body);
}

void server::answer_asked(core::time_point now) {
    if (!asked_ || abstains(now)) return;
    auto r = *std::exchange(asked_, std::nullopt);
    take(now, r);
}

/// Whose disk is an older copy has forgotten what it agreed to. Another's word on this node's own counts as far as the
/// log knows who votes; what comes from a disk that this node knows to be older is answered by what it has forgotten.
core::result<bool> server::heed(const voter_id& from, const message& m) {
    if (!own_mark().follows_on(m.seen) && (members().votes(from) || members().voters.empty())) {
        return fail(errc::forgotten,
                    "this node's disk had taken {} writes of the run's log when it started, and voter {} had heard of "
                    "{} before: it is an older copy",
                    written_before_, from.brief(), m.seen.written);
    }
    if (const auto known = seen_.find(from); known != seen_.end() && !m.own.follows_on(known->second)) {
        send(from, ballot_.term, greeting{});
        return false;
    }
    LONGHAUL_TRY(contradicts(from, m));
    if (members().has(from)) seen_[from] = m.own;
    std::erase_if(seen_, [this](const auto& s) { return !members().has(s.first); });
    unheard_.erase(from);
    return true;
}

core::result<void> server::handle(core::time_point now, durable d) {
    LONGHAUL_ENSURE(d.number <= writes_, "a write that was never asked for is durable");
    durable_ = std::max(durable_, d.number);
    std::optional<std::uint64_t> last;
    for (; !writing_.empty() && writing_.front().number <= durable_; writing_.pop_front()) last = writing_.front().last;
    // A later write that cuts the log says that what is on the disk now is partly not what is in memory.
    if (last && std::ranges::none_of(writing_, &write_under_way::cuts)) stable_ = *last;
    std::vector<message> to_self;
    for (; !held_.empty() && held_.front().after <= durable_; held_.pop_front()) {
        auto& o = held_.front().what;
        if (o.to == options_.self) {
            to_self.push_back(std::move(o.what));
        } else {
            out_.send.push_back(std::move(o));
        }
    }
    for (const auto& m : to_self) {
        if (m.term == ballot_.term) on(now, options_.self, m, std::get<vote_response>(m.body));
    }
    if (role_ == role::leader) commit_and_tell(now);
    send_entries();
    return core::ok();
}

core::result<void> server::handle(core::time_point, propose& p) {
    if (role_ != role::leader) return fail(errc::quorum_lost, "this node does not lead the log");
    if (transfer_to_) return fail(errc::quorum_lost, "this node is handing the log over to {}", transfer_to_->brief());
    if (p.data.size() > max_entry_bytes) {
        return fail(errc::limit, "a record of {} bytes exceeds {}", p.data.size(), max_entry_bytes);
    }
    // One record is always taken, or a small limit would take none.
    if (uncommitted_bytes_ > 0 && uncommitted_bytes_ + p.data.size() > options_.max_uncommitted_bytes) {
        return fail(errc::limit, "{} bytes of records wait for a quorum already", uncommitted_bytes_);
    }
    append_own({0, entry_kind::record, std::move(p.data), {}});
    send_entries();
    return core::ok();
}

core::result<void> server::handle(core::time_point now, const change& c) {
    LONGHAUL_TRY_ASSIGN(auto next, changed(now, c));
    append_own({0, entry_kind::membership, {}, std::move(next)});
    // Who is removed hears of it, if it can, so that it campaigns no more.
    send_entries();
    follow_members(now, log_.last_index());
    send_entries();
    commit_and_tell(now);
    return core::ok();
}

core::result<void> server::handle(core::time_point, compact& c) {
    if (c.index > applied_ || c.index <= log_.base().index) {
        return fail(errc::usage, "a snapshot of entry {} cannot be taken between {} and {}", c.index, log_.base().index,
                    applied_);
    }
    if (c.data.size() > max_snapshot_bytes) {
        return fail(errc::limit, "a snapshot of {} bytes exceeds {}", c.data.size(), max_snapshot_bytes);
    }
    log_.compact(c.index, std::move(c.data));
    new_base_ = log_.base();
    return core::ok();
}

core::result<void> server::handle(core::time_point now, const transfer& t) {
    if (role_ != role::leader) return fail(errc::quorum_lost, "this node does not lead the log");
    const auto to = followers_.find(t.to);
    if (to == followers_.end() || !members().votes(t.to)) {
        return fail(errc::usage, "leadership cannot go to {}, which is not another voter", t.to.brief());
    }
    if (transfer_to_ == t.to) return core::ok();
    transfer_to_ = t.to;
    transfer_until_ = now + options_.election;
    hand_over_if_caught_up(t.to, to->second);
    send_entries(t.to, to->second);
    return core::ok();
}

core::result<void> server::handle(core::time_point now, const link_down& l) {
    if (const auto f = followers_.find(l.peer); f != followers_.end()) f->second.link_down();
    if (role_ == role::leader || leader_ != l.peer) return core::ok();
    leader_.reset();
    const auto& voters = members().voters;
    const auto me = std::ranges::find(voters, options_.self);
    if (me == voters.end()) return core::ok();
    const auto before = std::count_if(voters.begin(), me, [&](const auto& v) { return v != l.peer; });
    // A trial and a vote, then the news of it, take two round trips and a half: the next in turn would be in the way.
    const auto turn = now + (3 * before + 1) * l.rtt;
    campaign_at_ = std::min(campaign_at_, abstains(now) ? std::max(turn, abstains_until_) : turn);
    return core::ok();
}

core::result<void> server::handle(core::time_point, const link_up& l) {
    if (const auto f = followers_.find(l.peer); f != followers_.end()) {
        f->second.link_up();
        send_append(l.peer, f->second, true);
    } else if (members().has(l.peer) && l.peer != options_.self) {
        send(l.peer, ballot_.term, greeting{});
    }
    return core::ok();
}

void server::finish() {
    if (ballot_changed_ || changed_from_ != 0 || new_base_) {
        disk_write w;
        w.number = ++writes_;
        if (ballot_changed_) w.ballot = ballot_;
        w.base = std::exchange(new_base_, std::nullopt);
        w.first = std::exchange(changed_from_, 0);
        for (auto i = w.first; i != 0 && i <= log_.last_index(); ++i) w.entries.push_back(log_.at(i));
        writing_.push_back({w.number, log_.last_index(), std::exchange(cuts_, false)});
        ballot_changed_ = false;
        out_.write = std::move(w);
    }
    for (auto& o : answers_) {
        if (durable_ == writes_) {
            out_.send.push_back(std::move(o));
        } else {
            held_.push_back({writes_, std::move(o)});
        }
    }
    answers_.clear();
    for (auto& o : out_.send) {
        o.what.own = own_mark();
        if (const auto known = seen_.find(o.to); known != seen_.end()) o.what.seen = known->second;
    }
    apply_committed();
}

/// Nothing is applied that only others' disks hold: after a crash this node knows at least what it acted on.
void server::apply_committed() {
    const auto until = std::min(commit_, stable_);
    if (applied_ < log_.base().index) {
        if (until < log_.base().index) return;
        out_.restore = log_.base();
        applied_ = log_.base().index;
    }
    for (; applied_ < until; ++applied_) out_.apply.push_back({applied_ + 1, log_.at(applied_ + 1)});
}

void server::send(const voter_id& to, std::uint64_t term, decltype(message::body) body) {
    auto& queue = rests_on_nothing(body) ? out_.send : answers_;
    queue.push_back({to, {options_.generation, term, std::move(body)}});
}

void server::append_own(entry e) {
    e.term = ballot_.term;
    if (e.kind == entry_kind::record) uncommitted_bytes_ += e.data.size();
    log_.append(std::move(e));
    out_.proposed = log_.last_index();
    note_change(log_.last_index());
}

void server::note_change(std::uint64_t first) {
    changed_from_ = changed_from_ == 0 ? first : std::min(changed_from_, first);
}

}  // namespace longhaul::peers::raft

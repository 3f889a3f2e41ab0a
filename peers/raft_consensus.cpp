#include "peers/raft_consensus.hpp"

#include <algorithm>

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

/// Entries behind a snapshot after which a new one is taken.
constexpr std::uint64_t compact_after = 2048;
constexpr auto hand_over_deadline = 3s;
/// How long a source may say that nobody leads before another one is asked.
constexpr auto source_patience = 2s;
/// Between the first and the last node that notices a silence.
constexpr auto notice_spread = 300ms;
/// Names the branch in whose log this node may have a vote; without it, it is branch 0.
constexpr std::string_view branch_file = "branch";

core::task<core::result<void>> name_branch(core::storage& storage, std::uint64_t branch) {
    core::byte_writer out;
    co_return co_await core::put_bytes(storage, std::string(branch_file), out.u64(branch).take());
}

}  // namespace

raft_consensus::raft_consensus(raft_consensus_options o)
    : o_(std::move(o)), to_write_(o_.executor), timer_changed_(o_.executor), settled_(o_.executor) {
    use_disk_of(0);
}

raft_consensus::~raft_consensus() = default;

void raft_consensus::use_disk_of(std::uint64_t branch) {
    branch_ = branch;
    disk_ = std::make_unique<raft::disk_log>(o_.storage, raft::folder_of(branch));
}

core::task<core::result<bool>> raft_consensus::open() {
    auto saved = co_await o_.storage.read(std::string(branch_file), 64);
    if (!saved && saved.error().code != errc::not_found) co_return fail(saved.error());
    if (saved) {
        core::byte_reader in(*saved);
        const auto branch = in.u64();
        if (!branch) {
            co_return fail(errc::forgotten, "the file '{}' is damaged ({})", branch_file, branch.error().message);
        }
        use_disk_of(*branch);
    }
    auto disk = co_await open_disk();
    LONGHAUL_CO_TRY(disk);
    if (!*disk) co_return false;
    LONGHAUL_CO_TRY(begin(std::move(**disk)));
    co_return true;
}

core::task<core::result<std::optional<raft::durable_state>>> raft_consensus::open_disk() {
    auto disk = co_await disk_->open(o_.self, id());
    if (disk) co_return std::move(*disk);
    const auto code = disk.error().code;
    if (code == errc::not_found) co_return std::optional<raft::durable_state>();
    if (code == errc::malformed || code == errc::run_mismatch) {
        co_return fail(core::error(errc::forgotten, disk.error().message));
    }
    co_return fail(disk.error());
}

raft::durable_state raft_consensus::beginning_with(const ledger& first, const net::peer_key& orderer) {
    raft::durable_state s;
    s.base.members.voters.push_back(orderer);
    s.base.data = first.snapshot();
    if (branch_of(first.generation()) != 0) {
        // Behind entry 1, as if one had been: whoever follows has to get all of it, not only what comes next.
        s.base.index = s.base.term = s.ballot.term = 1;
    }
    return s;
}

core::task<core::result<void>> raft_consensus::found() {
    auto first = beginning_with(ledger::founded_by(o_.self), o_.self);
    auto created = co_await disk_->create(o_.self, id(), first);
    LONGHAUL_CO_TRY(created);
    co_return begin(std::move(first));
}

core::result<void> raft_consensus::begin(raft::durable_state disk) {
    machine_ = {};
    if (!disk.base.data.empty()) {
        auto held = ledger::from_snapshot(disk.base.data);
        if (!held) return fail(held.error().within("the voter's log"));
        machine_ = std::move(*held);
    }
    raft::options o;
    o.self = o_.self;
    o.generation = id();
    o.seed = o_.seed;
    const auto now = o_.clock.now();
    const raft::log log(disk.base, disk.entries);
    // Who votes alone has nobody's silence to wait for.
    const bool at_once = log.members().voters == std::vector{o_.self};
    server_.emplace(o, std::move(disk), at_once ? now - 2 * o.election : now);
    timer_changed_.notify();
    for (const auto& peer : linked_) LONGHAUL_TRY(step(raft::link_up{peer}));
    return core::ok();
}

bool raft_consensus::alone() const { return server_ && server_->members().voters == std::vector{o_.self}; }

/// By the newest log that this node has seen: one that was away may have lost its vote, and its own log does not say
/// so.
bool raft_consensus::votes() const { return server_ && (known_ ? state_.voters() : server_->members()).votes(o_.self); }

bool raft_consensus::led() const {
    if (leads()) return true;
    if (leader_ == net::peer_key{}) return false;
    return votes() || (source_ && answered_);
}

// ---- driving the server

core::task<core::result<void>> raft_consensus::run() {
    if (server_ && !alone()) server_->start(o_.clock.now());
    core::scope parts(o_.executor);
    parts.spawn("the log's disk", write_all());
    parts.spawn("the log's clock", keep_time());
    co_return co_await parts.join();
}

/// Nothing else touches the disk: what it is for can only change between two writes.
core::task<core::result<void>> raft_consensus::write_all() {
    for (;;) {
        const auto wanted = [this] {
            return broken_ || to_begin_ || (server_ && !writes_.empty()) || (wanted_ && known_ && !server_);
        };
        auto woken = co_await core::wait_until(to_write_, wanted);
        LONGHAUL_CO_TRY(woken);
        if (broken_) co_return fail(*broken_);
        core::result<void> done;
        if (to_begin_) {
            done = co_await begin_branch();
        } else if (!server_) {
            done = co_await become_orderer();
        } else {
            done = co_await write_some();
        }
        LONGHAUL_CO_TRY(done);
    }
}

core::task<core::result<void>> raft_consensus::begin_branch() {
    const auto branch = branch_of(to_begin_->generation());
    auto first = beginning_with(*to_begin_, o_.self);
    use_disk_of(branch);
    auto created = co_await disk_->create(o_.self, id(), first);
    LONGHAUL_CO_TRY(created);
    auto named = co_await name_branch(o_.storage, branch);
    LONGHAUL_CO_TRY(named);
    LONGHAUL_CO_TRY(begin(std::move(first)));
    to_begin_.reset();
    settled_.notify();
    co_return core::ok();
}

/// A leader sends us its log: from now on this node keeps a copy, or goes on with the one that it had.
core::task<core::result<void>> raft_consensus::become_orderer() {
    const auto branch = branch_of(state_.generation());
    const bool votes = state_.voters().votes(o_.self);
    wanted_ = false;
    if (branch != branch_) use_disk_of(branch);
    auto opened = co_await open_disk();
    LONGHAUL_CO_TRY(opened);
    auto disk = std::move(*opened);
    if (!disk && votes) {
        // It has forgotten whom it voted for, and what it had acknowledged.
        co_return fail(errc::forgotten, "this node orders the run's records, and its log is gone");
    }
    if (!disk) {
        disk.emplace();
        auto created = co_await disk_->create(o_.self, id(), *disk);
        LONGHAUL_CO_TRY(created);
    }
    auto named = co_await name_branch(o_.storage, branch);
    LONGHAUL_CO_TRY(named);
    // Meanwhile this node may have left.
    if (known_ && branch_of(state_.generation()) == branch) co_return begin(std::move(*disk));
    co_return core::ok();
}

/// All that waits goes in one piece: a disk that takes writes one by one could fall behind for ever.
core::task<core::result<void>> raft_consensus::write_some() {
    auto batch = std::exchange(writes_, {});
    const auto last = batch.back().number;
    const auto life = life_;
    auto written = co_await disk_->write(std::move(batch));
    LONGHAUL_CO_TRY(written);
    if (life == life_) co_return step(raft::durable{last});
    co_return core::ok();
}

core::task<core::result<void>> raft_consensus::keep_time() {
    auto next_look = o_.clock.now() + source_patience;
    for (;;) {
        const auto now = o_.clock.now();
        if (server_ && now >= server_->wake_at()) {
            auto stepped = step(raft::tick{});
            LONGHAUL_CO_TRY(stepped);
        }
        if (now >= next_look) {
            next_look = now + source_patience;
            // A source that is cut off from the others, or is new itself, knows nobody who leads: another one may.
            const bool in_vain = source_ && !answered_;
            if (!known_ || leader_ == net::peer_key{} || in_vain) choose_source(std::exchange(source_, {}));
        }
        asleep_until_ = server_ ? std::min(server_->wake_at(), next_look) : next_look;
        auto woken = co_await timer_changed_.wait(o_.clock, asleep_until_);
        if (!woken && woken.error().code != errc::timeout) co_return woken;
    }
}

core::result<void> raft_consensus::step(raft::event e) {
    LONGHAUL_TRY_ASSIGN(auto a, server_->step(o_.clock.now(), std::move(e)));
    perform(std::move(a));
    return core::ok();
}

/// What is applied may lead to further steps: their actions wait for their turn.
void raft_consensus::perform(raft::actions a) {
    to_perform_.push_back(std::move(a));
    if (performing_) return;
    performing_ = true;
    while (!to_perform_.empty()) {
        auto next = std::move(to_perform_.front());
        to_perform_.pop_front();
        if (next.write) {
            writes_.push_back(std::move(*next.write));
            to_write_.notify();
        }
        for (auto& m : next.send) send(m.to, std::move(m.what));
        if (next.restore) restore(*next.restore);
        for (const auto& c : next.apply) apply(c);
    }
    performing_ = false;
    notice_leader();
    if (server_->wake_at() < asleep_until_) timer_changed_.notify();
}

void raft_consensus::restore(const raft::snapshot& s) {
    auto newer = ledger::from_snapshot(s.data);
    if (!newer) {
        broken_ = newer.error().within("the leader's snapshot of the log");
        to_write_.notify();
        return;
    }
    machine_ = std::move(*newer);
    fail_proposals();
    if (known_ && machine_.index() > state_.index()) replace_state(machine_);
}

void raft_consensus::apply(const raft::committed& c) {
    if (broken_) return;
    if (c.what.kind == raft::entry_kind::record) {
        auto r = parse_record(c.what.data);
        if (!r) {
            broken_ = r.error().within(fmt::format("entry {} of the log", c.index));
            to_write_.notify();
            return;
        }
        machine_.apply(*r);
        feed(*r);
    } else if (c.what.kind == raft::entry_kind::membership) {
        const record r = voters_record{c.what.members};
        machine_.apply(r);
        feed(r);
    }
    settle(c.index, c.what.term);
    if (c.index - server_->log().base().index >= compact_after) {
        // A snapshot that is too large is no reason to stop: the log grows on.
        auto compacted = step(raft::compact{c.index, machine_.snapshot()});
        (void)compacted;
    }
}

/// The server's state machine has applied a record.
void raft_consensus::feed(const record& r) {
    LONGHAUL_ENSURE(!known_ || machine_.index() != state_.index() || machine_.committed() == state_.committed(),
                    "a log brings everybody to the same state");
    if (!known_ || machine_.index() <= state_.index()) return;
    if (machine_.index() > state_.index() + 1) {
        replace_state(machine_);
        return;
    }
    state_.apply(r);
    log_entries news;
    news.first = state_.index();
    news.records.push_back(serialize(r));
    for (const auto& key : followers_) {
        if (!state_.voters().votes(key)) send(key, news);
    }
    if (on_applied) on_applied(&r);
    if (std::holds_alternative<voters_record>(r)) choose_source();
}

void raft_consensus::replace_state(const ledger& newer) {
    state_ = newer;
    known_ = true;
    to_write_.notify();
    for (const auto& key : followers_) tell_snapshot(key);
    if (on_applied) on_applied(nullptr);
}

/// Who leads is news to the rest of the node, here and elsewhere, when the first entry of its term was applied: before,
/// it may lack records, and what it is told would be lost.
void raft_consensus::notice_leader() {
    const auto before = std::pair(office_, leader_);
    const bool in_office = server_ && server_->role() == raft::role::leader;
    // A standby that was stopped before its first entry came has a log with nothing in it, and knows nothing.
    const bool empty = machine_.voters().voters.empty();
    const bool settled = server_ && !empty && server_->log().term_of(server_->applied()) == server_->term();
    office_ = in_office && settled ? offices_before_ + server_->term() : 0;
    last_office_ = std::max(last_office_, office_);
    if (!in_office) fail_proposals();
    if (settled && (!known_ || state_.index() < machine_.index())) replace_state(machine_);
    leader_ = heard_leader_;
    if (votes()) leader_ = settled ? server_->leader().value_or(net::peer_key{}) : net::peer_key{};
    if (before == std::pair(office_, leader_)) return;
    settled_.notify();
    const leader_message news{server_ ? server_->term() : 0, leader_};
    for (const auto& key : followers_) send(key, news);
    if (on_leader) on_leader();
}

// ---- proposals

core::task<core::result<void>> raft_consensus::propose(record r) {
    if (!leads()) co_return fail(errc::quorum_lost, "this node does not order records");
    raft::propose what;
    what.data = serialize(r);
    // What cannot be read again would be the end of the run: at the next start, and on every follower.
    if (auto again = parse_record(what.data); !again || std::holds_alternative<voters_record>(r)) {
        co_return fail(errc::internal, "a record that is not valid was to be logged: {}",
                       again ? "voters change by their own entries" : again.error().message);
    }
    auto taken = server_->step(o_.clock.now(), std::move(what));
    LONGHAUL_CO_TRY(taken);
    const auto p = std::make_shared<proposal>();
    p->term = server_->term();
    proposals_[taken->proposed] = p;
    perform(std::move(*taken));
    const auto done = [p] { return p->outcome.has_value(); };
    auto waited = co_await core::wait_until(settled_, done);
    LONGHAUL_CO_TRY(waited);
    co_return *p->outcome;
}

void raft_consensus::settle(std::uint64_t index, std::uint64_t term) {
    const auto it = proposals_.find(index);
    if (it == proposals_.end()) return;
    it->second->outcome =
        it->second->term == term
            ? core::ok()
            : core::result<void>(fail(errc::quorum_lost, "another coordinator's record took its place"));
    proposals_.erase(it);
    settled_.notify();
}

void raft_consensus::fail_proposals() {
    if (proposals_.empty()) return;
    for (auto& [index, p] : proposals_) {
        p->outcome = core::result<void>(fail(errc::quorum_lost, "this node does not order records any more"));
    }
    proposals_.clear();
    settled_.notify();
}

core::result<void> raft_consensus::change(const raft::change& c) {
    if (!leads()) return fail(errc::quorum_lost, "this node does not order records");
    return step(c);
}

core::task<core::result<void>> raft_consensus::hand_over() {
    if (!leads()) co_return core::ok();
    const auto& voters = state_.voters().voters;
    const auto heir = std::ranges::find_if(voters, [this](const auto& v) { return linked_.contains(v); });
    if (heir == voters.end()) co_return core::ok();
    LONGHAUL_CO_TRY(step(raft::transfer{*heir}));
    const auto gone = [this] { return !leads(); };
    auto waited = co_await core::wait_until(settled_, gone, o_.clock, o_.clock.now() + hand_over_deadline);
    if (!waited && waited.error().code != errc::timeout) co_return waited;
    co_return core::ok();
}

// ---- another log

/// What its disk holds stays there.
void raft_consensus::abandon_server() {
    ++life_;
    offices_before_ = last_office_;  // terms begin anew
    server_.reset();
    writes_.clear();
    wanted_ = false;
    machine_ = {};
    fail_proposals();
}

void raft_consensus::leave() {
    abandon_server();
    state_ = {};
    known_ = false;
    heard_leader_ = {};
    source_.reset();
    linked_.clear();
    followers_.clear();
    notice_leader();
}

core::task<core::result<void>> raft_consensus::branch_off(ledger first) {
    leave();
    to_begin_ = std::move(first);
    to_write_.notify();
    const auto begun = [this] { return !to_begin_ || broken_; };
    co_return co_await core::wait_until(settled_, begun);
}

// ---- links, and following the log by another node

void raft_consensus::link_up(const net::peer_key& peer) {
    linked_.insert(peer);
    greet(peer);
    if (source_ == peer) source_.reset();  // what it was asked and said is gone with the link before
    choose_source();
}

void raft_consensus::greet(const net::peer_key& peer) {
    if (server_) (void)step(raft::link_up{peer});
}

void raft_consensus::link_down(const net::peer_key& peer) {
    linked_.erase(peer);
    followers_.erase(peer);
    if (source_ == peer) {
        source_.reset();
        choose_source();
    }
}

void raft_consensus::dead(const net::peer_key& peer, core::duration rtt) {
    if (server_) (void)step(raft::link_down{peer, rtt});
}

void raft_consensus::silent(const net::peer_key& peer, core::duration rtt) {
    linked_.erase(peer);
    if (source_ == peer) {
        source_.reset();
        choose_source();
    }
    // The other voters notice it a moment earlier or later, and before they do they help nobody to replace it.
    if (leader_ == peer) dead(peer, rtt + notice_spread);
}

/// An orderer of records brings the log first; a node that knows nothing yet begins with whom it is linked with.
/// `behind`: the next one after it, in turn.
void raft_consensus::choose_source(std::optional<net::peer_key> behind) {
    const auto will_do = [this](const net::peer_key& k) { return !known_ || state_.voters().votes(k); };
    const bool heard_by_vote = known_ && votes() && leader_ != net::peer_key{};
    if (source_ && !heard_by_vote && will_do(*source_)) return;
    source_.reset();
    if (heard_by_vote) return;
    auto best = linked_.end();
    if (behind) best = std::find_if(linked_.upper_bound(*behind), linked_.end(), will_do);
    if (best == linked_.end()) best = std::ranges::find_if(linked_, will_do);
    if (best == linked_.end()) return;
    source_ = *best;
    answered_ = false;
    send(*source_, log_request{known_ ? state_.index() : 0});
}

void raft_consensus::tell_snapshot(const net::peer_key& to) {
    send(to, log_snapshot{state_.snapshot()});
    send(to, leader_message{server_ ? server_->term() : 0, leader_});
}

core::result<void> raft_consensus::receive(const net::peer_key& from, const log_request&) {
    followers_.insert(from);
    if (known_) tell_snapshot(from);
    return core::ok();
}

core::result<void> raft_consensus::receive(const net::peer_key& from, const log_entries& m) {
    if (source_ != from) return core::ok();  // asked before, of another one
    if (!known_ || m.first > state_.index() + 1) {
        // Entries before the snapshot that we asked for: a gap, ask again.
        send(from, log_request{0});
        return core::ok();
    }
    for (std::size_t i = 0; i < m.records.size(); ++i) {
        if (m.first + i <= state_.index()) continue;
        LONGHAUL_TRY_ASSIGN(const record r, parse_record(m.records[i]));
        state_.apply(r);
        log_entries news;
        news.first = state_.index();
        news.records.push_back(m.records[i]);
        for (const auto& key : followers_) send(key, news);
        if (on_applied) on_applied(&r);
        if (std::holds_alternative<voters_record>(r)) choose_source();
    }
    return core::ok();
}

core::result<void> raft_consensus::receive(const net::peer_key& from, const log_snapshot& m) {
    if (source_ != from) return core::ok();
    answered_ = true;
    LONGHAUL_TRY_ASSIGN(const auto fresh, ledger::from_snapshot(m.ledger));
    // Of another branch it comes from somebody who has gone over meanwhile: this node leaves its own log by itself.
    if (to_begin_ || (known_ && branch_of(fresh.generation()) != branch_of(state_.generation()))) return core::ok();
    // Who was away with a vote in another branch has nothing to say here by it.
    if (server_ && branch_of(fresh.generation()) != branch_) abandon_server();
    // Another source may be a moment behind the one before.
    if (!known_ || fresh.index() > state_.index()) replace_state(fresh);
    choose_source();
    notice_leader();
    return core::ok();
}

core::result<void> raft_consensus::receive(const net::peer_key& from, const leader_message& m) {
    if (source_ != from) return core::ok();
    heard_leader_ = m.leader;
    notice_leader();
    return core::ok();
}

core::result<void> raft_consensus::receive(const net::peer_key& from, raft::message m) {
    if (server_) {
        auto taken = step(raft::received{from, std::move(m)});
        if (taken || taken.error().code != errc::forgotten) return taken;
        // No fault of the sender's.
        broken_ = taken.error();
        to_write_.notify();
        return core::ok();
    }
    const bool brings_the_log =
        std::holds_alternative<raft::append_request>(m.body) || std::holds_alternative<raft::snapshot_request>(m.body);
    // Which log it is, a node that knows none yet cannot say: it will be sent again.
    if (brings_the_log && known_ && m.generation == log_id(o_.run, branch_of(state_.generation()))) {
        wanted_ = true;
        to_write_.notify();
    }
    return core::ok();
}

}  // namespace longhaul::peers

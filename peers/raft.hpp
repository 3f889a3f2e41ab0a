#pragma once
/// Raft as a pure state machine: `step(now, event) -> actions`. It reads no clock, sends nothing, writes nothing and
/// waits for nothing; docs/CONSENSUS.md says what it promises, and how it differs from etcd/raft.
///
/// What must be durable before a message may be sent is its own affair: it gives out a message only when the write that
/// the message rests on was reported as durable. Whoever drives it performs writes in order, sends what it is given,
/// and reports.

#include <map>
#include <set>

#include "core/entropy.hpp"
#include "peers/raft_log.hpp"
#include "peers/raft_progress.hpp"

namespace longhaul::peers::raft {

struct options {
    voter_id self;
    core::digest generation;  ///< messages of another one are ignored
    core::duration heartbeat = std::chrono::milliseconds(250);
    /// Silence of a leader after which a voter campaigns (drawn anew each time, up to twice this), and silence of a
    /// quorum after which a leader gives up. At least four heartbeats.
    core::duration election = std::chrono::milliseconds(1500);
    std::uint64_t seed = 1;  ///< of the drawn waits; another one in each life
    /// Record bytes that may be proposed and not committed yet.
    std::size_t max_uncommitted_bytes = 16 * 1024 * 1024;
};

/// What a voter has on its disk: what it starts from, and all that a crash leaves.
struct durable_state {
    raft::ballot ballot;
    snapshot base;  ///< index 0 with a configuration: founded; without one: nothing is known yet
    std::vector<entry> entries;
    std::uint64_t writes = 0;  ///< that made it what it is
    bool operator==(const durable_state&) const = default;
};

// ---- events ----

/// Nothing but time passed: due at `wake_at()`.
struct tick {};
/// From `from`'s channel. Only of peers whom the run lets vote: Raft trusts them to follow it.
struct received {
    voter_id from;
    message what;
};
/// Write `number` is on the disk, and all before it.
struct durable {
    std::uint64_t number = 0;
};
struct propose {
    core::byte_vector data;
};
/// One change of the configuration: of one peer, so that the voters before and after share a quorum. Only a voter that
/// decides alone may let several vote at once, since two voters survive no death at all; the change is then on its own
/// disk before anybody hears of it.
struct change {
    enum class kind : std::uint8_t {
        add_learner,  ///< a newcomer follows
        promote,      ///< a standby that is caught up votes
        demote,       ///< a voter becomes a standby
        remove,       ///< a voter or standby goes
    };
    kind what = kind::add_learner;
    std::vector<voter_id> who;
};
/// The state machine's content after entry `index`, which was applied: what is before it is dropped from the log.
struct compact {
    std::uint64_t index = 0;
    core::byte_vector data;
};
/// Hand leadership to a voter.
struct transfer {
    voter_id to;
};
/// The failure detector's word on a peer. Of the leader, it lets the voters campaign one after another, three round
/// trips apart, long before the silence would.
struct link_down {
    voter_id peer;
    core::duration rtt{};
};
struct link_up {
    voter_id peer;
};

using event = std::variant<tick, received, durable, propose, change, compact, transfer, link_down, link_up>;

// ---- actions ----

/// To be made durable as a whole, after all writes before it; then `step(now, durable{number})`.
struct disk_write {
    std::uint64_t number = 0;
    std::optional<raft::ballot> ballot;
    std::optional<snapshot> base;  ///< replaces the snapshot and the entries up to its index
    std::uint64_t first = 0;       ///< not 0: entries from here on are replaced by `entries`
    std::vector<entry> entries;
};

/// What a write makes of a disk. errc::malformed when it does not follow on what is there.
core::result<void> apply(durable_state& disk, const disk_write& w);

struct outgoing {
    voter_id to;
    message what;
};

/// Entry `index` is committed, and on this node's disk.
struct committed {
    std::uint64_t index = 0;
    entry what;
};

/// In this order: write, send, restore, apply. Lost messages cost time, never safety.
struct actions {
    std::optional<disk_write> write;
    std::vector<outgoing> send;
    std::optional<snapshot> restore;  ///< replaces the state machine
    std::vector<committed> apply;
    std::uint64_t proposed = 0;  ///< the index that a proposal or change got: logged once `apply` brings it with term()
};

enum class role : std::uint8_t { follower, pre_candidate, candidate, leader };

class server {
public:
    server(options o, durable_state from, core::time_point now);

    /// Nothing has changed when it returns an error. errc::protocol: the sender broke the rules, cut it off.
    /// errc::forgotten: another voter has heard of writes that this node's own disk lacks: it is an older copy of what
    /// it was, and must not vote any more.
    /// errc::quorum_lost: this node does not lead, or not any more. errc::limit: too much is proposed, or the change
    /// has to wait. errc::usage: the change makes no sense.
    core::result<actions> step(core::time_point now, event e);
    /// When the next tick is due.
    core::time_point wake_at() const;
    /// From now on this node can hear the others: what it waits for begins anew. Before the first step.
    void start(core::time_point now);

    raft::role role() const { return role_; }
    std::uint64_t term() const { return ballot_.term; }
    const std::optional<voter_id>& vote() const { return ballot_.vote; }
    const std::optional<voter_id>& leader() const { return leader_; }
    std::uint64_t commit() const { return commit_; }
    std::uint64_t applied() const { return applied_; }
    const raft::log& log() const { return log_; }
    const configuration& members() const { return log_.members(); }
    /// Who is to follow: a leader's view; empty on others.
    const std::map<voter_id, progress>& followers() const { return followers_; }
    /// To whom leadership is being handed.
    const std::optional<voter_id>& transferring() const { return transfer_to_; }

private:
    struct held {
        std::uint64_t after = 0;  ///< the write that must be durable first
        outgoing what;
    };
    struct write_under_way {
        std::uint64_t number = 0;
        std::uint64_t last = 0;  ///< the log's last index then
        bool cuts = false;       ///< it replaces entries that an earlier write may have brought
    };

    // raft.cpp: events, and what comes of a step.
    core::result<void> handle(core::time_point now, tick);
    core::result<void> handle(core::time_point now, received& r);
    core::result<void> handle(core::time_point now, durable d);
    core::result<void> handle(core::time_point now, propose& p);
    core::result<void> handle(core::time_point now, const change& c);
    core::result<void> handle(core::time_point now, compact& c);
    core::result<void> handle(core::time_point now, const transfer& t);
    core::result<void> handle(core::time_point now, const link_down& l);
    core::result<void> handle(core::time_point now, const link_up& l);
    void finish();
    disk_mark own_mark() const { return {written_before_, written_before_ + durable_, options_.seed}; }
    core::result<bool> heed(const voter_id& from, const message& m);
    void take(core::time_point now, received& r);
    /// Whoever asked for a vote while this node gave none.
    void answer_asked(core::time_point now);
    bool abstains(core::time_point now) const { return now < abstains_until_ && !unheard_.empty(); }
    void apply_committed();
    void send(const voter_id& to, std::uint64_t term, decltype(message::body) body);
    void append_own(entry e);
    void note_change(std::uint64_t first);

    // raft_election.cpp: terms, votes, roles.
    void become_follower(core::time_point now, std::uint64_t term, std::optional<voter_id> leader);
    void campaign(core::time_point now, bool pre, bool handed_over);
    void become_leader(core::time_point now);
    void tally(core::time_point now);
    void rest(core::time_point now);
    bool hears_leader(core::time_point now) const;
    bool may_lead() const;
    bool obey(core::time_point now, const voter_id& from, const message& m);
    void on(core::time_point now, const voter_id& from, const message& m, const vote_request& v);
    void on(core::time_point now, const voter_id& from, const message& m, const vote_response& v);
    void on(core::time_point now, const voter_id& from, const message& m, const campaign_request&);
    void on(core::time_point, const voter_id&, const message&, const greeting&) {}  // its envelope has said all

    // raft_replication.cpp: entries and snapshots, as a leader and as a follower.
    core::result<void> contradicts(const voter_id& from, const message& m) const;
    void follow(core::time_point now, const voter_id& from);
    void on(core::time_point now, const voter_id& from, const message& m, append_request& a);
    void on(core::time_point now, const voter_id& from, const message& m, snapshot_request& s);
    void on(core::time_point now, const voter_id& from, const message& m, const append_response& a);
    void send_append(const voter_id& to, progress& p, bool with_entries);
    void send_entries(const voter_id& to, progress& p);
    void send_entries();
    std::uint64_t last_to_send() const;
    void beat(core::time_point now);
    bool advance_commit();
    bool commit_and_tell(core::time_point now);
    void hand_over_if_caught_up(const voter_id& to, const progress& p);
    core::time_point quorum_heard() const;
    core::result<configuration> changed(core::time_point now, const change& c) const;
    core::result<void> change_one(core::time_point now, configuration& next, change::kind what,
                                  const voter_id& who) const;
    void follow_members(core::time_point now, std::uint64_t next);

    options options_;
    core::seeded_entropy random_;
    ballot ballot_;
    raft::log log_;
    std::uint64_t commit_ = 0;
    std::uint64_t applied_ = 0;
    std::uint64_t stable_ = 0;  ///< entries up to here are on this node's disk

    // Whose disk is an older copy, this node's or another's.
    std::uint64_t written_before_ = 0;    ///< by the disk, when this life began
    std::map<voter_id, disk_mark> seen_;  ///< what was last heard of others' disks
    std::set<voter_id> unheard_;          ///< voters that may know of more writes than this node's disk holds
    core::time_point abstains_until_{};
    std::optional<received> asked_;  ///< for a vote meanwhile, the last of them

    raft::role role_ = role::follower;
    std::optional<voter_id> leader_;
    core::time_point leader_heard_{};
    core::time_point campaign_at_{};
    std::map<voter_id, bool> votes_;  ///< answers to this candidate

    // Of a leader.
    std::map<voter_id, progress> followers_;
    core::time_point beat_at_{};
    std::size_t uncommitted_bytes_ = 0;
    std::optional<voter_id> transfer_to_;
    core::time_point transfer_until_{};

    // Of the step under way, and what it leaves.
    actions out_;
    std::vector<outgoing> answers_;  ///< sent when this step's write is durable
    bool ballot_changed_ = false;
    std::uint64_t changed_from_ = 0;
    std::optional<snapshot> new_base_;
    bool cuts_ = false;
    std::uint64_t writes_ = 0;
    std::uint64_t durable_ = 0;
    std::deque<write_under_way> writing_;
    std::deque<held> held_;
};

}  // namespace longhaul::peers::raft

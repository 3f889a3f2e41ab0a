#pragma once
/// Consensus by Raft (peers/raft): drives the server of a node that orders records, or follows to do so later, and
/// follows the log by one of them on every other node. docs/CONSENSUS.md has the whole picture.
///
/// The state that the node sees is fed by both: all committed logs are the same, so whichever has the next record
/// brings it, and the other's copy is no news.

#include <deque>
#include <map>
#include <memory>
#include <set>

#include "peers/consensus.hpp"
#include "peers/raft_storage.hpp"

namespace longhaul::peers {

struct raft_consensus_options {
    asio::any_io_executor executor;
    core::clock& clock;
    core::storage& storage;
    net::peer_key self;
    core::digest run;
    std::uint64_t seed = 1;
};

class raft_consensus final : public consensus {
public:
    explicit raft_consensus(raft_consensus_options o);
    ~raft_consensus() override;

    /// Goes on with what this node's disk holds, if it is an orderer's. False: there is none, it follows.
    /// errc::forgotten: what it agreed to is not there any more, or is another node's.
    core::task<core::result<bool>> open();
    /// The first of a new run: alone, it orders all records.
    core::task<core::result<void>> found();

    const ledger& state() const override { return state_; }
    bool known() const override { return known_; }
    std::uint64_t office() const override { return office_; }
    net::peer_key leader() const override { return leader_; }
    bool led() const override;
    bool votes() const override;
    bool alone() const override;
    std::optional<std::uint64_t> branch_on_disk() const override {
        return server_ ? std::optional(branch_) : std::nullopt;
    }
    core::task<core::result<void>> propose(record r) override;
    core::result<void> change(const raft::change& c) override;
    core::task<core::result<void>> hand_over() override;
    core::task<core::result<void>> branch_off(ledger first) override;
    void leave() override;
    void link_up(const net::peer_key& peer) override;
    void greet(const net::peer_key& peer) override;
    void link_down(const net::peer_key& peer) override;
    void dead(const net::peer_key& peer, core::duration rtt) override;
    void silent(const net::peer_key& peer, core::duration rtt) override;
    core::result<void> receive(const net::peer_key& from, const log_request& m) override;
    core::result<void> receive(const net::peer_key& from, const log_entries& m) override;
    core::result<void> receive(const net::peer_key& from, const log_snapshot& m) override;
    core::result<void> receive(const net::peer_key& from, const leader_message& m) override;
    core::result<void> receive(const net::peer_key& from, raft::message m) override;
    core::task<core::result<void>> run() override;

private:
    /// A record on its way into the log.
    struct proposal {
        std::uint64_t term = 0;
        std::optional<core::result<void>> outcome;
    };

    /// The state of a log that is about to begin with this ledger, ordered by this node alone.
    static raft::durable_state beginning_with(const ledger& first, const net::peer_key& orderer);
    core::result<void> begin(raft::durable_state disk);
    core::task<core::result<void>> begin_branch();
    void abandon_server();
    core::task<core::result<std::optional<raft::durable_state>>> open_disk();
    core::task<core::result<void>> become_orderer();
    core::task<core::result<void>> write_some();
    void use_disk_of(std::uint64_t branch);
    core::digest id() const { return log_id(o_.run, branch_); }
    core::task<core::result<void>> write_all();
    core::task<core::result<void>> keep_time();
    core::result<void> step(raft::event e);
    void perform(raft::actions a);
    void apply(const raft::committed& c);
    void restore(const raft::snapshot& s);
    void settle(std::uint64_t index, std::uint64_t term);
    void fail_proposals();
    void feed(const record& r);
    void replace_state(const ledger& newer);
    void notice_leader();
    void choose_source(std::optional<net::peer_key> behind = {});
    void tell_snapshot(const net::peer_key& to);

    raft_consensus_options o_;
    std::uint64_t branch_ = 0;  ///< of the log that `disk_` is for
    std::unique_ptr<raft::disk_log> disk_;
    std::optional<ledger> to_begin_;  ///< a branch that this node opens
    std::optional<raft::server> server_;
    bool wanted_ = false;  ///< a leader sends us its log, and we have no disk for it yet
    ledger machine_;       ///< the server's: what its own disk holds and is committed
    std::optional<core::error> broken_;
    std::deque<raft::actions> to_perform_;
    bool performing_ = false;
    std::vector<raft::disk_write> writes_;
    std::uint64_t life_ = 0;  ///< grows whenever this node leaves a log: what was under way for it comes to nothing
    std::map<std::uint64_t, std::shared_ptr<proposal>> proposals_;  ///< by index
    core::time_point asleep_until_{};

    ledger state_;  ///< what the node sees
    bool known_ = false;
    std::uint64_t office_ = 0;  ///< the term in which this node leads, counted on from those in logs that it left
    std::uint64_t last_office_ = 0, offices_before_ = 0;
    net::peer_key leader_;
    net::peer_key heard_leader_;  ///< of the source
    std::set<net::peer_key> linked_;
    std::set<net::peer_key> followers_;    ///< who follows the log by us
    std::optional<net::peer_key> source_;  ///< by whom we follow it
    bool answered_ = false;                ///< it has brought its state

    core::wakeup to_write_;
    core::wakeup timer_changed_;
    core::wakeup settled_;  ///< a proposal, or who leads
};

}  // namespace longhaul::peers

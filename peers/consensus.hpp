#pragma once
/// Agreement on the log, as the rest of a node sees it; peers/raft_consensus.hpp is the implementation.

#include <functional>

#include "core/task.hpp"
#include "peers/ledger.hpp"
#include "peers/messages.hpp"
#include "peers/raft.hpp"

namespace longhaul::peers {

class consensus {
public:
    virtual ~consensus() = default;
    /// The replicated state as far as this node knows it. The run's only while `known`.
    virtual const ledger& state() const = 0;
    virtual bool known() const = 0;
    /// Whether this node coordinates now: then `state` has all that was ever logged.
    bool leads() const { return office() != 0; }
    /// Each time that this node takes office it has a greater number; zero while it does not lead.
    virtual std::uint64_t office() const = 0;
    /// Whom to tell and ask; zero when nobody leads, as far as this node knows.
    virtual net::peer_key leader() const = 0;
    /// Whether somebody leads now by the word of who can know: not only when this node last heard of it.
    virtual bool led() const = 0;
    /// Whether this node has a say in who leads.
    virtual bool votes() const = 0;
    /// The branch in which it has one, or follows to have one later, by its disk.
    virtual std::optional<std::uint64_t> branch_on_disk() const = 0;
    /// Whether it is the only one that has.
    virtual bool alone() const = 0;

    /// Appends a record; returns when it is durable at a quorum and applied here. errc::quorum_lost where this node
    /// does not lead, or no longer: then the record may be logged all the same.
    virtual core::task<core::result<void>> propose(record r) = 0;
    /// Begins one change of the voters. errc::limit: not now; errc::usage: it makes no sense; errc::quorum_lost.
    virtual core::result<void> change(const raft::change& c) = 0;
    /// Has another voter lead, if one can; returns when this node does not lead any more, or after a moment.
    virtual core::task<core::result<void>> hand_over() = 0;

    /// Leaves this log for a branch that begins with `first`: whose generation it has, and which this node alone
    /// orders. Durable when it returns. Until then, and until this node leads there, nothing is `known`.
    virtual core::task<core::result<void>> branch_off(ledger first) = 0;
    /// Leaves this log: nothing is `known` until another one was learnt by links that come up from now on. A vote that
    /// this node has in it stays on its disk.
    virtual void leave() = 0;

    /// A link with a peer of this log came up or went down.
    virtual void link_up(const net::peer_key& peer) = 0;
    /// A peer is linked of which it is not known yet whether it is in this log: if it votes, it may know what this
    /// node's disk has forgotten.
    virtual void greet(const net::peer_key& peer) = 0;
    virtual void link_down(const net::peer_key& peer) = 0;
    /// The failure detector's word on a peer that was a round trip of `rtt` away.
    virtual void dead(const net::peer_key& peer, core::duration rtt) = 0;
    /// Nothing came from it for so long that nobody should wait for it, although the link stands: until `link_up`.
    virtual void silent(const net::peer_key& peer, core::duration rtt) = 0;
    /// Messages about the log. errc::protocol when a peer says what it may not.
    virtual core::result<void> receive(const net::peer_key& from, const log_request& m) = 0;
    virtual core::result<void> receive(const net::peer_key& from, const log_entries& m) = 0;
    virtual core::result<void> receive(const net::peer_key& from, const log_snapshot& m) = 0;
    virtual core::result<void> receive(const net::peer_key& from, const leader_message& m) = 0;
    /// From a peer that may vote in this run.
    virtual core::result<void> receive(const net::peer_key& from, raft::message m) = 0;

    /// Keeps the log until cancelled, or until its disk fails.
    virtual core::task<core::result<void>> run() = 0;

    /// Called after each record that was applied here (nullptr: the state was replaced by a newer one).
    std::function<void(const record*)> on_applied;
    /// Called when `leads` or `leader` has changed.
    std::function<void()> on_leader;
    /// How messages go out: queued, best effort; lost with the link.
    std::function<void(const net::peer_key& to, message m)> send;
};

}  // namespace longhaul::peers

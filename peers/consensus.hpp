#pragma once
/// Agreement on the log. The first implementation is a single voter (peers/single_voter.hpp); Raft comes behind the
/// same interface.

#include <functional>
#include <optional>

#include "core/task.hpp"
#include "peers/ledger.hpp"
#include "peers/messages.hpp"

namespace longhaul::peers {

class consensus {
public:
    virtual ~consensus() = default;
    /// The replicated state as far as this node knows it.
    virtual const ledger& state() const = 0;
    /// Whether this node coordinates now.
    virtual bool leads() const = 0;
    /// Whom to ask; zero when not known.
    virtual net::peer_key leader() const = 0;
    /// Appends a record; returns when it is durable at a quorum and applied here. errc::quorum_lost where this node
    /// does not lead.
    virtual core::task<core::result<void>> propose(record r) = 0;
    /// A link with `from` came up or went down.
    virtual void link_up(const net::peer_key& from) = 0;
    virtual void link_down(const net::peer_key& from) = 0;
    /// Messages about the log. errc::protocol when a peer says what it may not.
    virtual core::result<void> receive(const net::peer_key& from, const log_request& m) = 0;
    virtual core::result<void> receive(const net::peer_key& from, const log_entries& m) = 0;
    virtual core::result<void> receive(const net::peer_key& from, const log_snapshot& m) = 0;

    /// Called after each entry that was applied here (nullptr: the state was replaced by a snapshot).
    std::function<void(const record*)> on_applied;
    /// How messages go out: queued, best effort; lost with the link.
    std::function<void(const net::peer_key& to, message m)> send;
};

}  // namespace longhaul::peers

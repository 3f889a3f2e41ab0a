#pragma once
/// Consensus of one voter, the founder: it orders records by writing them to its disk, and everybody else follows.
/// The run waits while it is away and goes on when it is back.

#include <memory>
#include <set>

#include "core/storage.hpp"
#include "peers/consensus.hpp"

namespace longhaul::peers {

/// The voter's log on disk: `log/snapshot` (a ledger) and `log/entries` (records after it, each with length and hash).
class log_store {
public:
    explicit log_store(core::storage& storage) : storage_(storage) {}
    /// The ledger as logged; a torn tail (never acknowledged) is cut off. errc::not_found when there is no log;
    /// errc::malformed when a complete entry is damaged.
    core::task<core::result<ledger>> load();
    /// Appends and syncs one record. After an error the store refuses further appends until it was loaded again.
    core::task<core::result<void>> append(const record& r);
    /// Replaces the log by a snapshot.
    core::task<core::result<void>> compact(const ledger& l);
    std::size_t entries() const { return entries_; }

private:
    core::storage& storage_;
    std::size_t entries_ = 0;
    std::uint64_t base_ = 0;  ///< names the entries file, so that a snapshot never meets the entries before it
    bool failed_ = false;
};

class single_voter final : public consensus {
public:
    /// Founder: `log` is set, and `state` is what it loaded. Follower: `log` is empty.
    single_voter(asio::any_io_executor executor, net::peer_key self, net::peer_key founder,
                 std::unique_ptr<log_store> log, ledger state);

    const ledger& state() const override { return state_; }
    bool leads() const override { return log_ != nullptr; }
    net::peer_key leader() const override { return founder_; }
    core::task<core::result<void>> propose(record r) override;
    void link_up(const net::peer_key& from) override;
    void link_down(const net::peer_key& from) override;
    core::result<void> receive(const net::peer_key& from, const log_request& m) override;
    core::result<void> receive(const net::peer_key& from, const log_entries& m) override;
    core::result<void> receive(const net::peer_key& from, const log_snapshot& m) override;

private:
    net::peer_key self_;
    net::peer_key founder_;
    std::unique_ptr<log_store> log_;
    ledger state_;
    bool known_ = false;  ///< a follower that has a snapshot of this session
    bool proposing_ = false;
    core::wakeup idle_;
    std::set<net::peer_key> followers_;  ///< who asked for the log
};

}  // namespace longhaul::peers

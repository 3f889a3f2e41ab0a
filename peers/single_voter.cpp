#include "peers/single_voter.hpp"

#include "core/hash.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

constexpr std::uint64_t max_log_bytes = std::uint64_t{1} << 30;
constexpr std::size_t compact_after = 2048;

std::string entries_path(std::uint64_t base) { return fmt::format("log/entries-{:012}", base); }

}  // namespace

core::task<core::result<ledger>> log_store::load() {
    auto saved = co_await storage_.read("log/snapshot", max_log_bytes);
    LONGHAUL_CO_TRY(saved);
    LONGHAUL_CO_TRY_ASSIGN(ledger l, ledger::from_snapshot(*saved));
    base_ = l.index();
    entries_ = 0;
    auto tail = co_await storage_.read(entries_path(base_), max_log_bytes);
    if (!tail && tail.error().code != errc::not_found) co_return fail(tail.error());
    failed_ = false;
    if (!tail) co_return l;
    core::byte_reader in(*tail);
    bool torn = false;
    while (in.remaining() > 0 && !torn) {
        const auto size = in.u32();
        if (!size || *size > max_record_bytes || in.remaining() < *size + 8) {
            torn = true;
            break;
        }
        const auto body = in.take(*size);
        const auto check = in.take(8);
        const auto expected = core::hash(*body);
        if (!std::ranges::equal(*check, std::span(expected.bytes).first(8))) {
            // The last entry may be torn by a power cut; a damaged one with others behind it is a broken disk.
            if (in.remaining() > 0) {
                co_return fail(errc::malformed,
                               "the log is damaged at entry {}: restore {} from a copy or found a new run",
                               l.index() + 1, entries_path(base_));
            }
            torn = true;
            break;
        }
        LONGHAUL_CO_TRY_ASSIGN(const record r, parse_record(*body));
        l.apply(r);
        ++entries_;
    }
    if (torn) {
        auto cut = co_await compact(l);
        LONGHAUL_CO_TRY(cut);
    }
    co_return l;
}

core::task<core::result<void>> log_store::append(const record& r) {
    if (failed_) co_return fail(errc::io, "the log cannot be written since an earlier error: restart this node");
    const auto body = serialize(r);
    const auto check = core::hash(body);
    core::byte_writer out;
    out.u32(static_cast<std::uint32_t>(body.size())).raw(body).raw(std::span(check.bytes).first(8));
    auto written = co_await storage_.append(entries_path(base_), out.bytes());
    if (!written) {
        failed_ = true;
        co_return fail(written.error().within("writing the log"));
    }
    ++entries_;
    co_return core::ok();
}

core::task<core::result<void>> log_store::compact(const ledger& l) {
    const auto old = entries_path(base_);
    const auto bytes = l.snapshot();
    std::vector<core::const_bytes> pieces;
    pieces.emplace_back(bytes);
    auto written = co_await storage_.put("log/snapshot", std::move(pieces));
    LONGHAUL_CO_TRY(written);
    base_ = l.index();
    entries_ = 0;
    if (entries_path(base_) != old) {
        auto removed = co_await storage_.remove(old);
        LONGHAUL_CO_TRY(removed);
    }
    co_return core::ok();
}

single_voter::single_voter(asio::any_io_executor executor, net::peer_key self, net::peer_key founder,
                           std::unique_ptr<log_store> log, ledger state)
    : self_(self), founder_(founder), log_(std::move(log)), state_(std::move(state)), idle_(std::move(executor)) {}

core::task<core::result<void>> single_voter::propose(record r) {
    if (!log_) co_return fail(errc::quorum_lost, "only the founder {} orders records", founder_.brief());
    auto turn = co_await core::wait_until(idle_, [this] { return !proposing_; });
    LONGHAUL_CO_TRY(turn);
    proposing_ = true;
    auto written = co_await log_->append(r);
    if (written) {
        state_.apply(r);
        log_entries news;
        news.first = state_.index();
        news.records.push_back(serialize(r));
        for (const auto& key : followers_) send(key, news);
        if (on_applied) on_applied(&r);
        if (log_->entries() >= compact_after) written = co_await log_->compact(state_);
    }
    proposing_ = false;
    idle_.notify();
    co_return written;
}

void single_voter::link_up(const net::peer_key& from) {
    if (!log_ && from == founder_) send(founder_, log_request{known_ ? state_.index() : 0});
}

void single_voter::link_down(const net::peer_key& from) { followers_.erase(from); }

core::result<void> single_voter::receive(const net::peer_key& from, const log_request&) {
    if (!log_) return core::ok();  // asked of the wrong node: it will learn who coordinates
    followers_.insert(from);
    send(from, log_snapshot{state_.snapshot()});
    return core::ok();
}

core::result<void> single_voter::receive(const net::peer_key& from, const log_entries& m) {
    if (from != founder_ || log_) return fail(errc::protocol, "log entries from a peer that is not the coordinator");
    if (!known_ || m.first > state_.index() + 1) {
        // Entries before the snapshot that we asked for: a gap, ask again.
        send(founder_, log_request{0});
        return core::ok();
    }
    for (std::size_t i = 0; i < m.records.size(); ++i) {
        if (m.first + i <= state_.index()) continue;
        LONGHAUL_TRY_ASSIGN(const record r, parse_record(m.records[i]));
        state_.apply(r);
        if (on_applied) on_applied(&r);
    }
    return core::ok();
}

core::result<void> single_voter::receive(const net::peer_key& from, const log_snapshot& m) {
    if (from != founder_ || log_) return fail(errc::protocol, "a log snapshot from a peer that is not the coordinator");
    LONGHAUL_TRY_ASSIGN(auto fresh, ledger::from_snapshot(m.ledger));
    if (known_ && fresh.index() < state_.index()) {
        return fail(errc::protocol, "the coordinator's log went back from entry {} to {}", state_.index(),
                    fresh.index());
    }
    known_ = true;
    state_ = std::move(fresh);
    if (on_applied) on_applied(nullptr);
    return core::ok();
}

}  // namespace longhaul::peers

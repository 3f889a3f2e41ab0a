#include "peers/single_voter.hpp"

#include <algorithm>

#include "core/hash.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

constexpr std::uint64_t max_log_bytes = std::uint64_t{1} << 30;
constexpr std::size_t compact_after = 2048;

constexpr std::size_t check_bytes = 8;
constexpr std::size_t entry_overhead = 4 + check_bytes;

std::string entries_path(std::uint64_t base) { return fmt::format("log/entries-{:012}", base); }

/// The record that `bytes` begin with, if it is whole: its length, itself, and the first bytes of its hash.
std::optional<core::const_bytes> first_entry(core::const_bytes bytes) {
    core::byte_reader in(bytes);
    const auto body = in.sized(max_record_bytes);
    const auto check = in.take(check_bytes);
    if (!body || body->empty() || !check) return std::nullopt;
    const auto expected = core::hash(*body);
    if (!std::ranges::equal(*check, std::span(expected.bytes).first(check_bytes))) return std::nullopt;
    return *body;
}

/// A snapshot that was read from the disk without the hash that ends it; the ledger of a run believes no changed bit.
core::result<core::const_bytes> snapshot_in(core::const_bytes file) {
    constexpr auto size = core::digest{}.bytes.size();
    const auto body = file.first(file.size() < size ? 0 : file.size() - size);
    if (!body.empty() && std::ranges::equal(core::hash(body).bytes, file.subspan(body.size()))) return body;
    return fail(errc::malformed, "log/snapshot is damaged: restore the folder 'log' from a copy or found a new run");
}

/// Whether a whole entry begins anywhere in `bytes`.
bool has_entry(core::const_bytes bytes) {
    for (; !bytes.empty(); bytes = bytes.subspan(1)) {
        if (first_entry(bytes)) return true;
    }
    return false;
}

}  // namespace

core::task<core::result<ledger>> log_store::load() {
    auto saved = co_await storage_.read("log/snapshot", max_log_bytes);
    LONGHAUL_CO_TRY(saved);
    LONGHAUL_CO_TRY_ASSIGN(const auto whole, snapshot_in(*saved));
    LONGHAUL_CO_TRY_ASSIGN(ledger l, ledger::from_snapshot(whole));
    base_ = l.index();
    entries_ = 0;
    auto tail = co_await storage_.read(entries_path(base_), max_log_bytes);
    if (!tail && tail.error().code != errc::not_found) co_return fail(tail.error());
    failed_ = false;
    if (!tail) co_return l;
    core::const_bytes rest(*tail);
    while (const auto body = first_entry(rest)) {
        LONGHAUL_CO_TRY_ASSIGN(const record r, parse_record(*body));
        l.apply(r);
        ++entries_;
        rest = rest.subspan(entry_overhead + body->size());
    }
    if (rest.empty()) co_return l;
    // What a power cut tears is the last entry, and it was never acknowledged. Anything whole behind the damage was.
    if (has_entry(rest.subspan(1))) {
        co_return fail(errc::malformed, "the log is damaged at entry {}: restore {} from a copy or found a new run",
                       l.index() + 1, entries_path(base_));
    }
    auto cut = co_await compact(l);
    LONGHAUL_CO_TRY(cut);
    co_return l;
}

core::task<core::result<void>> log_store::append(const record& r) {
    if (failed_) co_return fail(errc::io, "the log cannot be written since an earlier error: restart this node");
    const auto body = serialize(r);
    // What cannot be read again would be the end of the run: at the next start, and on every follower.
    if (auto again = parse_record(body); !again) {
        co_return fail(errc::internal, "a record that is not valid was to be logged: {}", again.error().message);
    }
    const auto check = core::hash(body);
    core::byte_writer out;
    out.u32(static_cast<std::uint32_t>(body.size())).raw(body).raw(std::span(check.bytes).first(check_bytes));
    failed_ = true;  // until it is known to be written whole
    auto written = co_await storage_.append(entries_path(base_), out.bytes());
    if (!written) co_return fail(written.error().within("writing the log"));
    failed_ = false;
    ++entries_;
    co_return core::ok();
}

core::task<core::result<void>> log_store::compact(const ledger& l) {
    const auto old = entries_path(base_);
    const auto bytes = l.snapshot();
    std::vector<core::const_bytes> pieces;
    pieces.emplace_back(bytes);
    const auto check = core::hash(bytes);
    pieces.emplace_back(check.bytes);
    auto written = co_await storage_.put("log/snapshot", std::move(pieces));
    if (!written) {
        // Only a full disk surely left the old snapshot; behind a new one the old entries would not be read any more.
        failed_ = failed_ || written.error().code != errc::no_space;
        co_return written;
    }
    base_ = l.index();
    entries_ = 0;
    // Also when the name stays: then the file holds nothing but a torn entry, behind which nothing may be written.
    auto removed = co_await storage_.remove(old);
    failed_ = failed_ || (!removed && old == entries_path(base_));
    co_return removed;
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
        // The record is logged, whatever becomes of this: a disk that is full shows again at the next record.
        if (log_->entries() >= compact_after) {
            auto compacted = co_await log_->compact(state_);
            (void)compacted;
        }
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

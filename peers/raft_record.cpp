#include "peers/raft_record.hpp"

#include <algorithm>

#include "core/hash.hpp"

namespace longhaul::peers::raft {

using core::errc;
using core::fail;

namespace {

constexpr std::uint32_t state_magic = 0x7266'6c02;        // "lfr", version 2
constexpr std::uint32_t first_state_magic = 0x7266'6c01;  // which did not count writes
constexpr std::size_t max_disk_entries = 1 << 20;
constexpr std::size_t check_bytes = 8;

enum content : std::uint8_t { has_ballot = 1, has_entries = 2 };

void put(core::byte_writer& out, const std::vector<voter_id>& ids) {
    out.u8(static_cast<std::uint8_t>(ids.size()));
    for (const auto& id : ids) out.raw(id.bytes);
}

void put(core::byte_writer& out, const configuration& c) {
    put(out, c.voters);
    put(out, c.learners);
}

void put(core::byte_writer& out, const ballot& b) {
    out.u64(b.term).u8(b.vote ? 1 : 0);
    if (b.vote) out.raw(b.vote->bytes);
}

void put(core::byte_writer& out, const std::vector<entry>& entries) {
    out.u32(static_cast<std::uint32_t>(entries.size()));
    for (const auto& e : entries) {
        out.u64(e.term).u8(static_cast<std::uint8_t>(e.kind));
        if (e.kind == entry_kind::record) out.sized(e.data);
        if (e.kind == entry_kind::membership) put(out, e.members);
    }
}

core::result<void> get(core::byte_reader& in, std::uint64_t& number) {
    LONGHAUL_TRY_ASSIGN(number, in.u64());
    if (number > max_number) return fail(errc::malformed, "the impossible number {}", number);
    return core::ok();
}

core::result<void> get(core::byte_reader& in, std::vector<voter_id>& ids, std::size_t max) {
    LONGHAUL_TRY_ASSIGN(const auto count, in.u8());
    if (count > max) return fail(errc::malformed, "{} peers where at most {} can be", count, max);
    for (unsigned i = 0; i < count; ++i) LONGHAUL_TRY(in.copy_to(ids.emplace_back().bytes));
    return core::ok();
}

/// `empty`: also a configuration without anybody is one.
core::result<void> get(core::byte_reader& in, configuration& c, bool empty) {
    LONGHAUL_TRY(get(in, c.voters, max_voters));
    LONGHAUL_TRY(get(in, c.learners, max_learners));
    if (empty && c == configuration{}) return core::ok();
    if (auto good = check(c); !good) return fail(errc::malformed, "{}", good.error().message);
    return core::ok();
}

core::result<void> get(core::byte_reader& in, ballot& b) {
    LONGHAUL_TRY(get(in, b.term));
    LONGHAUL_TRY_ASSIGN(const auto voted, in.u8());
    if (voted > 1) return fail(errc::malformed, "a vote of kind {}", voted);
    if (voted == 1) LONGHAUL_TRY(in.copy_to(b.vote.emplace().bytes));
    return core::ok();
}

core::result<void> get(core::byte_reader& in, std::vector<entry>& entries) {
    LONGHAUL_TRY_ASSIGN(const auto count, in.u32());
    if (count > max_disk_entries) return fail(errc::malformed, "{} log entries exceed {}", count, max_disk_entries);
    std::uint64_t last = 1;
    for (std::uint32_t i = 0; i < count; ++i) {
        entry e;
        LONGHAUL_TRY(get(in, e.term));
        if (e.term < last) return fail(errc::malformed, "an entry of term {} behind one of term {}", e.term, last);
        last = e.term;
        LONGHAUL_TRY_ASSIGN(const auto kind, in.u8());
        e.kind = static_cast<entry_kind>(kind);
        switch (e.kind) {
            case entry_kind::barrier: break;
            case entry_kind::record: {
                LONGHAUL_TRY_ASSIGN(const auto data, in.sized(max_entry_bytes));
                e.data.assign(data.begin(), data.end());
                break;
            }
            case entry_kind::membership: LONGHAUL_TRY(get(in, e.members, false)); break;
            default: return fail(errc::malformed, "an entry of kind {}", kind);
        }
        entries.push_back(std::move(e));
    }
    return core::ok();
}

struct framed {
    core::const_bytes body;
    std::size_t bytes = 0;
};

/// What `bytes` begin with, if it is a whole frame behind that state, number `first` to `last`.
std::optional<framed> whole_frame(const core::digest& state, std::uint64_t first, std::uint64_t last,
                                  core::const_bytes bytes) {
    core::byte_reader in(bytes);
    const auto length = in.u32();
    const auto number = in.u64();
    if (!length || !number || *length == 0 || *length > max_frame_bytes) return std::nullopt;
    if (*number < first || *number > last) return std::nullopt;
    const auto body = in.take(*length);
    const auto check = in.take(check_bytes);
    if (!body || !check) return std::nullopt;
    const auto covered = bytes.first(bytes.size() - in.remaining() - check_bytes);
    const auto expected = core::hasher().update(state.bytes).update(covered).finish();
    if (!std::ranges::equal(*check, std::span(expected.bytes).first(check_bytes))) return std::nullopt;
    return framed{*body, covered.size() + check_bytes};
}

core::result<std::vector<disk_write>> parse_writes(core::const_bytes body) {
    core::byte_reader in(body);
    LONGHAUL_TRY_ASSIGN(const auto count, in.u32());
    std::vector<disk_write> writes;
    for (std::uint32_t i = 0; i < count; ++i) {
        disk_write w;
        LONGHAUL_TRY_ASSIGN(const auto has, in.u8());
        if (has > (has_ballot | has_entries)) return fail(errc::malformed, "a write of kind {}", has);
        if ((has & has_ballot) != 0) LONGHAUL_TRY(get(in, w.ballot.emplace()));
        if ((has & has_entries) != 0) {
            LONGHAUL_TRY(get(in, w.first));
            if (w.first == 0) return fail(errc::malformed, "log entries from 0 on");
            LONGHAUL_TRY(get(in, w.entries));
        }
        writes.push_back(std::move(w));
    }
    LONGHAUL_TRY(in.end());
    return writes;
}

}  // namespace

core::byte_vector serialize(const disk_state& s) {
    core::byte_writer out;
    out.u32(state_magic).raw(s.self.bytes).raw(s.generation.bytes).u64(s.number);
    const auto& c = s.content;
    out.u64(c.writes);
    put(out, c.ballot);
    out.u64(c.base.index).u64(c.base.term);
    put(out, c.base.members);
    out.sized(c.base.data);
    put(out, c.entries);
    const auto hash = core::hash(out.bytes());
    return out.raw(hash.bytes).take();
}

core::result<disk_state> parse_disk_state(core::const_bytes bytes) {
    constexpr auto hash_bytes = sizeof(core::digest);
    if (bytes.size() < hash_bytes) return fail(errc::malformed, "{} bytes are no state of a voter", bytes.size());
    const auto hash = core::hash(bytes.first(bytes.size() - hash_bytes));
    if (!std::ranges::equal(hash.bytes, bytes.last(hash_bytes))) return fail(errc::malformed, "its hash is wrong");
    core::byte_reader in(bytes.first(bytes.size() - hash_bytes));
    LONGHAUL_TRY_ASSIGN(const auto magic, in.u32());
    if (magic == first_state_magic) {
        return fail(errc::config, "it was written by an earlier build, which this one cannot go on from: use that one");
    }
    if (magic != state_magic) return fail(errc::malformed, "it begins with {:08x}", magic);
    disk_state s;
    LONGHAUL_TRY(in.copy_to(s.self.bytes));
    LONGHAUL_TRY(in.copy_to(s.generation.bytes));
    LONGHAUL_TRY(get(in, s.number));
    auto& c = s.content;
    LONGHAUL_TRY(get(in, c.writes));
    LONGHAUL_TRY(get(in, c.ballot));
    LONGHAUL_TRY(get(in, c.base.index));
    LONGHAUL_TRY(get(in, c.base.term));
    LONGHAUL_TRY(get(in, c.base.members, c.base.index == 0));
    LONGHAUL_TRY_ASSIGN(const auto data, in.sized(max_snapshot_bytes));
    c.base.data.assign(data.begin(), data.end());
    LONGHAUL_TRY(get(in, c.entries));
    LONGHAUL_TRY(in.end());
    if (c.base.index > max_number - c.entries.size()) return fail(errc::malformed, "its entries have no numbers");
    return s;
}

core::byte_vector frame_of(const core::digest& state, std::uint64_t number, const std::vector<disk_write>& writes) {
    core::byte_writer body;
    body.u32(static_cast<std::uint32_t>(writes.size()));
    for (const auto& w : writes) {
        LONGHAUL_ENSURE(!w.base, "a snapshot is written as a state");
        body.u8(static_cast<std::uint8_t>((w.ballot ? has_ballot : 0) | (w.first != 0 ? has_entries : 0)));
        if (w.ballot) put(body, *w.ballot);
        if (w.first == 0) continue;
        body.u64(w.first);
        put(body, w.entries);
    }
    core::byte_writer out;
    out.u32(static_cast<std::uint32_t>(body.bytes().size())).u64(number).raw(body.bytes());
    const auto check = core::hasher().update(state.bytes).update(out.bytes()).finish();
    return out.raw(std::span(check.bytes).first(check_bytes)).take();
}

core::result<std::optional<frame>> next_frame(const core::digest& state, std::uint64_t number,
                                              core::const_bytes bytes) {
    const auto found = whole_frame(state, number, number, bytes);
    if (!found) return std::nullopt;
    LONGHAUL_TRY_ASSIGN(auto writes, parse_writes(found->body));
    return frame{std::move(writes), found->bytes};
}

bool has_frame(const core::digest& state, std::uint64_t from, core::const_bytes bytes) {
    // Hardly any bytes look like such a number, so that hardly any are hashed.
    const auto last = from + bytes.size();
    for (; !bytes.empty(); bytes = bytes.subspan(1)) {
        if (whole_frame(state, from, last, bytes)) return true;
    }
    return false;
}

}  // namespace longhaul::peers::raft

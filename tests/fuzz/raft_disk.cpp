// Any bytes as a voter's state and as a frame of its log, and good ones with any bytes changed: refused, or something
// that is written back as it was.
#include "core/hash.hpp"
#include "peers/raft_record.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;
namespace raft = longhaul::peers::raft;

namespace {

/// Makes the hash right, so that the input reaches what is behind it.
core::byte_vector with_hash(core::const_bytes body) {
    core::byte_vector out(body.begin(), body.end());
    const auto hash = core::hash(body);
    out.insert(out.end(), hash.bytes.begin(), hash.bytes.end());
    return out;
}

void check_state(core::const_bytes bytes) {
    const auto s = raft::parse_disk_state(bytes);
    if (!s) return;
    const auto again = raft::serialize(*s);
    FUZZ_CHECK(raft::parse_disk_state(again) == *s);
}

void check_log(core::const_bytes bytes) {
    raft::durable_state disk;
    const core::digest state{};
    std::uint64_t number = 0;
    for (;; ++number) {
        const auto f = raft::next_frame(state, number, bytes);
        if (!f || !*f) break;
        FUZZ_CHECK((*f)->bytes <= bytes.size());
        const auto again = raft::frame_of(state, number, (*f)->writes);
        FUZZ_CHECK(raft::next_frame(state, number, again).has_value());
        for (const auto& w : (*f)->writes) (void)raft::apply(disk, w);
        bytes = bytes.subspan((*f)->bytes);
    }
    (void)raft::has_frame(state, number, bytes.first(bytes.size() < 4096 ? bytes.size() : 4096));
}

/// A frame with this body and a good check.
core::byte_vector framed(core::const_bytes body) {
    core::byte_writer out;
    out.u32(static_cast<std::uint32_t>(body.size())).u64(0).raw(body);
    const auto check = core::hasher().update(core::digest{}.bytes).update(out.bytes()).finish();
    return out.raw(std::span(check.bytes).first(8)).take();
}

core::byte_vector good_state() {
    raft::disk_state s;
    s.number = 3;
    s.content.ballot = {7, core::digest{}};
    core::digest one;
    one.bytes[0] = std::byte{1};
    s.content.base = {4, 2, {{one}, {}}, core::byte_vector(5)};
    s.content.entries = {{3, raft::entry_kind::barrier, {}, {}},
                         {3, raft::entry_kind::record, core::byte_vector(9), {}},
                         {7, raft::entry_kind::membership, {}, {{core::digest{}}, {one}}}};
    auto bytes = raft::serialize(s);
    bytes.resize(bytes.size() - sizeof(core::digest));
    return bytes;
}

}  // namespace

FUZZ_TARGET(raft_disk) {
    const core::const_bytes input(reinterpret_cast<const std::byte*>(data), size);
    check_state(input);
    check_state(with_hash(input));
    check_log(input);
    check_log(framed(input));
    static const auto good = good_state();
    auto changed = good;
    fuzz_input in(data, size);
    while (!in.empty()) {
        const std::size_t at = in.byte() + 256U * in.byte();
        changed[at % changed.size()] = static_cast<std::byte>(in.byte());
    }
    check_state(with_hash(changed));
}

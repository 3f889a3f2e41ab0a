#include "peers/generation.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/bytes.hpp"
#include "core/hash.hpp"

namespace longhaul::peers {

namespace {

constexpr std::uint64_t count_shift = 40, drawn_shift = 16, most_branchings = 8191;
constexpr std::uint64_t drawn_mask = 0xff'ffff, within_mask = 0xffff;

}  // namespace

core::result<std::uint64_t> generation_of_branch(const core::digest& run, std::uint64_t parent, std::uint64_t round,
                                                 const net::peer_key& founder, std::uint64_t nonce) {
    const auto count = (parent >> count_shift) + 1;
    if (count > most_branchings) {
        return core::fail(core::errc::limit, "generation {} has no room for another branch", parent);
    }
    core::byte_writer out;
    out.raw(core::as_bytes("longhaul branch")).raw(run.bytes).u64(parent).u64(round).raw(founder.bytes).u64(nonce);
    const auto drawn = core::hash(out.bytes());
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < 3; ++i) bits = bits << 8 | std::to_integer<std::uint64_t>(drawn.bytes[i]);
    return count << count_shift | bits << drawn_shift | 1;
}

core::digest log_id(const core::digest& run, std::uint64_t branch) {
    if (branch == 0) return run;
    core::byte_writer out;
    out.raw(core::as_bytes("longhaul log")).raw(run.bytes).u64(branch);
    return core::hash(out.bytes());
}

std::optional<std::uint64_t> tokens_in_common(const generation_line& a, const generation_line& b) {
    auto own = a.begin(), other = b.begin();
    const auto begun_in = [](const generation_line& line, std::uint64_t parent) {
        return std::ranges::find(line, parent, &generation_origin::generation);
    };
    // Of a line only the end may be known: it began in a generation of the other one, perhaps.
    if (!b.empty()) {
        if (const auto parent = begun_in(a, b.front().parent); parent != a.end()) own = parent + 1;
    }
    if (!a.empty()) {
        if (const auto parent = begun_in(b, a.front().parent); parent != b.end()) other = parent + 1;
    }
    for (auto i = a.begin(); i != a.end(); ++i) {
        const auto shared = std::ranges::find(b, *i);
        if (shared == b.end()) continue;
        own = i + 1;
        other = shared + 1;
    }
    std::optional<std::uint64_t> least;
    if (own != a.end()) least = own->tokens;
    if (other != b.end()) least = std::min(least.value_or(other->tokens), other->tokens);
    return least;
}

std::string generation_name(std::uint64_t generation) {
    const auto count = (generation >> count_shift) + 1, within = generation & within_mask;
    if (branch_of(generation) == 0) return fmt::format("{}", generation);
    auto name = fmt::format("{}.{:06x}", count, generation >> drawn_shift & drawn_mask);
    return within == 1 ? name : fmt::format("{}.{}", name, within);
}

}  // namespace longhaul::peers

#include "peers/aggregate.hpp"

#include <bit>
#include <cstring>

#include "core/hash.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

core::digest root_of(const std::vector<contribution>& contributions, std::span<const core::digest> leaves) {
    core::byte_writer all;
    all.u64(contributions.size());
    for (const auto& c : contributions) {
        all.u32(c.number).u64(c.tokens).u32(c.steps).u64(std::bit_cast<std::uint64_t>(c.loss)).raw(c.payload.bytes);
    }
    all.u64(leaves.size());
    for (const auto& leaf : leaves) all.raw(leaf.bytes);
    return core::hash(all.bytes());
}

std::vector<core::digest> leaves_of(std::span<const float> values) {
    const auto grid = chunk_grid::of(values.size());
    std::vector<core::digest> leaves(grid.count());
    hash_leaves(values, 0, values.size(), leaves);
    return leaves;
}

void hash_leaves(std::span<const float> values, std::uint64_t first, std::uint64_t count,
                 std::vector<core::digest>& leaves) {
    const auto grid = chunk_grid::of(values.size());
    LONGHAUL_ENSURE(first % grid.elements == 0 && leaves.size() == grid.count(), "leaves are whole");
    for (auto i = static_cast<std::uint32_t>(first / grid.elements); i < grid.count() && grid.first(i) < first + count;
         ++i)
        leaves[i] = core::hash(core::bytes_of(values.subspan(grid.first(i), grid.size(i))));
}

core::result<shared_aggregate> parse_aggregate(const core::tensor_manifest& manifest, std::uint64_t generation,
                                               const commit_record& commit, core::const_bytes bytes) {
    if (bytes.size() != manifest.elements() * sizeof(float)) {
        return fail(errc::malformed, "an aggregate of {} bytes instead of {}", bytes.size(), manifest.elements() * 4);
    }
    auto out = std::make_shared<aggregate>();
    out->generation = generation;
    out->round = commit.round;
    out->contributions = commit.contributions;
    out->values.resize(manifest.elements());
    std::memcpy(out->values.data(), bytes.data(), bytes.size());
    out->root = root_of(out->contributions, leaves_of(out->values));
    if (out->root != commit.aggregate_root) {
        return fail(errc::protocol, "the aggregate of round {} does not match its commit", commit.round);
    }
    return shared_aggregate(std::move(out));
}

}  // namespace longhaul::peers

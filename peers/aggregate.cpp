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

namespace {

/// All but values and leaves.
aggregate named_by(const commit_record& commit, std::uint64_t generation) {
    aggregate a;
    a.generation = generation;
    a.round = commit.round;
    a.contributions = commit.contributions;
    a.root = commit.aggregate_root;
    return a;
}

core::result<void> check(const aggregate& a) {
    if (root_of(a.contributions, a.leaves) == a.root) return core::ok();
    return fail(errc::protocol, "the aggregate of round {} does not match its commit", a.round);
}

}  // namespace

core::result<aggregate> parse_values(const core::tensor_manifest& manifest, std::uint64_t generation,
                                     const commit_record& commit, core::const_bytes bytes) {
    if (bytes.size() != manifest.elements() * sizeof(float)) {
        return fail(errc::malformed, "an aggregate of {} bytes instead of {}", bytes.size(), manifest.elements() * 4);
    }
    auto a = named_by(commit, generation);
    a.values.resize(manifest.elements());
    std::memcpy(a.values.data(), bytes.data(), bytes.size());
    a.leaves = leaves_of(a.values);
    LONGHAUL_TRY(check(a));
    return a;
}

core::result<aggregate> sum_of_nothing(const core::tensor_manifest& manifest, std::uint64_t generation,
                                       const commit_record& commit) {
    return parse_values(manifest, generation, commit, core::byte_vector(manifest.elements() * sizeof(float)));
}

std::uint64_t leaves_bytes(const core::tensor_manifest& manifest) {
    return std::uint64_t{chunk_grid::of(manifest.elements()).count()} * core::digest{}.bytes.size();
}

core::byte_vector serialize_leaves(const aggregate& a) {
    core::byte_writer out;
    for (const auto& leaf : a.leaves) out.raw(leaf.bytes);
    return out.take();
}

core::result<aggregate> parse_leaves(const core::tensor_manifest& manifest, std::uint64_t generation,
                                     const commit_record& commit, core::const_bytes bytes) {
    if (bytes.size() != leaves_bytes(manifest)) {
        return fail(errc::malformed, "leaves of {} bytes instead of {}", bytes.size(), leaves_bytes(manifest));
    }
    auto a = named_by(commit, generation);
    a.leaves.resize(chunk_grid::of(manifest.elements()).count());
    core::byte_reader in(bytes);
    for (auto& leaf : a.leaves) LONGHAUL_TRY(in.copy_to(leaf.bytes));
    LONGHAUL_TRY(check(a));
    return a;
}

}  // namespace longhaul::peers

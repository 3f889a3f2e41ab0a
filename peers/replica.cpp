#include "peers/replica.hpp"

#include <algorithm>
#include <array>

#include "core/hash.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

constexpr std::uint64_t index_header = 4 * 8;

std::uint32_t chunks_of_buffer(std::uint64_t bytes) {
    return static_cast<std::uint32_t>((bytes + state_chunk_bytes - 1) / state_chunk_bytes);
}

/// What a hash is of, so that a leaf never passes for a root.
enum class hashed : std::uint8_t { leaf = 0, root = 1 };

core::hasher hasher_of(hashed what) {
    core::hasher h;
    const std::array<std::byte, 1> prefix{static_cast<std::byte>(what)};
    h.update(prefix);
    return h;
}

core::digest leaf_of(core::const_bytes chunk) { return hasher_of(hashed::leaf).update(chunk).finish(); }

/// In which buffer chunk i is, and where.
template <typename State>
auto bytes_of_chunk(State& s, std::uint32_t i) {
    const auto anchors = chunks_of_buffer(s.anchor.size() * sizeof(float));
    const auto whole = i < anchors ? std::span(s.anchor) : std::span(s.momentum);
    const auto at = std::uint64_t{i < anchors ? i : i - anchors} * state_chunk_bytes;
    const auto n = std::min<std::uint64_t>(state_chunk_bytes, whole.size_bytes() - at);
    if constexpr (std::is_const_v<State>) {
        return std::as_bytes(whole).subspan(at, n);
    } else {
        return std::as_writable_bytes(whole).subspan(at, n);
    }
}

}  // namespace

core::const_bytes chunk_of(const model_state& s, std::uint32_t i) { return bytes_of_chunk(s, i); }
core::mutable_bytes chunk_of(model_state& s, std::uint32_t i) { return bytes_of_chunk(s, i); }

bool chunk_fits(const state_index& s, std::uint32_t i, core::const_bytes bytes) {
    return i < s.leaves.size() && leaf_of(bytes) == s.leaves[i];
}

std::uint32_t state_chunks(const core::tensor_manifest& manifest) {
    return 2 * chunks_of_buffer(manifest.elements() * sizeof(float));
}

core::digest root_of(const state_index& s) {
    core::byte_writer head;
    head.u64(s.round).u64(s.position).u64(s.tokens);
    auto h = hasher_of(hashed::root);
    h.update(head.bytes());
    for (const auto& leaf : s.leaves) h.update(leaf.bytes);
    return h.finish();
}

void seal(model_state& s) {
    s.leaves.resize(2 * std::size_t{chunks_of_buffer(s.anchor.size() * sizeof(float))});
    for (std::uint32_t i = 0; i < s.leaves.size(); ++i) s.leaves[i] = leaf_of(chunk_of(std::as_const(s), i));
    s.root = root_of(s);
}

void seal(model_state& s, std::uint64_t first, std::uint64_t count) {
    const auto anchors = chunks_of_buffer(s.anchor.size() * sizeof(float));
    const auto begin = first * sizeof(float) / state_chunk_bytes;
    for (auto i = begin; count > 0 && i * state_chunk_bytes < (first + count) * sizeof(float); ++i) {
        for (const auto leaf : {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(anchors + i)})
            s.leaves[leaf] = leaf_of(chunk_of(std::as_const(s), leaf));
    }
    s.root = root_of(s);
}

shared_state apply_round(const fragment& part, const model_state& before, const round_plan& plan,
                         const commit_record& commit, std::span<const float> aggregate) {
    auto after = std::make_shared<model_state>(before);
    after->round = commit.round;
    after->position += plan.inner_steps;
    for (const auto& c : commit.contributions) after->tokens += c.tokens;
    // A round without contributors moves nothing, momentum included.
    const auto moved = commit.contributions.empty() ? 0 : part.tensors.elements();
    if (moved > 0) {
        const auto anchor = part.of(std::span(after->anchor)), momentum = part.of(std::span(after->momentum));
        optim::outer_step(part.tensors, plan.nesterov, plan.outer_lr, plan.outer_momentum, anchor, momentum, aggregate);
    }
    seal(*after, part.first, moved);
    return after;
}

shared_state in_generation(const model_state& s, std::uint64_t generation) {
    auto copy = std::make_shared<model_state>(s);
    copy->generation = generation;
    return copy;
}

std::uint64_t index_bytes(const core::tensor_manifest& manifest) {
    return index_header + std::uint64_t{state_chunks(manifest)} * core::digest{}.bytes.size();
}

core::byte_vector serialize(const state_index& s) {
    core::byte_writer out;
    out.u64(s.generation).u64(s.round).u64(s.position).u64(s.tokens);
    for (const auto& leaf : s.leaves) out.raw(leaf.bytes);
    return out.take();
}

core::result<state_index> parse_state_index(const core::tensor_manifest& manifest, core::const_bytes bytes) {
    if (bytes.size() != index_bytes(manifest)) {
        return fail(errc::malformed, "a state's index of {} bytes instead of {}", bytes.size(), index_bytes(manifest));
    }
    core::byte_reader in(bytes);
    state_index s;
    LONGHAUL_TRY_ASSIGN(s.generation, in.u64());
    LONGHAUL_TRY_ASSIGN(s.round, in.u64());
    LONGHAUL_TRY_ASSIGN(s.position, in.u64());
    LONGHAUL_TRY_ASSIGN(s.tokens, in.u64());
    s.leaves.resize(state_chunks(manifest));
    for (auto& leaf : s.leaves) LONGHAUL_TRY(in.copy_to(leaf.bytes));
    s.root = root_of(s);
    return s;
}

}  // namespace longhaul::peers

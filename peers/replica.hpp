#pragma once
/// One node's copy of the model between commits. A state is immutable and shared: donors, checkpoints and evaluation
/// keep the one they started with while the next one is made. Applying a commit makes the next state from this one, or
/// nothing.
///
/// Its root is that of a tree of hashes over chunks of 1 MiB, so that a joiner can check each chunk when it arrives,
/// from whomever.

#include <memory>

#include "core/tensor.hpp"
#include "optim/outer.hpp"
#include "peers/fragments.hpp"
#include "peers/records.hpp"

namespace longhaul::peers {

/// Bytes of a chunk; the last ones of anchor and of momentum may be shorter.
inline constexpr std::uint64_t state_chunk_bytes = 1 << 20;

/// What a state is, without its values.
struct state_index {
    std::uint64_t generation = 1;
    std::uint64_t round = 0;
    std::uint64_t position = 0;        ///< inner steps committed
    std::uint64_t tokens = 0;          ///< tokens committed
    std::vector<core::digest> leaves;  ///< of the chunks: BLAKE3 of 0 and their bytes
    /// BLAKE3 of 1, round, position, tokens and the leaves: a state keeps its root when a generation is founded on it.
    core::digest root;
};

/// S[round]: what a commit moves. Equal `generation` and `round` means equal bytes on every replica (I3).
struct model_state : state_index {
    core::flat_buffer anchor;
    core::flat_buffer momentum;
};
using shared_state = std::shared_ptr<const model_state>;

/// Makes leaves and root of what the state holds. CPU work: all of it is hashed.
void seal(model_state& s);
/// The same where only these elements have changed since it was sealed.
void seal(model_state& s, std::uint64_t first, std::uint64_t count);
/// The root of an index: of all but `generation` and `root`.
core::digest root_of(const state_index& s);

/// Chunks of a state of this model: the anchor's, then the momentum's.
std::uint32_t state_chunks(const core::tensor_manifest& manifest);
/// Chunk i of a state with buffers of their size, i below `state_chunks`; borrowed.
core::const_bytes chunk_of(const model_state& s, std::uint32_t i);
core::mutable_bytes chunk_of(model_state& s, std::uint32_t i);
/// Whether these are the bytes of chunk i.
bool chunk_fits(const state_index& s, std::uint32_t i, core::const_bytes bytes);

/// S[r] from S[r−1] and the aggregate of round r: of the part that it has exchanged, as many floats, already averaged.
/// CPU work.
shared_state apply_round(const fragment& part, const model_state& before, const round_plan& plan,
                         const commit_record& commit, std::span<const float> aggregate);

/// The same state under a new generation.
shared_state in_generation(const model_state& s, std::uint64_t generation);

/// An index as a donor sends it: four u64 and the leaves. Parsing makes the root; errc::malformed unless it has as many
/// leaves as a state of this model.
std::uint64_t index_bytes(const core::tensor_manifest& manifest);
core::byte_vector serialize(const state_index& s);
core::result<state_index> parse_state_index(const core::tensor_manifest& manifest, core::const_bytes bytes);

}  // namespace longhaul::peers

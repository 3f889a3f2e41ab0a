#pragma once
/// One node's copy of the model between commits. A state is immutable and shared: donors, checkpoints and evaluation
/// keep the one they started with while the next one is made. Applying a commit makes the next state from this one, or
/// nothing.

#include <memory>

#include "core/tensor.hpp"
#include "optim/outer.hpp"
#include "peers/records.hpp"

namespace longhaul::peers {

/// S[round]: what a commit moves. Equal `generation` and `round` means equal bytes on every replica (I3).
struct model_state {
    std::uint64_t generation = 1;
    std::uint64_t round = 0;
    std::uint64_t position = 0;  ///< inner steps committed
    std::uint64_t tokens = 0;    ///< tokens committed
    core::flat_buffer anchor;
    core::flat_buffer momentum;
    core::digest root;  ///< of the above but the generation: a state keeps its root when a generation is founded on it
};
using shared_state = std::shared_ptr<const model_state>;

/// The root of a state: BLAKE2b over round, position, tokens, anchor and momentum.
core::digest root_of(const model_state& s);

/// S[r] from S[r−1] and the aggregate of round r (manifest.elements() floats, already averaged). CPU work.
shared_state apply_round(const core::tensor_manifest& manifest, const model_state& before, const round_plan& plan,
                         const commit_record& commit, std::span<const float> aggregate);

/// The same state under a new generation.
shared_state in_generation(const model_state& s, std::uint64_t generation);

/// A state as a donor sends it, and as a joiner checks it: sizes against the manifest first, nothing allocated before.
std::uint64_t state_bytes(const core::tensor_manifest& manifest);
core::byte_vector serialize(const model_state& s);
core::result<shared_state> parse_state(const core::tensor_manifest& manifest, core::const_bytes bytes);

}  // namespace longhaul::peers

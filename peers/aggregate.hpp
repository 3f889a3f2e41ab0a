#pragma once
/// The averaged pseudo-gradient of a round, as every member applies it: the same bytes everywhere.

#include <memory>

#include "core/tensor.hpp"
#include "peers/chunk.hpp"

namespace longhaul::peers {

struct aggregate {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    std::vector<contribution> contributions;  ///< in the order of summation
    core::flat_buffer values;
    std::vector<core::digest> leaves;  ///< hashes of the values' chunks, in the model's grid
    core::digest root;                 ///< of contributions and values
};
using shared_aggregate = std::shared_ptr<const aggregate>;

/// Root of an aggregate: it covers who contributed what, so that one hash agrees on all of it. `leaves` are the hashes
/// of the values' chunks, in the model's grid.
core::digest root_of(const std::vector<contribution>& contributions, std::span<const core::digest> leaves);
/// The leaves of a whole buffer. CPU work.
std::vector<core::digest> leaves_of(std::span<const float> values);
/// The same of the elements [first, first + count) alone, into their places of `leaves`; `first` begins a leaf.
void hash_leaves(std::span<const float> values, std::uint64_t first, std::uint64_t count,
                 std::vector<core::digest>& leaves);

/// The aggregate that a commit without contributions names. CPU work.
core::result<aggregate> sum_of_nothing(const core::tensor_manifest& manifest, std::uint64_t generation,
                                       const commit_record& commit);

/// All values as a holder sends them, checked against the commit that names their aggregate. CPU work.
core::result<aggregate> parse_values(const core::tensor_manifest& manifest, std::uint64_t generation,
                                     const commit_record& commit, core::const_bytes bytes);

/// The leaves as a holder sends them. Parsing checks them against the commit that names their aggregate, and gives it
/// without its values.
std::uint64_t leaves_bytes(const core::tensor_manifest& manifest);
core::byte_vector serialize_leaves(const aggregate& a);
core::result<aggregate> parse_leaves(const core::tensor_manifest& manifest, std::uint64_t generation,
                                     const commit_record& commit, core::const_bytes bytes);

}  // namespace longhaul::peers

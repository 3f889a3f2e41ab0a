#pragma once
/// What a node needs of its machine: the sum of its declared buffers, known before any of them is allocated (DESIGN
/// §5).

#include "core/tensor.hpp"
#include "peers/run_config.hpp"

namespace longhaul::peers {

/// States of rounds gone by that a node keeps for those who download them.
inline constexpr std::size_t max_kept_states = 2;

struct declared_memory {
    std::uint64_t total = 0;  ///< bytes of all buffers that grow with the model
    std::uint64_t room = 0;   ///< left for what others send in exchanges, and the sums; 0: as much as it takes
};
/// errc::config when `limit` (0: none) holds not even the windows of a sharded exchange.
core::result<declared_memory> memory_needed(const core::tensor_manifest& tensors, const run_config& config,
                                            std::uint64_t limit);

}  // namespace longhaul::peers

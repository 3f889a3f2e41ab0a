#pragma once
/// What a node needs of its machine: the sum of its declared buffers, known before any of them is allocated (DESIGN
/// §5).

#include "core/tensor.hpp"
#include "peers/run_config.hpp"

namespace longhaul::peers {

/// Bytes of all buffers that grow with the model. errc::config when `limit` is less (0: no limit).
core::result<std::uint64_t> memory_needed(const core::tensor_manifest& tensors, const run_config& config,
                                          std::uint64_t limit);

}  // namespace longhaul::peers

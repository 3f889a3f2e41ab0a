#pragma once
/// Inner optimizers over a flat f32 buffer in plain loops, for trainers without a tensor library. PyTorch's formulas.

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.hpp"
#include "optim/config.hpp"

namespace longhaul::optim {

/// AdamW (arXiv 1711.05101, ε = 1e-8) or SGD with momentum, as `inner_config` says; weight decay on tensors of two or
/// more dimensions, gradient clipped to a global norm.
class inner_optimizer {
public:
    inner_optimizer(const core::tensor_manifest& manifest, const inner_config& config);
    /// One step. `parameters` and `gradient` have the manifest's length; `gradient` is clipped in place.
    void step(double lr, std::span<float> parameters, std::span<float> gradient);
    void reset();
    /// State as bytes: step count and moments.
    void save(core::byte_writer& out) const;
    /// errc::malformed leaves the state unchanged. Reads exactly what `save` wrote.
    core::result<void> load(core::byte_reader& in);

private:
    core::tensor_manifest manifest_;
    inner_config config_;
    bool adamw_;
    std::uint64_t steps_ = 0;
    std::vector<float> first_, second_;
};

}  // namespace longhaul::optim

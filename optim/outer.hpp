#pragma once
/// Outer optimizers: they subtract the averaged pseudo-gradient from the anchor. Plain scalar f32 loops, the same bits
/// on every replica (-ffp-contract=off, no fast-math).

#include <span>

#include "core/tensor.hpp"
#include "optim/config.hpp"

namespace longhaul::optim {

/// θ ← θ − η(Δ + βm) with m ← βm + Δ: Nesterov in PyTorch's form (η outside the buffer), or θ ← θ − ηΔ with "sgd" and
/// momentum 0 (heavy ball, θ ← θ − ηm, otherwise). `momentum` and `delta` have anchor.size() elements.
/// lr and momentum come from the round's plan, not from this node's configuration. Buffers (tensor_role::buffer) are
/// averaged without outer step: θ ← θ − Δ.
void outer_step(const core::tensor_manifest& manifest, bool nesterov, float lr, float beta, std::span<float> anchor,
                std::span<float> momentum, std::span<const float> delta);

}  // namespace longhaul::optim

#pragma once
/// The built-in models: names and shapes of their parameters, and their forward pass.

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "core/tensor.hpp"
#include "optim/config.hpp"

namespace longhaul::optim::torch_models {

/// How a parameter starts.
struct initial {
    enum class kind { zeros, ones, normal, uniform } how = kind::zeros;
    double scale = 0;  ///< standard deviation, or the bound of the uniform
};

struct parameter_spec {
    core::tensor_spec tensor;
    initial start;
};

/// A model without its parameters, which the trainer owns as views of one flat buffer, in the order of `parameters()`.
class model {
public:
    virtual ~model() = default;
    virtual const std::vector<parameter_spec>& parameters() const = 0;
    /// Mean cross-entropy of a batch. `inputs`: int64 [batch, context] for text, f32 [batch, 1, 28, 28] for images;
    /// `targets`: int64 [batch, context] or [batch].
    virtual at::Tensor loss(const std::vector<at::Tensor>& values, const at::Tensor& inputs, const at::Tensor& targets,
                            bool training) const = 0;
    /// Whether inputs are tokens (otherwise images).
    virtual bool reads_text() const = 0;
};

/// "gpt": GPT-2's architecture with nanoGPT's names and shapes (github.com/karpathy/nanoGPT, bias=False, lm_head tied
/// to transformer.wte and therefore named once). "mlp", "cnn" (GroupNorm, no running statistics): 28 × 28 grey images,
/// 10 classes. errc::config for shapes that do not fit together.
core::result<std::unique_ptr<model>> make_model(const model_config& config);

}  // namespace longhaul::optim::torch_models

#pragma once
/// The sections of RUN.toml that say what is trained and how. Part of the manifest: equal on every peer.

#include <cstdint>
#include <optional>
#include <string>

#include "core/config.hpp"

namespace longhaul::optim {

/// [model]: which built-in model. Tensor names and shapes follow from this alone.
struct model_config {
    std::string kind = "gpt";   ///< gpt | mlp | cnn | quadratic
    std::int64_t layers = 3;    ///< gpt: blocks; mlp: hidden layers
    std::int64_t width = 64;    ///< gpt: embedding; mlp: hidden units; cnn: first channels; quadratic: dimension
    std::int64_t heads = 4;     ///< gpt
    std::int64_t context = 64;  ///< gpt: tokens
    std::int64_t vocab = 256;   ///< gpt
    double dropout = 0;
    std::int64_t seed = 1;  ///< initial parameters
};

/// [data]: what it is trained on. Paths are resolved to hashes by the founder and never travel.
struct data_config {
    std::string kind =
        "auto";        ///< auto (by path) | stdlib (Python's standard library) | text | tokens | mnist | quadratic
    std::string path;  ///< file (text, tokens) or folder (mnist); empty for the embedded default
    double validation = 0.05;  ///< share of the tokens held out, from the end
    std::int64_t shards = 16;  ///< parts of the training split; a peer starts with the one of its admission number and
                               ///< moves on to the next when it has read as many tokens as there are in one
    std::int64_t seed = 1;     ///< order of batches
    std::int64_t eval_batches = 20;
};

/// [inner]: the inner optimizer.
struct inner_config {
    std::string optimizer = "adamw";  ///< adamw | sgd
    double lr = 8e-3;
    double beta1 = 0.9;
    double beta2 = 0.95;
    double momentum = 0;        ///< sgd
    double weight_decay = 0.1;  ///< on tensors of two or more dimensions
    double grad_clip = 1.0;     ///< global norm; 0: none
    std::int64_t batch = 16;
    std::int64_t steps = 30;          ///< H, inner steps an exchange
    std::int64_t warmup = 100;        ///< inner steps
    std::string schedule = "cosine";  ///< cosine | constant
    double final_share = 0.1;         ///< of lr, at the end of the cosine
    bool autocast = false;            ///< bf16 autocast (CUDA)
};

/// [outer]: the outer optimizer of the anchor.
struct outer_config {
    std::string optimizer = "auto";  ///< nesterov | sgd | auto: sgd with a coarse codec, else nesterov
    std::optional<double> lr;        ///< η; by default 0.7 with nesterov and 1 with sgd
    std::optional<double> momentum;  ///< β; by default 0.8 with nesterov and 0 with sgd
};

void bind(core::config_binder& binder, model_config& c);
void bind(core::config_binder& binder, data_config& c);
void bind(core::config_binder& binder, inner_config& c);
void bind(core::config_binder& binder, outer_config& c);

/// The learning rate at inner step `position` of the run (committed steps, never a local count) of `total` steps:
/// linear warm-up, then cosine to final_share × lr or constant.
double learning_rate(const inner_config& c, std::uint64_t position, std::uint64_t total);

}  // namespace longhaul::optim

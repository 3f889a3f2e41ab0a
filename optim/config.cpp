#include "optim/config.hpp"

namespace longhaul::optim {
void bind(core::config_binder& b, model_config& c) {
    b.bind_choice("model.kind", c.kind, {"gpt", "mlp", "cnn", "quadratic"}, "which built-in model");
    b.bind("model.layers", c.layers, "gpt: blocks; mlp: hidden layers", 1, 1000);
    b.bind("model.width", c.width,
           "gpt: embedding; mlp: hidden units; cnn: channels of the first layer; quadratic: dimension", 1,
           1'000'000'000);
    b.bind("model.heads", c.heads, "gpt: attention heads, a divisor of width", 1, 1024);
    b.bind("model.context", c.context, "gpt: tokens that a prediction can see", 1, 1'000'000);
    b.bind("model.vocab", c.vocab, "gpt: size of the vocabulary; 256 for bytes", 2, 10'000'000);
    b.bind("model.dropout", c.dropout, "share of activations dropped in training", 0, 0.95);
    b.bind("model.seed", c.seed, "of the initial parameters", 0, std::int64_t{1} << 62);
}

void bind(core::config_binder& b, data_config& c) {
    b.bind_choice("data.kind", c.kind, {"auto", "stdlib", "text", "tokens", "mnist", "quadratic"},
                  "what to train on; auto: by path, without one the sources of Python's standard library");
    b.bind("data.path", c.path, "file (text, tokens) or folder (mnist) on the founder");
    b.bind("data.validation", c.validation, "share held out, from the end", 0.0001, 0.9);
    b.bind("data.shards", c.shards, "parts of the training split, one for each peer at a time", 1, 1'000'000);
    b.bind("data.seed", c.seed, "order of batches", 0, std::int64_t{1} << 62);
    b.bind("data.eval_batches", c.eval_batches, "batches of one evaluation", 1, 1'000'000);
}

void bind(core::config_binder& b, inner_config& c) {
    b.bind_choice("inner.optimizer", c.optimizer, {"adamw", "sgd"}, "the inner optimizer");
    b.bind("inner.lr", c.lr, "highest learning rate", 0, 1e6);
    b.bind("inner.beta1", c.beta1, "adamw: decay of the first moment", 0, 0.999999);
    b.bind("inner.beta2", c.beta2, "adamw: decay of the second moment", 0, 0.9999999);
    b.bind("inner.momentum", c.momentum, "sgd: momentum", 0, 0.999999);
    b.bind("inner.weight_decay", c.weight_decay, "on tensors of two or more dimensions", 0, 100);
    b.bind("inner.grad_clip", c.grad_clip, "largest global norm of a gradient; 0: no limit", 0, 1e12);
    b.bind("inner.batch", c.batch, "sequences or samples of a step", 1, 1'000'000);
    b.bind("inner.steps", c.steps, "H: inner steps from one exchange to the next", 1, 1'000'000);
    b.bind("inner.warmup", c.warmup, "inner steps of linear warm-up", 0, std::int64_t{1} << 40);
    b.bind_choice("inner.schedule", c.schedule, {"cosine", "constant"}, "of the learning rate, after the warm-up");
    b.bind("inner.final_share", c.final_share, "share of lr that is left at the end of the cosine", 0, 1);
    b.bind("inner.autocast", c.autocast, "compute in bf16 where it is safe (CUDA)");
}

void bind(core::config_binder& b, outer_config& c) {
    b.bind_choice("outer.optimizer", c.optimizer, {"auto", "nesterov", "sgd"},
                  "the outer optimizer; auto: sgd with a codec that needs feedback, nesterov with all others");
    b.bind("outer.lr", c.lr, "η of the outer step; auto: 0.7 with nesterov, 1 with sgd", 0, 100);
    b.bind("outer.momentum", c.momentum, "β of the outer step; auto: 0.8 with nesterov, 0 with sgd", 0, 0.999999);
}

}  // namespace longhaul::optim

#include "optim/torch/models.hpp"

#include <cmath>

namespace longhaul::optim::torch_models {
namespace {

using how = initial::kind;

constexpr std::int64_t image_side = 28, image_pixels = image_side * image_side, image_classes = 10;

/// Collects the parameters in the order of the state dict.
class layout {
public:
    void add(std::string name, std::vector<std::int64_t> shape, how start, double scale = 0) {
        parameter_spec p;
        p.tensor.name = std::move(name);
        p.tensor.shape = std::move(shape);
        p.start = {start, scale};
        list_.push_back(std::move(p));
    }
    /// PyTorch's default for linear and convolutional layers: uniform within ±1/√fan_in, weight and bias.
    void add_layer(const std::string& name, std::vector<std::int64_t> shape) {
        double fan_in = 1;
        for (std::size_t i = 1; i < shape.size(); ++i) fan_in *= static_cast<double>(shape[i]);
        const auto outputs = shape[0];
        add(name + ".weight", std::move(shape), how::uniform, 1 / std::sqrt(fan_in));
        add(name + ".bias", {outputs}, how::uniform, 1 / std::sqrt(fan_in));
    }
    const std::vector<parameter_spec>& list() const { return list_; }

private:
    std::vector<parameter_spec> list_;
};

/// Reads the parameters back in the same order.
class cursor {
public:
    explicit cursor(const std::vector<at::Tensor>& values) : values_(values) {}
    const at::Tensor& next() { return values_.at(at_++); }

private:
    const std::vector<at::Tensor>& values_;
    std::size_t at_ = 0;
};

class gpt final : public model {
public:
    explicit gpt(const model_config& c) : c_(c) {
        const auto width = c.width;
        layout_.add("transformer.wte.weight", {c.vocab, width}, how::normal, 0.02);
        layout_.add("transformer.wpe.weight", {c.context, width}, how::normal, 0.02);
        // GPT-2 scales the projections onto the residual stream by the number of them.
        const double projection = 0.02 / std::sqrt(2.0 * static_cast<double>(c.layers));
        for (std::int64_t i = 0; i < c.layers; ++i) {
            const auto block = "transformer.h." + std::to_string(i) + ".";
            layout_.add(block + "ln_1.weight", {width}, how::ones);
            layout_.add(block + "attn.c_attn.weight", {3 * width, width}, how::normal, 0.02);
            layout_.add(block + "attn.c_proj.weight", {width, width}, how::normal, projection);
            layout_.add(block + "ln_2.weight", {width}, how::ones);
            layout_.add(block + "mlp.c_fc.weight", {4 * width, width}, how::normal, 0.02);
            layout_.add(block + "mlp.c_proj.weight", {width, 4 * width}, how::normal, projection);
        }
        layout_.add("transformer.ln_f.weight", {width}, how::ones);
    }
    const std::vector<parameter_spec>& parameters() const override { return layout_.list(); }
    bool reads_text() const override { return true; }
    at::Tensor loss(const std::vector<at::Tensor>& values, const at::Tensor& inputs, const at::Tensor& targets,
                    bool training) const override {
        cursor next(values);
        const auto batch = inputs.size(0);
        const auto length = inputs.size(1);
        const at::Tensor& wte = next.next();
        const at::Tensor& wpe = next.next();
        const auto drop = [&](at::Tensor x) { return c_.dropout > 0 ? at::dropout(x, c_.dropout, training) : x; };
        at::Tensor x = drop(at::embedding(wte, inputs) + wpe.narrow(0, 0, length));
        for (std::int64_t i = 0; i < c_.layers; ++i) {
            // Named first: the order in which a call's arguments are evaluated is not fixed.
            const auto& ln_1 = next.next();
            const auto& c_attn = next.next();
            const auto& attn_proj = next.next();
            const auto& ln_2 = next.next();
            const auto& c_fc = next.next();
            const auto& mlp_proj = next.next();
            const auto attended = at::linear(norm(x, ln_1), c_attn);
            const auto parts = attended.split(c_.width, 2);
            const auto heads = [&](const at::Tensor& t) {
                return t.view({batch, length, c_.heads, c_.width / c_.heads}).transpose(1, 2);
            };
            const auto mixed = at::scaled_dot_product_attention(heads(parts[0]), heads(parts[1]), heads(parts[2]), {},
                                                                training ? c_.dropout : 0, true);
            x = x + drop(at::linear(mixed.transpose(1, 2).contiguous().view({batch, length, c_.width}), attn_proj));
            x = x + drop(at::linear(at::gelu(at::linear(norm(x, ln_2), c_fc)), mlp_proj));
        }
        const auto logits = at::linear(norm(x, next.next()), wte);
        return at::cross_entropy_loss(logits.view({-1, c_.vocab}), targets.view({-1}));
    }

private:
    at::Tensor norm(const at::Tensor& x, const at::Tensor& weight) const {
        return at::layer_norm(x, {c_.width}, weight);
    }
    model_config c_;
    layout layout_;
};

class mlp final : public model {
public:
    explicit mlp(const model_config& c) : hidden_(c.layers) {
        auto width = image_pixels;
        for (std::int64_t i = 0; i < hidden_; ++i) {
            layout_.add_layer("layers." + std::to_string(i), {c.width, width});
            width = c.width;
        }
        layout_.add_layer("head", {image_classes, width});
    }
    const std::vector<parameter_spec>& parameters() const override { return layout_.list(); }
    bool reads_text() const override { return false; }
    at::Tensor loss(const std::vector<at::Tensor>& values, const at::Tensor& inputs, const at::Tensor& targets,
                    bool /*training*/) const override {
        at::Tensor x = inputs.flatten(1);
        for (std::size_t i = 0; i + 2 < values.size(); i += 2) x = at::relu(at::linear(x, values[i], values[i + 1]));
        const auto n = values.size();
        return at::cross_entropy_loss(at::linear(x, values[n - 2], values[n - 1]), targets);
    }

private:
    std::int64_t hidden_;
    layout layout_;
};

class cnn final : public model {
public:
    explicit cnn(const model_config& c) : groups_(std::min<std::int64_t>(c.width, 4)) {
        const auto first = c.width;
        const auto second = 2 * c.width;
        layout_.add_layer("conv1", {first, 1, 3, 3});
        layout_.add("norm1.weight", {first}, how::ones);
        layout_.add("norm1.bias", {first}, how::zeros);
        layout_.add_layer("conv2", {second, first, 3, 3});
        layout_.add("norm2.weight", {second}, how::ones);
        layout_.add("norm2.bias", {second}, how::zeros);
        layout_.add_layer("head", {image_classes, second * (image_side / 4) * (image_side / 4)});
    }
    const std::vector<parameter_spec>& parameters() const override { return layout_.list(); }
    bool reads_text() const override { return false; }
    at::Tensor loss(const std::vector<at::Tensor>& v, const at::Tensor& inputs, const at::Tensor& targets,
                    bool /*training*/) const override {
        const auto stage = [&](const at::Tensor& x, std::size_t i) {
            const auto y = at::conv2d(x, v[i], v[i + 1], at::IntArrayRef{1}, at::IntArrayRef{1});
            return at::max_pool2d(at::relu(at::group_norm(y, groups_, v[i + 2], v[i + 3])), {2, 2});
        };
        const auto x = stage(stage(inputs, 0), 4);
        return at::cross_entropy_loss(at::linear(x.flatten(1), v[8], v[9]), targets);
    }

private:
    std::int64_t groups_;
    layout layout_;
};

}  // namespace

core::result<std::unique_ptr<model>> make_model(const model_config& c) {
    if (c.kind == "gpt") {
        if (c.width % c.heads != 0)
            return core::fail(core::errc::config, "model.width {} is not a multiple of model.heads {}", c.width,
                              c.heads);
        return std::make_unique<gpt>(c);
    }
    if (c.kind == "mlp") return std::make_unique<mlp>(c);
    if (c.kind == "cnn") {
        if (c.width > 4 && c.width % 4 != 0)
            return core::fail(core::errc::config, "model.width {} of a cnn must be a multiple of 4 (its groups)",
                              c.width);
        return std::make_unique<cnn>(c);
    }
    return core::fail(core::errc::config, "LibTorch has no model \"{}\"; it has gpt, mlp and cnn", c.kind);
}

}  // namespace longhaul::optim::torch_models

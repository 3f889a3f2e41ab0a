#include "optim/torch/trainer.hpp"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <dlfcn.h>
#include <torch/headeronly/version.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>
#include <variant>

#include "core/counter_random.hpp"
#include "optim/data.hpp"
#include "optim/torch/models.hpp"

static_assert(TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 11, "an older torch's headers come first in the path");

namespace longhaul::optim {
namespace {

/// Runs `f`, turning LibTorch's exceptions into errors: none leaves this module.
template <typename F>
auto guarded(std::string_view doing, F&& f) -> decltype(f()) {
    try {
        return f();
    } catch (const c10::OutOfMemoryError&) {
        return core::fail(core::errc::limit, "{}: the device is out of memory; lower inner.batch or the model's size",
                          doing);
    } catch (const std::exception& e) {
        // Further lines are LibTorch's stack.
        const std::string_view what = e.what();
        return core::fail(core::errc::internal, "{}: LibTorch: {}", doing, what.substr(0, what.find('\n')));
    }
}

/// Loads the CUDA half of LibTorch, which registers itself. It is not linked: on a machine without a GPU it would only
/// triple the memory of a daemon (optim/README.md). False where there is no driver or no CUDA build of torch.
bool load_cuda() {
    if (::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) == nullptr) return false;
    return ::dlopen(LONGHAUL_TORCH_LIBRARY_DIR "/libtorch_cuda.so", RTLD_NOW | RTLD_LOCAL) != nullptr;
}

core::result<at::Device> find_device(const std::string& name) {
    if (name == "cpu") return at::Device(at::kCPU);
    std::optional<int> index;
    if (name.starts_with("cuda:")) {
        int n = -1;
        const auto* end = name.data() + name.size();
        const auto r = std::from_chars(name.data() + 5, end, n);
        if (r.ec == std::errc() && r.ptr == end && n >= 0 && n < 128) index = n;
    } else if (name == "cuda") {
        index = 0;
    }
    if (!index && name != "auto")
        return core::fail(core::errc::config, "device \"{}\" is none of auto, cpu, cuda:N", name);
    const bool loaded = load_cuda() && at::globalContext().hasCUDA();
    const int count = loaded ? at::globalContext().getAcceleratorHooksInterface(at::kCUDA).deviceCount() : 0;
    if (!index) return count > 0 ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
    if (*index >= count)
        return core::fail(core::errc::unsupported,
                          "device {}: this machine has {} CUDA devices that LibTorch {} can use; set device = \"cpu\"",
                          name, count, TORCH_VERSION);
    return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(*index));
}

/// bf16 autocast on CUDA while it lives.
class autocast_scope {
public:
    explicit autocast_scope(bool on) : on_(on) {
        if (!on_) return;
        at::autocast::set_autocast_enabled(at::kCUDA, true);
        at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
    }
    ~autocast_scope() {
        if (!on_) return;
        at::autocast::clear_cache();
        at::autocast::set_autocast_enabled(at::kCUDA, false);
    }
    autocast_scope(const autocast_scope&) = delete;
    autocast_scope& operator=(const autocast_scope&) = delete;

private:
    bool on_;
};

using batches = std::variant<text_batches, image_batches>;

core::result<batches> open_batches(const trainer_options& o, bool text) {
    const auto batch = static_cast<std::uint64_t>(o.inner.batch);
    if (text) {
        LONGHAUL_TRY_ASSIGN(auto source, open_token_data(o.data, o.data_path));
        LONGHAUL_TRY_ASSIGN(auto made,
                            text_batches::make(std::move(source), o.data, static_cast<std::uint64_t>(o.model.context),
                                               static_cast<std::uint64_t>(o.model.vocab), batch));
        return batches(std::move(made));
    }
    LONGHAUL_TRY_ASSIGN(auto set, open_image_data(o.data, o.data_path));
    if (set.rows != 28 || set.columns != 28 || set.largest_label() > 9)
        return core::fail(core::errc::config, "{} are not 28 x 28 with 10 classes, which mlp and cnn read",
                          set.description);
    LONGHAUL_TRY_ASSIGN(auto made, image_batches::make(std::move(set), o.data, batch));
    return batches(std::move(made));
}

/// Parameters, gradients and moments each lie in one flat f32 tensor on the device; the model's tensors are views, so
/// that reading, writing, clipping and saving are single operations.
class libtorch_trainer final : public trainer {
public:
    libtorch_trainer(const trainer_options& options, std::unique_ptr<torch_models::model> model,
                     core::tensor_manifest manifest, batches data, at::Device device)
        : options_(options),
          model_(std::move(model)),
          manifest_(std::move(manifest)),
          data_(std::move(data)),
          device_(device),
          adamw_(options.inner.optimizer == "adamw") {
        const at::NoGradGuard no_grad;
        const auto n = static_cast<std::int64_t>(manifest_.elements());
        const auto on_device = at::TensorOptions(at::kFloat).device(device_);
        parameters_ = initial_parameters().to(device_);
        gradients_ = at::zeros({n}, on_device);
        first_ = at::zeros({n}, on_device);
        if (adamw_) second_ = at::zeros({n}, on_device);
        steps_ = at::zeros({}, on_device);
        for (std::size_t i = 0; i < manifest_.size(); ++i) {
            auto value = view(parameters_, i).detach();
            value.requires_grad_(true);
            value.mutable_grad() = view(gradients_, i);
            values_.push_back(value);
            auto& group = manifest_.specs()[i].shape.size() >= 2 ? decayed_ : plain_;
            group.values.push_back(value);
            group.gradients.push_back(view(gradients_, i));
            group.first.push_back(view(first_, i));
            if (adamw_) group.second.push_back(view(second_, i));
            group.steps.push_back(steps_);
        }
        allocate_batch();
        assign(0, static_cast<std::uint64_t>(options.data.seed), 0);
    }

    const core::tensor_manifest& manifest() const override { return manifest_; }
    core::digest data_hash() const override {
        const auto* text = std::get_if<text_batches>(&data_);
        return text != nullptr ? text->source().hash() : std::get<image_batches>(data_).set().hash;
    }
    std::string data_description() const override {
        const auto* text = std::get_if<text_batches>(&data_);
        return text != nullptr ? text->source().description() : std::get<image_batches>(data_).set().description;
    }
    void assign(std::uint64_t shard, std::uint64_t seed, std::uint64_t position) override {
        dropout_key_ = core::combine_key(core::combine_key(seed, shard), 0x64726f70);
        std::visit([&](auto& d) { d.assign(shard, seed, position); }, data_);
    }
    void read(std::span<float> out) const override {
        LONGHAUL_ENSURE(out.size() == manifest_.elements(), "the manifest's length");
        const at::NoGradGuard no_grad;
        host(out).copy_(parameters_);
    }
    void write(std::span<const float> values) override {
        LONGHAUL_ENSURE(values.size() == manifest_.elements(), "the manifest's length");
        const at::NoGradGuard no_grad;
        parameters_.copy_(host(values));
    }

    core::result<step_report> step(const step_context& at) override {
        return guarded("inner step", [&]() -> core::result<step_report> {
            const auto position = std::visit([](auto& d) { return d.position(); }, data_);
            if (options_.model.dropout > 0) at::manual_seed(core::combine_key(dropout_key_, position));
            next_batch();
            const auto loss = forward(true);
            gradients_.zero_();
            loss.backward();
            step_report report;
            report.loss = loss.item<double>();
            if (!std::isfinite(report.loss)) {
                std::visit([&](auto& d) { d.seek(position); }, data_);
                return core::fail(core::errc::limit, "the loss at step {} is not finite: lower inner.lr ({})",
                                  at.position, at.lr);
            }
            update(at.lr);
            report.tokens = static_cast<std::uint64_t>(targets_.numel());
            return report;
        });
    }

    core::result<double> evaluate() override {
        return guarded("evaluation", [&]() -> core::result<double> {
            const at::NoGradGuard no_grad;
            const auto n = static_cast<std::uint64_t>(options_.data.eval_batches);
            double sum = 0;
            for (std::uint64_t i = 0; i < n; ++i) {
                validation_batch(i);
                sum += forward(false).item<double>();
            }
            const double mean = sum / static_cast<double>(n);
            if (!std::isfinite(mean)) return core::fail(core::errc::limit, "the held-out loss is not finite");
            return mean;
        });
    }

    void reset_inner_state() override {
        const at::NoGradGuard no_grad;
        first_.zero_();
        if (adamw_) second_.zero_();
        steps_.zero_();
    }

    core::result<core::byte_vector> save_inner_state() const override {
        return guarded("saving the inner state", [&]() -> core::result<core::byte_vector> {
            const at::NoGradGuard no_grad;
            core::byte_writer w;
            w.u8(adamw_ ? 1 : 0).u64(std::visit([](auto& d) { return d.position(); }, data_));
            w.u64(static_cast<std::uint64_t>(steps_.item<double>())).u64(manifest_.elements());
            core::flat_buffer moments(manifest_.elements());
            host(moments).copy_(first_);
            w.raw(core::bytes_of(moments));
            if (adamw_) {
                host(moments).copy_(second_);
                w.raw(core::bytes_of(moments));
            }
            return w.take();
        });
    }

    core::result<void> load_inner_state(core::const_bytes saved) override {
        core::byte_reader in(saved);
        LONGHAUL_TRY_ASSIGN(const auto adamw, in.u8());
        LONGHAUL_TRY_ASSIGN(const auto position, in.u64());
        LONGHAUL_TRY_ASSIGN(const auto steps, in.u64());
        LONGHAUL_TRY_ASSIGN(const auto elements, in.u64());
        if (adamw != (adamw_ ? 1 : 0) || elements != manifest_.elements())
            return core::fail(core::errc::malformed, "the saved inner state is of another optimizer or model");
        LONGHAUL_TRY_ASSIGN(const auto first, in.take(elements * sizeof(float)));
        core::const_bytes second;
        if (adamw_) {
            LONGHAUL_TRY_ASSIGN(second, in.take(elements * sizeof(float)));
        }
        LONGHAUL_TRY(in.end());
        return guarded("loading the inner state", [&]() -> core::result<void> {
            const at::NoGradGuard no_grad;
            core::flat_buffer moments(elements);
            std::memcpy(moments.data(), first.data(), first.size());
            first_.copy_(host(moments));
            if (adamw_) {
                std::memcpy(moments.data(), second.data(), second.size());
                second_.copy_(host(moments));
            }
            steps_.fill_(static_cast<double>(steps));
            std::visit([&](auto& d) { d.seek(position); }, data_);
            return core::ok();
        });
    }

    std::string description() const override {
        const auto threads = at::get_num_threads();
        return fmt::format("libtorch {}, {}, {} thread{}", TORCH_VERSION, device_.str(), threads,
                           threads == 1 ? "" : "s");
    }

private:
    /// One weight-decay group, as lists for the fused optimizers.
    struct decay_group {
        std::vector<at::Tensor> values, gradients, first, second, steps;
    };

    at::Tensor view(const at::Tensor& flat, std::size_t i) const {
        const auto& spec = manifest_.specs()[i];
        return flat
            .narrow(0, static_cast<std::int64_t>(manifest_.offset(i)), static_cast<std::int64_t>(spec.elements()))
            .view(spec.shape);
    }

    /// A host buffer as a tensor, without a copy.
    template <typename Floats>
    static at::Tensor host(Floats&& values) {
        auto* data = const_cast<float*>(values.data());
        return at::from_blob(data, {static_cast<std::int64_t>(values.size())}, at::kFloat);
    }

    /// From model.seed, on the CPU. Peers need not agree on it: the founder's is the run's.
    at::Tensor initial_parameters() const {
        core::flat_buffer start(manifest_.elements());
        const auto seed = static_cast<std::uint64_t>(options_.model.seed);
        for (std::size_t i = 0; i < manifest_.size(); ++i) {
            const auto key = core::combine_key(seed, i);
            const auto& how = model_->parameters()[i].start;
            const auto scale = static_cast<float>(how.scale);
            std::uint64_t k = 0;
            for (float& v : manifest_.part(std::span<float>(start), i)) {
                switch (how.how) {
                    case torch_models::initial::kind::zeros: v = 0; break;
                    case torch_models::initial::kind::ones: v = 1; break;
                    case torch_models::initial::kind::normal: v = scale * core::random_normal(key, k); break;
                    case torch_models::initial::kind::uniform:
                        v = scale * (static_cast<float>(core::random_bits(key, k) >> 40) / 8388608.0F - 1.0F);
                        break;
                }
                ++k;
            }
        }
        return host(start).clone();
    }

    void allocate_batch() {
        const auto batch = options_.inner.batch;
        if (model_->reads_text()) {
            inputs_ = at::empty({batch, options_.model.context}, at::kLong);
            targets_ = at::empty_like(inputs_);
        } else {
            inputs_ = at::empty({batch, 1, 28, 28}, at::kFloat);
            targets_ = at::empty({batch}, at::kLong);
        }
    }

    template <typename T>
    static std::span<T> flat(at::Tensor& t) {
        return {t.data_ptr<T>(), static_cast<std::size_t>(t.numel())};
    }

    void next_batch() {
        if (auto* text = std::get_if<text_batches>(&data_)) {
            text->next(flat<std::int64_t>(inputs_), flat<std::int64_t>(targets_));
        } else {
            std::get<image_batches>(data_).next(flat<float>(inputs_), flat<std::int64_t>(targets_));
        }
    }

    void validation_batch(std::uint64_t i) {
        if (auto* text = std::get_if<text_batches>(&data_)) {
            text->validation(i, flat<std::int64_t>(inputs_), flat<std::int64_t>(targets_));
        } else {
            std::get<image_batches>(data_).validation(i, flat<float>(inputs_), flat<std::int64_t>(targets_));
        }
    }

    at::Tensor forward(bool training) const {
        const autocast_scope autocast(options_.inner.autocast && device_.is_cuda());
        return model_->loss(values_, inputs_.to(device_), targets_.to(device_), training).to(at::kFloat);
    }

    /// Clip, then AdamW or SGD as torch.optim does them, weight decay on tensors of two or more dimensions.
    void update(double lr) {
        const at::NoGradGuard no_grad;
        const auto& c = options_.inner;
        if (c.grad_clip > 0) {
            // As torch.nn.utils.clip_grad_norm_.
            const auto scale = at::clamp(c.grad_clip / (gradients_.norm() + 1e-6), std::nullopt, 1.0);
            gradients_.mul_(scale);
        }
        steps_.add_(1);
        for (auto* group : {&decayed_, &plain_}) {
            if (group->values.empty()) continue;
            const double decay = group == &decayed_ ? c.weight_decay : 0;
            if (adamw_) {
                at::_fused_adamw_(group->values, group->gradients, group->first, group->second, {}, group->steps, lr,
                                  c.beta1, c.beta2, decay, 1e-8, false, false);
            } else {
                // The buffer starts at zero, which gives the first step's m = g as in torch.optim.SGD.
                at::_fused_sgd_(group->values, group->gradients,
                                c.momentum > 0 ? group->first : std::vector<at::Tensor>{}, decay, c.momentum, lr, 0,
                                false, false, false);
            }
        }
    }

    trainer_options options_;
    std::unique_ptr<torch_models::model> model_;
    core::tensor_manifest manifest_;
    batches data_;
    at::Device device_;
    bool adamw_;
    at::Tensor parameters_, gradients_, first_, second_, steps_;
    std::vector<at::Tensor> values_;
    decay_group decayed_, plain_;
    at::Tensor inputs_, targets_;
    std::uint64_t dropout_key_ = 0;
};

}  // namespace

core::result<std::unique_ptr<trainer>> make_libtorch_trainer(const trainer_options& options) {
    return guarded("starting LibTorch", [&]() -> core::result<std::unique_ptr<trainer>> {
        at::set_num_threads(std::max(1, options.threads));
        LONGHAUL_TRY_ASSIGN(auto model, torch_models::make_model(options.model));
        std::vector<core::tensor_spec> specs;
        for (const auto& p : model->parameters()) specs.push_back(p.tensor);
        auto manifest = core::tensor_manifest::make(std::move(specs));
        if (!manifest)
            return core::fail(core::errc::config, "{}: lower model.width or model.layers", manifest.error().message);
        if (options.fits) LONGHAUL_TRY(options.fits(*manifest));
        LONGHAUL_TRY_ASSIGN(auto data, open_batches(options, model->reads_text()));
        LONGHAUL_TRY_ASSIGN(const auto device, find_device(options.device));
        return std::make_unique<libtorch_trainer>(options, std::move(model), std::move(*manifest), std::move(data),
                                                  device);
    });
}

}  // namespace longhaul::optim

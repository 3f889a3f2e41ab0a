#include "optim/inner.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace longhaul::optim {
namespace {

/// β^n by squaring: no C library function whose last bit may differ.
double power(double base, std::uint64_t n) {
    double result = 1;
    for (; n != 0; n >>= 1, base *= base)
        if ((n & 1) != 0) result *= base;
    return result;
}

}  // namespace

inner_optimizer::inner_optimizer(const core::tensor_manifest& manifest, const inner_config& config)
    : manifest_(manifest), config_(config), adamw_(config.optimizer == "adamw") {
    first_.assign(manifest.elements(), 0.0F);
    if (adamw_) second_.assign(manifest.elements(), 0.0F);
}

void inner_optimizer::step(double lr, std::span<float> parameters, std::span<float> gradient) {
    LONGHAUL_ENSURE(parameters.size() == first_.size() && gradient.size() == first_.size(), "the manifest's length");
    if (config_.grad_clip > 0) {
        double squares = 0;
        for (const float g : gradient) squares += static_cast<double>(g) * static_cast<double>(g);
        const double scale = config_.grad_clip / (std::sqrt(squares) + 1e-6);
        if (scale < 1)
            for (float& g : gradient) g *= static_cast<float>(scale);
    }
    ++steps_;
    const double correction1 = 1 - power(config_.beta1, steps_);
    const double correction2 = std::sqrt(1 - power(config_.beta2, steps_));
    for (std::size_t t = 0; t < manifest_.size(); ++t) {
        if (manifest_.specs()[t].role == core::tensor_role::buffer) continue;
        const double decay = manifest_.specs()[t].shape.size() >= 2 ? config_.weight_decay : 0;
        const auto offset = manifest_.offset(t);
        const auto end = offset + manifest_.specs()[t].elements();
        for (auto i = offset; i < end; ++i) {
            const double g = static_cast<double>(gradient[i]);
            const double p = static_cast<double>(parameters[i]);
            if (adamw_) {
                const double m = config_.beta1 * static_cast<double>(first_[i]) + (1 - config_.beta1) * g;
                const double v = config_.beta2 * static_cast<double>(second_[i]) + (1 - config_.beta2) * g * g;
                first_[i] = static_cast<float>(m);
                second_[i] = static_cast<float>(v);
                parameters[i] = static_cast<float>(p * (1 - lr * decay) -
                                                   lr / correction1 * m / (std::sqrt(v) / correction2 + 1e-8));
            } else {
                const double v = config_.momentum * static_cast<double>(first_[i]) + g + decay * p;
                first_[i] = static_cast<float>(v);
                parameters[i] = static_cast<float>(p - lr * v);
            }
        }
    }
}

void inner_optimizer::reset() {
    steps_ = 0;
    std::fill(first_.begin(), first_.end(), 0.0F);
    std::fill(second_.begin(), second_.end(), 0.0F);
}

void inner_optimizer::save(core::byte_writer& out) const {
    out.u64(steps_).u64(first_.size()).u64(second_.size());
    out.raw(core::bytes_of(first_)).raw(core::bytes_of(second_));
}

core::result<void> inner_optimizer::load(core::byte_reader& in) {
    LONGHAUL_TRY_ASSIGN(const auto steps, in.u64());
    LONGHAUL_TRY_ASSIGN(const auto n1, in.u64());
    LONGHAUL_TRY_ASSIGN(const auto n2, in.u64());
    if (n1 != first_.size() || n2 != second_.size())
        return core::fail(core::errc::malformed, "saved inner state has {} + {} values, this model needs {} + {}", n1,
                          n2, first_.size(), second_.size());
    LONGHAUL_TRY_ASSIGN(const auto first, in.take(n1 * sizeof(float)));
    LONGHAUL_TRY_ASSIGN(const auto second, in.take(n2 * sizeof(float)));
    steps_ = steps;
    if (!first.empty()) std::memcpy(first_.data(), first.data(), first.size());
    if (!second.empty()) std::memcpy(second_.data(), second.data(), second.size());
    return core::ok();
}

}  // namespace longhaul::optim

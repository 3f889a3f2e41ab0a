#include "optim/aggregate.hpp"

#include <algorithm>
#include <cmath>

namespace longhaul::optim {

core::result<aggregator> aggregator::begin(const core::tensor_manifest& manifest,
                                           std::span<const contribution_weight> contributors) {
    aggregator a;
    double total = 0;
    double weighted_steps = 0;
    for (std::size_t i = 0; i < contributors.size(); ++i) {
        const auto& c = contributors[i];
        if (c.tokens == 0 || c.steps == 0 || c.tokens > max_contribution_tokens || c.steps > max_contribution_steps)
            return core::fail(core::errc::malformed, "contribution {} claims {} tokens in {} steps; refuse it", i,
                              c.tokens, c.steps);
        a.tokens_ += c.tokens;
        total += static_cast<double>(c.tokens);
        weighted_steps += static_cast<double>(c.tokens) * static_cast<double>(c.steps);
    }
    for (const auto& c : contributors) {
        const double share = static_cast<double>(c.tokens) / total;
        a.shares_.push_back(static_cast<float>(share));
        a.coefficients_.push_back(static_cast<float>(share * (weighted_steps / total / static_cast<double>(c.steps))));
    }
    a.manifest_ = manifest;
    a.sum_.assign(manifest.elements(), 0.0F);
    return a;
}

core::result<void> aggregator::add(std::size_t i, std::span<const float> decoded) {
    LONGHAUL_ENSURE(i == added_ && i < coefficients_.size(), "contributions are added in the order of the round");
    LONGHAUL_ENSURE(decoded.size() == sum_.size(), "a contribution has the manifest's length");
    for (std::size_t t = 0; t < manifest_.size(); ++t) {
        const auto part = manifest_.part(decoded, t);
        if (!std::all_of(part.begin(), part.end(), [](float v) { return std::isfinite(v); }))
            return core::fail(core::errc::limit, "contribution {} has a value in {} that is not finite", i,
                              manifest_.specs()[t].name);
    }
    for (std::size_t t = 0; t < manifest_.size(); ++t) {
        const bool buffer = manifest_.specs()[t].role == core::tensor_role::buffer;
        const float c = buffer ? shares_[i] : coefficients_[i];
        const auto sum = manifest_.part(std::span<float>(sum_), t);
        const auto part = manifest_.part(decoded, t);
        for (std::size_t k = 0; k < part.size(); ++k) sum[k] += c * part[k];
    }
    ++added_;
    return core::ok();
}

void aggregator::finish(std::span<float> out) const {
    LONGHAUL_ENSURE(added_ == coefficients_.size(), "every contributor of the round has been added");
    LONGHAUL_ENSURE(out.size() == sum_.size(), "the aggregate has the manifest's length");
    std::copy(sum_.begin(), sum_.end(), out.begin());
}

}  // namespace longhaul::optim

#include "optim/aggregate.hpp"

#include <algorithm>

#include "compress/dense.hpp"

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
    return a;
}

core::result<void> aggregator::add(std::size_t i, std::span<const float> decoded) {
    LONGHAUL_ENSURE(i == added_ && i < coefficients_.size(), "contributions are added in the order of the round");
    LONGHAUL_ENSURE(decoded.size() == manifest_.elements(), "a contribution has the manifest's length");
    if (sum_.empty()) sum_.assign(manifest_.elements(), 0.0F);
    const compress::range whole(manifest_);
    const auto added = compress::f32_codec().add(whole, core::bytes_of(decoded), factors_of(i), sum_);
    if (!added) return core::fail(core::errc::limit, "contribution {}: {}", i, added.error().message);
    ++added_;
    return core::ok();
}

void aggregator::finish(std::span<float> out) const {
    LONGHAUL_ENSURE(added_ == coefficients_.size(), "every contributor of the round has been added");
    LONGHAUL_ENSURE(out.size() == manifest_.elements(), "the aggregate has the manifest's length");
    if (sum_.empty()) {
        std::ranges::fill(out, 0.0F);
    } else {
        std::ranges::copy(sum_, out.begin());
    }
}

}  // namespace longhaul::optim

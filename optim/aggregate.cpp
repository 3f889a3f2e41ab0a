#include "optim/aggregate.hpp"

#include <algorithm>
#include <cmath>

namespace longhaul::optim {

namespace {

/// The tensor that holds element `at` of the flat buffer.
std::size_t tensor_at(const core::tensor_manifest& manifest, std::uint64_t at) {
    std::size_t low = 0, high = manifest.size();
    while (high - low > 1) {
        const auto middle = (low + high) / 2;
        (manifest.offset(middle) <= at ? low : high) = middle;
    }
    return low;
}

}  // namespace

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

core::result<void> aggregator::add_range(std::size_t i, std::uint64_t first, std::span<const float> decoded,
                                         std::span<float> sum) const {
    LONGHAUL_ENSURE(i < coefficients_.size() && decoded.size() == sum.size(), "a range of one of the contributors");
    LONGHAUL_ENSURE(first + decoded.size() <= manifest_.elements(), "a range lies inside the model");
    const auto end = first + decoded.size();
    if (const auto bad = std::ranges::find_if_not(decoded, [](float v) { return std::isfinite(v); });
        bad != decoded.end()) {
        const auto at = first + static_cast<std::uint64_t>(bad - decoded.begin());
        return core::fail(core::errc::limit, "contribution {} has a value in {} that is not finite", i,
                          manifest_.specs()[tensor_at(manifest_, at)].name);
    }
    if (decoded.empty()) return core::ok();
    for (auto t = tensor_at(manifest_, first); t < manifest_.size() && manifest_.offset(t) < end; ++t) {
        const auto from = std::max(first, manifest_.offset(t));
        const auto to = std::min(end, manifest_.offset(t) + manifest_.specs()[t].elements());
        const bool buffer = manifest_.specs()[t].role == core::tensor_role::buffer;
        const float c = buffer ? shares_[i] : coefficients_[i];
        for (auto k = from - first; k < to - first; ++k) sum[k] += c * decoded[k];
    }
    return core::ok();
}

core::result<void> aggregator::add(std::size_t i, std::span<const float> decoded) {
    LONGHAUL_ENSURE(i == added_ && i < coefficients_.size(), "contributions are added in the order of the round");
    LONGHAUL_ENSURE(decoded.size() == manifest_.elements(), "a contribution has the manifest's length");
    if (sum_.empty()) sum_.assign(manifest_.elements(), 0.0F);
    LONGHAUL_TRY(add_range(i, 0, decoded, sum_));
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

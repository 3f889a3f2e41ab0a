#include "optim/robust.hpp"

#include <algorithm>
#include <cmath>

namespace longhaul::optim {

namespace {

constexpr std::size_t fewest_to_judge = 3;
constexpr int rounds_of_centering = 3;
constexpr std::uint64_t most_times_median_steps = 2;

/// The lower one in the middle: of an even number, half must agree.
template <typename T>
T median(std::vector<T> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
    std::ranges::nth_element(values, middle);
    return *middle;
}

double norm(std::span<const float> v) {
    double sum = 0;
    for (const float x : v) sum += static_cast<double>(x) * static_cast<double>(x);
    return std::sqrt(sum);
}

double distance(std::span<const float> a, std::span<const float> b) {
    double sum = 0;
    for (std::size_t k = 0; k < a.size(); ++k) {
        const double d = static_cast<double>(a[k]) - static_cast<double>(b[k]);
        sum += d * d;
    }
    return std::sqrt(sum);
}

/// What brings something of that length to at most `limit`.
float shrunk_to(double limit, double length) { return length > limit ? static_cast<float>(limit / length) : 1.0F; }

struct named {
    std::string_view name;
    aggregation how;
};
constexpr named all[] = {{"mean", aggregation::mean},
                         {"clip", aggregation::clip},
                         {"trimmed_mean", aggregation::trimmed_mean},
                         {"centered_clip", aggregation::centered_clip}};

}  // namespace

std::vector<std::string> aggregation_names() {
    std::vector<std::string> out;
    for (const auto& a : all) out.emplace_back(a.name);
    return out;
}

core::result<aggregation> find_aggregation(std::string_view name) {
    for (const auto& a : all) {
        if (a.name == name) return a.how;
    }
    return core::fail(core::errc::config, "unknown aggregation \"{}\"; there are {}", name.substr(0, 80),
                      fmt::join(aggregation_names(), ", "));
}

robust_sum::robust_sum(aggregation how, std::span<const std::uint64_t> steps) : how_(how) {
    LONGHAUL_ENSURE(how != aggregation::mean, "the mean has a sum of its own (optim/aggregate)");
    LONGHAUL_ENSURE(!steps.empty(), "somebody contributes");
    const auto most = most_times_median_steps * median(std::vector<std::uint64_t>(steps.begin(), steps.end()));
    double total = 0, length = 0;
    for (const auto s : steps) {
        LONGHAUL_ENSURE(s > 0, "a contribution has at least one step");
        const auto believed = static_cast<double>(std::min(s, most));
        total += believed;
        length += believed * believed;
    }
    length_ = static_cast<float>(length / total);
    for (const auto s : steps) {
        per_step_.push_back(static_cast<float>(1.0 / static_cast<double>(s)));
        weights_.push_back(static_cast<float>(static_cast<double>(std::min(s, most)) / total));
    }
}

void robust_sum::combine(const compress::piece& p, std::span<const std::span<float>> values,
                         std::span<float> out) const {
    LONGHAUL_ENSURE(values.size() == weights_.size(), "each contributor has its values");
    if (!p.buffer) {
        for (std::size_t i = 0; i < values.size(); ++i) {
            for (float& x : values[i]) x *= per_step_[i];
        }
    }
    std::ranges::fill(out, 0.0F);
    if (how_ == aggregation::clip || values.size() < fewest_to_judge) {
        clip(values, out);
    } else if (how_ == aggregation::trimmed_mean) {
        trim(values, out);
    } else {
        centre(values, out);
    }
    if (p.buffer) return;
    for (float& x : out) x *= length_;
}

void robust_sum::clip(std::span<const std::span<float>> values, std::span<float> out) const {
    std::vector<double> norms;
    for (const auto& v : values) norms.push_back(norm(v));
    const double limit = median(norms);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const bool judged = values.size() >= fewest_to_judge;
        const float by = weights_[i] * (judged ? shrunk_to(limit, norms[i]) : 1.0F);
        for (std::size_t k = 0; k < out.size(); ++k) out[k] += by * values[i][k];
    }
}

void robust_sum::trim(std::span<const std::span<float>> values, std::span<float> out) const {
    const auto n = values.size();
    const auto cut = std::max<std::size_t>(1, n / 4);
    const float share = 1.0F / static_cast<float>(n - 2 * cut);
    std::vector<float> column(n);
    for (std::size_t k = 0; k < out.size(); ++k) {
        for (std::size_t i = 0; i < n; ++i) column[i] = values[i][k];
        std::ranges::sort(column);
        float sum = 0;
        for (auto i = cut; i < n - cut; ++i) sum += column[i];
        out[k] = share * sum;
    }
}

void robust_sum::centre(std::span<const std::span<float>> values, std::span<float> out) const {
    const auto n = values.size();
    std::vector<float> column(n), v(out.size());
    for (std::size_t k = 0; k < out.size(); ++k) {
        for (std::size_t i = 0; i < n; ++i) column[i] = values[i][k];
        const auto middle = column.begin() + static_cast<std::ptrdiff_t>((n - 1) / 2);
        std::ranges::nth_element(column, middle);
        v[k] = *middle;
    }
    std::vector<double> away;
    for (const auto& u : values) away.push_back(distance(u, v));
    const double radius = median(away);
    for (int round = 0; round < rounds_of_centering; ++round) {
        std::ranges::copy(v, out.begin());
        for (const auto& u : values) {
            const float by = shrunk_to(radius, distance(u, v)) / static_cast<float>(n);
            for (std::size_t k = 0; k < out.size(); ++k) out[k] += by * (u[k] - v[k]);
        }
        std::ranges::copy(out, v.begin());
    }
}

}  // namespace longhaul::optim

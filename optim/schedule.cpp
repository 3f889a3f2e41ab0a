#include "optim/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "core/result.hpp"

namespace longhaul::optim {
namespace {

/// cos(πp) for p in [0, 1], from arithmetic alone: the C library's cosine may differ in the last bit between systems,
/// and a simulated run must not.
double cos_pi(double p) {
    constexpr double pi = 3.141592653589793238;
    const double x = pi * (0.5 - p);  // cos(πp) = sin(π/2 − πp), |x| ≤ π/2
    double term = x;
    double sum = x;
    for (int k = 1; k <= 12; ++k) {
        term *= -x * x / (2.0 * k * (2.0 * k + 1.0));
        sum += term;
    }
    return sum;
}

}  // namespace

round_plan fixed_plan(const inner_config& inner, const outer_config& outer, const compress::codec& codec) {
    round_plan plan;
    plan.inner_steps = static_cast<std::uint64_t>(inner.steps);
    plan.nesterov = outer.optimizer == "auto" ? !codec.wants_feedback() : outer.optimizer == "nesterov";
    plan.outer_lr = static_cast<float>(outer.lr.value_or(plan.nesterov ? 0.7 : 1.0));
    plan.outer_momentum = static_cast<float>(outer.momentum.value_or(plan.nesterov ? 0.8 : 0.0));
    plan.codec = codec.name();
    return plan;
}

double outer_lr_limit_of_delay(bool nesterov, double momentum) {
    // Jury's criterion for z³ + a z² + b z + c: what binds is 1 − c² = |c·a − b|.
    if (!nesterov) return 2 * (1 - momentum * momentum);
    const auto settles = [momentum](double lr) {
        const double a = -momentum, b = lr * (1 + momentum) - 1, c = momentum * (1 - lr);
        return std::abs(c) < 1 && 1 - c * c > std::abs(c * a - b);
    };
    double low = 0, high = 2;
    for (int i = 0; i < 60; ++i) {
        const double middle = (low + high) / 2;
        (settles(middle) ? low : high) = middle;
    }
    return low;
}

std::uint64_t run_position(std::uint64_t committed, std::uint64_t j, std::uint64_t round_steps,
                           std::uint64_t own_steps) {
    LONGHAUL_ENSURE(own_steps > 0, "a round has at least one inner step");
    return committed + j * round_steps / own_steps;
}

double middle_step_seconds(std::span<const double> step_seconds) {
    std::vector<double> known;
    std::ranges::copy_if(step_seconds, std::back_inserter(known), [](double s) { return s > 0; });
    if (known.empty()) return 0;
    std::ranges::nth_element(known, known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2));
    return known[known.size() / 2];
}

std::vector<std::uint64_t> balanced_steps(std::uint64_t round_steps, std::span<const double> step_seconds,
                                          std::span<const std::uint64_t> before, std::span<const double> late) {
    std::vector<std::uint64_t> out(step_seconds.size(), round_steps);
    const double middle = middle_step_seconds(step_seconds);
    if (!(middle > 0) || round_steps < fewest_shared_steps) return out;
    const double H = static_cast<double>(round_steps);
    for (std::size_t i = 0; i < out.size(); ++i) {
        if (!(step_seconds[i] > 0 || late[i] > 0)) continue;
        const auto most = most_own_steps(round_steps);
        const double each = step_seconds[i] > 0 ? step_seconds[i] : middle;
        const double fits = std::clamp((H * middle - late[i]) / each, H / 8, static_cast<double>(most));
        const double usual = before[i] > 0 ? static_cast<double>(std::min(before[i], most)) : H;
        out[i] = late[i] <= 0 && std::abs(fits - usual) <= 0.2 * usual
                     ? static_cast<std::uint64_t>(usual)
                     : std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::lround(fits)));
    }
    return out;
}

double ramp(std::uint64_t since_reset) {
    if (since_reset + 1 >= ramp_steps) return 1;
    return static_cast<double>(since_reset + 1) / static_cast<double>(ramp_steps);
}

double learning_rate(const inner_config& c, std::uint64_t position, std::uint64_t total) {
    const auto warmup = static_cast<std::uint64_t>(std::max<std::int64_t>(c.warmup, 0));
    if (position < warmup) return c.lr * (static_cast<double>(position) + 1) / static_cast<double>(warmup);
    if (c.schedule != "cosine") return c.lr;
    const auto decay = static_cast<double>(total > warmup ? total - warmup : 1);
    const double progress = std::min(1.0, static_cast<double>(position - warmup) / decay);
    return c.lr * (c.final_share + (1 - c.final_share) * 0.5 * (1 + cos_pi(progress)));
}

}  // namespace longhaul::optim

#include "optim/schedule.hpp"

#include "core/result.hpp"

namespace longhaul::optim {

round_plan fixed_plan(const inner_config& inner, const outer_config& outer, std::string codec) {
    round_plan plan;
    plan.inner_steps = static_cast<std::uint64_t>(inner.steps);
    plan.nesterov = outer.optimizer == "nesterov";
    plan.outer_lr = static_cast<float>(outer.lr);
    plan.outer_momentum = static_cast<float>(outer.momentum);
    plan.codec = std::move(codec);
    return plan;
}

void form_delta(std::span<const float> start, std::span<const float> local, std::span<const float> carry,
                std::span<float> out) {
    LONGHAUL_ENSURE(start.size() == local.size() && start.size() == out.size(), "equal lengths");
    LONGHAUL_ENSURE(carry.empty() || carry.size() == start.size(), "a carry has the manifest's length");
    if (carry.empty()) {
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = start[i] - local[i];
    } else {
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = start[i] - local[i] + carry[i];
    }
}

std::uint64_t run_position(std::uint64_t committed, std::uint64_t j, std::uint64_t round_steps,
                           std::uint64_t own_steps) {
    LONGHAUL_ENSURE(own_steps > 0, "a round has at least one inner step");
    return committed + j * round_steps / own_steps;
}

double ramp(std::uint64_t since_reset) {
    if (since_reset + 1 >= ramp_steps) return 1;
    return static_cast<double>(since_reset + 1) / static_cast<double>(ramp_steps);
}

}  // namespace longhaul::optim

#include "optim/controller.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/result.hpp"

namespace longhaul::optim {

namespace {

/// κ of N(H), DESIGN §6.
constexpr double kappa = 0.6;
constexpr double of_eight_bits = 1.005, of_four_bits = 1.01, of_what_comes_later = 1.1;
/// Of one seed, 1.76 (H = 100) and 2.03 (H = 30) were measured, which is too much (docs/results/delay.md says why).
constexpr double of_delay = 1.6, of_late_fragment = 1.1;

/// Exchanges by which a gradient may be late for nothing (τ_c; shared/research/algorithms.md measured about 7 on a
/// small network, with a learning rate for each delay), and what each of them costs nevertheless: in doubt the smaller
/// one.
constexpr double harmless_staleness = 7, of_each_late = 0.005;

constexpr std::size_t remembered_rounds = 5;
/// Lines that carry more than four times what is believed have another reason.
constexpr double least_share_of_steps = 0.1, least_exchange_share = 0.25;
/// A late round that took no longer than that many times its steps was held up by nothing else.
constexpr double most_hidden = 1.25;

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

std::string account_of(const weighed_plan& w) {
    return fmt::format("a round of {:.2f} s, {:.2f} s of it exchange", w.round_seconds, w.exchange_seconds);
}

}  // namespace

bool same_setting(const round_plan& a, const round_plan& b) {
    return a.inner_steps == b.inner_steps && a.codec == b.codec && a.delay == b.delay &&
           a.exchange_every == b.exchange_every && a.staleness == b.staleness;
}

std::string name_of(const round_plan& p) {
    if (p.exchange_every > 0) {
        return fmt::format("an exchange after {} of {} steps with {}, {} late", p.exchange_every, p.inner_steps,
                           p.codec, p.staleness);
    }
    return fmt::format("H = {} with {}{}", p.inner_steps, p.codec, p.delay > 0 ? ", a round late" : "");
}

double prior_quality(const round_plan& plan, std::size_t fragments) {
    // To the power of 5/8 for 0.63, by roots, which are exact: the C library's powers differ between machines in the
    // last bit, and a simulated run must not.
    const auto between = plan.exchange_every > 0 ? plan.exchange_every : plan.inner_steps * fragments;
    const double x = static_cast<double>(between) / 100, root = std::sqrt(x);
    const double late = fragments > 1 ? of_late_fragment : of_delay;
    const double tau = plan.staleness;
    const double stale = std::max(1.0, tau / harmless_staleness) * (1 + of_each_late * tau);
    const double drift = (1 + kappa * root * std::sqrt(std::sqrt(root))) * (plan.delay > 0 ? late : 1) * stale;
    const auto codec = compress::find_codec(plan.codec);
    LONGHAUL_ENSURE(codec, "a plan's codec is known");
    if ((*codec)->wants_feedback()) return drift * of_what_comes_later;
    if (plan.codec == "int8") return drift * of_eight_bits;
    const bool wide = plan.codec == "f32" || plan.codec == "bf16";
    return wide ? drift : drift * of_four_bits;
}

void pace_history::add(double seconds, double steps, double exchange, std::uint32_t delay) {
    const bool hidden = delay > 0 && seconds < most_hidden * steps;
    if (exchange <= 0 || hidden) return;
    const double before = delay > 0 ? 0 : steps;
    beside_.push_back(std::max(0.0, seconds - before - exchange));
    // What is little beside the steps is lost in their noise.
    const bool counts = exchange > least_share_of_steps * steps;
    shares_.push_back(counts ? std::clamp((seconds - before) / exchange, least_exchange_share, 1.0) : 1);
    if (beside_.size() > remembered_rounds) {
        beside_.pop_front();
        shares_.pop_front();
    }
}

measured_pace pace_history::with(double step_seconds) const {
    if (beside_.empty()) return {step_seconds, 0, 1};
    return {step_seconds, median({beside_.begin(), beside_.end()}), median({shares_.begin(), shares_.end()})};
}

plan_decision choose_plan(const std::vector<plan_alternative>& all, const measured_pace& pace,
                          const quality_model& quality, const std::optional<round_plan>& present,
                          std::uint64_t rounds_kept) {
    LONGHAUL_ENSURE(!all.empty(), "there is something to choose from");
    plan_decision d;
    for (const auto& a : all) {
        weighed_plan w;
        w.plan = a.plan;
        w.exchange_seconds = pace.exchange_share * a.exchange_seconds;
        w.round_seconds = pace.round_seconds(a.plan, a.exchange_seconds);
        w.cost = w.round_seconds / static_cast<double>(a.plan.inner_steps) * quality(a.plan);
        d.alternatives.push_back(std::move(w));
    }
    const auto first = d.alternatives.front();
    std::optional<weighed_plan> kept;
    for (const auto& w : d.alternatives) {
        if (present && same_setting(w.plan, *present)) kept = w;
    }
    const bool known =
        pace.step_seconds > 0 && std::ranges::all_of(all, [](const auto& a) { return a.exchange_seconds > 0; });
    // Of equals the one that sends less, then the given order.
    std::ranges::stable_sort(d.alternatives, {}, [](const auto& w) { return std::pair(w.cost, w.exchange_seconds); });
    if (!known) {
        d.chosen = kept.value_or(first);
        d.reason = fmt::format("{} while steps or links are not measured", name_of(d.chosen.plan));
        return d;
    }
    const auto& best = d.alternatives.front();
    if (!kept) {
        d.chosen = best;
        d.changed = true;
        d.reason = fmt::format("{} costs least: {}", name_of(best.plan), account_of(best));
        return d;
    }
    const bool pays = best.cost < (1 - worth_changing) * kept->cost;
    const bool urgent = 2 * best.cost < kept->cost;
    const double saved = 1 - best.cost / kept->cost;
    if (pays && (urgent || rounds_kept >= dwell_rounds)) {
        d.chosen = best;
        d.changed = true;
        d.reason = fmt::format("{} ({}) costs {:.0f} % less a step than {} ({})", name_of(best.plan), account_of(best),
                               100 * saved, name_of(kept->plan), account_of(*kept));
        return d;
    }
    d.chosen = *kept;
    d.reason = fmt::format("{} stays: {}", name_of(kept->plan), account_of(*kept));
    if (!same_setting(best.plan, kept->plan)) {
        d.reason += fmt::format("; {} would save {:.0f} % a step", name_of(best.plan), 100 * saved);
        if (pays) d.reason += fmt::format(", and may after {} rounds with one plan", dwell_rounds);
    }
    return d;
}

std::vector<std::uint64_t> steps_to_try(std::uint64_t least, std::uint64_t most) {
    LONGHAUL_ENSURE(least > 0 && least <= most, "a round has at least one inner step");
    std::vector<std::uint64_t> out;
    for (auto H = least; H < most; H = std::max(H + 1, (4 * H + 2) / 3)) out.push_back(H);
    out.push_back(most);
    return out;
}

}  // namespace longhaul::optim

#include "peers/plan_choices.hpp"

#include <algorithm>

#include "compress/codec.hpp"
#include "optim/controller.hpp"
#include "peers/chunk.hpp"

namespace longhaul::peers {

namespace {

/// How late the exchanges of such a round may be, and how late they are as configured.
std::vector<std::uint32_t> staleness_to_try(const optim::round_plan& plan) {
    std::vector<std::uint32_t> out{plan.staleness};
    for (const std::uint32_t late : {0U, 1U, 2U, 3U, 4U, 5U, 6U, 7U, 10U, 14U, 20U, most_staleness_chosen}) {
        if (late < plan.exchanges() && late != plan.staleness) out.push_back(late);
    }
    return out;
}

}  // namespace

plan_choices choices_of(const run_config& config, const fragments& parts) {
    plan_choices out;
    const bool in_turn = config.exchange.every > 0;
    for (const auto& name : config.codecs()) {
        const auto codec = compress::find_codec(name).value();
        for (std::uint64_t round = 1; round <= parts.count(); ++round) {
            const auto& tensors = parts.of_round(round).tensors;
            const double billions = static_cast<double>(tensors.elements()) * 1e-9;
            out.exchange[name].push_back({chunk_grid::of(tensors.elements(), *codec).count(),
                                          payload_bytes(tensors, *codec), codec->fits_sums() && !in_turn,
                                          config.exchange.mode, codec->effort().encode * billions,
                                          codec->effort().add * billions, in_turn});
        }
        auto plan = configured_plan(config, *codec);
        if (name == config.exchange.codec) out.first = plan;
        if (!config.controller.enabled) continue;
        std::vector<std::uint32_t> delays{plan.delay};
        if (config.controller.choose_delay) delays = {0, 1};
        if (parts.count() == 1 && !may_be_late(plan)) delays = {0};
        auto steps = optim::steps_to_try(static_cast<std::uint64_t>(config.controller.least_steps),
                                         static_cast<std::uint64_t>(config.controller.most_steps));
        if (std::ranges::find(steps, plan.inner_steps) == steps.end()) steps.push_back(plan.inner_steps);
        std::vector<std::uint32_t> staleness{plan.staleness};
        if (in_turn) {
            steps = {plan.inner_steps};
            delays = {0};
            if (config.controller.choose_delay) staleness = staleness_to_try(plan);
        }
        for (const auto H : steps) {
            for (const auto delay : delays) {
                for (const auto late : staleness) {
                    plan.inner_steps = H;
                    plan.delay = delay;
                    plan.staleness = late;
                    out.to_choose.push_back(plan);
                }
            }
        }
    }
    return out;
}

}  // namespace longhaul::peers

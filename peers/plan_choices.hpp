#pragma once
/// What the rounds of a configured run may look like: the plans that a controller chooses from, or the only one, and
/// what their payloads are for the planner of exchanges.

#include <map>
#include <string>
#include <vector>

#include "core/tensor.hpp"
#include "peers/fragments.hpp"
#include "peers/planning.hpp"
#include "peers/run_config.hpp"

namespace longhaul::peers {

struct plan_choices {
    optim::round_plan first;                   ///< the configured one
    std::vector<optim::round_plan> to_choose;  ///< by the controller, `first` among them; empty: there is none
    std::map<std::string, std::vector<exchange_planner::model>>
        exchange;  ///< by codec, of all of these; of each fragment

    const exchange_planner::model& model_of(const std::string& codec, std::uint64_t round) const {
        const auto& models = exchange.at(codec);
        return models[(round + models.size() - 1) % models.size()];
    }
    /// Of which each round exchanges one.
    std::size_t fragments() const { return exchange.at(first.codec).size(); }
};

/// `config` must be valid.
plan_choices choices_of(const run_config& config, const fragments& parts);

}  // namespace longhaul::peers

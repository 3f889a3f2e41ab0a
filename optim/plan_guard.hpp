#pragma once
/// Takes back a plan under which the loss has risen: a controller's model of what steps, bits and delay cost is a prior
/// (optim/controller), and a run may not be like it. Pure.

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "optim/schedule.hpp"

namespace longhaul::optim {

class plan_guard {
public:
    /// Rounds of each plan whose mean losses are compared.
    static constexpr std::size_t window = 5;
    /// The least rise that counts, in standard errors of the two means, and as a share of the loss.
    static constexpr double least_errors = 3, least_share = 0.01;
    /// Rounds after which a plan that was taken back may be tried again.
    static constexpr std::uint64_t banned_for = 100;

    struct verdict {
        round_plan back_to;
        std::string reason;  ///< one sentence
    };

    /// A round of that plan was committed; its training loss.
    void committed(const round_plan& plan, double loss);
    /// The plan before the present one, if the loss is higher now than it was then.
    const std::optional<verdict>& taken_back() const { return verdict_; }
    /// Whether that plan was not taken back lately.
    bool allows(const round_plan& plan) const;

private:
    struct tried {
        round_plan plan;
        std::deque<double> losses;  ///< the latest
    };
    struct ban {
        round_plan plan;
        std::uint64_t until = 0;
    };
    std::optional<tried> before_, now_;
    std::optional<verdict> verdict_;
    std::vector<ban> banned_;
    std::uint64_t rounds_ = 0;
};

}  // namespace longhaul::optim

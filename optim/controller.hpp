#pragma once
/// Which of several plans the next round should have (DESIGN §6, "Controller"): a pure function of what was measured.
///
/// A plan is as good as the time in which it makes the progress of one ideal inner step:
///   cost = T_round / H · N,  T_round = H·T_c + f·X + c, or max(H·T_c, f·X + c) one round late,
/// with T_c the seconds of an inner step, X those of the exchange (optim/time_model), f and c what was measured of
/// rounds beside their prediction (encoding, agreeing; lines that carry more than was believed), and N how many steps
/// the plan needs for what one step does when everything is exchanged after each (`quality_model`).

#include <algorithm>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "optim/schedule.hpp"

namespace longhaul::optim {

/// Whether two plans have the same H, codec and delay or staleness, which is what a controller chooses.
bool same_setting(const round_plan& a, const round_plan& b);
/// Those in words.
std::string name_of(const round_plan& plan);

/// N of a plan, at least 1. It need not be exact: what counts is the ratio between plans.
using quality_model = std::function<double(const round_plan&)>;

/// N before a run has measured its own: (1 + 0.6·(H/100)^(5/8)) as DESIGN §6 measured it (0.63) on a byte GPT; half a
/// percent more for 8 bits a value, one for 4 (within the noise of that measurement), a tenth for codecs that send most
/// of a pseudo-gradient later, and six tenths for one round of delay. With fragments an element is exchanged every
/// `fragments` rounds, and a late one delays a part of the steps of a part of the model. Of a round of several
/// exchanges H is the steps between two, and a staleness τ costs max(1, τ/7).
double prior_quality(const round_plan& plan, std::size_t fragments = 1);

/// What a round could be.
struct plan_alternative {
    round_plan plan;
    double exchange_seconds = 0;  ///< X
};

/// What rounds were measured to take; 0: not yet.
struct measured_pace {
    double step_seconds = 0;    ///< T_c, of the peers in the middle
    double beside_seconds = 0;  ///< c
    double exchange_share = 1;  ///< f, from a quarter to 1

    /// Late, the exchange of one round and the steps of the next go on at the same time.
    double round_seconds(const round_plan& plan, double exchange_seconds) const {
        const double steps = static_cast<double>(plan.inner_steps) * step_seconds;
        const double rest = exchange_share * exchange_seconds + beside_seconds;
        return plan.delay > 0 ? std::max(steps, rest) : steps + rest;
    }
};

/// c and f from the last rounds: medians of what each took beyond its steps and its predicted exchange, or of the share
/// of the exchange that it did take. A late round whose steps took all of it says nothing of either.
class pace_history {
public:
    /// A round with that delay that took `seconds`, of which its steps `steps` and its exchange `exchange` were
    /// predicted.
    void add(double seconds, double steps, double exchange, std::uint32_t delay);
    measured_pace with(double step_seconds) const;

private:
    std::deque<double> beside_, shares_;
};

/// An alternative and what it costs.
struct weighed_plan {
    round_plan plan;
    double exchange_seconds = 0, round_seconds = 0;
    double cost = 0;  ///< seconds an ideal inner step
};

struct plan_decision {
    weighed_plan chosen;
    std::vector<weighed_plan> alternatives;  ///< all of them, the cheapest first
    bool changed = false;                    ///< H, the codec or the delay
    std::string reason;                      ///< one sentence
};

/// Another plan must save this share of the cost, or measurements would change it every round.
inline constexpr double worth_changing = 0.12;
/// So many rounds keep a plan, unless another one costs less than half.
inline constexpr std::uint64_t dwell_rounds = 3;

/// Chooses among `all`, which has the present plan in it or something to go on with. `present`: of the last round, for
/// `rounds_kept` rounds; nothing: none yet. Plans are told apart by `same_setting`. Without a measured T_c, or with an
/// exchange that nobody can predict, the present plan stays (or the first of `all`).
plan_decision choose_plan(const std::vector<plan_alternative>& all, const measured_pace& pace,
                          const quality_model& quality, const std::optional<round_plan>& present,
                          std::uint64_t rounds_kept);

/// H that a controller tries, from `least` to `most`, both of them included: a step is a third or so.
std::vector<std::uint64_t> steps_to_try(std::uint64_t least, std::uint64_t most);

}  // namespace longhaul::optim

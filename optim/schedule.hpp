#pragma once
/// The DiLoCo schedule (arXiv 2311.08105), also one round late, its pure parts: what a round does, what a peer sends,
/// and where the learning rate stands. Waiting and agreeing are in peers/.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compress/codec.hpp"
#include "optim/config.hpp"

namespace longhaul::optim {

/// What ROUND fixes for all members (DESIGN §1, "plan").
struct round_plan {
    std::uint64_t inner_steps = 30;  ///< H
    bool nesterov = true;
    float outer_lr = 0.7F;        ///< η
    float outer_momentum = 0.8F;  ///< β
    std::string codec = "bf16";
    std::string mode = "gather";  ///< how payloads travel
    /// Rounds that a payload may be under way while its author does the next steps: 0, or 1, where they begin from the
    /// last anchor less the author's own pseudo-gradient, which nobody has merged yet ("keeping one's own Δ", DESIGN
    /// §6).
    std::uint32_t delay = 0;
    /// Inner steps between the exchanges of a round (D-SGD; DeCo-SGD, arXiv 2507.17346); 0: one, at its end.
    std::uint64_t exchange_every = 0;
    /// Exchanges of a round by which the result of one of them may be late.
    std::uint32_t staleness = 0;
    bool operator==(const round_plan&) const = default;

    /// Exchanges of a round.
    std::uint64_t exchanges() const {
        return exchange_every == 0 ? 1 : (inner_steps + exchange_every - 1) / exchange_every;
    }
    /// Inner steps by which a result is late, within a round.
    std::uint64_t late_steps() const { return staleness * exchange_every; }
};
/// More of them would be forgotten steps of one round at a death, and streams to keep.
inline constexpr std::uint64_t max_exchanges = 1000;

/// The plan of a run without a controller: the configured values, every round. What is left to it depends on the codec:
/// one that needs feedback sends most of a pseudo-gradient later, and momentum on top of that makes runs swing
/// (docs/COMPRESSION.md).
round_plan fixed_plan(const inner_config& inner, const outer_config& outer, const compress::codec& codec);

/// A round later than it was made, a pseudo-gradient moves the anchor in steps that are too long to settle from this η
/// on: the bound for steps that reach the optimum of a quadratic, from the roots of
///   (z² − 1)(z − β) + η((1 + β)z − β)   with Nesterov's momentum, and of (z² − 1)(z − β) + ηz without.
double outer_lr_limit_of_delay(bool nesterov, double momentum);

/// Where inner step `j` (from 0) of a peer with `own_steps` = H_i stands in the run: s_r + j·H/H_i, rounded down.
/// `committed` = s_r counts the steps of committed rounds, so that a late or slow peer keeps the run's learning rate.
std::uint64_t run_position(std::uint64_t committed, std::uint64_t j, std::uint64_t round_steps,
                           std::uint64_t own_steps);

/// Seconds of an inner step of the peers in the middle (0 among them: unknown), of an even number the slower one: of
/// two peers it is the faster that does more. 0: none is known.
double middle_step_seconds(std::span<const double> step_seconds);

/// H_i for peers whose inner steps take so many seconds (0: unknown): those in the middle do `round_steps` = H, and the
/// others what they can do in the same time, so that nobody waits for the slowest; never less than an eighth, nor more
/// than `most_own_steps`. Rounds of a few steps (`fewest_shared_steps`) are the same for all. Who is within a fifth of
/// what it did `before` (0: nothing) goes on with that, or measurements would change the plan every round. Who begins
/// so many seconds `late` does what is left of that time, but an eighth in any case.
std::vector<std::uint64_t> balanced_steps(std::uint64_t round_steps, std::span<const double> step_seconds,
                                          std::span<const std::uint64_t> before, std::span<const double> late);
/// Below that a step more or less is too much; H = 1 is data-parallel training, in which all do the same.
inline constexpr std::uint64_t fewest_shared_steps = 8;
/// Twice H: a peer's share of a round stays its own, and its replica does not drift further than two rounds would let
/// it.
constexpr std::uint64_t most_own_steps(std::uint64_t round_steps) { return 2 * round_steps; }

/// Inner steps over which a joiner or returner, whose optimizer state starts at zero, ramps up.
inline constexpr std::uint64_t ramp_steps = 20;

/// The factor of the learning rate at the `since_reset`-th step (from 0) after the inner state was set to zero: 1/20,
/// 2/20, … 1.
double ramp(std::uint64_t since_reset);

}  // namespace longhaul::optim

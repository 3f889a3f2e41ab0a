#pragma once
/// Sums that a few contributors cannot move far, whatever they send and claim: for runs that do not know their members.
///
/// They work on one piece of a tensor at a time, when all of its contributions are there, so an owner of a shard needs
/// no more than its part. u_i = Δ_i / H_i is what contributor i would have moved in one step (of a buffer: Δ_i). A step
/// count is believed up to twice the median one, tokens not at all. The sum is as long as one of steps that all
/// believe:
///   clip           Σ w_i u_i·min(1, m/‖u_i‖), m the median of all ‖u_i‖, w_i the shares of the steps
///   trimmed mean   of each coordinate, without the quarter of the highest and of the lowest values (at least one each)
///   centered clip  v ← v + mean_i((u_i − v)·min(1, τ/‖u_i − v‖)), three times from the coordinates' median, τ the
///                  median distance to that (arXiv 2012.10333, which begins from the last round's v)
/// Of two contributors nobody can tell which one lies: below three it is the mean of them by steps.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/range.hpp"
#include "core/result.hpp"

namespace longhaul::optim {

enum class aggregation : std::uint8_t { mean, clip, trimmed_mean, centered_clip };

/// Names as in exchange.aggregate.
std::vector<std::string> aggregation_names();
/// errc::config: the name is unknown.
core::result<aggregation> find_aggregation(std::string_view name);

class robust_sum {
public:
    /// For contributors who claim so many inner steps, each at least one. `how` is not `mean`.
    robust_sum(aggregation how, std::span<const std::uint64_t> steps);

    /// The piece's sum from the contributors' values of it, in their order, each of out.size(). The same bits on every
    /// machine. `values` are scaled in place.
    void combine(const compress::piece& p, std::span<const std::span<float>> values, std::span<float> out) const;

private:
    void clip(std::span<const std::span<float>> values, std::span<float> out) const;
    void trim(std::span<const std::span<float>> values, std::span<float> out) const;
    void centre(std::span<const std::span<float>> values, std::span<float> out) const;

    aggregation how_;
    std::vector<float> per_step_;  ///< 1 / H_i
    std::vector<float> weights_;   ///< w_i
    float length_ = 0;             ///< of the sum, in steps
};

}  // namespace longhaul::optim

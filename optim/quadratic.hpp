#pragma once
/// The analytic quadratic: a training problem whose every quantity is known in closed form. It stands in for a neural
/// network where time, agreement or aggregation is what is tested.

#include <cstdint>

#include "core/tensor.hpp"

namespace longhaul::optim {

/// Shard i's loss is f_i(x) = ½ Σ_j a_j (x_j − c_ij)²; the run's loss is the mean of f_i over all shards.
class quadratic_problem {
public:
    quadratic_problem(std::uint64_t seed, std::uint64_t dimension, std::uint64_t shards);
    std::uint64_t dimension() const { return dimension_; }
    std::uint64_t shards() const { return shards_; }
    /// a_j in [0.1, 1].
    float curvature(std::uint64_t j) const;
    /// c_ij, near a standard normal; shards share a common part, so that the mean is not zero.
    float centre(std::uint64_t shard, std::uint64_t j) const;
    /// Mean of c_ij over the shards: the minimiser of the run's loss.
    double optimum(std::uint64_t j) const { return mean_[j]; }
    /// Initial x_j.
    float start(std::uint64_t j) const;
    /// The run's loss at x: ½ Σ a_j (x_j − c̄_j)² + ½ Σ a_j Var_i c_ij.
    double loss(std::span<const float> x) const;
    /// Shard i's loss at x.
    double shard_loss(std::uint64_t shard, std::span<const float> x) const;

private:
    std::uint64_t seed_, dimension_, shards_;
    std::vector<double> mean_;
    double least_loss_ = 0;  ///< at the optimum: what the shards differ by
};

}  // namespace longhaul::optim

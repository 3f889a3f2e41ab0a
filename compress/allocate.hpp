#pragma once
/// Who gets how many bytes, as pure functions: over the tensors of a model, and over the peers of a run.

#include <cstdint>
#include <span>
#include <vector>

#include "core/result.hpp"

namespace longhaul::compress {

/// One way to send a tensor.
struct tensor_option {
    std::uint64_t bytes = 0;
    double error = 0;  ///< what it loses, squared
};

/// Which option each tensor takes so that the errors' sum is least within a budget: L-GreCo's dynamic programme
/// (arXiv 2210.17357), over bytes instead of errors, since here the bytes are given. Bytes are counted in `cells` equal
/// parts of the budget, rounded up: the budget holds, and what would have fitted with less than a part for each tensor
/// to spare may be missed. O(cells · options). errc::limit when even the least of each does not fit.
core::result<std::vector<std::size_t>> allocate_tensors(std::span<const std::vector<tensor_option>> tensors,
                                                        std::uint64_t budget, std::size_t cells = 4096);

/// A peer that sends a share of its values.
struct peer_price {
    double data = 1;   ///< its share of the run's tokens, above 0
    double price = 1;  ///< of sending everything, above 0: seconds of its line, for instance
};

/// The shares δᵢ ∈ (0, 1] that lose least, Σ dataᵢ²/δᵢ, when they may cost a budget above 0: Σ priceᵢ·δᵢ = budget, or
/// all of them 1 where it is enough. Whoever has more data or a cheaper line sends more of it (after DAGC, arXiv
/// 2311.07324): δᵢ ∝ dataᵢ/√priceᵢ, and what is above 1 goes to the others.
std::vector<double> allocate_peers(std::span<const peer_price> peers, double budget);

}  // namespace longhaul::compress

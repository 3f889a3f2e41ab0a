#pragma once
/// The mean of the contributors' pseudo-gradients, the same bits on every replica: f32, one contribution after another
/// in the order that ROUND fixed.

#include <cstdint>
#include <span>
#include <vector>

#include "compress/codec.hpp"

namespace longhaul::optim {

/// What a contributor's payload stands for.
struct contribution_weight {
    std::uint64_t tokens = 0;  ///< consumed for it
    std::uint64_t steps = 0;   ///< inner steps, H_i
};

/// Largest count that a contributor may claim; more is not believed.
inline constexpr std::uint64_t max_contribution_tokens = std::uint64_t{1} << 48;
inline constexpr std::uint64_t max_contribution_steps = std::uint64_t{1} << 32;

/// Δ̄ = (Σ w_j H_j) · Σ w_i Δ_i / H_i with w = share of the tokens, so that a peer with twice the steps counts for its
/// tokens once and not again through the length of its Δ; with equal H it is the mean weighted by tokens. Buffers
/// (tensor_role::buffer) are averaged by tokens alone.
class aggregator {
public:
    /// The contributors of one round, in ROUND's order. None at all is allowed: the aggregate is then zero.
    /// errc::malformed when one has no steps or no tokens or claims more than the limits above.
    static core::result<aggregator> begin(const core::tensor_manifest& manifest,
                                          std::span<const contribution_weight> contributors);
    /// What contributor i's values are multiplied by. A sum starts with zeros and takes every contributor in turn;
    /// ranges are independent, so they may be summed on several threads (compress::codec::add): the bits are those of
    /// the whole.
    compress::factors factors_of(std::size_t i) const { return {coefficients_[i], shares_[i]}; }
    /// Adds contributor `i`'s decoded payload (manifest.elements() floats). Must be called for i = 0, 1, 2, …
    /// errc::limit when a value is not finite: the sentence names the tensor, and the sum is unchanged.
    core::result<void> add(std::size_t i, std::span<const float> decoded);
    /// Copies the aggregate to `out` (manifest.elements() floats) after every contributor was added.
    void finish(std::span<float> out) const;
    /// Sum of the contributors' tokens.
    std::uint64_t tokens() const { return tokens_; }

private:
    core::tensor_manifest manifest_;
    std::vector<float> coefficients_, shares_;
    std::vector<float> sum_;
    std::uint64_t tokens_ = 0;
    std::size_t added_ = 0;
};

}  // namespace longhaul::optim

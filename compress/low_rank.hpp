#pragma once
/// Matrices as the product of two thin factors (PowerSGD, Vogels et al., arXiv 1905.13727), sent as a payload like any
/// other instead of being reduced in two steps: on long lines one round trip counts for more than a factor.

#include "compress/codec.hpp"

namespace longhaul::compress {

/// "lowrank-4", wire id 12: a tensor's part in a range, as a matrix M of the tensor's rows (where the range cuts one,
/// the rest is zeros), goes as P, an orthonormal basis of M·Q₀ with four columns, and Q = MᵀP, in bf16. Q₀ is the last
/// accepted payload's Q, or random and improved once. Decoded to PQᵀ. A matrix of which that would not save half of
/// bf16 goes as bf16. Carries magnitudes up to 2¹⁰⁰. Wants error feedback.
const codec& low_rank_4_codec();

}  // namespace longhaul::compress

#pragma once
/// Chunked top-k with 2-bit values (SparseLoCo, arXiv 2508.15706): of each run of a tensor's elements the largest
/// magnitudes, as a sign and whether they are above the mean; decoded to the mean of those above or of the others, over
/// 16,384 elements. The last run of a piece keeps as large a share, rounded up. Indices take what the binomial says
/// (compress/subset_coder). Wants error feedback. Rounds in one way only.

#include "compress/codec.hpp"

namespace longhaul::compress {

/// "topk-64/4096", wire id 8: 64 of each 4,096; 0.15 bits an element.
const codec& topk_64_4096_codec();
/// "topk-4/64", wire id 9: 4 of each 64, for small tensors; 0.43 bits an element.
const codec& topk_4_64_codec();

}  // namespace longhaul::compress

#pragma once
/// Chunked top-k with 2-bit values (SparseLoCo, arXiv 2508.15706): of each run of a tensor's elements the largest
/// magnitudes, 256 after another coded as sign2 codes a block: a sign, and whether they are above the mean. The last
/// run of a piece keeps as large a share, rounded up. Wants error feedback. Rounds in one way only.

#include "compress/codec.hpp"

namespace longhaul::compress {

/// "topk-64/4096", wire id 13: 64 of each 4,096, their places as gaps (compress/gap_coder); 0.15 bits an element.
const codec& topk_64_4096_codec();
/// "topk-4/64", wire id 14: 4 of each 64, for small tensors, their places at the binomial bound
/// (compress/subset_coder); 0.43 bits an element.
const codec& topk_4_64_codec();

}  // namespace longhaul::compress

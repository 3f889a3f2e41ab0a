#pragma once
/// Entropy-coded scalar quantization: every element as a multiple of one step, the likely ones in fewer bits. The step
/// is the finest with which all of a piece fits into its bytes, so their number is known before there is a value.

#include "compress/codec.hpp"

namespace longhaul::compress {

/// "ecsq-4", "ecsq-3", "ecsq-2", "ecsq-1", wire ids 17 to 20: so many bits an element, 0.02 more for what blocks of 256
/// are like, and 34 bytes a piece. On normal numbers 1.3 · 2^−bits of a vector's length is lost, less where blocks
/// differ. The last two want error feedback.
const codec& ecsq_4_codec();
const codec& ecsq_3_codec();
const codec& ecsq_2_codec();
const codec& ecsq_1_codec();

}  // namespace longhaul::compress

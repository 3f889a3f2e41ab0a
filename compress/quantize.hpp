#pragma once
/// The low-bit codecs: every element, at 8 bits or fewer, in blocks of 256 with a scale of their own. A block whose
/// largest magnitude is below 2⁻¹⁰⁰ is sent as zeros. Scales are bf16: what a scale times a code gives is exact.

#include "compress/codec.hpp"

namespace longhaul::compress {

/// "int8", wire id 3: scale · q, q = −127 … 127; the scale is the block's largest magnitude / 127, rounded up. To
/// nearest (ties to even) the error is at most half a scale. 8.06 bits an element. Carries magnitudes up to 3.3·10³⁸.
const codec& int8_codec();
/// "int4", wire id 4: the same with q = −7 … 7. 4.06 bits. Carries magnitudes up to 2.9·10³⁸.
const codec& int4_codec();
/// "e3m0", wire id 5: a sign and three bits of exponent (Streaming DiLoCo, arXiv 2501.18512): scale · 2⁻ᵏ, k = 0 … 6,
/// or zero; the scale is the block's largest magnitude, rounded up. 4.06 bits.
const codec& e3m0_codec();
/// "sign2", wire id 6: a sign, and whether the magnitude is above the block's mean; decoded to the mean of those above
/// or of the others. 2.13 bits. Rounds in one way only. Wants error feedback.
const codec& sign2_codec();
/// Bytes of `count` values as kernels::sign2 codes them. So do the sparse codecs with those that they keep.
std::size_t sign2_bytes(std::size_t count);
/// "sign1", wire id 7: a sign, decoded to the block's mean magnitude. 1.06 bits. Rounds in one way only. Wants error
/// feedback.
const codec& sign1_codec();

}  // namespace longhaul::compress

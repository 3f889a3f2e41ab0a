#pragma once
/// The dense codecs: every element, at 32 or 16 bits.

#include "compress/codec.hpp"

namespace longhaul::compress {

/// "f32", wire id 1: the values as they are.
const codec& f32_codec();

/// "bf16", wire id 2: the upper half of each f32, rounded to nearest, ties to even, whatever the rounding asked for;
/// relative error at most 2⁻⁸ of normal numbers. A value that would round to infinity is refused.
const codec& bf16_codec();

}  // namespace longhaul::compress

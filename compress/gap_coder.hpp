#pragma once
/// Which one of 64 places are chosen, as the gaps between them, in 7.47 bits each, whichever they are, and always in
/// the same number of bytes.
///
/// A place that is chosen with probability 1/64, whatever came before it, makes a gap g with (1/64)·(63/64)^g. A gap
/// then takes 6 + g·log₂(64/63) bits: k gaps among n places take at most 6k + (n − k)·log₂(64/63), since the gaps' sum
/// is at most n − k. So a fixed number of bytes holds every subset, 1.5 % more than the binomial asks for
/// (compress/subset_coder reaches that, in three times the time). The gaps go into one rANS state (compress/rans); 256
/// and more as an escape for each 256, which takes what 256 places that are not chosen do.

#include "compress/subset_coder.hpp"

namespace longhaul::compress {

/// Bytes of `count` subsets of one shape and, if `last` has places, one of another.
std::size_t gaps_bytes(std::size_t count, const subset_shape& shape, const subset_shape& last);

/// The subsets' places one after another, each subset's ascending, into exactly gaps_bytes(…) bytes.
void encode_gaps(std::size_t count, const subset_shape& shape, const subset_shape& last,
                 std::span<const std::uint16_t> places, core::mutable_bytes out);
/// Hostile input. False, with `places` in any state, unless `in` is what encode_gaps makes of some places. Those are
/// ascending and in bounds.
bool decode_gaps(std::size_t count, const subset_shape& shape, const subset_shape& last, core::const_bytes in,
                 std::span<std::uint16_t> places);

}  // namespace longhaul::compress

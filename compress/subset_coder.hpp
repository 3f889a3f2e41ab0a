#pragma once
/// Which k of n places, in as many bits as there are subsets (7.36 bits a place at 64 of 4,096) and always in the same
/// number of bytes.
///
/// n = 2^levels places are halved again and again; of each part with chosen places it is coded how many lie in its left
/// half. Given the part's number these counts have the hypergeometric distribution, and whatever the subset, the code
/// lengths along the tree add up to log₂ of the binomial: there are no long codes, so a fixed number of bytes holds all
/// of them. First come the counts, level by level down to words of 64 places; then what is in each word: one place in
/// six bits, two as one of 2,016 pairs, more by halving on. All of it goes into one rANS state (Duda, arXiv 1311.2540).

#include <cstdint>
#include <span>
#include <vector>

#include "core/bytes.hpp"

namespace longhaul::compress {

/// One subset: `chosen` of the first `places` of 2^levels places.
struct subset_shape {
    unsigned levels = 0;       ///< 6 … 12
    std::uint32_t places = 0;  ///< 1 … 2^levels
    std::uint32_t chosen = 0;  ///< 1 … min(64, places)
    /// With the fewest levels.
    static subset_shape of(std::uint32_t places, std::uint32_t chosen);
    /// Parts of 64 places.
    std::uint32_t words() const { return (1U << levels) / 64; }
};

/// Bytes of `count` subsets of one shape and, if `last` has places, one of another.
std::size_t subset_bytes(std::size_t count, const subset_shape& shape, const subset_shape& last);

/// The subsets' places one after another, each subset's ascending, into exactly subset_bytes(…) bytes.
void encode_subsets(std::size_t count, const subset_shape& shape, const subset_shape& last,
                    std::span<const std::uint16_t> places, core::mutable_bytes out);
/// Hostile input. False, with `places` in any state, unless `in` is what encode_subsets makes of some places. Those are
/// ascending and in bounds by construction.
bool decode_subsets(std::size_t count, const subset_shape& shape, const subset_shape& last, core::const_bytes in,
                    std::span<std::uint16_t> places);

}  // namespace longhaul::compress

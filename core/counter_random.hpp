#pragma once
/// Random numbers by position: a pure function of a key and a counter, in integer arithmetic and exact float operations
/// only, so that every compiler, C library and machine gets the same bits. For data order and simulated noise, never
/// for keys.

#include <cstdint>

namespace longhaul::core {

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection with good avalanche.
constexpr std::uint64_t mix64(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/// A key for a sub-stream: combine_key(combine_key(seed, shard), position).
constexpr std::uint64_t combine_key(std::uint64_t key, std::uint64_t part) {
    return mix64(mix64(key + 0x9e3779b97f4a7c15ULL) + 0x9e3779b97f4a7c15ULL * (part + 1));
}

/// 64 random bits at `counter` of stream `key`.
constexpr std::uint64_t random_bits(std::uint64_t key, std::uint64_t counter) { return combine_key(key, counter); }

/// Uniform in [0, bound) for 1 ≤ bound ≤ 2³²; the bias is below bound/2³².
constexpr std::uint64_t random_below(std::uint64_t key, std::uint64_t counter, std::uint64_t bound) {
    return ((random_bits(key, counter) >> 32) * bound) >> 32;
}

/// Close to a standard normal: the sum of twelve uniforms of 16 bits, centred (mean 0, variance 1 − 2⁻³², |x| < 6).
constexpr float random_normal(std::uint64_t key, std::uint64_t counter) {
    std::int64_t sum = 0;
    for (std::uint64_t word = 0; word < 3; ++word) {
        std::uint64_t bits = random_bits(key, 3 * counter + word);
        for (int quarter = 0; quarter < 4; ++quarter, bits >>= 16) sum += static_cast<std::int64_t>(bits & 0xffff);
    }
    // Twice the sum is centred on an integer, below 2²¹: the conversion and the scaling are exact.
    return static_cast<float>(2 * sum - 12 * 65535) * (1.0F / 131072.0F);
}

}  // namespace longhaul::core

#pragma once
/// Single numbers as bf16, the upper half of an f32. For compress/*.cpp alone.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace longhaul::compress {

inline constexpr std::uint16_t largest_bf16 = 0x7f7f;

inline std::uint16_t load_bf16(const std::byte* at) {
    std::uint16_t w;
    std::memcpy(&w, at, sizeof w);
    return w;
}
inline float from_bf16(std::uint16_t w) { return std::bit_cast<float>(static_cast<std::uint32_t>(w) << 16U); }
/// A finite value to the nearest finite bf16, ties to even.
inline std::uint16_t to_bf16(float v) {
    const auto bits = std::bit_cast<std::uint32_t>(v);
    const auto magnitude = bits & 0x7fffffffU;
    const auto near = std::min<std::uint32_t>((magnitude + 0x7fffU + ((magnitude >> 16U) & 1U)) >> 16U, largest_bf16);
    return static_cast<std::uint16_t>(near | (bits >> 16U & 0x8000U));
}
inline void store_bf16(float v, std::byte* at) {
    const auto w = to_bf16(v);
    std::memcpy(at, &w, sizeof w);
}

}  // namespace longhaul::compress

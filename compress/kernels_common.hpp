#pragma once
/// What the files of kernels have in common: numbers, bits and vectors. For kernels_body.hpp alone, which says why all
/// of it has internal linkage.

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace longhaul::compress {

namespace {

using byte = unsigned char;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

constexpr u32 infinity_bits = 0x7f800000U;
constexpr std::size_t lanes = 16;
/// Blocks whose largest value is below 2⁻¹⁰⁰ are sent as zeros: every scale has a finite inverse.
constexpr u32 smallest_bits = (127U - 100U) << 23U;

inline u32 bits_of(float v) { return __builtin_bit_cast(u32, v); }
inline float float_of(u32 bits) { return __builtin_bit_cast(float, bits); }
inline u32 magnitude(float v) { return bits_of(v) & 0x7fffffffU; }
template <typename T>
inline T load(const byte* at, std::size_t i) {
    T v;
    __builtin_memcpy(&v, at + i * sizeof(T), sizeof(T));
    return v;
}
template <typename T>
inline void store(byte* at, std::size_t i, T v) {
    __builtin_memcpy(at + i * sizeof(T), &v, sizeof(T));
}

// ---- vectors of a fixed number of lanes, whatever the machine's are: what is summed in them has one order everywhere

using f32v = float __attribute__((vector_size(lanes * 4)));
using s32v = int __attribute__((vector_size(lanes * 4)));
using u32v = u32 __attribute__((vector_size(lanes * 4)));

inline void load(f32v& to, const float* from) { __builtin_memcpy(&to, from, sizeof to); }
/// Magnitudes in place.
inline void strip_sign(f32v& v) {
    u32v bits;
    __builtin_memcpy(&bits, &v, sizeof v);
    bits &= 0x7fffffffU;
    __builtin_memcpy(&v, &bits, sizeof v);
}
template <typename Vector>
inline auto sum_of(const Vector& v) {
    auto s = v[0];
    for (std::size_t l = 1; l < lanes; ++l) s += v[l];
    return s;
}

/// Bits of the largest magnitude; NaN counts as more than infinity.
u32 largest(const float* v, std::size_t n) {
    int most = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const int m = static_cast<int>(magnitude(v[i]));
        most = m > most ? m : most;
    }
    return static_cast<u32>(most);
}

/// The machine's own vectors: g++ keeps those that are wider in memory, where each sum waits for its last store.
#if defined(__AVX512F__)
constexpr std::size_t width = 16;
#elif defined(__AVX2__)
constexpr std::size_t width = 8;
#else
constexpr std::size_t width = 4;
#endif
using own_f32v = float __attribute__((vector_size(width * 4)));
using own_u32v = u32 __attribute__((vector_size(width * 4)));
using own_s32v = int __attribute__((vector_size(width * 4)));

inline own_f32v load_own(const float* from) {
    own_f32v v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}
inline void store_own(float* to, own_f32v v) { __builtin_memcpy(to, &v, sizeof v); }
inline own_f32v without_sign(own_f32v v) {
    return __builtin_bit_cast(own_f32v, __builtin_bit_cast(own_u32v, v) & 0x7fffffffU);
}

}  // namespace

}  // namespace longhaul::compress

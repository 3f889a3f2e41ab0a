#pragma once
/// Which elements are sent: the k largest of a run, and all that reach a limit. For kernels_body.hpp alone.

#include "compress/kernels_common.hpp"

namespace longhaul::compress {

namespace {

// ---- the k largest of a run

/// Bit i is set where the magnitude of v[i] has bits ≥ limit, of 64; 1 ≤ limit < 2³¹.
inline u64 at_least(const float* v, u32 limit) {
#if defined(__AVX512F__)
    const __m512i t = _mm512_set1_epi32(static_cast<int>(limit)), strip = _mm512_set1_epi32(0x7fffffff);
    u64 mask = 0;
    for (unsigned i = 0; i < 4; ++i) {
        const __m512i x = _mm512_and_si512(_mm512_loadu_si512(v + 16 * i), strip);
        mask |= static_cast<u64>(_mm512_cmpge_epi32_mask(x, t)) << (16 * i);
    }
    return mask;
#elif defined(__AVX2__)
    const __m256i t = _mm256_set1_epi32(static_cast<int>(limit) - 1), strip = _mm256_set1_epi32(0x7fffffff);
    u64 mask = 0;
    for (unsigned i = 0; i < 8; ++i) {
        const __m256i x = _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(v + 8 * i)), strip);
        const int m = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, t)));
        mask |= static_cast<u64>(static_cast<unsigned>(m)) << (8 * i);
    }
    return mask;
#elif defined(__SSE2__)
    const __m128i t = _mm_set1_epi32(static_cast<int>(limit) - 1), strip = _mm_set1_epi32(0x7fffffff);
    u64 mask = 0;
    for (unsigned i = 0; i < 16; ++i) {
        const __m128i x = _mm_and_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(v + 4 * i)), strip);
        const int m = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpgt_epi32(x, t)));
        mask |= static_cast<u64>(static_cast<unsigned>(m)) << (4 * i);
    }
    return mask;
#else
    u64 mask = 0;
    for (unsigned i = 0; i < 64; ++i) mask |= static_cast<u64>(magnitude(v[i]) >= limit) << i;
    return mask;
#endif
}

/// How many of n magnitudes, a multiple of 64, reach the limit.
std::size_t count_at_least(const float* v, std::size_t n, u32 limit) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; i += 64)
        count += static_cast<std::size_t>(__builtin_popcountll(at_least(v + i, limit)));
    return count;
}

/// The bits of the k-th largest of n magnitudes, or a smaller limit that no more than k + spare reach. At least k reach
/// `low`, none is above `most`, and n is a multiple of 64.
u32 limit_reached_by(const float* v, std::size_t n, std::size_t k, std::size_t spare, u32 low, u32 most) {
    u32 above = most + 1;
    while (above - low > 1) {
        const u32 middle = low + (above - low) / 2;
        const std::size_t reach = count_at_least(v, n, middle);
        (reach < k ? above : low) = middle;
        if (reach >= k && reach <= k + spare) break;
    }
    return low;
}

constexpr std::size_t most_selected_from = 4096;
/// Maxima of a run's elements i, i + 256, i + 512 …: k of them reach a limit only if k elements do.
constexpr std::size_t columns = 256;

/// Largest magnitudes of the columns of n elements.
void column_maxima(const float* v, std::size_t n, float* most) {
    for (std::size_t c = 0; c < columns; c += width) {
        own_s32v top{};
        for (std::size_t i = c; i < n; i += columns) {
            const own_s32v m = __builtin_bit_cast(own_s32v, without_sign(load_own(v + i)));
            top = m > top ? m : top;
        }
        store_own(most + c, __builtin_bit_cast(own_f32v, top));
    }
}
/// Bits of the smallest of n magnitudes.
u32 smallest(const float* v, std::size_t n) {
    int least = 0x7fffffff;
    for (std::size_t i = 0; i < n; ++i) {
        const int m = static_cast<int>(magnitude(v[i]));
        least = m < least ? m : least;
    }
    return static_cast<u32>(least);
}

/// The set bits' numbers, ascending, from `base` on. Writes one or two more than there are.
template <typename Place>
inline std::size_t list_bits(u64 mask, std::size_t base, Place* out) {
    constexpr u64 top = u64{1} << 63U;
    const auto count = static_cast<std::size_t>(__builtin_popcountll(mask));
    // Mostly there are two at most: these are written without asking.
    for (std::size_t i = 0; i < 2; ++i, mask &= mask - 1)
        out[i] = static_cast<Place>(base + static_cast<std::size_t>(__builtin_ctzll(mask | top)));
    for (std::size_t i = 2; i < count; ++i, mask &= mask - 1)
        out[i] = static_cast<Place>(base + static_cast<std::size_t>(__builtin_ctzll(mask)));
    return count;
}

/// A few of at most 64: one largest after the other. `a` has 64 elements, zeros behind n, and is used up.
bool select_few(float* a, std::size_t n, std::size_t k, u16* out) {
    const u64 all = n == 64 ? ~u64{0} : (u64{1} << n) - 1;
    u64 chosen = 0;
    for (std::size_t i = 0; i < k; ++i) {
        int most = 0;
        for (std::size_t j = 0; j < 64; ++j) {
            const int m = static_cast<int>(magnitude(a[j]));
            most = m > most ? m : most;
        }
        if (static_cast<u32>(most) >= infinity_bits) return false;
        const u64 there = at_least(a, static_cast<u32>(most)) & all & ~chosen;
        const auto at = static_cast<std::size_t>(__builtin_ctzll(there));
        chosen |= u64{1} << at;
        a[at] = 0;
    }
    for (std::size_t i = 0; i < k; ++i, chosen &= chosen - 1) out[i] = static_cast<u16>(__builtin_ctzll(chosen));
    return true;
}

bool select(const float* v, std::size_t n, std::size_t k, u16* out) {
    alignas(64) float padded[most_selected_from];
    const std::size_t whole = (n + 63) / 64 * 64;
    const bool few = n <= 64 && k <= 8;
    if (few || whole != n) {
        __builtin_memcpy(padded, v, n * sizeof(float));
        for (std::size_t i = n; i < whole; ++i) padded[i] = 0;
        if (few) return select_few(padded, n, k, out);
        v = padded;
    }

    // A limit that at least k elements reach, and few more: only those are looked at closely. Zeros are never
    // candidates, so that padding is not either; if they are needed, the first ones are taken at the end.
    u32 low = 0, most = 0;
    if (n % columns == 0 && n > 2 * columns && k <= columns / 2) {
        alignas(64) float tops[columns];
        column_maxima(v, n, tops);
        most = largest(tops, columns);
        if (most >= infinity_bits) return false;
        low = limit_reached_by(tops, columns, k, k / 8, smallest(tops, columns), most);
    } else {
        most = largest(v, whole);
        if (most >= infinity_bits) return false;
        low = limit_reached_by(v, whole, k, k / 8, 0, most);
    }
    if (low == 0) low = 1;

    u16 place[most_selected_from + 2];
    std::size_t found = 0;
    for (std::size_t i = 0; i < whole; i += 64) found += list_bits(at_least(v + i, low), i, place + found);
    std::size_t kept = 0;
    if (found >= k) {
        alignas(64) float close[most_selected_from];
        const std::size_t rounded = (found + 63) / 64 * 64;
        for (std::size_t i = 0; i < found; ++i) close[i] = v[place[i]];
        for (std::size_t i = found; i < rounded; ++i) close[i] = 0;
        const u32 exact = limit_reached_by(close, rounded, k, 0, low, most);
        std::size_t equal = k - count_at_least(close, rounded, exact + 1);  // of those that are equal, the first ones
        for (std::size_t i = 0; kept < k; ++i) {
            const u32 m = magnitude(close[i]);
            const bool tie = m == exact && equal > 0;
            equal -= tie ? 1 : 0;
            out[kept] = place[i];
            kept += m > exact || tie ? 1 : 0;
        }
        return true;
    }
    // Fewer than k elements are not zero: all of them, and the first zeros.
    std::size_t zeros = k - found;
    for (std::size_t i = 0; i < n && kept < k; ++i) {
        if (magnitude(v[i]) == 0) {
            if (zeros == 0) continue;
            --zeros;
        }
        out[kept++] = static_cast<u16>(i);
    }
    return true;
}

// ---- all that reach a limit

bool collect(const float* v, std::size_t n, u32 limit, u32* places, std::size_t* found) {
    alignas(64) float last[64] = {};
    int most = 0;
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; i += 64) {
        const std::size_t left = n - i;
        const float* from = v + i;
        u64 here = ~u64{0};
        if (left < 64) {
            __builtin_memcpy(last, from, left * sizeof(float));
            from = last;
            here = (u64{1} << left) - 1;
        }
        for (std::size_t j = 0; j < 64; ++j) {
            const int m = static_cast<int>(magnitude(from[j]));
            most = m > most ? m : most;
        }
        count += list_bits(at_least(from, limit) & here, i, places + count);
    }
    *found = count;
    return static_cast<u32>(most) < infinity_bits;
}

}  // namespace

}  // namespace longhaul::compress

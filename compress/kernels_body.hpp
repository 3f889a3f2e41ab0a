#pragma once
/// The loops behind kernels.hpp. A file that includes this has defined LONGHAUL_KERNELS, the variant's name; nothing
/// here but that table has linkage. Loops are written so that compilers turn them into vectors, and sums have a fixed
/// number of lanes, so that their order does not depend on a vector's width.

#include "compress/kernels.hpp"

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
using f64v = double __attribute__((vector_size(lanes * 8)));

inline void load(f32v& to, const float* from) { __builtin_memcpy(&to, from, sizeof to); }
inline void store(float* to, const f32v& from) { __builtin_memcpy(to, &from, sizeof from); }
/// Magnitudes in place.
inline void strip_sign(f32v& v) {
    u32v bits;
    __builtin_memcpy(&bits, &v, sizeof v);
    bits &= 0x7fffffffU;
    __builtin_memcpy(&v, &bits, sizeof v);
}
inline void add_to(f64v& sum, const f32v& v) { sum += __builtin_convertvector(v, f64v); }
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

// ---- error feedback

template <bool Residual, bool Twice>
void compensate_some(const float* __restrict anchor, const float* residual, float beta, std::size_t n,
                     float* __restrict values, float* left, double* sums) {
    f64v produced{}, found{}, made{}, size{};
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        f32v from, p;
        load(from, anchor + i);
        load(p, values + i);
        p = from - p;
        add_to(produced, p);
        if constexpr (Residual) {
            f32v r;
            load(r, residual + i);
            p += beta * r;
            add_to(found, r);
            strip_sign(r);
            add_to(size, r);
        }
        store(values + i, p);
        if constexpr (Twice) store(left + i, p);
        add_to(made, p);
        strip_sign(p);
        add_to(size, p);
    }
    for (std::size_t l = 0; i + l < n; ++l) {
        float p = anchor[i + l] - values[i + l];
        produced[l] += static_cast<double>(p);
        if constexpr (Residual) {
            const float r = residual[i + l];
            p += beta * r;
            found[l] += static_cast<double>(r);
            size[l] += static_cast<double>(float_of(magnitude(r)));
        }
        values[i + l] = p;
        if constexpr (Twice) left[i + l] = p;
        made[l] += static_cast<double>(p);
        size[l] += static_cast<double>(float_of(magnitude(p)));
    }
    sums[0] += sum_of(produced);
    sums[1] += sum_of(found);
    sums[2] += sum_of(made);
    sums[3] += sum_of(size);
}
void compensate(const float* anchor, const float* residual, float beta, std::size_t n, float* values, float* left,
                double* sums) {
    const auto run = residual == nullptr
                         ? (left == nullptr ? compensate_some<false, false> : compensate_some<false, true>)
                         : (left == nullptr ? compensate_some<true, false> : compensate_some<true, true>);
    run(anchor, residual, beta, n, values, left, sums);
}

double take_away(const float* __restrict values, std::size_t n, float* __restrict rest) {
    f64v sent{};
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        f32v v, said;
        load(v, values + i);
        load(said, rest + i);
        add_to(sent, said);
        v -= said;
        store(rest + i, v);
    }
    for (std::size_t l = 0; i + l < n; ++l) {
        sent[l] += static_cast<double>(rest[i + l]);
        rest[i + l] = values[i + l] - rest[i + l];
    }
    return sum_of(sent);
}

// ---- random numbers by position

u64 mix(u64 x) {
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31U);
}
u32 block_key(u64 key, std::size_t block) { return static_cast<u32>(mix(key + 0x9e3779b97f4a7c15ULL * (block + 1))); }
/// 32 random bits for element i of a block: a bijection with good avalanche (Wellons' "lowbias32").
inline u32 random_at(u32 key, u32 i) {
    u32 x = key + i * 0x9e3779b9U;
    x = (x ^ (x >> 16U)) * 0x7feb352dU;
    x = (x ^ (x >> 15U)) * 0x846ca68bU;
    return x ^ (x >> 16U);
}
/// Uniform in [0, 1), 24 bits.
inline float unit_at(u32 key, u32 i) {
    return static_cast<float>(static_cast<int>(random_at(key, i) >> 8U)) * 0x1p-24F;
}

// ---- 32 and 16 bits

struct as_f32 {
    using word = u32;
    static word pack(float v) { return bits_of(v); }
    static float unpack(word w) { return float_of(w); }
    static constexpr word exponent = 0x7f800000U;
};
struct as_bf16 {
    using word = u16;
    static word pack(float v) {
        const u32 bits = bits_of(v);
        const u32 rounded = (bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U;
        // A NaN's mantissa could round away; keep one bit of it, so that it stays visible as not finite.
        return static_cast<word>(magnitude(v) > infinity_bits ? 0x7fc0U : rounded);
    }
    static float unpack(word w) { return float_of(static_cast<u32>(w) << 16U); }
    static constexpr word exponent = 0x7f80U;
};

template <typename Form>
struct words {
    using word = typename Form::word;

    static bool check(const byte* in, std::size_t n) {
        word bad = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const word e = static_cast<word>(load<word>(in, i) & Form::exponent);
            bad = static_cast<word>(bad | (e == Form::exponent ? 1 : 0));
        }
        return bad == 0;
    }
    static bool encode(const float* __restrict v, std::size_t n, const u64* /*key*/, byte* __restrict out) {
        for (std::size_t i = 0; i < n; ++i) store<word>(out, i, Form::pack(v[i]));
        return check(out, n);  // of the wire form: a large f32 may have none in bf16
    }
    static void decode(const byte* __restrict in, std::size_t n, float* __restrict out) {
        for (std::size_t i = 0; i < n; ++i) out[i] = Form::unpack(load<word>(in, i));
    }
    static void add(const byte* __restrict in, std::size_t n, float factor, float* __restrict sum) {
        for (std::size_t i = 0; i < n; ++i) sum[i] += factor * Form::unpack(load<word>(in, i));
    }
    static constexpr piece_kernels table{encode, check, decode, add};
};

/// The bf16 number at or above a positive finite f32; the largest finite one where there is none.
u16 bf16_above(float v) {
    const u32 up = (bits_of(v) + 0xffffU) >> 16U;
    return static_cast<u16>(up < 0x7f80U ? up : 0x7f7fU);
}
u16 bf16_near(float v) {
    const u16 w = as_bf16::pack(v);
    return w < 0x7f80U ? w : u16{0x7f7f};
}

// ---- blocks: a form says how a block's values become codes of a few bits

/// Symmetric integers, −most … most, times a scale.
template <unsigned Bits, int Most, u16 LargestScale>
struct integers {
    static constexpr unsigned bits = Bits;
    static constexpr std::size_t scales = 1;
    static constexpr u16 largest_scale = LargestScale;  ///< times any code it is finite

    template <bool Stochastic>
    static bool encode(const float* __restrict v, std::size_t n, u32 big, u32 key, byte* scale,
                       byte* __restrict codes) {
        const u16 s = big < smallest_bits ? u16{0} : bf16_above(float_of(big) * (1.0F / static_cast<float>(Most)));
        if (s > largest_scale) return false;
        store<u16>(scale, 0, s);
        const float inverse = s == 0 ? 0.0F : 1.0F / as_bf16::unpack(s);
        for (std::size_t i = 0; i < n; ++i) {
            const float y = v[i] * inverse;
            int q = 0;
            if constexpr (Stochastic) {
                const float t = y + unit_at(key, static_cast<u32>(i)) + static_cast<float>(Most + 1);
                q = static_cast<int>(t) - (Most + 1);
                q = q > Most ? Most : q;
            } else {
                // Added to 1.5 · 2²³ a number is rounded to an integer, ties to even, in the lowest bits.
                q = static_cast<int>(bits_of(y + 12582912.0F)) - 0x4b400000;
            }
            codes[i] = static_cast<byte>(q & ((1 << Bits) - 1));
        }
        return true;
    }
    struct values {
        float scale;
        explicit values(const byte* at) : scale(as_bf16::unpack(load<u16>(at, 0))) {}
        float of(u32 code) const {
            return scale * static_cast<float>(static_cast<int>(code << (32 - Bits)) >> (32 - Bits));
        }
    };
};

/// A sign and three bits of exponent (Streaming DiLoCo's E3M0): scale · 2⁻ᵏ, k = 0 … 6, and zero.
struct powers {
    static constexpr unsigned bits = 4;
    static constexpr std::size_t scales = 1;
    static constexpr u16 largest_scale = 0x7f7f;

    template <bool Stochastic>
    static bool encode(const float* __restrict v, std::size_t n, u32 big, u32 key, byte* scale,
                       byte* __restrict codes) {
        const u16 s = big < smallest_bits ? u16{0} : bf16_above(float_of(big));
        store<u16>(scale, 0, s);
        const float inverse = s == 0 ? 0.0F : 1.0F / as_bf16::unpack(s);
        for (std::size_t i = 0; i < n; ++i) {
            const float y = float_of(magnitude(v[i])) * inverse;
            const int b = static_cast<int>(bits_of(y));
            int m = 0;
            if constexpr (Stochastic) {
                // Between two powers of two the mantissa is the place; below the least, the value itself.
                const u32 r = random_at(key, static_cast<u32>(i));
                m = static_cast<int>((static_cast<u32>(b) + (r >> 9U)) >> 23U) - 120;
                const float u = static_cast<float>(static_cast<int>(r >> 8U)) * 0x1p-24F;
                const int least = u < y * 64.0F ? 1 : 0;
                m = b >= static_cast<int>((127U - 6U) << 23U) ? m : least;
            } else {
                m = static_cast<int>((static_cast<u32>(b) + 0x400000U) >> 23U) - 120;
                m = m > 1 ? m : 1;
                m = b >= static_cast<int>((127U - 7U) << 23U) ? m : 0;
            }
            m = m < 7 ? m : 7;
            const u32 sign = (bits_of(v[i]) >> 28U) & 8U;
            codes[i] = static_cast<byte>(m == 0 ? 0U : static_cast<u32>(m) | sign);
        }
        return true;
    }
    struct values {
        float scale;
        explicit values(const byte* at) : scale(as_bf16::unpack(load<u16>(at, 0))) {}
        float of(u32 code) const {
            const u32 m = code & 7U;
            const u32 power = ((m + 120U) << 23U) | ((code & 8U) << 28U);
            return scale * float_of(m == 0 ? 0U : power);
        }
    };
};

/// Sums of magnitudes, scaled by 2⁻⁸ so that a block's cannot overflow.
struct split_sum {
    float all = 0, above = 0;
    u32 count_above = 0;
};
split_sum sum_magnitudes(const float* v, std::size_t n, float limit) {
    f32v low{}, high{};
    s32v above{};
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        f32v m;
        load(m, v + i);
        strip_sign(m);
        const s32v up = m > limit;
        m *= 0x1p-8F;
        s32v bits;
        __builtin_memcpy(&bits, &m, sizeof m);
        const s32v in_high = bits & up, in_low = bits & ~up;
        __builtin_memcpy(&m, &in_high, sizeof m);
        high += m;
        __builtin_memcpy(&m, &in_low, sizeof m);
        low += m;
        above -= up;
    }
    for (std::size_t l = 0; i + l < n; ++l) {
        const float m = float_of(magnitude(v[i + l]));
        const bool up = m > limit;
        (up ? high : low)[l] += m * 0x1p-8F;
        above[l] += up ? 1 : 0;
    }
    split_sum s;
    s.above = sum_of(high);
    s.all = sum_of(low) + s.above;
    s.count_above = static_cast<u32>(sum_of(above));
    return s;
}
/// The mean of `count` values whose scaled sum is `sum`.
float mean_of(float sum, std::size_t count) {
    return count == 0 ? 0.0F : sum / static_cast<float>(static_cast<int>(count)) * 256.0F;
}

/// A sign, and which side of the mean magnitude: decoded to the two sides' means.
struct two_means {
    static constexpr unsigned bits = 2;
    static constexpr std::size_t scales = 2;
    static constexpr u16 largest_scale = 0x7f7f;

    template <bool>
    static bool encode(const float* __restrict v, std::size_t n, u32 big, u32 /*key*/, byte* scale,
                       byte* __restrict codes) {
        float mean = 0, low = 0, high = 0;
        if (big >= smallest_bits) {
            mean = mean_of(sum_magnitudes(v, n, float_of(infinity_bits)).all, n);
            const split_sum s = sum_magnitudes(v, n, mean);
            low = mean_of(s.all - s.above, n - s.count_above);
            high = mean_of(s.above, s.count_above);
        }
        store<u16>(scale, 0, bf16_near(low));
        store<u16>(scale, 1, bf16_near(high));
        for (std::size_t i = 0; i < n; ++i) {
            const u32 up = float_of(magnitude(v[i])) > mean ? 1U : 0U;
            codes[i] = static_cast<byte>(up | ((bits_of(v[i]) >> 30U) & 2U));
        }
        return true;
    }
    struct values {
        float low, high;
        explicit values(const byte* at)
            : low(as_bf16::unpack(load<u16>(at, 0))), high(as_bf16::unpack(load<u16>(at, 1))) {}
        float of(u32 code) const {
            const float m = (code & 1U) != 0 ? high : low;
            return float_of(bits_of(m) | ((code & 2U) << 30U));
        }
    };
};

/// A sign, decoded to the mean magnitude.
struct one_mean {
    static constexpr unsigned bits = 1;
    static constexpr std::size_t scales = 1;
    static constexpr u16 largest_scale = 0x7f7f;

    template <bool>
    static bool encode(const float* __restrict v, std::size_t n, u32 big, u32 /*key*/, byte* scale,
                       byte* __restrict codes) {
        const float infinite = float_of(infinity_bits);
        const float mean = big < smallest_bits ? 0.0F : mean_of(sum_magnitudes(v, n, infinite).all, n);
        store<u16>(scale, 0, bf16_near(mean));
        for (std::size_t i = 0; i < n; ++i) codes[i] = static_cast<byte>(bits_of(v[i]) >> 31U);
        return true;
    }
    struct values {
        float mean;
        explicit values(const byte* at) : mean(as_bf16::unpack(load<u16>(at, 0))) {}
        float of(u32 code) const { return float_of(bits_of(mean) | (code << 31U)); }
    };
};

/// A piece in blocks: first all scales, then all codes. In a block of n codes, a byte holds the codes i, i + w, i + 2w
/// … of w = ⌈n·bits/8⌉ bytes, the first in the lowest bits: neighbours go to neighbouring bytes, which needs no
/// shuffles.
template <typename Form>
struct blocks {
    static constexpr std::size_t per_byte = 8 / Form::bits;
    static constexpr std::size_t width(std::size_t n) { return (n + per_byte - 1) / per_byte; }
    static constexpr std::size_t count(std::size_t n) { return (n + block_elements - 1) / block_elements; }

    static void pack(const byte* __restrict codes, std::size_t w, byte* __restrict out) {
        for (std::size_t i = 0; i < w; ++i) {
            u32 b = 0;
            for (std::size_t k = 0; k < per_byte; ++k) b |= static_cast<u32>(codes[i + k * w]) << (k * Form::bits);
            out[i] = static_cast<byte>(b);
        }
    }
    static void unpack(const byte* __restrict in, std::size_t w, byte* __restrict codes) {
        for (std::size_t k = 0; k < per_byte; ++k)
            for (std::size_t i = 0; i < w; ++i)
                codes[i + k * w] = static_cast<byte>((in[i] >> (k * Form::bits)) & ((1U << Form::bits) - 1U));
    }

    static bool encode(const float* v, std::size_t n, const u64* key, byte* out) {
        byte* codes_out = out + count(n) * Form::scales * 2;
        byte codes[block_elements + per_byte];
        for (std::size_t b = 0; b * block_elements < n; ++b) {
            const float* from = v + b * block_elements;
            const std::size_t left = n - b * block_elements;
            const std::size_t size = left < block_elements ? left : block_elements;
            const u32 big = largest(from, size);
            if (big >= infinity_bits) return false;
            byte* scale = out + b * Form::scales * 2;
            const bool fits = key != nullptr
                                  ? Form::template encode<true>(from, size, big, block_key(*key, b), scale, codes)
                                  : Form::template encode<false>(from, size, big, 0, scale, codes);
            if (!fits) return false;
            if constexpr (per_byte == 1) {
                __builtin_memcpy(codes_out, codes, size);
            } else {
                for (std::size_t i = size; i < width(size) * per_byte; ++i) codes[i] = 0;
                pack(codes, width(size), codes_out);
            }
            codes_out += width(size);
        }
        return true;
    }
    static bool check(const byte* in, std::size_t n) {
        u32 bad = 0;
        for (std::size_t i = 0; i < count(n) * Form::scales; ++i)
            bad |= load<u16>(in, i) > Form::largest_scale ? 1U : 0U;
        // Bits behind the last code of a block that is not whole are zero.
        const std::size_t tail = n % block_elements;
        const byte* last = in + count(n) * Form::scales * 2 + n / block_elements * width(block_elements);
        for (std::size_t i = tail; i < width(tail) * per_byte; ++i)
            bad |=
                (static_cast<u32>(last[i % width(tail)]) >> (i / width(tail) * Form::bits)) & ((1U << Form::bits) - 1U);
        return bad == 0;
    }
    template <typename Take>
    static void each(const byte* in, std::size_t n, Take take) {
        const byte* codes_in = in + count(n) * Form::scales * 2;
        byte codes[block_elements + per_byte];
        for (std::size_t b = 0; b * block_elements < n; ++b) {
            const std::size_t left = n - b * block_elements;
            const std::size_t size = left < block_elements ? left : block_elements;
            const typename Form::values values(in + b * Form::scales * 2);
            if constexpr (per_byte == 1) {
                take(values, codes_in, b * block_elements, size);
            } else {
                unpack(codes_in, width(size), codes);
                take(values, codes, b * block_elements, size);
            }
            codes_in += width(size);
        }
    }
    static void decode(const byte* in, std::size_t n, float* __restrict out) {
        each(in, n, [out](const auto& values, const byte* __restrict codes, std::size_t at, std::size_t size) {
            float* __restrict to = out + at;
            for (std::size_t i = 0; i < size; ++i) to[i] = values.of(codes[i]);
        });
    }
    static void add(const byte* in, std::size_t n, float factor, float* __restrict sum) {
        each(in, n, [sum, factor](const auto& values, const byte* __restrict codes, std::size_t at, std::size_t size) {
            float* __restrict to = sum + at;
            for (std::size_t i = 0; i < size; ++i) to[i] += factor * values.of(codes[i]);
        });
    }
    static constexpr piece_kernels table{encode, check, decode, add};
};

using int8_blocks = blocks<integers<8, 127, 0x7bff>>;
using int4_blocks = blocks<integers<4, 7, 0x7dff>>;

// ---- the k largest of a run

/// Bit i is set where a[i] ≥ limit, of 64; magnitudes are below 2³¹.
inline u64 at_least(const u32* a, u32 limit) {
#if defined(__AVX512F__)
    const __m512i t = _mm512_set1_epi32(static_cast<int>(limit));
    u64 mask = 0;
    for (unsigned i = 0; i < 4; ++i)
        mask |= static_cast<u64>(_mm512_cmpge_epi32_mask(_mm512_loadu_si512(a + 16 * i), t)) << (16 * i);
    return mask;
#elif defined(__AVX2__)
    const __m256i t = _mm256_set1_epi32(static_cast<int>(limit) - 1);
    u64 mask = 0;
    for (unsigned i = 0; i < 8; ++i) {
        const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + 8 * i));
        const int m = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, t)));
        mask |= static_cast<u64>(static_cast<unsigned>(m)) << (8 * i);
    }
    return mask;
#elif defined(__SSE2__)
    const __m128i t = _mm_set1_epi32(static_cast<int>(limit) - 1);
    u64 mask = 0;
    for (unsigned i = 0; i < 16; ++i) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a + 4 * i));
        const int m = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpgt_epi32(x, t)));
        mask |= static_cast<u64>(static_cast<unsigned>(m)) << (4 * i);
    }
    return mask;
#else
    u64 mask = 0;
    for (unsigned i = 0; i < 64; ++i) mask |= static_cast<u64>(a[i] >= limit) << i;
    return mask;
#endif
}

/// How many of n magnitudes, a multiple of 64, reach the limit.
std::size_t count_at_least(const u32* a, std::size_t n, u32 limit) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; i += 64)
        count += static_cast<std::size_t>(__builtin_popcountll(at_least(a + i, limit)));
    return count;
}

/// The largest limit, of those whose bits below `last_bit` are zero, that at least k of the n magnitudes reach. n is a
/// multiple of 64.
u32 limit_reached_by(const u32* a, std::size_t n, std::size_t k, int last_bit) {
    u32 limit = 0;
    for (int bit = 30; bit >= last_bit; --bit) {
        const u32 next = limit | (1U << static_cast<unsigned>(bit));
        limit = count_at_least(a, n, next) >= k ? next : limit;
    }
    return limit;
}

constexpr std::size_t most_selected_from = 4096;
/// Maxima of a run's elements i, i + 256, i + 512 …: k of them reach a limit only if k elements do.
constexpr std::size_t columns = 256;

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

/// A few of at most 64: one largest after the other.
void select_few(u32* a, std::size_t n, std::size_t k, u16* out) {
    const u64 all = n == 64 ? ~u64{0} : (u64{1} << n) - 1;
    u64 chosen = 0;
    for (std::size_t i = 0; i < k; ++i) {
        int most = 0;
        for (std::size_t j = 0; j < 64; ++j) most = static_cast<int>(a[j]) > most ? static_cast<int>(a[j]) : most;
        const u64 there = at_least(a, static_cast<u32>(most)) & all & ~chosen;
        const auto at = static_cast<std::size_t>(__builtin_ctzll(there));
        chosen |= u64{1} << at;
        a[at] = 0;
    }
    for (std::size_t i = 0; i < k; ++i, chosen &= chosen - 1) out[i] = static_cast<u16>(__builtin_ctzll(chosen));
}

bool select(const float* v, std::size_t n, std::size_t k, u16* out) {
    alignas(64) u32 a[most_selected_from];
    const std::size_t padded = (n + 63) / 64 * 64;
    for (std::size_t i = 0; i < n; ++i) a[i] = magnitude(v[i]);
    for (std::size_t i = n; i < padded; ++i) a[i] = 0;
    if (n <= 64 && k <= 8) {
        if (largest(v, n) >= infinity_bits) return false;
        select_few(a, n, k, out);
        return true;
    }

    // A limit that at least k elements reach, and few more: only those are looked at closely. Magnitudes of zero are
    // never candidates, so that padding is not either; if they are needed, the first ones are taken at the end.
    u32 limit = 0;
    if (n % columns == 0 && n > 2 * columns && k <= columns / 2) {
        alignas(64) u32 most[columns];
        for (std::size_t c = 0; c < columns; ++c) most[c] = a[c];
        for (std::size_t r = columns; r < n; r += columns)
            for (std::size_t c = 0; c < columns; ++c) {
                const int x = static_cast<int>(a[r + c]), y = static_cast<int>(most[c]);
                most[c] = static_cast<u32>(x > y ? x : y);
            }
        if (count_at_least(most, columns, infinity_bits) > 0) return false;
        limit = limit_reached_by(most, columns, k, 15);
    } else {
        if (largest(v, n) >= infinity_bits) return false;
        limit = limit_reached_by(a, padded, k, 15);
    }
    if (limit == 0) limit = 1;

    u16 place[most_selected_from + 2];
    std::size_t found = 0;
    for (std::size_t i = 0; i < padded; i += 64) found += list_bits(at_least(a + i, limit), i, place + found);
    std::size_t kept = 0;
    if (found >= k) {
        alignas(64) u32 close[most_selected_from];
        const std::size_t rounded = (found + 63) / 64 * 64;
        for (std::size_t i = 0; i < found; ++i) close[i] = a[place[i]];
        for (std::size_t i = found; i < rounded; ++i) close[i] = 0;
        const u32 exact = limit_reached_by(close, rounded, k, 0);
        std::size_t equal = k - count_at_least(close, rounded, exact + 1);  // of those that are equal, the first ones
        for (std::size_t i = 0; i < found; ++i) {
            const bool tie = close[i] == exact;
            const bool taken = close[i] > exact || (tie && equal > 0);
            equal -= tie && equal > 0 ? 1 : 0;
            if (taken) out[kept++] = place[i];
        }
        return true;
    }
    // Fewer than k elements are not zero: all of them, and the first zeros.
    std::size_t zeros = k - found;
    for (std::size_t i = 0; i < n && kept < k; ++i) {
        if (a[i] == 0) {
            if (zeros == 0) continue;
            --zeros;
        }
        out[kept++] = static_cast<u16>(i);
    }
    return true;
}

// ---- all that reach a limit

bool collect(const float* v, std::size_t n, u32 limit, u32* places, std::size_t* found) {
    alignas(64) u32 a[64];
    int most = 0;
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; i += 64) {
        const std::size_t left = n - i;
        const std::size_t size = left < 64 ? left : 64;
        for (std::size_t j = 0; j < size; ++j) a[j] = magnitude(v[i + j]);
        for (std::size_t j = size; j < 64; ++j) a[j] = 0;
        for (std::size_t j = 0; j < 64; ++j) most = static_cast<int>(a[j]) > most ? static_cast<int>(a[j]) : most;
        const u64 here = size == 64 ? ~u64{0} : (u64{1} << size) - 1;
        count += list_bits(at_least(a, limit) & here, i, places + count);
    }
    *found = count;
    return static_cast<u32>(most) < infinity_bits;
}

}  // namespace

extern const kernels LONGHAUL_KERNELS;
const kernels LONGHAUL_KERNELS{
    LONGHAUL_KERNELS_NAME,
    words<as_f32>::table,
    words<as_bf16>::table,
    int8_blocks::table,
    int4_blocks::table,
    blocks<powers>::table,
    blocks<two_means>::table,
    blocks<one_mean>::table,
    select,
    collect,
    compensate,
    take_away,
};

}  // namespace longhaul::compress

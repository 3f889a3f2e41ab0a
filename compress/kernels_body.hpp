#pragma once
/// The loops behind kernels.hpp. A file that includes this has defined LONGHAUL_KERNELS, the variant's name; nothing
/// here but that table has linkage. Loops are written so that compilers turn them into vectors, and sums have a fixed
/// number of lanes, so that their order does not depend on a vector's width.

#include "compress/kernels.hpp"
#include "compress/kernels_common.hpp"
#include "compress/kernels_select.hpp"

namespace longhaul::compress {

namespace {

// ---- error feedback

/// Terms of a lane that are added in f32 before they go into a sum in double: that takes longer than all the rest.
constexpr std::size_t terms = 8;

/// A sum of many floats in `lanes` lanes, element i in lane i mod `lanes`.
struct wide_sum {
    double lane[lanes] = {};
    void add(std::size_t first, own_f32v v) {
        for (std::size_t l = 0; l < width; ++l) lane[first + l] += static_cast<double>(v[l]);
    }
    double all() const {
        double s = 0;
        for (const double l : lane) s += l;
        return s;
    }
};

template <bool Residual, bool Twice>
void compensate_some(const float* anchor, const float* residual, float beta, std::size_t n, float* values, float* left,
                     double* sums) {
    wide_sum produced, found, made, size;
    std::size_t i = 0;
    for (; i + terms * lanes <= n; i += terms * lanes) {
        for (std::size_t lane = 0; lane < lanes; lane += width) {
            own_f32v difference_sum{}, found_sum{}, made_sum{}, size_sum{};
            for (std::size_t t = 0; t < terms; ++t) {
                const std::size_t at = i + t * lanes + lane;
                own_f32v p = load_own(anchor + at) - load_own(values + at);
                difference_sum += p;
                if constexpr (Residual) {
                    const own_f32v r = load_own(residual + at);
                    found_sum += r;
                    p += beta * r;
                    size_sum += without_sign(r) + without_sign(p);
                } else {
                    size_sum += without_sign(p);
                }
                store_own(values + at, p);
                if constexpr (Twice) store_own(left + at, p);
                made_sum += p;
            }
            produced.add(lane, difference_sum);
            found.add(lane, found_sum);
            made.add(lane, made_sum);
            size.add(lane, size_sum);
        }
    }
    for (; i < n; ++i) {
        const std::size_t l = i % lanes;
        float p = anchor[i] - values[i];
        produced.lane[l] += static_cast<double>(p);
        if constexpr (Residual) {
            const float r = residual[i];
            p += beta * r;
            found.lane[l] += static_cast<double>(r);
            size.lane[l] += static_cast<double>(float_of(magnitude(r)));
        }
        values[i] = p;
        if constexpr (Twice) left[i] = p;
        made.lane[l] += static_cast<double>(p);
        size.lane[l] += static_cast<double>(float_of(magnitude(p)));
    }
    sums[0] += produced.all();
    sums[1] += found.all();
    sums[2] += made.all();
    sums[3] += size.all();
}
void compensate(const float* anchor, const float* residual, float beta, std::size_t n, float* values, float* left,
                double* sums) {
    const auto run = residual == nullptr
                         ? (left == nullptr ? compensate_some<false, false> : compensate_some<false, true>)
                         : (left == nullptr ? compensate_some<true, false> : compensate_some<true, true>);
    run(anchor, residual, beta, n, values, left, sums);
}

double take_away(const float* values, std::size_t n, float* rest) {
    wide_sum sent;
    std::size_t i = 0;
    for (; i + terms * lanes <= n; i += terms * lanes) {
        for (std::size_t lane = 0; lane < lanes; lane += width) {
            own_f32v sum{};
            for (std::size_t t = 0; t < terms; ++t) {
                const std::size_t at = i + t * lanes + lane;
                const own_f32v said = load_own(rest + at);
                sum += said;
                store_own(rest + at, load_own(values + at) - said);
            }
            sent.add(lane, sum);
        }
    }
    for (; i < n; ++i) {
        sent.lane[i % lanes] += static_cast<double>(rest[i]);
        rest[i] = values[i] - rest[i];
    }
    return sent.all();
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

/// Steps of a quantizer, and what it misses.
template <bool Stochastic>
step_sums to_steps_some(const float* __restrict v, std::size_t n, float inverse, u32 key, int* __restrict steps) {
    f32v missed{}, size{}, square{};
    for (std::size_t i = 0; i < n; i += lanes) {
        // Behind the end there are zeros, which add nothing.
        float y[lanes], e[lanes];
        const std::size_t m = n - i < lanes ? n - i : lanes;
        int q[lanes];
        for (std::size_t l = 0; l < lanes; ++l) y[l] = 0;
        for (std::size_t l = 0; l < m; ++l) y[l] = v[i + l] * inverse;
        for (std::size_t l = 0; l < lanes; ++l) {
            if constexpr (Stochastic) {
                const float t = y[l] + unit_at(key, static_cast<u32>(i + l));
                q[l] = static_cast<int>(t);
                q[l] -= static_cast<float>(q[l]) > t ? 1 : 0;
            } else {
                q[l] = static_cast<int>(bits_of(y[l] + 12582912.0F)) - 0x4b400000;
            }
            e[l] = y[l] - static_cast<float>(q[l]);
        }
        for (std::size_t l = 0; l < m; ++l) steps[i + l] = q[l];
        f32v a, b;
        load(a, y);
        load(b, e);
        missed += b * b;
        square += a * a;
        strip_sign(a);
        size += a;
    }
    return {sum_of(missed), sum_of(size), sum_of(square)};
}
step_sums to_steps(const float* v, std::size_t n, float inverse, const u64* key, std::size_t block, int* steps) {
    return key == nullptr ? to_steps_some<false>(v, n, inverse, 0, steps)
                          : to_steps_some<true>(v, n, inverse, block_key(*key, block), steps);
}

using int8_blocks = blocks<integers<8, 127, 0x7bff>>;
using int4_blocks = blocks<integers<4, 7, 0x7dff>>;

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
    largest,
    to_steps,
    take_away,
};

}  // namespace longhaul::compress

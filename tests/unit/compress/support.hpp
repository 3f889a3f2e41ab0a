#pragma once
/// What the codecs' tests share.

#include <cmath>
#include <string>

#include "compress/codec.hpp"
#include "core/counter_random.hpp"
#include "tests/test.hpp"

namespace longhaul::compress::testing {

/// A matrix of n elements, as a model.
inline core::tensor_manifest matrix_of(std::size_t n) {
    return *core::tensor_manifest::make({{"w", {1, static_cast<std::int64_t>(n)}}});
}

/// Close to normal, with magnitudes that differ from place to place as in a real pseudo-gradient.
inline core::flat_buffer some_values(std::size_t n, std::uint64_t seed = 3) {
    core::flat_buffer out(n);
    for (std::size_t i = 0; i < n; ++i)
        out[i] = core::random_normal(seed, i) * 0.01F * static_cast<float>(1 + (i / 700) % 5);
    return out;
}

inline core::byte_vector encoded(const codec& c, const core::tensor_manifest& m, std::span<const float> values,
                                 const rounding& how = {}) {
    const range whole(m);
    core::byte_vector out(c.range_bytes(whole));
    const auto done = c.encode(whole, values, how, out);
    if (!done) FAIL(done.error().message);
    return out;
}

inline core::flat_buffer decoded(const codec& c, const core::tensor_manifest& m, core::const_bytes in) {
    core::flat_buffer out(m.elements());
    const auto done = c.decode(range(m), in, out);
    if (!done) FAIL(done.error().message);
    return out;
}

/// Through the codec and back, as one large matrix.
inline core::flat_buffer through(const codec& c, std::span<const float> values, const rounding& how = {}) {
    const auto m = matrix_of(values.size());
    return decoded(c, m, encoded(c, m, values, how));
}

inline double norm2(std::span<const float> v) {
    double s = 0;
    for (const float x : v) s += static_cast<double>(x) * static_cast<double>(x);
    return s;
}

inline double error2(std::span<const float> a, std::span<const float> b) {
    double s = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        s += d * d;
    }
    return s;
}

}  // namespace longhaul::compress::testing

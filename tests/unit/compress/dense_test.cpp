#include "compress/dense.hpp"

#include <bit>
#include <limits>

#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

float of_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
std::uint32_t bits_of(float v) { return std::bit_cast<std::uint32_t>(v); }

std::uint32_t through_bf16(float v) { return bits_of(through(bf16_codec(), std::span(&v, 1))[0]); }

}  // namespace

TEST_CASE("f32 gives back the same bits, signed zeros and denormals included") {
    auto values = some_values(5000);
    values[0] = -0.0F;
    values[1] = std::numeric_limits<float>::denorm_min();
    values[2] = std::numeric_limits<float>::max();
    values[3] = std::numeric_limits<float>::lowest();
    const auto payload = encoded(f32_codec(), matrix_of(values.size()), values);
    CHECK(std::ranges::equal(payload, bytes_of(values)));
    const auto out = through(f32_codec(), values);
    CHECK(std::ranges::equal(bytes_of(out), bytes_of(values)));
}

TEST_CASE("bf16 rounds to nearest, ties to even") {
    CHECK(through_bf16(1.0F) == 0x3f800000U);
    CHECK(through_bf16(of_bits(0x3f807fffU)) == 0x3f800000U);
    CHECK(through_bf16(of_bits(0x3f808000U)) == 0x3f800000U);  // a tie goes down to even …
    CHECK(through_bf16(of_bits(0x3f808001U)) == 0x3f810000U);
    CHECK(through_bf16(of_bits(0x3f818000U)) == 0x3f820000U);  // … and up to even
    CHECK(through_bf16(of_bits(0xbf818000U)) == 0xbf820000U);
    CHECK(through_bf16(of_bits(0x3fffffffU)) == 0x40000000U);  // carries into the exponent
    CHECK(through_bf16(-0.0F) == 0x80000000U);
    CHECK(through_bf16(of_bits(0x00008000U)) == 0x00000000U);  // denormals, too
    CHECK(through_bf16(of_bits(0x00018000U)) == 0x00020000U);
    CHECK(through_bf16(of_bits(0x7f7f7fffU)) == 0x7f7f0000U);  // the largest that still fits
}

TEST_CASE("every finite bf16 number passes unchanged, and every other number moves to one of its two neighbours") {
    flat_buffer all;
    for (std::uint32_t w = 0; w < 65536; ++w)
        if ((w & 0x7f80U) != 0x7f80U) all.push_back(of_bits(w << 16U));
    CHECK(encoded(bf16_codec(), matrix_of(all.size()), all).size() == 2 * all.size());
    CHECK(std::ranges::equal(bytes_of(through(bf16_codec(), all)), bytes_of(all)));

    const auto values = some_values(10'000);
    const auto rounded = through(bf16_codec(), values);
    double outward = 0;
    bool near = true;
    for (std::size_t i = 0; i < values.size(); ++i) {
        near = near && std::abs(rounded[i] - values[i]) <= std::abs(values[i]) * 0x1p-8F;
        outward += static_cast<double>((std::abs(rounded[i]) - std::abs(values[i])) / std::abs(values[i]));
    }
    CHECK(near);
    // Truncation would pull the mean towards zero by about 2⁻⁹; rounding to nearest leaves noise.
    CHECK(std::abs(outward / 10'000) < 0x1p-13);
}

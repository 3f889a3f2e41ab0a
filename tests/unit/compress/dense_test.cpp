#include "compress/dense.hpp"

#include <bit>
#include <cmath>
#include <limits>

#include "compress/payload.hpp"
#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;

namespace {

tensor_manifest small_model() { return *tensor_manifest::make({{"first", {2, 3}}, {"second", {5}}, {"third", {}}}); }

tensor_manifest one_tensor(std::int64_t n) { return *tensor_manifest::make({{"w", {n}}}); }

flat_buffer some_values(std::size_t n) {
    seeded_entropy e(3);
    flat_buffer out(n);
    for (auto& v : out) v = static_cast<float>(e.unit() * 2 - 1);
    return out;
}

float of_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
std::uint32_t bits_of(float v) { return std::bit_cast<std::uint32_t>(v); }

/// What bf16 makes of one value.
float through_bf16(float v) {
    const auto m = one_tensor(1);
    const auto payload = bf16_codec().encode(m, std::span(&v, 1));
    REQUIRE(payload);
    float out = 0;
    REQUIRE(bf16_codec().decode(m, *payload, std::span(&out, 1)));
    return out;
}

}  // namespace

TEST_CASE("codecs are found by name, and an unknown one names the nearest") {
    CHECK(codec_names() == std::vector<std::string>{"f32", "bf16"});
    CHECK(*find_codec("f32") == &f32_codec());
    CHECK(*find_codec("bf16") == &bf16_codec());
    CHECK(f32_codec().wire_id() == 1);
    CHECK(bf16_codec().wire_id() == 2);
    const auto wrong = find_codec("bf61");
    CHECK(wrong.error().code == errc::config);
    CHECK(wrong.error().message == "unknown codec \"bf61\"; there are f32, bf16; did you mean \"bf16\"?");
    CHECK(find_codec("zstd").error().message == "unknown codec \"zstd\"; there are f32, bf16");
}

TEST_CASE("f32 gives back the same bits, signed zeros and denormals included") {
    const auto m = small_model();
    auto values = some_values(12);
    values[0] = -0.0F;
    values[1] = std::numeric_limits<float>::denorm_min();
    values[2] = std::numeric_limits<float>::max();
    values[3] = std::numeric_limits<float>::lowest();
    const auto payload = *f32_codec().encode(m, values);
    CHECK(payload.size() == 32 + 48);
    CHECK(payload.size() == f32_codec().max_payload_bytes(m));
    flat_buffer out(12, 7.0F);
    REQUIRE(f32_codec().decode(m, payload, out));
    for (std::size_t i = 0; i < 12; ++i) CHECK(bits_of(out[i]) == bits_of(values[i]));
}

TEST_CASE("bf16 rounds to nearest, ties to even") {
    CHECK(bits_of(through_bf16(1.0F)) == 0x3f800000U);
    CHECK(bits_of(through_bf16(of_bits(0x3f807fffU))) == 0x3f800000U);
    CHECK(bits_of(through_bf16(of_bits(0x3f808000U))) == 0x3f800000U);  // a tie goes down to even …
    CHECK(bits_of(through_bf16(of_bits(0x3f808001U))) == 0x3f810000U);
    CHECK(bits_of(through_bf16(of_bits(0x3f818000U))) == 0x3f820000U);  // … and up to even
    CHECK(bits_of(through_bf16(of_bits(0xbf818000U))) == 0xbf820000U);
    CHECK(bits_of(through_bf16(of_bits(0x3fffffffU))) == 0x40000000U);  // carries into the exponent
    CHECK(bits_of(through_bf16(-0.0F)) == 0x80000000U);
    CHECK(bits_of(through_bf16(of_bits(0x00008000U))) == 0x00000000U);  // denormals, too
    CHECK(bits_of(through_bf16(of_bits(0x00018000U))) == 0x00020000U);
    CHECK(bits_of(through_bf16(of_bits(0x7f7f7fffU))) == 0x7f7f0000U);  // the largest that still fits
}

TEST_CASE("every finite bf16 number passes unchanged, and every other number moves to one of its two neighbours") {
    const auto m = one_tensor(65536 - 2 * 128);
    flat_buffer all;
    for (std::uint32_t w = 0; w < 65536; ++w)
        if ((w & 0x7f80U) != 0x7f80U) all.push_back(of_bits(w << 16U));
    REQUIRE(all.size() == m.elements());
    const auto payload = *bf16_codec().encode(m, all);
    CHECK(payload.size() == 32 + 2 * all.size());
    CHECK(payload.size() == bf16_codec().max_payload_bytes(m));
    flat_buffer out(all.size());
    REQUIRE(bf16_codec().decode(m, payload, out));
    bool same = true;
    for (std::size_t i = 0; i < all.size(); ++i) same = same && bits_of(out[i]) == bits_of(all[i]);
    CHECK(same);

    const auto values = some_values(10'000);
    const auto n = one_tensor(10'000);
    flat_buffer rounded(10'000);
    REQUIRE(bf16_codec().decode(n, *bf16_codec().encode(n, values), rounded));
    double outward = 0;
    bool near = true;
    for (std::size_t i = 0; i < values.size(); ++i) {
        near = near && std::abs(rounded[i] - values[i]) <= std::abs(values[i]) * 0x1p-8F;
        outward += static_cast<double>(std::abs(rounded[i]) - std::abs(values[i]));
    }
    CHECK(near);
    // Truncation would pull the mean towards zero by about 2⁻¹⁰; rounding to nearest leaves noise.
    CHECK(std::abs(outward / 10'000) < 0x1p-14);
}

TEST_CASE("values that are not finite are refused with the tensor's name") {
    const auto m = small_model();
    for (const auto* c : {&f32_codec(), &bf16_codec()}) {
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity(), of_bits(0x7f800001U), of_bits(0xffffffffU)}) {
            auto values = some_values(12);
            values[8] = bad;
            const auto r = c->encode(m, values);
            REQUIRE_FALSE(r);
            CHECK(r.error().code == errc::limit);
            CHECK(r.error().message.starts_with("tensor \"second\" holds "));
        }
    }
    auto values = some_values(12);
    values[11] = std::numeric_limits<float>::max();
    CHECK(f32_codec().encode(m, values));
    CHECK(bf16_codec().encode(m, values).error().message ==
          "tensor \"third\" holds 3.4028235e+38, which bf16 cannot carry");
}

TEST_CASE("truncations, extensions and flipped bits leave the output alone") {
    const auto m = small_model();
    const auto values = some_values(12);
    const flat_buffer before(12, 7.0F);
    for (const auto* c : {&f32_codec(), &bf16_codec()}) {
        const auto payload = *c->encode(m, values);
        auto out = before;
        for (std::size_t cut = 0; cut < payload.size(); ++cut) {
            const auto r = c->decode(m, const_bytes(payload).first(cut), out);
            CHECK(r.error().code == errc::malformed);
            CHECK(out == before);
        }
        auto longer = payload;
        longer.push_back(std::byte{0});
        CHECK(c->decode(m, longer, out).error().code == errc::malformed);
        CHECK(out == before);
        for (std::size_t bit = 0; bit < payload.size() * 8; ++bit) {
            auto flipped = payload;
            flipped[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
            const auto r = c->decode(m, flipped, out);
            if (bit < payload_header_bytes * 8) {
                INFO(bit);
                REQUIRE_FALSE(r);
                CHECK((r.error().code == errc::malformed || r.error().code == errc::run_mismatch));
            }
            if (r) {
                // A flip in the body is another number (chunks are hashed on their way), but a finite one.
                for (const float v : out) CHECK(std::isfinite(v));
                out = before;
            }
            CHECK(out == before);
        }
    }
}

TEST_CASE("a payload with a NaN inside, of another codec or another model is refused") {
    const auto m = small_model();
    const auto values = some_values(12);
    flat_buffer out(12);
    auto poisoned = *f32_codec().encode(m, values);
    poisoned[32 + 4 * 6 + 3] = std::byte{0x7f};
    poisoned[32 + 4 * 6 + 2] = std::byte{0xc0};
    CHECK(f32_codec().decode(m, poisoned, out).error().message ==
          "the payload's tensor \"second\" holds a value that is not finite");
    CHECK(bf16_codec().decode(m, *f32_codec().encode(m, values), out).error().message ==
          "the payload was encoded with codec 1, not 2");
    // The same number of elements in other shapes.
    const auto other = *tensor_manifest::make({{"first", {3, 2}}, {"second", {5}}, {"third", {}}});
    CHECK(f32_codec().decode(m, *f32_codec().encode(other, values), out).error().code == errc::run_mismatch);
    CHECK(out == flat_buffer(12));
}

TEST_CASE("an empty model has an empty body") {
    const auto m = *tensor_manifest::make({});
    const auto payload = *bf16_codec().encode(m, {});
    CHECK(payload.size() == payload_header_bytes);
    CHECK(bf16_codec().decode(m, payload, {}));
}

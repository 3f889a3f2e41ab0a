#include "compress/ecsq.hpp"

#include <algorithm>

#include "compress/quantize.hpp"
#include "core/entropy.hpp"
#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

struct member {
    const codec& c;
    std::size_t bits;
};
std::vector<member> family() {
    return {{ecsq_4_codec(), 4}, {ecsq_3_codec(), 3}, {ecsq_2_codec(), 2}, {ecsq_1_codec(), 1}};
}

double share_lost(std::span<const float> values, const codec& c) {
    return std::sqrt(error2(values, through(c, values)) / norm2(values));
}

/// Of a model whose tensor is larger than a range of n elements at its start, which is compressed however short it is.
struct short_range {
    explicit short_range(std::size_t n) : model(matrix_of(8192)), range(model, 0, n) {}
    tensor_manifest model;
    longhaul::compress::range range;
};

flat_buffer of_kind(std::uint64_t kind, std::size_t n, std::uint64_t seed) {
    auto v = some_values(n, seed);
    const auto some = mix64(seed) % n;
    switch (kind) {
        case 0: return v;
        case 1: std::ranges::fill(v, -3.5F); return v;
        case 2:
            std::ranges::fill(v, 0.0F);
            v[some] = 1e30F;
            return v;
        case 3: v[some] = 1e6F; return v;
        case 4:
            for (std::size_t i = 0; i < n; ++i) v[i] = i % 2 == 0 ? 2.9e38F : -2.9e38F;
            return v;
        case 5:
            for (auto& x : v) x *= 1e-36F;
            return v;
        case 6:
            for (std::size_t i = 0; i < n; ++i) v[i] = std::ldexp(v[i], -static_cast<int>(i % 90));
            return v;
        default:
            for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<float>(static_cast<int>(i % 7) - 3);
            return v;
    }
}

}  // namespace

TEST_CASE("an element takes its bits, a block half a byte, a piece 34 bytes") {
    for (const auto& [c, bits] : family()) {
        CHECK(c.range_bytes(range(matrix_of(256 * 40))) == 34 + 20 + 256 * 40 * bits / 8);
        CHECK(c.range_bytes(range(matrix_of(256 * 41))) == 34 + 21 + 256 * 41 * bits / 8);
        CHECK(c.range_bytes(short_range(7).range) == 34 + 1 + 7 * bits / 32 * 4);
    }
}

TEST_CASE("1.3 · 2^−bits of normal numbers is lost, and no more where blocks differ, whatever int4 loses there") {
    flat_buffer normal(200'000);
    for (std::size_t i = 0; i < normal.size(); ++i) normal[i] = random_normal(5, i);
    auto uneven = normal;
    for (std::size_t i = 0; i < uneven.size(); ++i) uneven[i] *= std::exp(1.5F * random_normal(6, i / 300));
    for (const auto& [c, bits] : family()) {
        INFO(c.name());
        const double unit = std::ldexp(1.0, -static_cast<int>(bits));
        CHECK(share_lost(normal, c) < 1.30 * unit);
        CHECK(share_lost(normal, c) > 1.10 * unit);
        CHECK(share_lost(uneven, c) < share_lost(normal, c));
    }
    CHECK(share_lost(normal, ecsq_4_codec()) < 0.65 * share_lost(normal, int4_codec()));
    CHECK(share_lost(uneven, ecsq_3_codec()) < share_lost(uneven, int4_codec()));
    CHECK(share_lost(uneven, ecsq_2_codec()) < 0.7 * share_lost(uneven, sign2_codec()));
}

TEST_CASE("values of any kind and number fit, and something of them is said") {
    seeded_entropy random(3);
    for (int round = 0; round < 600; ++round) {
        const std::size_t n = round % 3 == 0 ? 1 + random.below(3000) : 1 + random.below(600);
        const auto kind = random.below(8);
        const auto values = of_kind(kind, n, random.u64());
        const short_range r(n);
        for (const auto& [c, bits] : family()) {
            INFO(c.name() << ", kind " << kind << ", " << n << " elements");
            byte_vector wire(c.range_bytes(r.range)), random_wire(wire.size());
            flat_buffer out(n), left = values;
            longhaul::compress::remainder rest{left, 0, {}};
            REQUIRE(c.encode(r.range, values, {}, wire, &rest));
            REQUIRE(c.decode(r.range, wire, out));
            // In a unit in which squares are numbers.
            auto whole = values, lost = left;
            for (auto* v : {&whole, &lost})
                for (auto& x : *v) x = std::ldexp(x, -100);
            if (norm2(whole) > 0) REQUIRE(norm2(lost) < norm2(whole) * 0.999999);
            double sent = 0;
            for (std::size_t i = 0; i < n; ++i) {
                REQUIRE(left[i] == values[i] - out[i]);
                sent += static_cast<double>(out[i]);
            }
            if (kind != 4) REQUIRE(rest.sent == Approx(sent).epsilon(1e-5).margin(1e-3));  // their sums are no floats
            REQUIRE(c.encode(r.range, values, {true, random.u64(), {}}, random_wire));
            REQUIRE(c.decode(r.range, random_wire, out));
        }
    }
}

TEST_CASE("where all magnitudes are equal, signs are sent, and outliers come as what they are") {
    for (const auto& [c, bits] : family()) {
        INFO(c.name());
        flat_buffer constant(5000);
        for (std::size_t i = 0; i < constant.size(); ++i) constant[i] = i * 7 % 5 < 2 ? 0.75F : -0.75F;
        CHECK(through(c, constant) == constant);
        auto spiked = some_values(10'000);
        spiked[4321] = -1000;
        CHECK(through(c, spiked)[4321] == Approx(-1000).epsilon(0.001));
    }
}

TEST_CASE("what no encoder writes is refused: a step that is not finite, a spread of no block, a state out of bounds") {
    const auto m = matrix_of(4097);  // 17 blocks: half a byte is unused
    auto wire = encoded(ecsq_3_codec(), m, some_values(4097));
    const auto accepted = [&](std::size_t at, int value) {
        auto other = wire;
        other[at] = static_cast<std::byte>(value);
        return ecsq_3_codec().check(range(m), other).has_value();
    };
    CHECK(accepted(0, 0x12));
    wire[0] = std::byte{0x80};
    CHECK(accepted(1, 0x7e));
    CHECK_FALSE(accepted(1, 0x7f));
    CHECK_FALSE(accepted(1, 0xff));
    CHECK_FALSE(accepted(2 + 8, 0x15));
    CHECK(accepted(2 + 8, 0x05));
    for (std::size_t lane = 0; lane < 4; ++lane) CHECK_FALSE(accepted(2 + 9 + 8 * lane + 7, 0xff));
}

TEST_CASE("golden bytes: a short ramp, and signs") {
    const short_range r(40);
    flat_buffer ramp(40);
    for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<float>(static_cast<int>(i) - 13) * 0.25F;
    byte_vector wire(ecsq_2_codec().range_bytes(r.range));
    REQUIRE(ecsq_2_codec().encode(r.range, ramp, {}, wire));
    CHECK(to_hex(wire) == "314007303236d7ddcf3d00303236d7ddcf3d00203895de547fa000403bbb50eff4ea000000000000000000");
    for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i] = i % 3 == 0 ? -2.0F : 2.0F;
    REQUIRE(ecsq_2_codec().encode(r.range, ramp, {}, wire));
    CHECK(to_hex(const_bytes(wire).first(8)) == "00c0004992244992");
}

#include "compress/quantize.hpp"

#include <algorithm>

#include "compress/ecsq.hpp"
#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

constexpr std::size_t block = 256;

float largest(std::span<const float> v) {
    float m = 0;
    for (const float x : v) m = std::max(m, std::abs(x));
    return m;
}

template <typename Check>
void each_block(const flat_buffer& values, const flat_buffer& out, Check check) {
    for (std::size_t b = 0; b < values.size(); b += block) {
        const auto n = std::min(block, values.size() - b);
        check(std::span(values).subspan(b, n), std::span(out).subspan(b, n));
    }
}

}  // namespace

TEST_CASE("the wire takes codes and scales, and nothing else") {
    const auto bytes = [](const codec& c, std::size_t n) { return c.range_bytes(range(matrix_of(n))); };
    CHECK(bytes(int8_codec(), 256 * 20) == 20 * (256 + 2));
    CHECK(bytes(int8_codec(), 256 * 20 + 1) == 20 * (256 + 2) + 3);
    CHECK(bytes(int4_codec(), 256 * 20 + 3) == 20 * (128 + 2) + 2 + 2);
    CHECK(bytes(e3m0_codec(), 256 * 20) == 20 * (128 + 2));
    CHECK(bytes(sign2_codec(), 256 * 20 + 5) == 20 * (64 + 4) + 4 + 2);
    CHECK(bytes(sign1_codec(), 256 * 20 + 9) == 20 * (32 + 2) + 2 + 2);
}

TEST_CASE("bits behind the last code are zero, or it is no encoding") {
    struct form {
        const codec& c;
        std::size_t bits;
    };
    for (const auto& f : {form{int8_codec(), 8}, form{int4_codec(), 4}, form{e3m0_codec(), 4}, form{sign2_codec(), 2},
                          form{sign1_codec(), 1}}) {
        for (const std::size_t n : {4097U, 4099U, 4100U, 4109U}) {
            const auto m = matrix_of(n);
            const auto wire = encoded(f.c, m, some_values(n));
            const auto tail = n - 4096, bytes = (tail * f.bits + 7) / 8;
            std::size_t accepted = 0;
            for (std::size_t bit = 0; bit < bytes * 8; ++bit) {
                auto other = wire;
                other[wire.size() - bytes + bit / 8] ^= std::byte{1} << (bit % 8);
                accepted += f.c.check(range(m), other).has_value();
            }
            INFO(f.c.name() << ", " << tail << " in the last block");
            CHECK(accepted == tail * f.bits);
        }
    }
}

TEST_CASE("golden bytes: one block of a ramp") {
    flat_buffer ramp(4096);
    for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<float>(static_cast<int>(i % 256) - 127) * 0.5F;
    const auto m = matrix_of(ramp.size());
    const auto wire = encoded(int8_codec(), m, ramp);
    // The largest is 64 = 128 · 0.5; 64/127 rounded up to bf16 is 0.50390625 + …: 0x3f02 is 0.5078125.
    CHECK(to_hex(const_bytes(wire).first(2)) == "023f");
    // −63.5 / 0.5078125 = −125.05, 64 / 0.5078125 = 126.03.
    CHECK(static_cast<int>(static_cast<std::int8_t>(wire[32])) == -125);
    CHECK(static_cast<int>(static_cast<std::int8_t>(wire[32 + 255])) == 126);
    CHECK(static_cast<int>(static_cast<std::int8_t>(wire[32 + 127])) == 0);
    const auto e = encoded(e3m0_codec(), m, ramp);
    CHECK(to_hex(const_bytes(e).first(2)) == "8042");  // 64
    // Element 0 (−63.5 → −64: code 15) below element 128 (0.5 → 0, since 64 · 2⁻⁷ is half of the least power: up, code
    // 1).
    CHECK(to_hex(const_bytes(e).subspan(32, 1)) == "1f");
}

TEST_CASE("integers are within half a step, and the scale is the least bf16 above what the block needs") {
    for (const std::size_t n : {4096U, 5000U, 4097U}) {
        const auto values = some_values(n);
        const struct {
            const codec& c;
            float most;
        } cases[] = {{int8_codec(), 127}, {int4_codec(), 7}};
        for (const auto& [c, most] : cases) {
            INFO(c.name());
            each_block(values, through(c, values), [most = most](auto in, auto out) {
                const float step = largest(in) / most * (1 + 0x1p-7F);
                for (std::size_t i = 0; i < in.size(); ++i)
                    REQUIRE(std::abs(in[i] - out[i]) <= step * 0.5F * (1 + 0x1p-20F));
            });
        }
    }
}

TEST_CASE("e3m0 takes the nearest of zero and seven powers of two times the scale") {
    const auto values = some_values(5000);
    const auto out = through(e3m0_codec(), values);
    each_block(values, out, [](auto in, auto got) {
        const float big = largest(in);
        const float scale = largest(got);
        REQUIRE(scale >= big);
        REQUIRE(scale <= big * (1 + 0x1p-7F));
        for (std::size_t i = 0; i < in.size(); ++i) {
            float best = std::abs(in[i]);
            for (int k = 0; k <= 6; ++k) best = std::min(best, std::abs(std::abs(in[i]) - std::ldexp(scale, -k)));
            REQUIRE(std::abs(in[i] - got[i]) <= best * (1 + 0x1p-18F) + 1e-12F);
        }
    });
}

TEST_CASE("sign2 and sign1 decode to the means of the magnitudes on each side") {
    const auto values = some_values(5000);
    each_block(values, through(sign2_codec(), values), [](auto in, auto got) {
        double mean = 0, low = 0, high = 0, above = 0;
        for (const float v : in) mean += static_cast<double>(std::abs(v)) / static_cast<double>(in.size());
        for (const float v : in) {
            const auto m = static_cast<double>(std::abs(v));
            (m > mean ? high : low) += m;
            above += m > mean ? 1 : 0;
        }
        high /= above;
        low /= static_cast<double>(in.size()) - above;
        for (std::size_t i = 0; i < in.size(); ++i) {
            const bool up = static_cast<double>(std::abs(in[i])) > mean;
            REQUIRE(static_cast<double>(got[i]) == Approx(std::copysign(up ? high : low, in[i])).epsilon(0.005));
        }
    });
    each_block(values, through(sign1_codec(), values), [](auto in, auto got) {
        double mean = 0;
        for (const float v : in) mean += static_cast<double>(std::abs(v)) / static_cast<double>(in.size());
        for (std::size_t i = 0; i < in.size(); ++i)
            REQUIRE(static_cast<double>(got[i]) == Approx(std::copysign(mean, in[i])).epsilon(0.005));
    });
}

TEST_CASE("rounding at random is right in the mean, and a pure function of the seed and the place") {
    const auto values = some_values(4096 + 300);
    for (const auto* c : {&int8_codec(), &int4_codec(), &e3m0_codec(), &ecsq_4_codec(), &ecsq_2_codec()}) {
        INFO(c->name());
        std::vector<double> mean(values.size());
        constexpr int draws = 400;
        double noise = 0;
        for (int d = 0; d < draws; ++d) {
            const auto out = through(*c, values, {true, static_cast<std::uint64_t>(d)});
            for (std::size_t i = 0; i < values.size(); ++i) mean[i] += static_cast<double>(out[i]) / draws;
            noise += error2(values, out) / draws;
        }
        // The mean of 400 draws is off by a 400th of one draw's squared error, if there is no bias.
        double off = 0, sum = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            const double d = mean[i] - static_cast<double>(values[i]);
            off += d * d;
            sum += d;
        }
        CHECK(off < noise / draws * 1.15);
        CHECK(std::abs(sum) < 4 * std::sqrt(noise / draws));
        CHECK(noise > 1.2 * error2(values, through(*c, values)));
        CHECK(through(*c, values, {true, 1}) == through(*c, values, {true, 1}));
        CHECK(through(*c, values, {true, 1}) != through(*c, values, {true, 2}));
    }
}

TEST_CASE("what is lost is less than what was there: ‖C(x) − x‖² ≤ (1 − δ)‖x‖²") {
    const auto values = some_values(40'000);
    const struct {
        const codec& c;
        double most;
    } cases[] = {{int8_codec(), 1e-4},   {int4_codec(), 0.03},   {e3m0_codec(), 0.06},
                 {sign2_codec(), 0.13},  {sign1_codec(), 0.40},  {ecsq_4_codec(), 0.01},
                 {ecsq_3_codec(), 0.03}, {ecsq_2_codec(), 0.12}, {ecsq_1_codec(), 0.36}};
    for (const auto& [c, most] : cases) {
        INFO(c.name());
        const double share = error2(values, through(c, values)) / norm2(values);
        CHECK(share < most);
        CHECK(share > most / 12);
    }
}

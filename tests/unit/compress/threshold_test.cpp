#include "compress/threshold.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>

#include "compress/elias_fano.hpp"
#include "compress/kernels.hpp"
#include "core/entropy.hpp"
#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

/// Which the codec is to keep, written again from its description.
std::vector<std::size_t> largest_of(std::span<const float> v, std::size_t one_of) {
    std::vector<std::size_t> order(v.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, [&](auto a, auto b) { return std::abs(v[a]) > std::abs(v[b]); });
    order.resize((v.size() + one_of - 1) / one_of);
    std::ranges::sort(order);
    return order;
}

std::vector<std::size_t> not_zero(std::span<const float> v) {
    std::vector<std::size_t> out;
    for (std::size_t i = 0; i < v.size(); ++i)
        if (v[i] != 0) out.push_back(i);
    return out;
}

std::vector<std::uint32_t> some_places(std::uint64_t places, std::size_t chosen, seeded_entropy& random) {
    std::vector<std::uint32_t> out;
    for (std::uint64_t at = 0; out.size() < chosen; ++at)
        if (random.below(places - at) < chosen - out.size()) out.push_back(static_cast<std::uint32_t>(at));
    return out;
}

}  // namespace

TEST_CASE("ascending places come back, in the bytes that were announced") {
    seeded_entropy random(1);
    for (int round = 0; round < 300; ++round) {
        const std::uint64_t places = 1 + random.below(round < 100 ? 40 : 20'000);
        const auto chosen = 1 + random.below(round % 3 == 0 ? places : std::max<std::uint64_t>(1, places / 50));
        const elias_fano code(places, chosen);
        const auto in = some_places(places, chosen, random);
        byte_vector wire(code.bytes() + 1, std::byte{0xee});
        code.encode(in, mutable_bytes(wire).first(code.bytes()));
        CHECK(wire.back() == std::byte{0xee});
        wire.pop_back();
        std::vector<std::uint32_t> out(chosen);
        REQUIRE(code.decode(wire, out));
        REQUIRE(out == in);
    }
    CHECK(elias_fano(std::uint64_t{1} << 20, 10486).bytes() < 10486 * 86 / 80);
}

TEST_CASE("bytes that are no ascending places in bounds are refused, all others are what they encode to") {
    seeded_entropy random(2);
    std::size_t accepted = 0;
    for (int round = 0; round < 20'000; ++round) {
        const std::uint64_t places = 1 + random.below(60);
        const auto chosen = 1 + random.below(std::min<std::uint64_t>(places, 6));
        const elias_fano code(places, chosen);
        byte_vector wire(code.bytes()), again(code.bytes());
        random.fill(wire);
        std::vector<std::uint32_t> out(chosen);
        if (!code.decode(wire, out)) continue;
        ++accepted;
        REQUIRE(std::ranges::is_sorted(out, std::less_equal{}));
        REQUIRE(out.back() < places);
        code.encode(out, again);
        REQUIRE(again == wire);
    }
    CHECK(accepted > 30);
}

TEST_CASE("the largest of a whole tensor are kept, wherever they are") {
    const struct {
        const codec& c;
        std::size_t one_of;
    } cases[] = {{topk_1_percent_codec(), 100}, {topk_1_per_mille_codec(), 1000}};
    for (const auto& [c, one_of] : cases) {
        for (const std::size_t n : {4096U, 5001U, 40'001U, 200'000U}) {
            INFO(c.name() << ", " << n);
            auto values = some_values(n);
            CHECK(not_zero(through(c, values)) == largest_of(values, one_of));
            // Ties, and all large values in one place.
            for (auto& v : values) v = static_cast<float>(static_cast<int>(v * 50)) + 0.5F;
            std::fill(values.begin() + 1000, values.begin() + 1030, -9.0F);
            CHECK(not_zero(through(c, values)) == largest_of(values, one_of));
            // A sample that misses nearly all that counts.
            std::ranges::fill(values, 1e-4F);
            for (std::size_t i = 0; i < n / one_of / 2; ++i) values[i * 7 % n] = 1 + static_cast<float>(i);
            CHECK(not_zero(through(c, values)) == largest_of(values, one_of));
        }
        const auto values = some_values(50'000);
        const auto out = through(c, values);
        // Contraction, at least by the share of the elements that are kept.
        CHECK(error2(values, out) < (1 - 1.0 / static_cast<double>(one_of)) * norm2(values));
        for (const auto i : not_zero(out)) REQUIRE(std::signbit(out[i]) == std::signbit(values[i]));
    }
}

TEST_CASE("golden bytes: three values of 4,096, at one per mille the fifth of them") {
    flat_buffer values(4096, 0.0F);
    values[1] = 1;
    values[2] = -3;
    values[4095] = 3;
    values[100] = 0.5F;
    values[7] = -0.25F;
    const auto wire = encoded(topk_1_per_mille_codec(), matrix_of(4096), values);
    // Means of {1, 0.5, 0.25} and {3, 3}; codes +low, −high, −low, +low, +high: the first byte has every other one from
    // its lowest bits on, the second the rest. 4096 / 5 has nine low bits: 1, 2, 7, 100, 511; then 1, 1, 1, 1 and,
    // seven steps further, 1 in unary.
    CHECK(to_hex(wire) == "153f4040180301041c20f31f0f08");
}

TEST_CASE("every variant finds all that reach a limit, and what is not finite") {
    const auto variants = runnable_kernels();
    seeded_entropy random(3);
    for (int round = 0; round < 200; ++round) {
        const std::size_t n = 1 + random.below(1000);
        auto values = some_values(n, random.u64());
        const auto limit =
            std::bit_cast<std::uint32_t>(round % 5 == 0 ? 0.0F : 0.01F * static_cast<float>(random.below(5)));
        std::vector<std::uint32_t> expected;
        for (std::size_t i = 0; i < n; ++i)
            if (std::bit_cast<std::uint32_t>(std::abs(values[i])) >= limit)
                expected.push_back(static_cast<std::uint32_t>(i));
        const auto bad = random.below(n);
        for (std::size_t k = 0; k < variants.count; ++k) {
            INFO(variants.items[k]->name);
            std::vector<std::uint32_t> got(n + 64);
            std::size_t found = 0;
            REQUIRE(variants.items[k]->collect(values.data(), n, limit, got.data(), &found));
            got.resize(found);
            REQUIRE(got == expected);
            got.resize(n + 64);
            auto broken = values;
            broken[bad] =
                round % 2 == 0 ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
            REQUIRE_FALSE(variants.items[k]->collect(broken.data(), n, limit, got.data(), &found));
        }
    }
}

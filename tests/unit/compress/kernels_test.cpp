#include "compress/kernels.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/entropy.hpp"
#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

constexpr struct {
    const char* name;
    piece_kernels kernels::* family;
} families[] = {{"f32", &kernels::f32},    {"bf16", &kernels::bf16}, {"int8", &kernels::int8},
                {"int4", &kernels::int4},  {"e3m0", &kernels::e3m0}, {"sign2", &kernels::sign2},
                {"sign1", &kernels::sign1}};

/// Values of every kind: normal ones, zeros, denormals, powers of two, ties.
flat_buffer all_kinds(std::size_t n, seeded_entropy& random) {
    auto v = some_values(n, random.u64());
    for (auto& x : v) {
        switch (random.below(12)) {
            case 0: x = random.below(2) == 0 ? 0.0F : -0.0F; break;
            case 1: x = std::ldexp(1.0F, static_cast<int>(random.below(40)) - 30); break;
            case 2: x *= 1e-42F; break;
            case 3: x = 0.5F * static_cast<float>(random.below(20)); break;
            default: break;
        }
    }
    if (random.below(8) == 0) std::ranges::fill(v, 0.0F);
    return v;
}

}  // namespace

TEST_CASE("scalar and vector kernels give identical bytes, bits and verdicts") {
    const auto variants = runnable_kernels();
    INFO(variants.count << " variants run here");
    seeded_entropy random(2);
    for (int round = 0; round < 200; ++round) {
        const std::size_t n = 1 + random.below(1200);
        const auto values = all_kinds(n, random);
        const std::uint64_t seed = random.u64();
        for (const auto& f : families) {
            INFO(f.name << ", " << n << " elements");
            for (const std::uint64_t* key : {static_cast<const std::uint64_t*>(nullptr), &seed}) {
                std::vector<unsigned char> wire, first_wire;
                flat_buffer out(n), sum = some_values(n, 8), first_out, first_sum;
                for (std::size_t k = 0; k < variants.count; ++k) {
                    const auto& run = variants.items[k]->*f.family;
                    wire.assign(n * 4 + 64, 0xcc);
                    REQUIRE(run.encode(values.data(), n, key, wire.data()));
                    REQUIRE(run.check(wire.data(), n));
                    run.decode(wire.data(), n, out.data());
                    sum = some_values(n, 8);
                    run.add(wire.data(), n, 0.37F, sum.data());
                    if (k == 0) {
                        first_wire = wire;
                        first_out = out;
                        first_sum = sum;
                    }
                    REQUIRE(wire == first_wire);
                    REQUIRE(std::ranges::equal(bytes_of(out), bytes_of(first_out)));
                    REQUIRE(std::ranges::equal(bytes_of(sum), bytes_of(first_sum)));
                }
            }
        }
    }
}

TEST_CASE("the k largest are found, the first of equal ones, by every variant") {
    const auto variants = runnable_kernels();
    seeded_entropy random(4);
    for (int round = 0; round < 400; ++round) {
        const bool full = random.below(2) == 0;
        const std::size_t n = full ? 4096 : 1 + random.below(4096);
        const std::size_t k = full ? 64 : 1 + random.below(std::min<std::size_t>(n, 100));
        auto values = random.below(3) == 0 ? all_kinds(n, random) : some_values(n, random.u64());
        if (random.below(6) == 0)
            for (auto& v : values) v = static_cast<float>(static_cast<int>(v * 100));  // few values, many ties
        std::vector<std::uint16_t> order(n);
        std::iota(order.begin(), order.end(), std::uint16_t{0});
        std::ranges::stable_sort(order, [&](auto a, auto b) { return std::abs(values[a]) > std::abs(values[b]); });
        order.resize(k);
        std::ranges::sort(order);
        for (std::size_t i = 0; i < variants.count; ++i) {
            INFO(variants.items[i]->name << ": " << k << " of " << n);
            std::vector<std::uint16_t> got(k + 1, 0xffff);
            REQUIRE(variants.items[i]->select(values.data(), n, k, got.data()));
            auto broken = values;
            std::vector<std::uint16_t> any(k + 1);
            broken[random.below(n)] =
                round % 2 == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
            REQUIRE_FALSE(variants.items[i]->select(broken.data(), n, k, any.data()));
            CHECK(got[k] == 0xffff);
            got.resize(k);
            REQUIRE(got == order);
        }
    }
}

TEST_CASE("every variant takes the same steps and misses the same") {
    const auto variants = runnable_kernels();
    seeded_entropy random(6);
    for (int round = 0; round < 300; ++round) {
        const std::size_t n = 1 + random.below(block_elements);
        const auto values = all_kinds(n, random);
        const auto seed = random.u64();
        const float inverse =
            std::ldexp(1.0F + static_cast<float>(random.below(100)) / 100, static_cast<int>(random.below(12)) - 4);
        for (const std::uint64_t* key : {static_cast<const std::uint64_t*>(nullptr), &seed}) {
            std::vector<int> first_steps;
            step_sums first{};
            for (std::size_t k = 0; k < variants.count; ++k) {
                std::vector<int> steps(n + 1, 77);
                const auto sums = variants.items[k]->to_steps(values.data(), n, inverse, key, 5, steps.data());
                CHECK(steps.back() == 77);
                if (k == 0) {
                    first_steps = steps;
                    first = sums;
                    for (std::size_t i = 0; i < n; ++i) {
                        const float y = values[i] * inverse;
                        REQUIRE(std::abs(y - static_cast<float>(steps[i])) <= (key == nullptr ? 0.5F : 1.0F));
                    }
                }
                REQUIRE(steps == first_steps);
                REQUIRE(std::memcmp(&sums, &first, sizeof sums) == 0);
                REQUIRE(variants.items[k]->largest(values.data(), n) == variants.items[0]->largest(values.data(), n));
            }
        }
    }
}

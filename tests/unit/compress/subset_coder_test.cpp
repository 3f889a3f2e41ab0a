#include "compress/subset_coder.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;

namespace {

using places = std::vector<std::uint16_t>;

places random_subset(std::uint32_t n, std::uint32_t k, seeded_entropy& random) {
    std::set<std::uint16_t> s;
    while (s.size() < k) s.insert(static_cast<std::uint16_t>(random.below(n)));
    return {s.begin(), s.end()};
}

/// log₂ of the binomial.
double bound(double n, double k) {
    return (std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1)) / std::log(2.0);
}

void check_round_trip(std::size_t count, const subset_shape& shape, const subset_shape& last, const places& p) {
    byte_vector wire(subset_bytes(count, shape, last), std::byte{0xee});
    encode_subsets(count, shape, last, p, wire);
    places out(p.size(), 0xffff);
    REQUIRE(decode_subsets(count, shape, last, wire, out));
    REQUIRE(out == p);
}

}  // namespace

TEST_CASE("64 of 4,096 cost 7.36 bits each, whatever they are") {
    const auto shape = subset_shape::of(4096, 64);
    const double best = bound(4096, 64);
    CHECK(best / 64 == Approx(7.36).margin(0.005));
    const auto bytes = subset_bytes(64, shape, {});
    CHECK(static_cast<double>(bytes) * 8 / 64 < best * 1.01 + 1);
    CHECK(static_cast<double>(bytes) * 8 / 64 / 64 < 7.45);
    seeded_entropy random(1);
    places p;
    for (int i = 0; i < 64; ++i) {
        // Spread, in one heap, in two, at the ends, every other one: the least likely counts, too.
        places one;
        switch (i % 6) {
            case 0: one = random_subset(4096, 64, random); break;
            case 1:
                for (int j = 0; j < 64; ++j) one.push_back(static_cast<std::uint16_t>(640 + j));
                break;
            case 2:
                for (int j = 0; j < 64; ++j) one.push_back(static_cast<std::uint16_t>(j < 32 ? j : 4096 - 64 + j));
                break;
            case 3:
                for (int j = 0; j < 64; ++j) one.push_back(static_cast<std::uint16_t>(2 * j + 1));
                break;
            case 4:
                for (int j = 0; j < 64; ++j) one.push_back(static_cast<std::uint16_t>(64 * j));
                break;
            default: one = random_subset(80, 64, random); break;
        }
        p.insert(p.end(), one.begin(), one.end());
    }
    check_round_trip(64, shape, {}, p);
    // Each of these alone fits the bytes of one.
    for (std::size_t i = 0; i < 64; ++i)
        check_round_trip(1, shape, {},
                         places(p.begin() + static_cast<std::ptrdiff_t>(i * 64),
                                p.begin() + static_cast<std::ptrdiff_t>(i * 64 + 64)));
}

TEST_CASE("every subset of every small shape comes back") {
    for (std::uint32_t n = 1; n <= 12; ++n) {
        for (std::uint32_t mask = 1; mask < (1U << n); ++mask) {
            places p;
            for (std::uint32_t i = 0; i < n; ++i)
                if ((mask >> i & 1U) != 0) p.push_back(static_cast<std::uint16_t>(i));
            check_round_trip(0, {}, subset_shape::of(n, static_cast<std::uint32_t>(p.size())), p);
        }
    }
}

TEST_CASE("random shapes come back, and cost about the binomial of the next power of two") {
    seeded_entropy random(2);
    for (int round = 0; round < 500; ++round) {
        const auto n = static_cast<std::uint32_t>(1 + random.below(4096));
        const auto k = static_cast<std::uint32_t>(1 + random.below(std::min(n, 64U)));
        const auto shape = subset_shape::of(64, 4), last = subset_shape::of(n, k);
        const std::size_t count = random.below(20);
        places p;
        for (std::size_t i = 0; i < count; ++i) {
            const auto one = random_subset(64, 4, random);
            p.insert(p.end(), one.begin(), one.end());
        }
        const auto one = random_subset(n, k, random);
        p.insert(p.end(), one.begin(), one.end());
        check_round_trip(count, shape, last, p);
        const double universe = std::exp2(static_cast<double>(last.levels));
        const auto bytes = static_cast<double>(subset_bytes(count, shape, last));
        CHECK(bytes * 8 < static_cast<double>(count) * bound(64, 4) * 1.03 + bound(universe, k) * 1.03 + 64 + 32);
    }
}

TEST_CASE("bytes that no subset makes are refused, and what is accepted is ascending and in bounds") {
    seeded_entropy random(3);
    const auto shape = subset_shape::of(4096, 64), last = subset_shape::of(1000, 16);
    places p;
    for (int i = 0; i < 3; ++i) {
        const auto one = random_subset(4096, 64, random);
        p.insert(p.end(), one.begin(), one.end());
    }
    const auto one = random_subset(1000, 16, random);
    p.insert(p.end(), one.begin(), one.end());
    byte_vector wire(subset_bytes(3, shape, last));
    encode_subsets(3, shape, last, p, wire);
    places out(p.size());
    CHECK_FALSE(decode_subsets(3, shape, last, const_bytes(wire).first(7), out));
    for (std::size_t bit = 0; bit < wire.size() * 8; ++bit) {
        auto broken = wire;
        broken[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        if (!decode_subsets(3, shape, last, broken, out)) continue;
        byte_vector again(wire.size());
        encode_subsets(3, shape, last, out, again);
        CHECK(again == broken);  // another subset's own bytes
    }
    for (int i = 0; i < 2000; ++i) {
        byte_vector noise(wire.size());
        random.fill(noise);
        if (i % 2 == 0) noise[7] = static_cast<std::byte>(std::to_integer<unsigned>(noise[7]) & 0x7fU);
        CHECK_FALSE(decode_subsets(3, shape, last, noise, out));
    }
}

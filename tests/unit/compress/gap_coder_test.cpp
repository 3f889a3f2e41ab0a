#include "compress/gap_coder.hpp"

#include <cmath>
#include <set>

#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;

namespace {

using places = std::vector<std::uint16_t>;

void append(places& to, const std::set<std::uint16_t>& s) { to.insert(to.end(), s.begin(), s.end()); }

std::set<std::uint16_t> random_subset(std::uint32_t from, std::uint32_t n, std::uint32_t k, seeded_entropy& random) {
    std::set<std::uint16_t> s;
    while (s.size() < k) s.insert(static_cast<std::uint16_t>(from + random.below(n)));
    return s;
}

/// 64 of 4,096: spread, in a heap, at the ends, with every distance, all at the end.
places some_runs(std::size_t count, seeded_entropy& random) {
    places p;
    for (std::size_t i = 0; i < count; ++i) {
        std::set<std::uint16_t> s;
        switch (i % 6) {
            case 0: s = random_subset(0, 4096, 64, random); break;
            case 1: s = random_subset(static_cast<std::uint32_t>(random.below(4000)), 80, 64, random); break;
            case 2:
                s = random_subset(0, 40, 32, random);
                s.merge(random_subset(4050, 46, 32, random));
                break;
            case 3:
                for (unsigned j = 0; j < 64; ++j) s.insert(static_cast<std::uint16_t>(63 + 64 * j));
                break;
            case 4:
                for (unsigned j = 0; j < 64; ++j) s.insert(static_cast<std::uint16_t>(4032 + j));
                break;
            default:
                s = {4095, 3839, 3840, 255, 256, 511, 512};  // gaps around the escape
                while (s.size() < 64) s.insert(static_cast<std::uint16_t>(random.below(4096)));
        }
        append(p, s);
    }
    return p;
}

void check_round_trip(std::size_t count, const subset_shape& shape, const subset_shape& last, const places& p) {
    byte_vector wire(gaps_bytes(count, shape, last), std::byte{0xee});
    encode_gaps(count, shape, last, p, wire);
    places out(p.size(), 0xffff);
    REQUIRE(decode_gaps(count, shape, last, wire, out));
    REQUIRE(out == p);
}

}  // namespace

TEST_CASE("64 of 4,096 as gaps cost 7.47 bits each, whatever they are, and any subset fits the bytes of one") {
    const auto shape = subset_shape::of(4096, 64);
    const auto bits = static_cast<double>(gaps_bytes(1000, shape, {})) * 8 / 64'000;
    CHECK(bits > 6 + 63 * std::log2(64.0 / 63));  // what a gap takes at least, on average
    CHECK(bits < 7.48);
    seeded_entropy random(1);
    const auto p = some_runs(600, random);
    check_round_trip(600, shape, {}, p);
    for (std::size_t i = 0; i < 600; ++i) {
        const auto at = p.begin() + static_cast<std::ptrdiff_t>(i * 64);
        check_round_trip(1, shape, {}, places(at, at + 64));
    }
}

TEST_CASE("golden bytes: four of 1,024") {
    const auto last = subset_shape::of(1024, 4);
    const places p{0, 5, 300, 1023};  // gaps 0, 4, 256 + 38, 2 · 256 + 210
    byte_vector wire(gaps_bytes(0, {}, last));
    encode_gaps(0, {}, last, p, wire);
    CHECK(to_hex(wire) == "0c034416eb470000c37372fb");
}

TEST_CASE("last runs of any length and share come back") {
    seeded_entropy random(2);
    for (std::uint32_t n = 1; n <= 4096; n += n < 130 ? 1 : 37) {
        const auto k = (n * 64 + 4095) / 4096;
        places p;
        append(p, random_subset(0, n, k, random));
        check_round_trip(0, {}, subset_shape::of(n, k), p);
        places all(std::min(n, 64U));
        for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(n - all.size() + i);
        check_round_trip(0, {}, subset_shape::of(n, static_cast<std::uint32_t>(all.size())), all);
    }
}

TEST_CASE("bytes that no gaps make are refused, and what is accepted is ascending and in bounds") {
    seeded_entropy random(3);
    const auto shape = subset_shape::of(4096, 64), last = subset_shape::of(1000, 16);
    auto p = some_runs(6, random);
    append(p, random_subset(0, 1000, 16, random));
    byte_vector wire(gaps_bytes(6, shape, last));
    encode_gaps(6, shape, last, p, wire);
    places out(p.size());
    CHECK_FALSE(decode_gaps(6, shape, last, const_bytes(wire).first(7), out));
    const auto check = [&](const byte_vector& broken) {
        if (!decode_gaps(6, shape, last, broken, out)) return;
        byte_vector again(wire.size());
        encode_gaps(6, shape, last, out, again);
        CHECK(again == broken);  // other gaps' own bytes
        for (std::size_t i = 0; i < out.size(); ++i) {
            REQUIRE(out[i] < (i < 6 * 64 ? 4096 : 1000));
            if (i % 64 != 0) REQUIRE(out[i] > out[i - 1]);
        }
    };
    for (std::size_t bit = 0; bit < wire.size() * 8; ++bit) {
        auto broken = wire;
        broken[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        check(broken);
    }
    for (int i = 0; i < 20'000; ++i) {
        byte_vector noise(wire.size());
        random.fill(noise);
        if (i % 2 == 0) noise[7] = static_cast<std::byte>(std::to_integer<unsigned>(noise[7]) & 0x7fU);
        if (i % 3 == 0) std::fill(noise.begin() + 20, noise.end(), static_cast<std::byte>(0xff));  // escapes
        check(noise);
    }
}

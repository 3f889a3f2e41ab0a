#include "compress/low_rank.hpp"

#include <algorithm>
#include <numeric>

#include "core/entropy.hpp"
#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

tensor_manifest matrix(std::int64_t rows, std::int64_t columns) {
    return *tensor_manifest::make({{"w", {rows, columns}}});
}

/// The sum of `rank` products, each half as large as the one before.
flat_buffer of_rank(std::size_t rank, std::size_t rows, std::size_t columns) {
    flat_buffer m(rows * columns, 0.0F);
    for (std::size_t k = 0; k < rank; ++k)
        for (std::size_t i = 0; i < rows; ++i)
            for (std::size_t j = 0; j < columns; ++j)
                m[i * columns + j] +=
                    std::ldexp(random_normal(2 * k, i) * random_normal(2 * k + 1, j), -static_cast<int>(k));
    return m;
}

}  // namespace

TEST_CASE("a matrix of rank four comes back, up to the rounding of its factors") {
    const auto m = matrix(96, 80);
    const auto values = of_rank(4, 96, 80);
    const auto wire = encoded(low_rank_4_codec(), m, values);
    CHECK(wire.size() == (96 + 80) * 4 * 2);
    const auto out = decoded(low_rank_4_codec(), m, wire);
    CHECK(std::sqrt(error2(values, out) / norm2(values)) < 0x1p-7);
    // Of rank one: three columns of the basis hang on the first, and are zero.
    const auto one = of_rank(1, 96, 80);
    const auto again = decoded(low_rank_4_codec(), m, encoded(low_rank_4_codec(), m, one));
    CHECK(std::sqrt(error2(one, again) / norm2(one)) < 0x1p-7);
}

TEST_CASE("a part of a matrix that begins and ends within rows is coded as those rows") {
    const auto m = matrix(200, 100);
    const auto values = of_rank(3, 200, 100);
    const range r(m, 5050, 9000);
    REQUIRE(r.pieces().size() == 1);
    CHECK(r.pieces()[0].row == 100);
    CHECK(r.pieces()[0].skipped == 50);
    const auto part = std::span(values).subspan(5050, 9000);
    byte_vector wire(low_rank_4_codec().range_bytes(r));
    CHECK(wire.size() == (91 + 100) * 4 * 2);
    flat_buffer left(part.begin(), part.end()), out(9000);
    longhaul::compress::remainder rest{left};
    REQUIRE(low_rank_4_codec().encode(r, part, {}, wire, &rest));
    REQUIRE(low_rank_4_codec().decode(r, wire, out));
    // Half of the first and of the last row are missing, and with them some of the low rank.
    CHECK(std::sqrt(error2(part, out) / norm2(part)) < 0.15);
    for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(left[i] == part[i] - out[i]);
    CHECK(rest.sent == Approx(std::accumulate(out.begin(), out.end(), 0.0)));
}

TEST_CASE("whatever the matrix, less is left than there was") {
    seeded_entropy random(6);
    for (int round = 0; round < 60; ++round) {
        const auto rows = 64 + random.below(100), columns = 64 + random.below(100);
        auto values = some_values(rows * columns, random.u64());
        if (round % 3 == 0)
            for (auto& v : values) v *= std::ldexp(1.0F, -static_cast<int>(random.below(130)));
        if (round % 7 == 0) std::ranges::fill(values, 0x1p99F);
        const auto m = matrix(static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns));
        const auto out = decoded(low_rank_4_codec(), m, encoded(low_rank_4_codec(), m, values));
        // Even of noise, four directions of r hold at least four shares of it.
        const double shares = 4.0 / static_cast<double>(std::min(rows, columns));
        REQUIRE(error2(values, out) <= (1 - 0.9 * shares) * norm2(values));
    }
}

TEST_CASE("a payload goes on from the one before: over rounds the basis turns to the best one") {
    const auto m = matrix(128, 128);
    const range whole(m);
    // Slowly falling singular values: one step from a random start finds little of the best four.
    auto values = of_rank(12, 128, 128);
    const auto noise = some_values(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.3F * values[i] + 3 * noise[i];
    auto wire = encoded(low_rank_4_codec(), m, values);
    const double first = error2(values, decoded(low_rank_4_codec(), m, wire));
    for (int round = 0; round < 8; ++round) {
        auto next = wire;
        rounding how;
        how.before = wire;
        REQUIRE(low_rank_4_codec().encode(whole, values, how, next));
        wire = next;
    }
    CHECK(error2(values, decoded(low_rank_4_codec(), m, wire)) < 0.99 * first);
}

TEST_CASE("matrices that are too thin go as bf16, and values that are too large are refused") {
    const auto thin = matrix(2, 4000);
    CHECK(low_rank_4_codec().range_bytes(range(thin)) == 16'000);
    const auto values = some_values(8000);
    const auto out = decoded(low_rank_4_codec(), thin, encoded(low_rank_4_codec(), thin, values));
    for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(std::abs(out[i] - values[i]) <= 0x1p-8F * std::abs(values[i]));

    const auto m = matrix(80, 80);
    flat_buffer large(6400, 1.0F);
    large[77] = 0x1.1p100F;
    byte_vector wire(low_rank_4_codec().range_bytes(range(m)));
    const auto refused = low_rank_4_codec().encode(range(m), large, {}, wire);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::limit);
    CHECK(refused.error().message.starts_with("tensor \"w\" holds 1.3"));
}

TEST_CASE("golden bytes: a matrix of ones") {
    const flat_buffer ones(6400, 1.0F);
    const auto wire = encoded(low_rank_4_codec(), matrix(80, 80), ones);
    // The basis has one column, 1/√80 = 0.1118 (0x3de5, the sign as the random start gives it), and Q = 80/√80
    // = 8.9375.
    CHECK(to_hex(const_bytes(wire).first(10)) == "e53d000000000000e53d");
    CHECK(to_hex(const_bytes(wire).subspan(640, 10)) == "0f410000000000000f41");
}

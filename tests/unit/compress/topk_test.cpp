#include "compress/topk.hpp"

#include <algorithm>
#include <numeric>

#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

/// What the codec is to give back, written again from its description.
flat_buffer reference(std::span<const float> v, std::size_t keep, std::size_t run) {
    flat_buffer out(v.size(), 0.0F);
    const std::size_t together = 256 / keep * run;
    for (std::size_t group = 0; group < v.size(); group += together) {
        std::vector<std::size_t> kept;
        for (auto first = group; first < std::min(group + together, v.size()); first += run) {
            std::vector<std::size_t> order(std::min(run, v.size() - first));
            std::iota(order.begin(), order.end(), first);
            std::ranges::stable_sort(order, [&](auto a, auto b) { return std::abs(v[a]) > std::abs(v[b]); });
            order.resize((order.size() * keep + run - 1) / run);
            kept.insert(kept.end(), order.begin(), order.end());
        }
        double mean = 0, low = 0, high = 0, above = 0;
        for (const auto i : kept) mean += static_cast<double>(std::abs(v[i])) / static_cast<double>(kept.size());
        const auto is_high = [&](std::size_t i) { return static_cast<double>(std::abs(v[i])) > mean; };
        for (const auto i : kept) {
            (is_high(i) ? high : low) += static_cast<double>(std::abs(v[i]));
            above += is_high(i) ? 1 : 0;
        }
        low /= std::max(1.0, static_cast<double>(kept.size()) - above);
        high /= std::max(1.0, above);
        for (const auto i : kept) out[i] = std::copysign(static_cast<float>(is_high(i) ? high : low), v[i]);
    }
    return out;
}

}  // namespace

TEST_CASE("the largest of each run are kept, as a sign and one of two means") {
    const struct {
        const codec& c;
        std::size_t keep, run;
    } cases[] = {{topk_64_4096_codec(), 64, 4096}, {topk_4_64_codec(), 4, 64}};
    for (const auto& [c, keep, run] : cases) {
        for (const std::size_t n : {4096U, 5000U, 16384U, 16384U * 2 + 4096 * 3 + 17, 40'001U}) {
            INFO(c.name() << ", " << n);
            const auto values = some_values(n);
            const auto out = through(c, values);
            const auto expected = reference(values, keep, run);
            for (std::size_t i = 0; i < n; ++i)
                REQUIRE(static_cast<double>(out[i]) == Approx(static_cast<double>(expected[i])).epsilon(0.004));
        }
    }
}

TEST_CASE("a megabyte of parameters takes 0.150 bits each in SparseLoCo's setting") {
    const auto n = std::size_t{1} << 20;
    const auto m = matrix_of(n);
    CHECK(static_cast<double>(topk_64_4096_codec().range_bytes(range(m))) * 8 / static_cast<double>(n) < 0.1505);
}

TEST_CASE("what top-k loses is at most what it did not keep and what two means lose") {
    const auto values = some_values(100'000);
    // Contraction: at least k/C of the norm is kept, up to the values' two means.
    CHECK(error2(values, through(topk_64_4096_codec(), values)) < (1 - 64.0 / 4096) * norm2(values));
    CHECK(error2(values, through(topk_4_64_codec(), values)) < (1 - 4.0 / 64) * norm2(values));
}

#include "core/counter_random.hpp"

#include <cstdlib>
#include <vector>

#include "tests/test.hpp"

using namespace longhaul;

TEST_CASE("random numbers by position") {
    // Fixed for ever: data order and simulated runs depend on them (tests/golden/counter_random.py has the same in
    // Python).
    CHECK(core::random_bits(1, 0) == 0x5e41ab087439611eULL);
    CHECK(core::random_normal(42, 0) == 0.840789794921875F);
    CHECK(core::random_normal(42, 1) == -1.5704345703125F);
    CHECK(core::random_below(9, 0, 7) == 6);
    double sum = 0, squares = 0;
    const int n = 20000;
    for (int i = 0; i < n; ++i) {
        const double x = static_cast<double>(core::random_normal(42, static_cast<std::uint64_t>(i)));
        sum += x;
        squares += x * x;
    }
    CHECK(sum / n == Approx(0).margin(0.03));
    CHECK(squares / n == Approx(1).margin(0.04));
    std::vector<int> hits(7);
    for (std::uint64_t i = 0; i < 7000; ++i) ++hits[core::random_below(9, i, 7)];
    for (const int h : hits) CHECK(std::abs(h - 1000) < 150);
}

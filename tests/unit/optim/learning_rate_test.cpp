#include "optim/schedule.hpp"

#include <cmath>

#include "tests/test.hpp"

using namespace longhaul;

TEST_CASE("the learning rate warms up, falls along a cosine and ends at its share") {
    optim::inner_config c;
    c.lr = 2;
    c.warmup = 100;
    c.final_share = 0.1;
    CHECK(optim::learning_rate(c, 0, 1100) == Approx(0.02));
    CHECK(optim::learning_rate(c, 49, 1100) == Approx(1));
    CHECK(optim::learning_rate(c, 99, 1100) == 2);
    CHECK(optim::learning_rate(c, 100, 1100) == Approx(2));
    CHECK(optim::learning_rate(c, 600, 1100) == Approx(2 * 0.55));
    CHECK(optim::learning_rate(c, 1100, 1100) == Approx(0.2));
    // A run that goes on after its end stays there.
    CHECK(optim::learning_rate(c, 5000, 1100) == Approx(0.2));
    for (std::uint64_t p = 100; p < 1100; p += 7) {
        const double progress = static_cast<double>(p - 100) / 1000;
        CHECK(optim::learning_rate(c, p, 1100) ==
              Approx(2 * (0.1 + 0.9 * 0.5 * (1 + std::cos(M_PI * progress)))).epsilon(1e-14));
    }
}

TEST_CASE("the learning rate without warm-up, with a constant schedule, and in degenerate runs") {
    optim::inner_config c;
    c.lr = 3;
    c.warmup = 0;
    c.schedule = "constant";
    CHECK(optim::learning_rate(c, 0, 10) == 3);
    CHECK(optim::learning_rate(c, 10'000, 10) == 3);
    c.schedule = "cosine";
    CHECK(optim::learning_rate(c, 0, 0) == 3);
    c.warmup = 50;
    CHECK(optim::learning_rate(c, 60, 20) == Approx(0.3));
}

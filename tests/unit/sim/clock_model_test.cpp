#include "sim/clock_model.hpp"

#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;

TEST_CASE("virtual_at is the first moment at which the clock shows the time asked for") {
    core::seeded_entropy random(5);
    for (const std::int64_t drift : {0, 1, -1, 200, -200, 100'000, -100'000, 499'999, -499'999}) {
        sim::clock_model c(3s, core::time_point(1h));
        c.set_drift(10s, drift);
        for (int i = 0; i < 200; ++i) {
            const auto wanted =
                c.local(10s) + core::duration(1 + static_cast<std::int64_t>(random.below(1'000'000'000'000)));
            const auto at = c.virtual_at(wanted);
            CAPTURE(drift, wanted.time_since_epoch().count(), at.count());
            REQUIRE(c.local(at) >= wanted);
            REQUIRE(c.local(at - 1ns) < wanted);
        }
    }
}

TEST_CASE("a clock that gains 100,000 ppm shows 11 seconds after ten, and keeps going on when the drift ends") {
    sim::clock_model c(0s, core::time_point(1h));
    c.set_drift(0s, 100'000);
    CHECK(c.local(10s) == core::time_point(1h + 11s));
    c.set_drift(10s, 0);
    CHECK(c.local(10s) == core::time_point(1h + 11s));
    CHECK(c.local(20s) == core::time_point(1h + 21s));
    c.set_drift(20s, -100'000);
    CHECK(c.local(30s) == core::time_point(1h + 30s));
}

TEST_CASE("a time beyond a century is never") {
    const sim::clock_model c(0s, core::time_point(1h));
    CHECK(c.virtual_at(core::time_point::max()) == sim::never);
    CHECK(c.virtual_at(core::time_point(0s)) == 0s);
}

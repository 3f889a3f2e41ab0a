// Who is asked for which chunks of a state, and how much of a donor's line that may take.

#include "peers/download_plan.hpp"

#include <cmath>
#include <map>

#include "peers/donor_pace.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace std::chrono_literals;

TEST_CASE("every chunk is asked for once while donors bring what they are asked for") {
    download_plan plan(10, 4);
    core::time_point now{};
    const auto a = plan.next(0, now), b = plan.next(1, now), c = plan.next(0, now);
    REQUIRE(a);
    REQUIRE(b);
    REQUIRE(c);
    CHECK(*a == chunk_span{0, 4});
    CHECK(*b == chunk_span{4, 4});
    CHECK(*c == chunk_span{8, 2});
    CHECK_FALSE(plan.next(1, now));
    plan.arrived(0, *a, now + 1s);
    plan.arrived(0, *c, now + 1s);
    CHECK(plan.has(*a));
    CHECK_FALSE(plan.has(*b));
    CHECK_FALSE(plan.complete());
    plan.arrived(1, *b, now + 1s);
    CHECK(plan.complete());
    plan.arrived(1, *b, now + 1s);
    CHECK(plan.complete());
}

TEST_CASE("what a donor gives up goes to another one") {
    download_plan plan(2, 1);
    const core::time_point now{};
    REQUIRE(plan.next(0, now) == chunk_span{0, 1});
    REQUIRE(plan.next(0, now) == chunk_span{1, 1});
    CHECK_FALSE(plan.next(1, now));
    plan.given_up(0, {0, 1});
    CHECK(plan.next(1, now) == chunk_span{0, 1});
}

TEST_CASE("a piece that takes far longer than another donor's is asked of that one, and the first to bring it counts") {
    download_plan plan(3, 1);
    core::time_point now{};
    REQUIRE(plan.next(0, now));
    REQUIRE(plan.next(1, now));
    REQUIRE(plan.next(1, now));
    now += 1s;
    plan.arrived(1, {1, 1}, now);
    plan.arrived(1, {2, 1}, now);
    CHECK_FALSE(plan.next(1, now));
    now += 1050ms;  // twice a second, and a little more, since it was asked for
    CHECK_FALSE(plan.next(1, now));
    now += 1ms;
    CHECK_FALSE(plan.next(0, now));  // the one that is slow itself
    CHECK_FALSE(plan.next(2, now));  // nobody knows how fast this one is
    CHECK(plan.next(1, now) == chunk_span{0, 1});
    CHECK_FALSE(plan.next(2, now + 1h));  // two are enough
    plan.arrived(0, {0, 1}, now);
    CHECK(plan.has({0, 1}));
    CHECK(plan.complete());
}

TEST_CASE("donors share a download in proportion to their lines, through the death of one of them") {
    download_plan plan(400, 4);
    // Seconds a piece takes on each line; four pieces are under way at a time and share it.
    const std::vector<double> seconds{0.04, 0.08, 0.16};
    struct flight {
        std::uint32_t donor;
        chunk_span piece;
    };
    std::multimap<double, flight> flying;
    std::vector<double> free_at(3, 0.0);
    std::map<std::uint32_t, std::uint32_t> brought;
    bool dead = false;
    const auto ask = [&](std::uint32_t donor, double now) {
        const auto p = plan.next(donor, core::time_point(core::from_seconds(now)));
        if (!p) return;
        free_at[donor] = std::max(free_at[donor], now) + seconds[donor];
        flying.emplace(free_at[donor], flight{donor, *p});
    };
    for (std::uint32_t d = 0; d < 3; ++d) {
        for (int lane = 0; lane < 4; ++lane) ask(d, 0);
    }
    double now = 0;
    while (!plan.complete()) {
        REQUIRE_FALSE(flying.empty());
        now = flying.begin()->first;
        const auto f = flying.begin()->second;
        flying.erase(flying.begin());
        if (f.donor == 2 && dead) {
            plan.given_up(2, f.piece);
        } else {
            plan.arrived(f.donor, f.piece, core::time_point(core::from_seconds(now)));
            brought[f.donor] += f.piece.count;
        }
        if (brought[0] + brought[1] + brought[2] > 280) dead = true;
        for (std::uint32_t d = 0; d < (dead ? 2U : 3U); ++d) {
            if (d == f.donor || dead) ask(d, now);
        }
    }
    CHECK(brought[0] > 1.6 * brought[1]);
    CHECK(brought[0] < 2.3 * brought[1]);
    CHECK(brought[1] > 1.6 * brought[2]);
    // 100 pieces at 25 + 12.5 (+ 6.25 while it lives) pieces a second.
    CHECK(now < 2.7);
}

TEST_CASE("a tenth of a donor's line goes to joiners beside payloads, however often they ask") {
    donor_pace pace;
    const core::time_point begun{};
    const auto share_of_ten_seconds = [&](core::duration at, core::duration waited) {
        std::uint64_t taken = 0;
        for (int ms = 0; ms < 10'000; ms += 20) {
            const auto now = begun + at + std::chrono::milliseconds(ms);
            if (pace.take(256 * 1024, 12.5e6, waited, now)) taken += 256 * 1024;
        }
        return static_cast<double>(taken) / (10 * 12.5e6);
    };
    CHECK(std::abs(share_of_ten_seconds(0s, 1s) - 0.1) < 0.01);
    // When somebody has waited for a minute, a half.
    CHECK(std::abs(share_of_ten_seconds(10s, 61s) - 0.5) < 0.02);
    CHECK(pace.take(1 << 30, 0, 0s, begun));  // nobody knows the line
}

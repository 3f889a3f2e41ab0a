#include "sim/link_model.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;
using sim::rate_line;

TEST_CASE("a line passes S bytes in S/r, to the nanosecond, however they are cut") {
    // 7 Mbit/s: no whole number of nanoseconds a byte.
    core::seeded_entropy random(3);
    for (int round = 0; round < 50; ++round) {
        rate_line line({7e6});
        std::uint64_t bytes = 0;
        sim::virtual_time done{};
        for (int i = 0; i < 100; ++i) {
            const auto n = 1 + random.below(100'000);
            bytes += n;
            done = line.pass(5ms, 5ms, n);
        }
        CHECK(done == 5ms + core::duration(static_cast<std::int64_t>((bytes * 8'000'000'000 + 6'999'999) / 7'000'000)));
        CHECK(line.free_at() == done);
    }
}

TEST_CASE("an unlimited line passes everything at once") {
    rate_line line;
    CHECK_FALSE(line.limited());
    CHECK(line.pass(1s, 2s, 1'000'000'000) == 2s);
}

TEST_CASE("two lines in a row take the time of the slower one") {
    for (const auto& [first, second] : {std::pair(10e6, 3e6), std::pair(3e6, 10e6), std::pair(7e6, 7e6)}) {
        rate_line up({first}), down({second});
        const int segments = 40;
        const std::uint64_t bytes = 16'384;
        sim::virtual_time done{};
        for (int i = 0; i < segments; ++i) {
            const auto begun = std::max(up.free_at(), sim::virtual_time(0));
            const auto sent = up.pass(begun, begun, bytes);
            done = down.pass(begun + 20ms, sent + 20ms, bytes);
        }
        CAPTURE(first, second);
        CHECK(done == 20ms + rate_line({std::min(first, second)}).time_for(segments * bytes));
    }
}

TEST_CASE("a slow sender does not occupy a fast line for longer than its bytes need") {
    rate_line down({8e6});  // 1 byte a microsecond
    // 1000 bytes trickle in over one second: the line is busy only for the last millisecond of it.
    CHECK(down.pass(0s, 1s, 1000) == 1s);
    // What comes a moment later waits for nobody.
    CHECK(down.pass(1s, 1s + 500us, 500) == 1s + 500us);
}

TEST_CASE("a changed rate holds for the bytes that come later") {
    rate_line line({8e6});
    CHECK(line.pass(0s, 0s, 1000) == 1ms);
    line.set_rate({8e3});
    CHECK(line.pass(0s, 0s, 1) == 2ms);
    line.set_rate({});
    CHECK(line.pass(5ms, 5ms, 1) == 5ms);
}

TEST_CASE("jitter is uniform in its range") {
    core::seeded_entropy random(9);
    double sum = 0;
    core::duration smallest = 1s, largest{};
    for (int i = 0; i < 20'000; ++i) {
        const auto j = sim::draw_jitter(random, 10ms);
        smallest = std::min(smallest, j);
        largest = std::max(largest, j);
        sum += core::to_seconds(j);
    }
    CHECK(smallest >= 0s);
    CHECK(smallest < 100us);
    CHECK(largest <= 10ms);
    CHECK(largest > 9900us);
    // The mean's deviation is 10 ms / sqrt(12 · 20,000) = 20 µs.
    CHECK(sum / 20'000 == Approx(0.005).margin(0.0001));
    CHECK(sim::draw_jitter(random, 0s) == 0s);
}

TEST_CASE("as many packets are lost as the probability says, and each costs what TCP pays for it") {
    core::seeded_entropy random(1);
    std::uint64_t lost = 0;
    int hit = 0;
    for (int i = 0; i < 20'000; ++i) {
        const auto p = sim::draw_loss(random, 0.01, 10 * sim::packet_bytes, true, 80ms);
        lost += p.lost;
        if (p.lost == 0) {
            REQUIRE(p.delay == 0s);
        } else {
            ++hit;
            // One round trip, or that and 280 ms, 280 + 560…: repetitions that were lost.
            REQUIRE((p.delay == 80ms || p.delay == 360ms || p.delay == 920ms || p.delay == 2040ms));
        }
    }
    // 200,000 packets: 2000 ± 45 lost, and every hundredth repetition.
    CHECK(lost > 1800);
    CHECK(lost < 2250);
    // 1 − 0.99^10 = 9.6 % of the segments.
    CHECK(hit > 1750);
    CHECK(hit < 2080);
}

TEST_CASE("a lost tail waits for the retransmission timeout") {
    core::seeded_entropy random(1);
    const auto tail = sim::draw_loss(random, 0.999, 100, false, 80ms);
    CHECK(tail.delay >= sim::retransmission_timeout(80ms));
    CHECK(sim::draw_loss(random, 0, 1'000'000, false, 80ms).lost == 0);
}

TEST_CASE("a stalled sender tries again after 1, 3, 7… timeouts, never later than two minutes after the heal") {
    CHECK(sim::next_retry(10s, 10s, 100ms) == 10s);
    CHECK(sim::next_retry(10s, 10s + 1ns, 100ms) == 10s + 300ms);
    CHECK(sim::next_retry(10s, 10s + 300ms, 100ms) == 10s + 300ms);
    CHECK(sim::next_retry(10s, 10s + 301ms, 100ms) == 10s + 900ms);
    CHECK(sim::next_retry(10s, 10s + 2s, 100ms) == 10s + 2100ms);
    CHECK(sim::next_retry(0s, 3600s, 100ms) <= 3720s);
}

// Limits and the guard of control, in virtual time.

#include "net/pacing.hpp"

#include "core/entropy.hpp"
#include "net/delay_guard.hpp"
#include "net/telemetry.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::net;
using namespace std::chrono_literals;

TEST_CASE("over any period no more passes than the rate and one burst") {
    core::seeded_entropy random(3);
    pacer p(1e6);
    core::time_point now{};
    std::vector<std::pair<core::time_point, std::uint64_t>> passed;
    for (int i = 0; i < 3000; ++i) {
        if (random.below(20) == 0) now += std::chrono::milliseconds(random.below(200));
        const auto n = 1 + random.below(p.portion());
        const auto at = std::max(now, p.take(now, n));
        const auto unused = random.below(3) == 0 ? random.below(n) : 0;  // the socket took less
        p.give_back(unused);
        passed.emplace_back(at, n - unused);
        now = at;
    }
    for (std::size_t i = 0; i < passed.size(); i += 37) {
        std::uint64_t sum = 0;
        for (std::size_t j = i; j < passed.size(); ++j) {
            sum += passed[j].second;
            const double seconds = core::to_seconds(passed[j].first - passed[i].first) + core::to_seconds(pacer::burst);
            // What passes last began within the period and ends after it.
            REQUIRE(static_cast<double>(sum - passed[j].second) <= seconds * 1e6 + 1);
        }
    }
}

TEST_CASE("a busy sender gets the whole rate, and what control takes is taken from bulk") {
    pacer p(1e6);
    core::time_point now{};
    std::uint64_t bulk = 0, control = 0;
    while (now < core::time_point{} + 100s) {
        while (control < static_cast<std::uint64_t>(core::to_seconds(now.time_since_epoch()) * 1e5)) {
            p.take(now, 500);  // does not wait
            control += 500;
        }
        now = std::max(now, p.take(now, p.portion()));
        bulk += p.portion();
    }
    CHECK(static_cast<double>(bulk + control) == Approx(100e6).epsilon(0.001));
    CHECK(static_cast<double>(control) == Approx(10e6).epsilon(0.01));
}

TEST_CASE("without a limit nothing waits") {
    pacer p;
    const core::time_point now{5s};
    CHECK(p.take(now, 1 << 30) == now);
    CHECK(p.took(now, 1 << 30) == now);
    CHECK(p.portion() > (1U << 30U));
}

TEST_CASE("headers and acknowledgements are estimated by packets") {
    CHECK(with_headers(1) == 53);
    CHECK(with_headers(1448) == 1500);
    CHECK(with_headers(1449) == 1553);
    CHECK(acknowledgements(2896) == 52);
}

namespace {

/// A bottleneck with one queue that bulk and control share, and a sender that takes what the guard lets it.
struct bottleneck {
    double rate, rtt, buffer;  ///< bytes per second, seconds, bytes
    double wants;              ///< what bulk would send, bytes per second
    double queue = 0, delivered = 0;
    delay_guard guard;
    core::time_point now{1s};
    double worst_late = 0, delivered_late = 0;  ///< after the first two seconds

    void run(double seconds) {
        const double step = 0.005;
        double probed = 0;
        for (double t = 0; t < seconds; t += step) {
            now += 5ms;
            const double sends = guard.limit() > 0 ? std::min(wants, guard.limit()) : wants;
            queue = std::min(buffer, queue + sends * step);
            const double through = std::min(queue, rate * step);
            queue -= through;
            delivered += through;
            guard.delivered(now, static_cast<std::uint64_t>(delivered));
            const double delay = queue / rate;
            if (t > 2) {
                worst_late = std::max(worst_late, delay);
                delivered_late += through;
            }
            if (t - probed > rtt / 2) {
                probed = t;
                guard.round_trip(now, core::from_seconds(rtt + delay), core::from_seconds(delay));
            }
        }
    }
};

}  // namespace

TEST_CASE("bulk that would fill the queue is held so that control's round trip stays near its least") {
    for (const double rate : {1.25e6, 12.5e6, 125e6}) {
        for (const double rtt : {0.02, 0.1, 0.3}) {
            bottleneck b{.rate = rate, .rtt = rtt, .buffer = rate * std::max(rtt, 0.1), .wants = 3 * rate};
            b.run(30);
            INFO("rate " << rate << ", RTT " << rtt << ", worst " << b.worst_late);
            CHECK(b.worst_late < 0.075);
            CHECK(b.delivered_late > 0.95 * rate * 28);
        }
    }
}

TEST_CASE("bulk that makes no queue is not held") {
    bottleneck b{.rate = 10e6, .rtt = 0.1, .buffer = 1e6, .wants = 9e6};
    b.run(10);
    CHECK(b.guard.limit() == 0);
    CHECK_FALSE(b.guard.queueing());
}

TEST_CASE(
    "bulk that makes no queue is not held because of the queue on the way back, and its own is drained beside that") {
    constexpr auto other_clock = 7'000'000'000ULL;  // microseconds
    for (const auto own : {0ms, 80ms}) {
        delay_guard g;
        outward_queueing outward;
        core::time_point now{1s};
        for (int i = 0; i < 200; ++i) {
            now += 50ms;
            g.delivered(now, static_cast<std::uint64_t>(i) * 50'000);  // 1 MB/s
            const auto out = i < 20 ? 0ms : own, back = i < 20 ? 0ms : 90ms;
            const auto apart = other_clock + static_cast<std::uint64_t>(std::chrono::microseconds(25ms + out).count());
            g.round_trip(now, 50ms + out + back, outward.add(now, apart, out + back));
        }
        CHECK((g.limit() > 0) == (own > 0ms));
        CHECK(g.queueing() == (own > 0ms));
    }
}

TEST_CASE("a delay that bulk does not make takes half of it at most, and a single late answer nothing") {
    delay_guard g;
    core::time_point now{1s};
    std::uint64_t total = 0;
    const auto flow = [&](double rate, core::duration rtt, int steps) {
        for (int i = 0; i < steps; ++i) {
            now += 50ms;
            total += static_cast<std::uint64_t>(rate * 0.05);
            g.delivered(now, total);
            const auto taken = i % 2 == 0 ? rtt : std::min<core::duration>(rtt, 400ms);
            g.round_trip(now, taken, taken - 50ms);
        }
    };
    flow(1e6, 55ms, 20);
    g.round_trip(now, 500ms, 450ms);
    CHECK(g.limit() == 0);
    CHECK_FALSE(g.queueing());
    flow(1e6, 55ms, 20);
    flow(1e6, 400ms, 100);  // a queue of somebody else
    CHECK(g.queueing());
    CHECK(g.limit() == Approx(0.5e6).epsilon(0.05));
    flow(1e6, 55ms, 80);  // it is gone: bulk is let go again
    CHECK(g.limit() == 0);
}

TEST_CASE("two links that share a line do not hold each other down, and one that is alone again takes all of it") {
    constexpr double line = 1.25e6, rtt = 0.1;
    std::array<delay_guard, 2> guards;
    std::array<double, 2> delivered{};
    core::time_point now{1s};
    double queue = 0, probed = 0, late = 0;
    const auto run = [&](double seconds, bool both) {
        late = 0;
        for (double t = 0; t < seconds; t += 0.005) {
            now += 5ms;
            std::array<double, 2> sends{};
            for (std::size_t i = 0; i < (both ? 2U : 1U); ++i) {
                const double limit = guards[i].limit();
                sends[i] = limit > 0 ? std::min(limit, 1.5 * line) : 1.5 * line;
            }
            const double all = sends[0] + sends[1];
            queue = std::min(line * rtt, queue + all * 0.005);
            const double through = std::min(queue, line * 0.005);
            queue -= through;
            for (std::size_t i = 0; i < 2; ++i) {
                delivered[i] += through * sends[i] / all;
                if (sends[i] > 0) guards[i].delivered(now, static_cast<std::uint64_t>(delivered[i]));
            }
            if (t > seconds / 2) late += through;
            if ((probed += 0.005) < rtt / 2) continue;
            probed = 0;
            for (auto& g : guards) {
                g.round_trip(now, core::from_seconds(rtt + queue / line), core::from_seconds(queue / line));
            }
        }
    };
    run(10, true);
    CHECK(late > 0.85 * line * 5);
    guards[1].idle();
    run(4, false);
    CHECK(late > 0.9 * line * 2);
}

TEST_CASE("bulk that comes again after a pause is not held to what a queue of long ago asked for") {
    delay_guard g;
    core::time_point now{1s};
    std::uint64_t total = 0;
    for (int i = 0; i < 60; ++i) {
        now += 50ms;
        total += 50'000;  // 1 MB/s, whatever the limit
        g.delivered(now, total);
        g.round_trip(now, i < 30 ? 100ms : 400ms, i < 30 ? 0ms : 300ms);
    }
    REQUIRE(g.limit() > 0);
    REQUIRE(g.limit() < 0.6e6);
    g.idle();
    CHECK(g.limit() > 0.9e6);
}

TEST_CASE("a count of delivered bytes that falls is no rate") {
    delay_guard g;
    core::time_point now{1s};
    std::uint64_t total = 100'000'000;
    for (int i = 0; i < 200; ++i) {
        now += 25ms;
        total += 25'000;  // 1 MB/s
        if (i == 100) total -= 1'000'000;
        g.delivered(now, total);
        g.round_trip(now, 300ms, 250ms);  // a queue: bulk is held below what the path delivers
        REQUIRE(g.limit() < 1.2e6);
    }
    CHECK(g.limit() > 0);
}

TEST_CASE("acknowledgements that come in clumps do not pass for a slow path") {
    constexpr double path = 10e6;
    delay_guard g;
    core::time_point now{1s};
    double delivered = 0;
    double least = path;
    for (int window = 0; window < 100; ++window) {
        const double share = window % 4 == 3 ? 1.9 : 0.7;  // on average all that the path carries
        for (int i = 0; i < 4; ++i) {
            now += 25ms;
            delivered += share * path * 0.025;
            g.delivered(now, static_cast<std::uint64_t>(delivered));
            g.round_trip(now, window > 20 ? 145ms : 100ms, window > 20 ? 45ms : 0ms);
            if (g.limit() > 0) least = std::min(least, g.limit());
        }
    }
    CHECK(g.queueing());
    CHECK(least > 0.9 * path);
}

// The number of connections, on links whose goodput is a formula.

#include "net/stream_count.hpp"

#include <functional>
#include <set>

#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::net;
using namespace std::chrono_literals;

namespace {

/// A link: goodput in bytes per second by the number of connections.
struct model {
    double rtt;
    double window;  ///< bytes in flight of one connection, as the kernel tells it
    std::function<double(unsigned)> goodput;
    double capacity;  ///< from there on a queue stands in the path
};

/// Bytes of a transfer that is large for every link.
constexpr std::uint64_t endless = std::uint64_t{1} << 40;

/// A link on which `per_stream` bytes per second is what one connection carries.
model limited(double capacity, double rtt, double window, double per_stream) {
    return {rtt, window, [=](unsigned k) { return std::min(capacity, k * per_stream); }, capacity};
}

struct run {
    unsigned at_end = 0;
    std::vector<unsigned> changes;  ///< every number that was wanted, in order
};

/// `seconds` of a transfer that never ends, looked at every 25 ms; numbers as they change.
run drive(stream_count& count, const model& m, double seconds, core::time_point& now, double& delivered) {
    run r;
    r.at_end = count.wanted();
    for (double t = 0; t < seconds; t += 0.025) {
        const double rate = m.goodput(count.wanted());
        delivered += rate * 0.025;
        now += 25ms;
        stream_sample s;
        s.now = now;
        s.delivered = static_cast<std::uint64_t>(delivered);
        s.saturated = s.flowing = true;
        s.open = count.wanted();
        s.offered = endless;
        s.rtt = core::from_seconds(m.rtt);
        s.queueing = rate >= m.capacity;
        s.window = static_cast<std::uint64_t>(m.window);
        count.step(s);
        if (count.wanted() != r.at_end) r.changes.push_back(r.at_end = count.wanted());
    }
    return r;
}

run drive(const model& m, double seconds) {
    stream_count count;
    core::time_point now{};
    double delivered = 0;
    return drive(count, m, seconds, now, delivered);
}

/// Nothing is sent for so long, and one look sees that.
void rest(stream_count& count, const model& m, core::duration length, core::time_point& now, double delivered) {
    stream_sample s;
    s.now = now + 25ms;
    s.delivered = static_cast<std::uint64_t>(delivered);
    s.open = count.wanted();
    s.rtt = core::from_seconds(m.rtt);
    s.window = static_cast<std::uint64_t>(m.window);
    count.step(s);
    now += length;
}

constexpr double gigabit = 1e9 / 8, megabyte = 1e6;

}  // namespace

TEST_CASE("the first number comes from the round trip and the window") {
    struct expected {
        double rtt, window;
        unsigned count;
    };
    // A gigabit and a third over window / RTT, at most 8.
    for (const auto& e : {expected{0.001, 4e6, 1}, expected{0.02, 2e6, 2}, expected{0.1, 4e6, 5},
                          expected{0.1, 2.7e6, 7}, expected{0.2, 2.7e6, 8}, expected{0.1, 0, 8}}) {
        stream_count count;
        CHECK(count.wanted() == 1);  // nothing is known
        stream_sample s;
        s.rtt = core::from_seconds(e.rtt);
        s.window = static_cast<std::uint64_t>(e.window);
        count.step(s);
        INFO("RTT " << e.rtt << ", window " << e.window);
        CHECK(count.wanted() == e.count);
    }
}

TEST_CASE("a fixed number stays, and it is known when the wire was full") {
    stream_count count(5);
    core::time_point now{};
    double delivered = 0;
    CHECK_FALSE(count.filled());
    CHECK(drive(count, limited(gigabit, 0.1, 2 * megabyte, 2 * megabyte / 0.1), 60, now, delivered).changes.empty());
    CHECK(count.wanted() == 5);
    CHECK(count.filled());
}

TEST_CASE("where the window limits, as many connections are found as the wire needs, and half more at most") {
    for (const double per_stream : {2e6, 3e6, 5e6, 8e6, 10e6}) {
        const auto m = limited(gigabit, 0.1, per_stream * 0.1, per_stream);
        const auto r = drive(m, 120);
        const double needed = gigabit / per_stream;
        INFO("one connection carries " << per_stream << ", needed " << needed << ", found " << r.at_end);
        CHECK(r.at_end >= std::min(64.0, 0.95 * needed));
        CHECK(r.at_end <= std::max(8.0, 1.5 * needed + 1));
    }
}

TEST_CASE("where losses limit, connections are added until they stop paying") {
    // The kernel's buffers would allow much more: only measuring tells.
    const auto m = limited(200e6 / 8, 0.2, 2.7e6, 25e6 / 30);  // 30 connections fill it
    const auto r = drive(m, 300);
    CHECK(r.at_end >= 28);
    CHECK(r.at_end <= 45);
}

TEST_CASE("a thin wire is given one connection") {
    const auto r = drive(limited(10e6 / 8, 0.1, 2.7e6, 27 * megabyte), 60);
    CHECK(r.at_end == 1);
    CHECK(r.changes.size() <= 2);
}

TEST_CASE("a thin wire is given one connection within two short transfers, though no queue is ever seen") {
    // What a peer of a small model sends: a third of a second, pauses between. The guess of eight would overflow the
    // queue.
    stream_count count;
    core::time_point now{};
    double delivered = 0;
    auto m = limited(4e6 / 8, 0.12, 2.7e6, 27 * megabyte);
    m.capacity = 1e12;
    drive(count, m, 0.3, now, delivered);
    CHECK(count.wanted() == 8);
    for (int i = 0; i < 3; ++i) {
        rest(count, m, 1s, now, delivered);
        drive(count, m, 0.3, now, delivered);
    }
    CHECK(count.wanted() == 1);
}

TEST_CASE("until the wire is known, only so many connections carry as there is to send, then what it needs") {
    stream_count count;
    stream_sample s;
    s.rtt = 100ms;
    s.window = 2'700'000;
    count.step(s);
    REQUIRE(count.wanted() == 7);  // to have open
    CHECK(count.carrying(0) == 1);
    CHECK(count.carrying(400'000) == 1);
    CHECK(count.carrying(2'500'000) == 3);
    CHECK(count.carrying(64 << 20) == 7);
    CHECK(stream_count(5).carrying(1) == 5);

    // Small payloads on a thin wire: it is known after a few, and one was enough all along.
    core::time_point now{};
    double delivered = 0;
    for (int step = 0; step < 100; ++step) {
        now += 25ms;
        delivered += 4e6 / 8 * 0.025;
        s.now = now;
        s.delivered = static_cast<std::uint64_t>(delivered);
        s.saturated = s.flowing = true;
        s.open = 1;
        s.offered = 400'000;
        count.step(s);
        REQUIRE(count.carrying(400'000) == 1);
    }
    CHECK(count.wanted() == 1);
    CHECK(count.carrying(64 << 20) == 1);
}

TEST_CASE("in slow start nothing is given up") {
    // Goodput doubles each round trip, and only then shows what the wire carries.
    stream_count count;
    core::time_point now{};
    double delivered = 0, rate = 1e6;
    for (int round = 0; round < 12; ++round) {
        const double at = std::min(rate, gigabit);
        auto r = drive(count, {0.1, 2.7e6, [=](unsigned) { return at; }, gigabit}, 0.1, now, delivered);
        CHECK(r.at_end == 7);
        rate *= 2;
    }
}

TEST_CASE("where few connections are enough, goodput that varies adds others rarely and not for long") {
    // 100 Mbit/s, 100 ms: exchanges that take between 1.3 and 1.8 s, by chance.
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        core::seeded_entropy chance(seed, "goodput");
        stream_count count;
        core::time_point now{};
        double delivered = 0, too_many = 0;
        constexpr int exchanges = 2000;
        for (int i = 0; i < exchanges; ++i) {
            const double got = 12e6 * (0.75 + 0.25 * chance.unit());
            auto m = limited(got, 0.1, 2.7e6, 27 * megabyte);
            m.capacity = 1e12;
            drive(count, m, 1.5, now, delivered);
            rest(count, m, 500ms, now, delivered);
            if (i >= 2 && (count.wanted() == 0 || count.wanted() > 3)) ++too_many;
        }
        INFO("seed " << seed);
        CHECK(too_many / exchanges < 0.05);
    }
}

TEST_CASE("what pays is kept: no oscillation, and trying becomes rare") {
    stream_count count;
    core::time_point now{};
    double delivered = 0;
    const auto m = limited(60e6, 0.1, 0, 10e6);  // six are enough, the window is not known and no queue is seen
    model blind = m;
    blind.capacity = 1e12;
    drive(count, blind, 60, now, delivered);
    const auto settled = count.wanted();
    const auto later = drive(count, blind, 3600, now, delivered);
    CHECK(later.at_end == settled);
    // Each try is two changes; the pause between them doubles to ten minutes.
    CHECK(later.changes.size() <= 22);
    CHECK(std::set<unsigned>(later.changes.begin(), later.changes.end()).size() <= 2);
}

TEST_CASE("a link that changes is found again, and transfers with pauses between them measure, too") {
    stream_count count;
    core::time_point now{};
    double delivered = 0;
    drive(count, limited(200e6 / 8, 0.1, 1e6, 10e6), 60, now, delivered);
    const auto fat = count.wanted();
    CHECK(fat >= 2);
    drive(count, limited(5e6 / 8, 0.1, 1e6, 10e6), 60, now, delivered);
    CHECK(count.wanted() == 1);
    drive(count, limited(200e6 / 8, 0.1, 1e6, 10e6), 60, now, delivered);
    CHECK(count.wanted() >= 2);

    // 0.6 s busy, 5 s idle: the measurements add up over the transfers.
    stream_count pausing;
    const auto m = limited(gigabit, 0.1, 0.5e6, 5e6);
    for (int i = 0; i < 200; ++i) {
        drive(pausing, m, 0.6, now, delivered);
        stream_sample idle;
        idle.now = now += 5s;
        idle.rtt = 100ms;
        idle.delivered = static_cast<std::uint64_t>(delivered);
        pausing.step(idle);
    }
    CHECK(pausing.wanted() >= 23);
}

TEST_CASE("connections that cannot be had are not waited for") {
    stream_count count;
    core::time_point now{};
    double delivered = 0;
    const auto m = limited(gigabit, 0.1, 1e6, 10e6);
    for (int i = 0; i < 4000; ++i) {
        delivered += m.goodput(3) * 0.025;
        stream_sample s;
        s.now = now += 25ms;
        s.delivered = static_cast<std::uint64_t>(delivered);
        s.saturated = s.flowing = true;
        s.open = std::min(3U, count.wanted());
        s.offered = endless;
        s.rtt = 100ms;
        count.step(s);
    }
    CHECK(count.wanted() <= 4);
}

TEST_CASE("a count of delivered bytes that falls is no goodput") {
    stream_count count;
    core::time_point now{};
    double delivered = 1e9;
    const auto m = limited(10e6, 0.05, 2.7e6, 20e6);
    for (int i = 0; i < 20; ++i) {
        for (int looks = 0; looks < 20; ++looks) {
            drive(count, m, 0.25, now, delivered);
            REQUIRE(count.goodput() < 11e6);
        }
        delivered -= 5e7;
    }
    CHECK(count.goodput() > 9e6);
}

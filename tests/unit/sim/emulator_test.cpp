#include "sim/lab/emulator.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;
using sim::virtual_time;
using sim::lab::drop_reason;
using sim::lab::emulator;
using sim::lab::packet;

namespace {

/// Remembers everything.
struct record final : sim::lab::packet_sink {
    struct arrival {
        packet p;
        virtual_time due{};
    };
    std::vector<arrival> arrived;
    std::map<drop_reason, std::uint64_t> dropped;
    std::vector<std::uint64_t> dropped_tags;
    void deliver(const packet& p, virtual_time due) override { arrived.push_back({p, due}); }
    void drop(const packet& p, drop_reason why) override {
        ++dropped[why];
        dropped_tags.push_back(p.tag);
    }
};

sim::peer_place peer(double up, double down, core::duration delay = {}, int site = -1) {
    sim::peer_place p;
    p.site = site;
    p.line.up = {up};
    p.line.down = {down};
    p.line.delay = delay;
    return p;
}

sim::topology two(double up, double down, core::duration rtt) {
    sim::topology t;
    t.peers = {peer(up, up), peer(down, down)};
    t.default_path.rtt = rtt;
    t.queue = 1 << 30;
    return t;
}

void run_to_end(emulator& e) {
    while (e.next() != sim::never) e.advance(e.next());
}

core::duration serial(std::uint64_t bytes, double rate) {
    return core::duration(static_cast<std::int64_t>(std::ceil(static_cast<double>(bytes) * 8e9 / rate)));
}

}  // namespace

TEST_CASE("a packet takes its serialisation on both lines and the delay, to the nanosecond") {
    record seen;
    emulator e(two(10e6, 40e6, 30ms), 1, seen);
    e.submit(5ms, {0, 1, 1500, 7});
    run_to_end(e);
    REQUIRE(seen.arrived.size() == 1);
    CHECK(seen.arrived[0].due == 5ms + serial(1500, 10e6) + 15ms + serial(1500, 40e6));
    CHECK(seen.arrived[0].p.tag == 7);
    CHECK(e.inside() == 0);
}

TEST_CASE("a line passes packets at exactly its rate, in order") {
    // 7.3 Mbit/s: no whole number of nanoseconds a packet; errors would add up.
    record seen;
    emulator e(two(7.3e6, 1e9, 20ms), 1, seen);
    const std::uint64_t n = 20'000;
    for (std::uint64_t i = 0; i < n; ++i) e.submit(0ns, {0, 1, 1500, i});
    run_to_end(e);
    REQUIRE(seen.arrived.size() == n);
    for (std::uint64_t i = 0; i < n; ++i) {
        REQUIRE(seen.arrived[i].p.tag == i);
        REQUIRE(seen.arrived[i].due == serial((i + 1) * 1500, 7.3e6) + 10ms + serial(1500, 1e9));
    }
}

TEST_CASE("a queue holds what it was given and drops the tail") {
    auto t = two(8e6, 1e9, 10ms);
    t.peers[0].line.up_queue = 10 * 1000;
    record seen;
    emulator e(t, 1, seen);
    for (std::uint64_t i = 0; i < 15; ++i) e.submit(0ns, {0, 1, 1000, i});
    CHECK(seen.dropped[drop_reason::queue] == 5);
    CHECK(seen.dropped_tags == std::vector<std::uint64_t>{10, 11, 12, 13, 14});
    // A packet needs a millisecond: after it, there is room for one more.
    e.submit(1ms, {0, 1, 1000, 15});
    e.submit(1ms, {0, 1, 1000, 16});
    CHECK(seen.dropped_tags.back() == 16);
    run_to_end(e);
    CHECK(seen.arrived.size() == 11);
    CHECK(e.counters(0).dropped_queue == 6);
}

TEST_CASE("a queue that nobody chose holds one bandwidth-delay product") {
    auto t = two(100e6, 100e6, 80ms);
    t.queue = 0;
    record seen;
    emulator e(t, 1, seen);
    const std::uint64_t product = 1'000'000;  // bytes: 100 Mbit/s for 80 ms
    for (std::uint64_t i = 0; i < 2000; ++i) e.submit(0ns, {0, 1, 1000, i});
    CHECK(seen.dropped[drop_reason::queue] == 2000 - product / 1000);
}

TEST_CASE("random losses are as many as asked, and independent") {
    auto t = two(1e9, 1e9, 10ms);
    t.default_path.loss = {0.02, 1};
    record seen;
    emulator e(t, 11, seen);
    const int n = 200'000;
    for (int i = 0; i < n; ++i) e.submit(i * 12us, {0, 1, 1500, static_cast<std::uint64_t>(i)});
    run_to_end(e);
    const double expected = n * 0.02, deviation = std::sqrt(n * 0.02 * 0.98);
    const auto lost = static_cast<double>(seen.dropped[drop_reason::loss]);
    CHECK(std::abs(lost - expected) < 4 * deviation);
    int in_a_row = 0;
    for (std::size_t i = 1; i < seen.dropped_tags.size(); ++i) {
        if (seen.dropped_tags[i] == seen.dropped_tags[i - 1] + 1) ++in_a_row;
    }
    CHECK(std::abs(in_a_row - lost * 0.02) < 5 * std::sqrt(lost * 0.02));
}

TEST_CASE("bursts of losses have the asked length, and the asked share of all packets") {
    auto t = two(1e9, 1e9, 10ms);
    t.peers[0].line.loss = {0.01, 8};
    record seen;
    emulator e(t, 5, seen);
    const int n = 1'000'000;
    for (int i = 0; i < n; ++i) e.submit(i * 12us, {0, 1, 1500, static_cast<std::uint64_t>(i)});
    run_to_end(e);
    const auto& lost = seen.dropped_tags;
    double bursts = lost.empty() ? 0 : 1;
    for (std::size_t i = 1; i < lost.size(); ++i) bursts += lost[i] == lost[i - 1] + 1 ? 0 : 1;
    // About 1250 bursts of a geometric length: the mean of their lengths deviates by 7.5 / sqrt(1250) = 0.21.
    CHECK(std::abs(static_cast<double>(lost.size()) / bursts - 8) < 0.9);
    CHECK(std::abs(static_cast<double>(lost.size()) - n * 0.01) < 4 * std::sqrt(1250.0 * (64 + 56)));
    // The other way, nothing is lost on a's line.
    CHECK(e.counters(1).dropped_loss == 0);
}

TEST_CASE("jitter delays by up to what was asked and never changes the order") {
    auto t = two(1e9, 1e9, 40ms);
    t.default_path.jitter = 5ms;
    record seen;
    emulator e(t, 3, seen);
    const int n = 5000;
    for (int i = 0; i < n; ++i) e.submit(i * 1ms, {0, 1, 100, static_cast<std::uint64_t>(i)});
    run_to_end(e);
    REQUIRE(seen.arrived.size() == n);
    core::duration least = 1h, most{};
    for (std::size_t i = 0; i < seen.arrived.size(); ++i) {
        REQUIRE(seen.arrived[i].p.tag == i);
        if (i > 0) REQUIRE(seen.arrived[i].due >= seen.arrived[i - 1].due);
        const auto took = seen.arrived[i].due - static_cast<int>(i) * 1ms;
        least = std::min(least, took);
        most = std::max(most, took);
    }
    const auto lines = 2 * serial(100, 1e9);
    CHECK(least >= 20ms + lines);
    CHECK(least < 20ms + lines + 200us);
    CHECK(most <= 25ms + lines);
    CHECK(most > 24800us);
}

TEST_CASE("a trace changes the rate while packets wait") {
    auto t = two(80e6, 1e9, 10ms);
    t.peers[0].line.changes = {{100ms, 0.1}, {600ms, 0}, {1s, 1}};
    record seen;
    emulator e(t, 1, seen);
    // 4 MB: 1 MB in the first 100 ms, 0.5 MB in the next 500 ms, nothing for 400 ms, the rest at the full rate.
    for (std::uint64_t i = 0; i < 4000; ++i) e.submit(0ns, {0, 1, 1000, i});
    run_to_end(e);
    REQUIRE(seen.arrived.size() == 4000);
    const auto arrived_by = [&](virtual_time when) {
        return std::count_if(seen.arrived.begin(), seen.arrived.end(), [&](const auto& a) { return a.due <= when; });
    };
    const auto path = 5ms + serial(1000, 1e9);
    CHECK(std::abs(arrived_by(100ms + path) - 1000) <= 1);
    CHECK(std::abs(arrived_by(600ms + path) - 1500) <= 2);
    CHECK(arrived_by(1s + path) <= 1501);
    CHECK(std::abs((seen.arrived.back().due - (1250ms + path)).count()) < 2'000'000);
}

TEST_CASE("peers of a site share its line, and what stays inside does not touch it") {
    sim::topology t;
    sim::site s;
    s.line.up = s.line.down = {100e6};
    s.rtt = 1ms;
    t.sites = {s};
    t.peers = {peer(1e9, 1e9, {}, 0), peer(1e9, 1e9, {}, 0), peer(1e9, 1e9)};
    t.default_path.rtt = 40ms;
    t.queue = 1 << 30;
    record seen;
    emulator e(t, 1, seen);
    // Both send 1 MB outside at once, and 0 sends 1 MB to 1.
    for (std::uint64_t i = 0; i < 1000; ++i) {
        e.submit(0ns, {0, 2, 1000, i});
        e.submit(0ns, {1, 2, 1000, i});
    }
    for (std::uint64_t i = 0; i < 1000; ++i) e.submit(0ns, {0, 1, 1000, i});
    run_to_end(e);
    virtual_time last_outside{}, last_inside{};
    for (const auto& a : seen.arrived) (a.p.to == 2 ? last_outside : last_inside) = a.due;
    // 2 MB over the shared 100 Mbit/s; inside, the 2 MB of peer 0 over its own gigabit.
    CHECK(last_outside == serial(1000, 1e9) + serial(2'000'000, 100e6) + 20ms + serial(1000, 1e9));
    CHECK(last_inside == serial(2'000'000, 1e9) + 500us + serial(1000, 1e9));
}

TEST_CASE("a cut drops one way only, and what is on its way still arrives") {
    record seen;
    emulator e(two(1e9, 1e9, 20ms), 1, seen);
    e.submit(0ns, {0, 1, 1000, 1});
    e.advance(1ms);
    e.set_cut(0, 1, true);
    e.submit(2ms, {0, 1, 1000, 2});
    e.submit(2ms, {1, 0, 1000, 3});
    e.advance(5ms);
    e.set_cut(0, 1, false);
    e.submit(6ms, {0, 1, 1000, 4});
    run_to_end(e);
    std::vector<std::uint64_t> tags;
    for (const auto& a : seen.arrived) tags.push_back(a.p.tag);
    CHECK(tags == std::vector<std::uint64_t>{1, 3, 4});
    CHECK(seen.dropped[drop_reason::cut] == 1);
}

TEST_CASE("the same seed gives the same losses") {
    auto t = two(50e6, 50e6, 10ms);
    t.default_path.loss = {0.1, 3};
    t.default_path.jitter = 3ms;
    const auto run = [&t](std::uint64_t seed) {
        record seen;
        emulator e(t, seed, seen);
        for (int i = 0; i < 2000; ++i) e.submit(i * 1ms, {0, 1, 1500, static_cast<std::uint64_t>(i)});
        run_to_end(e);
        return seen.dropped_tags;
    };
    CHECK(run(1) == run(1));
    CHECK(run(1) != run(2));
}

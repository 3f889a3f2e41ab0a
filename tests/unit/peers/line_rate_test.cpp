#include "peers/line_rate.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace std::chrono_literals;

namespace {

constexpr core::time_point start{std::chrono::hours(1)};
constexpr std::uint64_t mb = 1'000'000;

/// An exchange of so many bytes, complete after so long.
rate_of_exchange plain(std::uint64_t bytes, core::duration in) {
    rate_of_exchange r;
    r.begin(start, 0);
    r.look(start + in, bytes);
    return r;
}

}  // namespace

TEST_CASE("a line's rate in an exchange is its best average: who holds up the rest does not make it slow") {
    rate_of_exchange r;
    CHECK(r.bytes_per_second() == 0);
    r.look(start, 10 * mb);  // nothing has begun
    CHECK(r.bytes_per_second() == 0);
    r.begin(start, mb);
    r.begin(start + 5s, 2 * mb);  // it has begun already
    r.look(start + 1ms, mb + rate_of_exchange::least_bytes - 1);
    CHECK(r.bytes_per_second() == 0);
    r.look(start + 2s, 21 * mb);
    CHECK(r.bytes_per_second() == 10e6);
    r.look(start + 20s, 22 * mb);
    CHECK(r.bytes_per_second() == 10e6);
    CHECK(r.seconds() == 20);
}

TEST_CASE("a line's rate is that of its best half second, neither of a slow beginning nor of a pause") {
    rate_of_exchange r;
    r.begin(start, 0);
    // A round trip of nothing, half a second of slow start, half a second at 10 MB/s, a pause, and a little more.
    std::uint64_t total = 0;
    for (int ms = 0; ms <= 5000; ms += 25) {
        if (ms > 200 && ms <= 700) total += 25'000;
        if (ms > 700 && ms <= 1200) total += 250'000;
        if (ms > 4000 && ms <= 4200) total += 50'000;
        r.look(start + std::chrono::milliseconds(ms), total);
    }
    CHECK(r.bytes_per_second() > 9e6);
    CHECK(r.bytes_per_second() <= 10e6);
    // Another total, of other links: it begins anew, and what was seen stays.
    const auto before = r.bytes_per_second();
    r.look(start + 6s, mb);
    r.look(start + 7s, 2 * mb);
    CHECK(r.bytes_per_second() == before);
    r.look(start + 8s, 40 * mb);
    CHECK(r.bytes_per_second() > before);
}

TEST_CASE("a thin line needs more than half a second to show its rate") {
    rate_of_exchange r;
    r.begin(start, 0);
    std::uint64_t total = 0;
    for (int ms = 0; ms <= 8000; ms += 100) r.look(start + std::chrono::milliseconds(ms), total += 5'000);
    CHECK(r.bytes_per_second() > 49'000);
    CHECK(r.bytes_per_second() < 52'000);
}

TEST_CASE("a faster exchange counts at once, a smaller one fades what was seen, one that went on slowly replaces it") {
    line_rate line(line_rate::way::sends);
    CHECK(line.with({}) == 0);
    line.take(plain(10 * mb, 1s));
    CHECK(line.with({}) == 10e6);
    CHECK(line.with(plain(20 * mb, 1s)) == 20e6);
    CHECK(line.with(plain(mb, 500ms)) == line_rate::fade * 10e6);    // short: latency, perhaps
    CHECK(line.with(plain(24 * mb, 4s)) == line_rate::fade * 10e6);  // more than half
    CHECK(line.with(plain(8 * mb, 4s)) == 2e6);                      // for a while, and less than half
    CHECK(line.with({}) == 10e6);                                    // none of them is over
    line.take(plain(8 * mb, 4s));
    line.take({});  // an exchange without it says nothing
    CHECK(line.with({}) == 2e6);
}

TEST_CASE("an exchange in bursts that carried little shows nothing of the line, but one that carried more does") {
    line_rate line(line_rate::way::sends);
    line.take(plain(20 * mb, 2s));
    CHECK(line.with({}) == 10e6);
    const auto after = [&line](bool in_bursts, std::uint64_t bytes) {
        rate_of_exchange r(in_bursts);
        r.begin(start, 0);
        r.look(start + 2s, bytes);
        return line.with(r);
    };
    CHECK(after(false, 2 * mb) == 1e6);
    CHECK(after(true, 2 * mb) == line_rate::fade * 10e6);
    CHECK(after(true, 40 * mb) == 20e6);
}

TEST_CASE("receiving slowly may be another's fault: it is believed by halves") {
    line_rate line(line_rate::way::receives);
    line.take(plain(10 * mb, 1s));
    for (const double left : {5e6, 2.5e6}) {
        line.take(plain(8 * mb, 4s));
        CHECK(line.with({}) == left);
    }
    for (int i = 0; i < 3; ++i) line.take(plain(8 * mb, 4s));
    CHECK(line.with({}) == 2e6);
    line.take(plain(8 * mb, 1s));  // and a fast exchange is believed at once
    CHECK(line.with({}) == 8e6);
}

TEST_CASE("a line that collapses in the middle of an exchange shows by the queue before it, and recovers likewise") {
    for (const auto way : {line_rate::way::sends, line_rate::way::receives}) {
        line_rate line(way);
        line.take(plain(20 * mb, 1s));
        rate_of_exchange r;
        r.begin(start, 0);
        auto now = start;
        std::uint64_t total = 0;
        const auto flow = [&](std::uint64_t per_interval, int intervals, bool queue) {
            for (int i = 0; i < intervals; ++i) {
                now += rate_of_exchange::interval;
                total += per_interval;
                r.look(now, total);
                r.look_at_queue(now, total, queue);
            }
        };
        flow(2 * mb, 10, false);
        flow(50'000, 100, false);  // a receiver that holds up this exchange, not the line
        CHECK(line.with(r) == 20e6);
        flow(50'000, 15, true);  // too short to tell
        flow(50'000, 1, false);
        CHECK(line.with(r) == 20e6);
        flow(50'000, 22, true);
        CHECK(line.with(r) == 500e3);
        flow(0, 50, false);  // all is said, the queue is gone: that does not make it fast again
        CHECK(line.with(r) == 500e3);
        flow(2 * mb, 10, false);
        CHECK(line.with(r) == 20e6);
        flow(1'100'000, 30, true);  // a queue at more than half of what it carries is the usual one
        CHECK(line.with(r) == 20e6);
    }
}

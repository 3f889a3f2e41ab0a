// The network when something goes wrong: cuts, kills, power loss, pauses, loss.

#include "tests/unit/sim/support.hpp"

using namespace longhaul;
using namespace longhaul::sim_tests;

namespace {

/// Sends `data` once and reports what the other end says.
struct sender {
    byte_vector data;
    result<void> outcome = core::fail(errc::internal, "not over");
    std::optional<core::duration> ended;
};

task<result<void>> send_all(environment& env, sim::world& w, sender& s) {
    net::endpoint to{"b", 1};
    auto stream = co_await env.network.connect(to, net::stream_purpose::bulk);
    LONGHAUL_CO_TRY(stream);
    s.outcome = co_await net::write_all(**stream, s.data);
    s.ended = w.now();
    if (!s.outcome) co_return core::ok();
    co_return co_await env.clock.sleep_for(1h);
}

/// Reads until the end or an error, for ever.
struct sink {
    std::size_t bytes = 0;
    std::optional<core::duration> ended;
    std::optional<errc> error;  ///< absent: an orderly end
};

task<result<void>> swallow(environment& env, sim::world& w, sink& k) {
    auto s = co_await accept_one(env, 1);
    LONGHAUL_CO_TRY(s);
    byte_vector part(64 * 1024);
    for (;;) {
        auto n = co_await (*s)->read_some(part);
        if (n && *n > 0) {
            k.bytes += *n;
            continue;
        }
        if (!n) k.error = n.error().code;
        k.ended = w.now();
        co_return core::ok();
    }
}

}  // namespace

TEST_CASE("a cut path shows as a timeout at exactly the deadline") {
    std::optional<core::duration> ended;
    errc code{};
    sim::world w(1);
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 40ms);
    b.start([&](environment& env) -> task<result<void>> {
        auto s = co_await accept_one(env, 1);
        LONGHAUL_CO_TRY(s);
        byte_vector question(5);
        auto got = co_await net::read_exact(**s, question);
        LONGHAUL_CO_TRY(got);
        auto slept = co_await env.clock.sleep_for(2s);
        LONGHAUL_CO_TRY(slept);
        auto sent = co_await net::write_all(**s, question);
        LONGHAUL_CO_TRY(sent);
        co_return co_await env.clock.sleep_for(1h);
    });
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::control);
        LONGHAUL_CO_TRY(s);
        const byte_vector question(5);
        auto sent = co_await net::write_all(**s, question);
        LONGHAUL_CO_TRY(sent);
        byte_vector answer(5);
        auto reading = net::read_exact(**s, answer);
        auto got = co_await core::with_deadline(env.clock, std::move(reading), env.clock.now() + 30s);
        code = got.error().code;
        ended = w.now();
        co_return core::ok();
    });
    w.at(1s, [&] { w.cut({"a"}, {"b"}); });
    w.run_until(2min);
    CHECK(code == errc::timeout);
    CHECK(ended == 80ms + 30s);
}

TEST_CASE("what was sent into a cut arrives after the heal, when TCP repeats it: nothing is lost or doubled") {
    sender s{pattern(2'000'000), {}, {}};
    sink k;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {8e6}});
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 50ms);
    b.start([&](environment& env) { return swallow(env, w, k); });
    a.start([&](environment& env) { return send_all(env, w, s); });
    w.at(600ms, [&] { w.cut({"a"}, {"b"}); });
    w.run_until(5s);
    const auto before = k.bytes;
    CHECK(before >= 440'000);
    CHECK(before <= 460'000);
    w.heal();
    // Stalled at 0.6 s with an RTO of 0.3 s: it tries again at 0.9, 1.5, 2.7, 5.1 s, one way later it is there.
    w.run_until(5150ms - 2ms);
    CHECK(k.bytes == before);
    w.run_until(5153ms);
    CHECK(k.bytes > before);
    w.run_until(20s);
    CHECK(k.bytes == s.data.size());
    CHECK_FALSE(k.ended);
}

TEST_CASE("a one-way cut stops one direction only") {
    std::size_t at_a = 0, at_b = 0;
    sim::world w(1);
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    auto chat = [](environment& env, std::unique_ptr<net::stream> s, std::size_t& got) -> task<result<void>> {
        auto talk = [](environment& e, net::stream& t) -> task<result<void>> {
            const byte_vector word(1);
            for (;;) {
                auto sent = co_await net::write_all(t, word);
                LONGHAUL_CO_TRY(sent);
                auto slept = co_await e.clock.sleep_for(100ms);
                LONGHAUL_CO_TRY(slept);
            }
        };
        auto listen = [](net::stream& t, std::size_t& count) -> task<result<void>> {
            byte_vector part(100);
            for (;;) {
                auto n = co_await t.read_some(part);
                LONGHAUL_CO_TRY(n);
                if (*n == 0) co_return core::ok();
                count += *n;
            }
        };
        auto out = talk(env, *s);
        auto in = listen(*s, got);
        auto ended = co_await core::both(std::move(out), std::move(in));
        co_return ended.first;
    };
    b.start([&](environment& env) -> task<result<void>> {
        auto s = co_await accept_one(env, 1);
        LONGHAUL_CO_TRY(s);
        co_return co_await chat(env, std::move(*s), at_b);
    });
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::control);
        LONGHAUL_CO_TRY(s);
        co_return co_await chat(env, std::move(*s), at_a);
    });
    w.at(10s, [&] { w.cut_one_way({"a"}, {"b"}); });
    w.run_until(10s);
    const auto a_before = at_a, b_before = at_b;
    w.run_until(20s);
    CHECK(at_b == b_before);
    CHECK(at_a == a_before + 100);
    w.heal();
    w.run_until(60s);
    CHECK(at_b == at_a);
}

TEST_CASE("a connection attempt into a cut is answered after the heal, when the SYN is repeated") {
    std::optional<core::duration> connected;
    sink k;
    sim::world w(1);
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 10ms);
    b.start([&](environment& env) { return swallow(env, w, k); });
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::control);
        LONGHAUL_CO_TRY(s);
        connected = w.now();
        co_return core::ok();
    });
    w.cut({"a"}, {"b"});
    w.at(5s, [&] { w.heal(); });
    w.run_until(1min);
    CHECK(connected == 7s + 20ms);  // SYN at 0, 1, 3, 7 s
}

TEST_CASE("a connection that nobody acknowledges for 924 s is given up") {
    sender s{byte_vector(100'000'000), {}, {}};
    sink k;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {80e6}});
    auto& b = w.add_node("b");
    b.start([&](environment& env) { return swallow(env, w, k); });
    a.start([&](environment& env) { return send_all(env, w, s); });
    w.at(1s, [&] { w.cut({"a"}, {"b"}); });
    w.run_until(1h);
    REQUIRE_FALSE(s.outcome);
    CHECK(s.outcome.error().code == errc::closed);
    // The first segment that did not arrive left within 2 ms of the cut.
    CHECK(*s.ended >= 925s);
    CHECK(*s.ended <= 925s + 3ms);
    CHECK_FALSE(k.ended);  // the receiver knows nothing
}

TEST_CASE("kill -9 in mid-transfer: the kernel sends what it has and then the end") {
    sender s{pattern(10'000'000), {}, {}};
    sink k;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {8e6}});
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 40ms);
    b.start([&](environment& env) { return swallow(env, w, k); });
    a.start([&](environment& env) { return send_all(env, w, s); });
    w.at(2s, [&] { a.kill(); });
    w.run_until(1min);
    REQUIRE(k.ended);
    CHECK_FALSE(k.error);
    // From 0.08 s on, 1 MB/s; at the kill 1.92 MB have left, and the send buffer's 128 KiB follow.
    CHECK(k.bytes >= 1'920'000);
    CHECK(k.bytes <= 1'920'000 + 2 * 128 * 1024);
    CHECK(*k.ended == 80ms + 40ms + core::duration(static_cast<std::int64_t>(k.bytes) * 1000));
    REQUIRE(a.outcome());
    CHECK(a.outcome()->error().code == errc::cancelled);
    CHECK_FALSE(a.running());
}

TEST_CASE("kill -9 of the receiver: the sender's next bytes are answered by a reset") {
    sender s{byte_vector(10'000'000), {}, {}};
    sink k;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {8e6}});
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 40ms);
    b.start([&](environment& env) { return swallow(env, w, k); });
    a.start([&](environment& env) { return send_all(env, w, s); });
    w.at(2s, [&] { b.kill(); });
    w.run_until(1min);
    REQUIRE_FALSE(s.outcome);
    CHECK(s.outcome.error().code == errc::closed);
    CHECK(*s.ended >= 2s + 40ms);
    CHECK(*s.ended <= 2s + 40ms + 2ms);
    CHECK(k.error);  // seen while it was unwound, by this test alone
}

TEST_CASE("connections that are reset on the way end at both ends, and others go on") {
    sender s{byte_vector(10'000'000), {}, {}}, t{byte_vector(10'000'000), {}, {}};
    sink k;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {8e6}});
    auto& b = w.add_node("b");
    auto& c = w.add_node("c", {.up = {8e6}});
    b.start([&](environment& env) { return swallow(env, w, k); });
    a.start([&](environment& env) { return send_all(env, w, s); });
    w.at(2s, [&] { w.network().reset_connections(0); });
    w.run_until(1min);
    REQUIRE(s.ended);
    CHECK(s.outcome.error().code == errc::closed);
    CHECK(*s.ended == 2s);
    CHECK(k.error);
    CHECK(w.network().open_connections() == 0);
    // The line is whole.
    b.restart();
    c.start([&](environment& env) { return send_all(env, w, t); });
    w.run_until(62s);
    w.network().reset_connections(0);
    w.run_until(3min);
    CHECK(t.outcome);
}

TEST_CASE("a reset ends what a closed stream still had to send") {
    sink k;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {0.8e6}});
    auto& b = w.add_node("b");
    b.start([&](environment& env) { return swallow(env, w, k); });
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::bulk);
        LONGHAUL_CO_TRY(s);
        const byte_vector data(100'000);
        auto sent = co_await net::write_all(**s, data);
        LONGHAUL_CO_TRY(sent);
        (*s)->close();
        co_return co_await env.clock.sleep_for(1h);
    });
    w.at(500ms, [&] { b.kill(); });
    w.run_until(1min);
    CHECK(k.bytes >= 49'000);
    CHECK(k.bytes <= 50'000);
    CHECK(w.network().open_connections() == 0);
    CHECK(w.now() == 1min);
}

TEST_CASE("the end of a stream that was sent into a cut comes after the bytes that are repeated") {
    sink k;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {8e6}});
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 50ms);
    b.start([&](environment& env) { return swallow(env, w, k); });
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::bulk);
        LONGHAUL_CO_TRY(s);
        const byte_vector data(100'000);
        co_return co_await net::write_all(**s, data);  // and closes
    });
    // For a few milliseconds of the 100 that the bytes arrive: some are lost, and later ones are on their way.
    w.at(200ms, [&] { w.cut({"a"}, {"b"}); });
    w.at(205ms, [&] { w.heal(); });
    w.run_until(1min);
    CHECK(k.bytes == 100'000);
    CHECK(k.ended);
    CHECK_FALSE(k.error);
}

TEST_CASE("power loss is silent: after the restart the old connection is answered by a reset") {
    sender s{byte_vector(100'000'000), {}, {}};
    sink k;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {8e6}});
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 40ms);
    b.start([&](environment& env) { return swallow(env, w, k); });
    a.start([&](environment& env) { return send_all(env, w, s); });
    w.at(2s, [&] { b.vanish(); });
    w.run_until(30s);
    CHECK_FALSE(s.ended);  // waits for room in its buffers, as it would
    w.at(30s, [&] { b.restart(); });
    w.run_until(3min);
    REQUIRE(s.ended);
    REQUIRE_FALSE(s.outcome);
    CHECK(s.outcome.error().code == errc::closed);
    CHECK(*s.ended > 30s);
    CHECK(b.running());
    CHECK(b.lives() == 2);
}

TEST_CASE("a paused process does nothing, its kernel goes on up to the buffers, and it goes on when resumed") {
    sender s{pattern(3'000'000), {}, {}};
    sink k;
    sim::world w(1, {.network = {.send_buffer = 100'000, .receive_window = 1'000'000}});
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 10ms);
    bool stopped_early = false;
    b.start([&](environment& env) { return swallow(env, w, k); });
    w.run_until(5ms);  // it listens
    b.pause();
    a.start([&](environment& env) { return send_all(env, w, s); });
    w.run_until(30s);
    CHECK(b.paused());
    CHECK(k.bytes == 0);
    CHECK_FALSE(s.ended);
    CHECK(w.network().bytes_sent(a.index()) == 1'100'000);  // accepted by the kernels
    stopped_early = w.network().bytes_received(b.index()) == 1'000'000;
    CHECK(stopped_early);
    b.resume();
    w.run_until(60s);
    CHECK(k.bytes == 3'000'000);
    REQUIRE(s.ended);
    CHECK(s.outcome.has_value());
}

TEST_CASE("a paused sender's deadlines fire when it is resumed, not before") {
    std::optional<core::duration> woke;
    sim::world w(1);
    auto& a = w.add_node("a");
    a.start([&](environment& env) -> task<result<void>> {
        auto slept = co_await env.clock.sleep_for(5s);
        LONGHAUL_CO_TRY(slept);
        woke = w.now();
        co_return core::ok();
    });
    w.at(1s, [&] { a.pause(); });
    w.at(9s, [&] { a.resume(); });
    w.run_until(20s);
    CHECK(woke == 9s);
}

TEST_CASE("loss delays a stream by round trips, in order, and takes nothing away") {
    auto time_with = [](double loss, std::uint64_t seed) {
        const auto data = pattern(1'000'000);
        byte_vector got(data.size());
        std::optional<core::duration> begun, done;
        sim::world w(seed);
        auto& a = w.add_node("a", {.up = {8e6}});
        auto& b = w.add_node("b");
        w.set_paths("a", "b", {.delay = 40ms, .loss = loss});
        b.start([&](environment& env) { return receive(env, w, got, done); });
        a.start([&](environment& env) { return transmit(env, w, {"b", 1}, data, begun); });
        w.run_until(10min);
        REQUIRE(done);
        CHECK(got == data);
        return *done - *begun;
    };
    const auto clean = 1s + 40ms;
    CHECK(time_with(0, 1) == clean);
    core::duration sum{};
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        const auto t = time_with(0.001, seed);
        CHECK(t >= clean);
        sum += t - clean;
    }
    // 691 packets: about half of the transfers lose one; only a loss near the end delays the end.
    CHECK(sum > 0s);
    CHECK(sum < 20 * 300ms);
    CHECK(time_with(0.1, 1) > clean + 50ms);
}

TEST_CASE("a collapsed rate takes effect on what is still to be sent") {
    const auto data = pattern(1'000'000);
    byte_vector got(data.size());
    std::optional<core::duration> begun, done;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {8e6}});
    auto& b = w.add_node("b");
    b.start([&](environment& env) { return receive(env, w, got, done); });
    a.start([&](environment& env) { return transmit(env, w, {"b", 1}, data, begun); });
    w.at(500ms, [&] { a.set_rates({0.8e6}, {}); });
    w.run_until(1min);
    REQUIRE(done);
    // Half at 1 MB/s, half at 0.1 MB/s; the turn under way (2 ms) still at the old rate.
    CHECK(*done <= 500ms + 5s);
    CHECK(*done >= 500ms + 5s - 20ms);
}

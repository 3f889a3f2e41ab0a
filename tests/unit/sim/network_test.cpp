// The network when nothing goes wrong: exact times, exact errors, back-pressure.

#include "tests/unit/sim/support.hpp"

using namespace longhaul;
using namespace longhaul::sim_tests;

namespace {

struct transfer {
    byte_vector data, got;
    std::optional<core::duration> begun, done;
    explicit transfer(std::size_t n, std::uint64_t seed = 1) : data(pattern(n, seed)), got(n) {}
    void start(sim::world& w, sim::node& from, sim::node& to) {
        to.start([this, &w](environment& env) { return receive(env, w, got, done); });
        from.start([this, &w, host = to.name()](environment& env) { return transmit(env, w, {host, 1}, data, begun); });
    }
};

/// S bytes at r bits/s, rounded up.
core::duration at_rate(std::uint64_t bytes, std::uint64_t rate) {
    return core::duration(static_cast<std::int64_t>((bytes * 8'000'000'000 + rate - 1) / rate));
}

}  // namespace

TEST_CASE("a transfer of S bytes over rate r and delay d arrives after exactly S/r + d") {
    struct line {
        double up, down;
    };
    for (const auto& l : {line{7e6, 0}, line{0, 7e6}, line{7e6, 7e6}, line{7e6, 100e6}, line{100e6, 7e6}}) {
        for (const std::size_t size : {std::size_t{1}, std::size_t{1000}, std::size_t{1'234'567}}) {
            transfer t(size);
            sim::world w(1);
            auto& a = w.add_node("a", {.up = {l.up}});
            auto& b = w.add_node("b", {.down = {l.down}});
            w.set_delay("a", "b", 40ms);
            t.start(w, a, b);
            w.run_until(60s);
            CAPTURE(l.up, l.down, size);
            REQUIRE(t.done);
            CHECK(*t.begun == 80ms);
            CHECK(*t.done == *t.begun + 40ms + at_rate(size, 7'000'000));
            CHECK(t.got == t.data);
        }
    }
}

TEST_CASE("connect takes one round trip, accept one and a half, of asymmetric paths too") {
    std::optional<core::duration> connected, accepted;
    sim::world w(1);
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    w.set_path("a", "b", {.delay = 30ms});
    w.set_path("b", "a", {.delay = 50ms});
    b.start([&](environment& env) -> task<result<void>> {
        auto s = co_await accept_one(env, 7);
        LONGHAUL_CO_TRY(s);
        accepted = w.now();
        CHECK((*s)->remote().host == "a");
        CHECK((*s)->local() == net::endpoint{"b", 7});
        co_return core::ok();
    });
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 7};
        auto s = co_await env.network.connect(to, net::stream_purpose::control);
        LONGHAUL_CO_TRY(s);
        connected = w.now();
        CHECK((*s)->remote() == to);
        CHECK((*s)->info()->rtt == 80ms);
        co_return core::ok();
    });
    w.run_until(1s);
    CHECK(connected == 80ms);
    CHECK(accepted == 110ms);
}

TEST_CASE("two streams of one uplink share its rate") {
    transfer x(1'000'000, 1), y(1'000'000, 2);
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {8e6}});
    auto& b = w.add_node("b");
    auto& c = w.add_node("c");
    w.set_default_path({.delay = 10ms});
    b.start([&](environment& env) { return receive(env, w, x.got, x.done); });
    c.start([&](environment& env) { return receive(env, w, y.got, y.done); });
    a.start([&](environment& env) -> task<result<void>> {
        auto first = transmit(env, w, {"b", 1}, x.data, x.begun);
        auto second = transmit(env, w, {"c", 1}, y.data, y.begun);
        auto ended = co_await core::both(std::move(first), std::move(second));
        LONGHAUL_CO_TRY(ended.first);
        co_return ended.second;
    });
    w.run_until(10s);
    REQUIRE((x.done && y.done));
    CHECK(x.got == x.data);
    CHECK(y.got == y.data);
    // Both together need 2 s; the first to begin is at most two turns (2 ms of the line each) ahead.
    const auto last = std::max(*x.done, *y.done), first = std::min(*x.done, *y.done);
    CHECK(last == *x.begun + 10ms + 2s);
    CHECK(last - first <= 4ms);
}

TEST_CASE("two senders share a downlink, and a short one is not starved by a long one") {
    byte_vector from_a(1'000'000), from_b(100'000);
    const auto data_a = pattern(from_a.size(), 1), data_b = pattern(from_b.size(), 2);
    std::optional<core::duration> begun_a, begun_b, done_a, done_b;
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {8e6}});
    auto& b = w.add_node("b", {.up = {8e6}});
    auto& c = w.add_node("c", {.down = {8e6}});
    auto collect = [&](std::unique_ptr<net::stream> s, byte_vector& into,
                       std::optional<core::duration>& done) -> task<result<void>> {
        auto got = co_await net::read_exact(*s, into);
        LONGHAUL_CO_TRY(got);
        done = w.now();
        co_return core::ok();
    };
    c.start([&](environment& env) -> task<result<void>> {
        auto listening = env.network.listen({"", 1});
        LONGHAUL_CO_TRY(listening);
        core::scope children(env.executor);
        for (int i = 0; i < 2; ++i) {
            auto s = co_await (*listening)->accept();
            if (!s) break;
            const bool is_a = (*s)->remote().host == "a";
            children.spawn("collect", collect(std::move(*s), is_a ? from_a : from_b, is_a ? done_a : done_b));
        }
        co_return co_await children.join();
    });
    a.start([&](environment& env) { return transmit(env, w, {"c", 1}, data_a, begun_a); });
    b.start([&](environment& env) { return transmit(env, w, {"c", 1}, data_b, begun_b); });
    w.run_until(10s);
    REQUIRE((done_a && done_b));
    CHECK(from_a == data_a);
    CHECK(from_b == data_b);
    // b's 100 kB take 0.1 s alone and 0.2 s when the line is shared; all 1.1 MB take 1.1 s.
    CHECK(*done_b >= 198ms);
    CHECK(*done_b <= 204ms);
    CHECK(*done_a == 1100ms);
}

TEST_CASE("a reader that does not read stops the writer at the declared bound") {
    std::size_t accepted = 0;
    std::size_t read = 0;
    sim::world w(1, {.network = {.send_buffer = 10'000, .receive_window = 50'000}});
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 10ms);
    b.start([&](environment& env) -> task<result<void>> {
        auto s = co_await accept_one(env, 1);
        LONGHAUL_CO_TRY(s);
        auto slept = co_await env.clock.sleep_for(10s);
        LONGHAUL_CO_TRY(slept);
        byte_vector part(20'000);
        auto got = co_await net::read_exact(**s, part);
        LONGHAUL_CO_TRY(got);
        read = part.size();
        co_return co_await env.clock.sleep_for(1h);
    });
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::bulk);
        LONGHAUL_CO_TRY(s);
        const byte_vector block(3000);
        for (;;) {
            auto put = co_await (*s)->write_some(block);
            LONGHAUL_CO_TRY(put);
            accepted += *put;
        }
    });
    w.run_until(9s);
    CHECK(accepted == 60'000);
    w.run_until(20s);
    CHECK(read == 20'000);
    // A window opens by whole packets.
    CHECK(accepted > 80'000 - sim::packet_bytes);
    CHECK(accepted <= 80'000);
}

TEST_CASE("one stream carries at most a window a round trip") {
    transfer t(1'000'000);
    sim::world w(1, {.network = {.receive_window = 100'000}});
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 50ms);
    t.start(w, a, b);
    w.run_until(60s);
    REQUIRE(t.done);
    CHECK(t.got == t.data);
    // Ten windows: the tenth leaves after nine round trips.
    CHECK(*t.done == *t.begun + 9 * 100ms + 50ms);
}

TEST_CASE("connecting fails with the reason and after the time that it takes to know it") {
    struct attempt {
        net::endpoint to;
        core::duration after;
        std::string says;
    };
    const std::vector<attempt> attempts{{{"b", 9}, 80ms, "refused"},
                                        {{"nowhere", 9}, 0ms, "no host is called 'nowhere'"},
                                        {{"hidden", 9}, 127s, "does not answer"},
                                        {{"localhost", 9}, 0ms, "refused"}};
    sim::world w(1);
    auto& a = w.add_node("a");
    w.add_node("b");
    w.add_node("hidden", {.reachable = false});
    w.set_default_path({.delay = 40ms});
    std::size_t done = 0;
    a.start([&](environment& env) -> task<result<void>> {
        for (const auto& t : attempts) {
            const auto begun = w.now();
            auto s = co_await env.network.connect(t.to, net::stream_purpose::control);
            REQUIRE_FALSE(s);
            CHECK(s.error().code == errc::unreachable);
            CHECK(s.error().message.find(t.says) != std::string::npos);
            CHECK(w.now() - begun == t.after);
            ++done;
        }
        co_return core::ok();
    });
    w.run_until(10min);
    CHECK(done == attempts.size());
}

TEST_CASE("a full backlog makes connectors wait: those that are accepted get through") {
    int connected = 0, accepted = 0;
    sim::world w(1, {.network = {.backlog = 2}});
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 10ms);
    b.start([&](environment& env) -> task<result<void>> {
        auto listening = env.network.listen({"b", 1});
        LONGHAUL_CO_TRY(listening);
        auto slept = co_await env.clock.sleep_for(500ms);
        LONGHAUL_CO_TRY(slept);
        std::vector<std::unique_ptr<net::stream>> all;
        for (;;) {
            auto s = co_await (*listening)->accept();
            LONGHAUL_CO_TRY(s);
            all.push_back(std::move(*s));
            ++accepted;
        }
    });
    auto one = [&](environment& env) -> task<result<void>> {
        auto slept = co_await env.clock.sleep_for(10ms * connected);
        LONGHAUL_CO_TRY(slept);
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::control);
        LONGHAUL_CO_TRY(s);
        ++connected;
        co_return co_await env.clock.sleep_for(1h);
    };
    a.start([&](environment& env) -> task<result<void>> {
        core::scope children(env.executor);
        for (int i = 0; i < 4; ++i) {
            children.spawn("one", one(env));
            // Far enough apart that the backlog is seen as it is.
            auto slept = co_await env.clock.sleep_for(50ms);
            (void)slept;
        }
        co_return co_await children.join();
    });
    w.run_until(450ms);
    CHECK(connected == 2);
    CHECK(accepted == 0);
    w.run_until(2s);  // the third and fourth SYN are repeated after one second
    CHECK(connected == 4);
    CHECK(accepted == 4);
}

TEST_CASE("ports: in use, free ones, foreign addresses, and free again after close") {
    sim::world w(1);
    auto& a = w.add_node("a");
    bool done = false;
    a.start([&](environment& env) -> task<result<void>> {
        auto first = env.network.listen({"", 7400});
        REQUIRE(first);
        CHECK((*first)->local() == net::endpoint{"a", 7400});
        auto second = env.network.listen({"0.0.0.0", 7400});
        REQUIRE_FALSE(second);
        CHECK(second.error().code == errc::address_in_use);
        auto any = env.network.listen({"a", 0}), other = env.network.listen({"::", 0});
        REQUIRE((any && other));
        CHECK((*any)->local().port != 0);
        CHECK((*any)->local().port != (*other)->local().port);
        auto foreign = env.network.listen({"b", 1});
        REQUIRE_FALSE(foreign);
        CHECK(foreign.error().code == errc::io);
        (*first)->close();
        auto ended = co_await (*first)->accept();
        CHECK(ended.error().code == errc::closed);
        CHECK(env.network.listen({"", 7400}));
        done = true;
        co_return core::ok();
    });
    w.run_until(1s);
    CHECK(done);
}

TEST_CASE("an orderly close delivers everything written before it, then the end") {
    const auto data = pattern(300'000);
    byte_vector got;
    bool ended = false;
    errc late{};
    sim::world w(1);
    auto& a = w.add_node("a", {.up = {10e6}});
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 20ms);
    b.start([&](environment& env) -> task<result<void>> {
        auto s = co_await accept_one(env, 1);
        LONGHAUL_CO_TRY(s);
        byte_vector part(7000);
        for (;;) {
            auto n = co_await (*s)->read_some(part);
            LONGHAUL_CO_TRY(n);
            if (*n == 0) break;
            got.insert(got.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(*n));
        }
        ended = true;
        // The other end is closed: what we write now is answered by a reset.
        auto first = co_await (*s)->write_some(part);
        CHECK(first);
        auto slept = co_await env.clock.sleep_for(41ms);
        LONGHAUL_CO_TRY(slept);
        auto second = co_await (*s)->write_some(part);
        late = second.error().code;
        co_return core::ok();
    });
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::bulk);
        LONGHAUL_CO_TRY(s);
        auto sent = co_await net::write_all(**s, data);
        LONGHAUL_CO_TRY(sent);
        (*s)->close();
        (*s)->close();
        auto after = co_await (*s)->write_some(data);
        CHECK(after.error().code == errc::closed);
        co_return core::ok();
    });
    w.run_until(10s);
    CHECK(got == data);
    CHECK(ended);
    CHECK(late == errc::closed);
    CHECK(w.network().open_connections() == 0);
}

TEST_CASE("close wakes the pending read and write of its own side with closed") {
    errc read_error{}, write_error{};
    sim::world w(1, {.network = {.send_buffer = 1000, .receive_window = 1000}});
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    b.start([&](environment& env) -> task<result<void>> {
        auto s = co_await accept_one(env, 1);
        LONGHAUL_CO_TRY(s);
        co_return co_await env.clock.sleep_for(1h);
    });
    auto reads = [&](net::stream& s) -> task<result<void>> {
        byte_vector part(10);
        auto n = co_await s.read_some(part);
        read_error = n.error().code;
        co_return core::ok();
    };
    auto writes = [&](net::stream& s) -> task<result<void>> {
        const byte_vector block(100'000);
        auto n = co_await net::write_all(s, block);
        write_error = n.error().code;
        co_return core::ok();
    };
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::bulk);
        LONGHAUL_CO_TRY(s);
        core::scope children(env.executor);
        children.spawn("reads", reads(**s));
        children.spawn("writes", writes(**s));
        auto slept = co_await env.clock.sleep_for(1s);
        (void)slept;
        // Destroyed with both operations pending: they hold what they need.
        s->reset();
        co_return co_await children.join();
    });
    w.run_until(2s);
    REQUIRE(a.outcome());
    CHECK(a.outcome()->has_value());
    CHECK(read_error == errc::closed);
    CHECK(write_error == errc::closed);
}

TEST_CASE("closing with unread bytes resets the connection, as TCP does") {
    result<std::size_t> at_a = std::size_t{99};
    sim::world w(1);
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    w.set_delay("a", "b", 10ms);
    b.start([&](environment& env) -> task<result<void>> {
        auto s = co_await accept_one(env, 1);
        LONGHAUL_CO_TRY(s);
        auto slept = co_await env.clock.sleep_for(1s);
        LONGHAUL_CO_TRY(slept);
        (*s)->close();
        co_return core::ok();
    });
    a.start([&](environment& env) -> task<result<void>> {
        net::endpoint to{"b", 1};
        auto s = co_await env.network.connect(to, net::stream_purpose::bulk);
        LONGHAUL_CO_TRY(s);
        const byte_vector block(10);
        auto sent = co_await net::write_all(**s, block);
        LONGHAUL_CO_TRY(sent);
        byte_vector part(10);
        at_a = co_await (*s)->read_some(part);
        co_return core::ok();
    });
    w.run_until(10s);
    REQUIRE_FALSE(at_a);
    CHECK(at_a.error().code == errc::closed);
}

TEST_CASE("an echo over hundreds of random fragmentations returns every byte") {
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        const auto data = pattern(1 + seed * 7, seed);
        byte_vector back(data.size());
        bool same = false;
        sim::world w(seed,
                     {.network = {.send_buffer = 1 + seed * 3, .receive_window = 1 + seed * 5, .fragment = true}});
        auto& a = w.add_node("a", {.up = {1e6}});
        auto& b = w.add_node("b", {.up = {2e6}});
        w.set_paths("a", "b", {.delay = 5ms, .jitter = 3ms, .loss = 0.02});
        b.start([&](environment& env) -> task<result<void>> {
            auto s = co_await accept_one(env, 1);
            LONGHAUL_CO_TRY(s);
            byte_vector part(100);
            for (;;) {
                auto n = co_await (*s)->read_some(part);
                LONGHAUL_CO_TRY(n);
                if (*n == 0) co_return core::ok();
                const auto echo = core::const_bytes(part).first(*n);
                auto sent = co_await net::write_all(**s, echo);
                LONGHAUL_CO_TRY(sent);
            }
        });
        a.start([&](environment& env) -> task<result<void>> {
            net::endpoint to{"b", 1};
            auto s = co_await env.network.connect(to, net::stream_purpose::control);
            LONGHAUL_CO_TRY(s);
            auto writing = net::write_all(**s, data);
            auto reading = net::read_exact(**s, back);
            auto ended = co_await core::both(std::move(writing), std::move(reading));
            LONGHAUL_CO_TRY(ended.first);
            LONGHAUL_CO_TRY(ended.second);
            same = back == data;
            co_return core::ok();
        });
        w.run_until(1h);
        CAPTURE(seed);
        REQUIRE(same);
        REQUIRE(b.outcome()->has_value());
        REQUIRE(w.network().open_connections() == 0);
    }
}

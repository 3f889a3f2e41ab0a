// Lives of nodes, time, jobs, events, determinism.

#include <asio/this_coro.hpp>

#include "tests/unit/sim/support.hpp"

using namespace longhaul;
using namespace longhaul::sim_tests;

namespace {

/// A small random network with everything in it; the same seed must give the same trace.
core::digest busy_world(std::uint64_t seed) {
    constexpr int nodes = 5;
    sim::world w(seed);
    for (int i = 0; i < nodes; ++i) w.add_node(fmt::format("n{}", i), {.up = {20e6}, .down = {50e6}});
    w.set_default_path({.delay = 15ms, .jitter = 4ms, .loss = 0.01});
    auto serve = [](environment& env) -> task<result<void>> {
        auto listening = env.network.listen({"", 1});
        LONGHAUL_CO_TRY(listening);
        auto drain = [](std::unique_ptr<net::stream> s) -> task<result<void>> {
            byte_vector part(10'000);
            for (;;) {
                auto n = co_await s->read_some(part);
                if (!n || *n == 0) co_return core::ok();
            }
        };
        core::scope children(env.executor);
        for (;;) {
            auto s = co_await (*listening)->accept();
            if (!s) break;
            children.spawn_isolated("drain", drain(std::move(*s)));
        }
        co_return co_await children.join();
    };
    auto talk = [](environment& env) -> task<result<void>> {
        for (;;) {
            net::endpoint to{fmt::format("n{}", env.entropy.below(nodes)), 1};
            auto connecting = env.network.connect(to, net::stream_purpose::bulk);
            auto s = co_await core::with_deadline(env.clock, std::move(connecting), env.clock.now() + 500ms);
            if (s) {
                byte_vector data(env.entropy.below(100'000));
                env.entropy.fill(data);
                auto writing = net::write_all(**s, data);
                auto sent = co_await core::with_deadline(env.clock, std::move(writing), env.clock.now() + 1s);
                core::event e("sent");
                e.with("bytes", std::uint64_t{data.size()}).with("ok", sent.has_value());
                env.events.emit(e);
                auto stored = co_await env.storage.append("log", data);
                LONGHAUL_CO_TRY(stored);
            } else if (s.error().code == errc::cancelled) {
                co_return core::fail(s.error());
            }
            auto slept = co_await env.clock.sleep_for(std::chrono::milliseconds(env.entropy.below(100)));
            LONGHAUL_CO_TRY(slept);
        }
    };
    for (const auto& n : w.nodes()) {
        n->start([serve, talk](environment& env) -> task<result<void>> {
            core::scope children(env.executor);
            children.spawn("serve", serve(env));
            children.spawn("talk", talk(env));
            co_return co_await children.join();
        });
    }
    w.at(1s, [&] { w["n1"].kill(); });
    w.at(1500ms, [&] { w["n2"].vanish(); });
    w.at(2s, [&] { w.cut({"n0", "n3"}, {"n4"}); });
    w.at(2500ms, [&] { w["n1"].restart(); });
    w.at(3s, [&] { w.heal(); });
    w.at(3200ms, [&] { w["n3"].pause(); });
    w.at(3500ms, [&] { w["n2"].restart(); });
    w.at(4s, [&] { w["n3"].resume(); });
    w.run_until(5s);
    REQUIRE(w["n0"].count_events("sent") > 5);
    return w.trace_hash();
}

}  // namespace

TEST_CASE("the same seed gives the same trace, another seed another one") {
    const auto first = busy_world(1);
    CHECK(busy_world(1) == first);
    CHECK(busy_world(2) != first);
}

TEST_CASE("sleeps end exactly when they should, in order, and the clocks of nodes have nothing in common") {
    std::vector<std::pair<core::duration, int>> woke;
    sim::world w(1);
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    auto sleeper = [&](environment& env, core::duration d, int id) -> task<result<void>> {
        const auto begun = env.clock.now();
        auto slept = co_await env.clock.sleep_for(d);
        CHECK(env.clock.now() - begun == d);
        woke.emplace_back(w.now(), id);
        co_return slept;
    };
    a.start([&](environment& env) -> task<result<void>> {
        core::scope children(env.executor);
        children.spawn("1", sleeper(env, 3s, 1));
        children.spawn("2", sleeper(env, 1s, 2));
        children.spawn("3", sleeper(env, 1s, 3));
        children.spawn("4", sleeper(env, 0s, 4));
        co_return co_await children.join();
    });
    b.start([&](environment& env) { return env.clock.sleep_until(core::time_point::max()); });
    w.run_until(500ms);
    CHECK(a.environment().clock.now() != b.environment().clock.now());
    w.run_until(10s);
    using expected = std::vector<std::pair<core::duration, int>>;
    CHECK(woke == expected{{0s, 4}, {1s, 2}, {1s, 3}, {3s, 1}});
    CHECK(a.outcome()->has_value());
    CHECK(b.running());
    CHECK(w.now() == 10s);
}

TEST_CASE("a drifting clock sleeps by its own seconds: the wall clock may be wrong by any amount") {
    std::optional<core::duration> woke;
    sim::world w(1);
    auto& a = w.add_node("a");
    a.set_drift(100'000);
    a.set_wall_offset(-1h);
    a.start([&](environment& env) -> task<result<void>> {
        CHECK(env.clock.wall_seconds() == Approx(-3600));
        auto slept = co_await env.clock.sleep_for(11s);
        LONGHAUL_CO_TRY(slept);
        woke = w.now();
        co_return core::ok();
    });
    w.run_until(1min);
    CHECK(woke == 10s);
}

TEST_CASE("a killed process changes nothing any more, not even in its last handler") {
    int ended = 0;
    sim::world w(1);
    auto& a = w.add_node("a");
    a.on_event([&](const core::event& e) {
        if (e.name == "now") a.kill();  // from within
    });
    a.start([&](environment& env) -> task<result<void>> {
        env.events.emit(core::event("now"));
        env.events.emit(core::event("later"));
        const byte_vector data(10);
        auto stored = co_await env.storage.put("file", pieces(data));
        CHECK(stored.error().code == errc::cancelled);
        net::endpoint to{"a", 1};
        ++ended;
        auto connected = co_await env.network.connect(to, net::stream_purpose::control);
        ++ended;
        co_return core::ok();
    });
    w.run_until(1s);
    CHECK_FALSE(a.running());
    CHECK(a.count_events("now") == 1);
    CHECK(a.count_events("later") == 0);
    CHECK(a.disk().files().empty());
    CHECK(ended <= 2);
}

TEST_CASE("a kill unwinds tasks in every kind of wait, children before parents") {
    std::vector<std::string> order;
    struct mark {
        std::vector<std::string>& out;
        std::string name;
        ~mark() { out.push_back(name); }
    };
    sim::world w(1);
    auto& a = w.add_node("a");
    auto& b = w.add_node("b");
    b.start([](environment& env) -> task<result<void>> {
        auto listening = env.network.listen({"", 1});
        LONGHAUL_CO_TRY(listening);
        co_return co_await env.clock.sleep_for(1h);
    });
    auto child = [&](environment& env, int kind) -> task<result<void>> {
        const mark m{order, "child"};
        net::endpoint to{"b", 1};
        if (kind == 0) co_return co_await env.clock.sleep_for(1h);
        if (kind == 1) {
            auto listening = env.network.listen({"", 5});
            auto s = co_await (*listening)->accept();
            LONGHAUL_CO_TRY(s);
        }
        if (kind == 2) {
            auto s = co_await env.network.connect(to, net::stream_purpose::control);
            LONGHAUL_CO_TRY(s);
            byte_vector part(1);
            auto n = co_await (*s)->read_some(part);
            LONGHAUL_CO_TRY(n);
        }
        if (kind == 3) {
            std::function<void()> job = [] {};
            auto ran = co_await env.workers.run(std::move(job), 1h);
            LONGHAUL_CO_TRY(ran);
        }
        if (kind == 4) {
            auto sleeping = env.clock.sleep_for(1h);
            auto slept = co_await core::with_deadline(env.clock, std::move(sleeping), env.clock.now() + 30min);
            LONGHAUL_CO_TRY(slept);
        }
        co_return core::ok();
    };
    a.start([&](environment& env) -> task<result<void>> {
        const mark m{order, "parent"};
        core::scope children(env.executor);
        for (int kind = 0; kind < 5; ++kind) children.spawn("child", child(env, kind));
        co_return co_await children.join();
    });
    w.at(2s, [&] { a.kill(); });
    w.run_until(3s);
    CHECK(order == std::vector<std::string>{"child", "child", "child", "child", "child", "parent"});
    CHECK(a.outcome()->error().code == errc::cancelled);
    // The end of the world does the same to those that still run.
}

TEST_CASE("kill and restart at any moment of a busy exchange leave no connection and no task behind") {
    for (int step = 0; step < 60; ++step) {
        sim::world w(static_cast<std::uint64_t>(step));
        auto& a = w.add_node("a", {.up = {10e6}});
        auto& b = w.add_node("b", {.up = {10e6}});
        w.set_delay("a", "b", 3ms);
        std::size_t received = 0;
        b.start([&](environment& env) -> task<result<void>> {
            auto listening = env.network.listen({"", 1});
            LONGHAUL_CO_TRY(listening);
            for (;;) {
                auto s = co_await (*listening)->accept();
                LONGHAUL_CO_TRY(s);
                byte_vector part(3000);
                for (;;) {
                    auto n = co_await (*s)->read_some(part);
                    if (!n || *n == 0) break;
                    received += *n;
                    if (!co_await net::write_all(**s, part)) break;
                }
            }
        });
        a.start([&](environment& env) -> task<result<void>> {
            for (;;) {
                net::endpoint to{"b", 1};
                auto s = co_await env.network.connect(to, net::stream_purpose::bulk);
                if (!s && s.error().code == errc::cancelled) co_return core::ok();
                if (!s) continue;
                byte_vector part(2000);
                for (int i = 0; i < 3; ++i) {
                    if (!co_await net::write_all(**s, part)) break;
                    if (!co_await net::read_exact(**s, part)) break;
                }
            }
        });
        auto& victim = step % 2 == 0 ? a : b;
        w.at(1ms * (step / 2), [&] { victim.kill(); });
        w.at(50ms, [&] { victim.restart(); });
        w.run_until(200ms);
        const auto before = received;
        w.run_until(1s);
        CAPTURE(step);
        REQUIRE(received > before);
        w.at(1s, [&] {
            a.kill();
            b.kill();
        });
        w.run_until(5s);
        REQUIRE(w.network().open_connections() == 0);
    }
}

TEST_CASE("jobs run inline and take their modelled time on the node's cores") {
    std::vector<core::duration> ended;
    sim::world w(1);
    auto& a = w.add_node("a", {.cores = 2});
    auto job = [&](environment& env, core::duration d) -> task<result<void>> {
        bool ran = false;
        std::function<void()> work = [&ran] { ran = true; };
        auto done = co_await env.workers.run(std::move(work), d);
        CHECK(ran);
        ended.push_back(w.now());
        co_return done;
    };
    a.start([&](environment& env) -> task<result<void>> {
        CHECK(env.workers.concurrency() == 2);
        core::scope children(env.executor);
        for (int i = 0; i < 3; ++i) children.spawn("job", job(env, 10s));
        co_return co_await children.join();
    });
    w.run_until(1min);
    CHECK(ended == std::vector<core::duration>{10s, 10s, 20s});
}

TEST_CASE("a cancelled job is waited for") {
    std::optional<core::duration> ended;
    errc code{};
    sim::world w(1);
    auto& a = w.add_node("a");
    a.start([&](environment& env) -> task<result<void>> {
        std::function<void()> work = [] {};
        auto running = env.workers.run(std::move(work), 10s);
        auto done = co_await core::with_deadline(env.clock, std::move(running), env.clock.now() + 3s);
        ended = w.now();
        code = done ? errc::internal : done.error().code;
        co_return core::ok();
    });
    w.run_until(1min);
    CHECK(ended == 10s);
    CHECK(code == errc::timeout);
}

TEST_CASE("run_while stops at the event that ends the condition, or at the limit") {
    int count = 0;
    sim::world w(1);
    for (int i = 1; i <= 10; ++i) w.at(i * 1s, [&] { ++count; });
    CHECK(w.run_while([&] { return count < 4; }, 1h));
    CHECK(w.now() == 4s);
    CHECK_FALSE(w.run_while([&] { return count < 40; }, 3s));
    CHECK(w.now() == 7s);
    CHECK(count == 7);
}

TEST_CASE("events are recorded with their time, and what main returns is kept") {
    sim::world w(1);
    auto& a = w.add_node("a");
    a.start([](environment& env) -> task<result<void>> {
        auto slept = co_await env.clock.sleep_for(2s);
        LONGHAUL_CO_TRY(slept);
        core::event e("joined");
        e.with("round", std::uint64_t{7});
        env.events.emit(e);
        co_return core::fail(errc::quorum_lost, "nobody is left");
    });
    CHECK_FALSE(a.outcome());
    w.run_until(5s);
    REQUIRE(a.events().size() == 1);
    CHECK(a.events()[0].at == 2s);
    CHECK(std::get<std::uint64_t>(*a.events()[0].event.find("round")) == 7);
    REQUIRE(a.outcome());
    CHECK(a.outcome()->error().code == errc::quorum_lost);
    CHECK(w.report().find("joined") != std::string::npos);
    CHECK(w.report().find("seed 1") != std::string::npos);
}

TEST_CASE("each life draws other randomness, each run of it the same") {
    std::vector<std::uint64_t> drawn;
    for (int run = 0; run < 2; ++run) {
        sim::world w(4);
        auto& a = w.add_node("a");
        auto& b = w.add_node("b");
        auto main = [&](environment& env) -> task<result<void>> {
            drawn.push_back(env.entropy.u64());
            co_return core::ok();
        };
        a.start(main);
        b.start(main);
        w.run_for(1s);
        a.restart();
        w.run_for(1s);
    }
    REQUIRE(drawn.size() == 6);
    CHECK(drawn[0] != drawn[1]);
    CHECK(drawn[0] != drawn[2]);
    CHECK(std::equal(drawn.begin(), drawn.begin() + 3, drawn.begin() + 3));
}

#include "core/task.hpp"

#include <asio/io_context.hpp>
#include <asio/this_coro.hpp>
#include <map>

#include "tests/test.hpp"

using namespace longhaul::core;

namespace {

/// A clock by hand: alarms ring when the test advances it.
class manual_clock final : public longhaul::core::clock {
public:
    explicit manual_clock(asio::io_context& io) : io_(io) {}
    time_point now() const override { return now_; }
    double wall_seconds() const override { return to_seconds(now_.time_since_epoch()); }
    std::unique_ptr<longhaul::core::alarm> call_at(time_point when, std::function<void()> what) override {
        return std::make_unique<entry>(alarms_, alarms_.emplace(when, std::move(what)));
    }
    void advance(duration d) {
        settle();
        now_ += d;
        for (const auto& [when, call] : alarms_) {
            if (when <= now_) call();
        }
        settle();
    }
    std::size_t alarms() const { return alarms_.size(); }
    void settle() {
        io_.restart();
        io_.poll();
    }

private:
    using calls = std::multimap<time_point, std::function<void()>>;
    struct entry final : longhaul::core::alarm {
        entry(calls& all, calls::iterator it) : in(all), place(it) {}
        ~entry() override { in.erase(place); }
        entry(const entry&) = delete;
        entry& operator=(const entry&) = delete;
        calls& in;
        calls::iterator place;
    };

    asio::io_context& io_;
    time_point now_{};
    calls alarms_;
};

struct world {
    asio::io_context io;
    manual_clock time{io};
    std::optional<result<void>> outcome;
    void start_main(task<result<void>> main) {
        start(io.get_executor(), std::move(main), [this](result<void> r) { outcome = std::move(r); });
        time.settle();
    }
};

task<result<int>> after(longhaul::core::clock& c, duration d, int value) {
    auto slept = co_await c.sleep_for(d);
    LONGHAUL_CO_TRY(slept);
    co_return value;
}

task<result<void>> fails_after(longhaul::core::clock& c, duration d, errc code) {
    auto slept = co_await c.sleep_for(d);
    LONGHAUL_CO_TRY(slept);
    co_return fail(code, "as planned");
}

task<result<void>> counts_end(longhaul::core::clock& c, duration d, int& ended) {
    auto slept = co_await c.sleep_for(d);
    ++ended;
    co_return slept;
}

}  // namespace

TEST_CASE("with_deadline gives the value when it is in time and a timeout when it is not") {
    world w;
    std::vector<result<int>> got;
    auto main = [](world& in, std::vector<result<int>>& out) -> task<result<void>> {
        out.push_back(co_await with_deadline(in.time, after(in.time, 1s, 7), in.time.now() + 2s));
        out.push_back(co_await with_deadline(in.time, after(in.time, 5s, 8), in.time.now() + 2s));
        co_return ok();
    };
    w.start_main(main(w, got));
    for (int i = 0; i < 10; ++i) w.time.advance(500ms);
    REQUIRE(w.outcome.has_value());
    REQUIRE(got.size() == 2);
    CHECK(got[0].value() == 7);
    CHECK(got[1].error().code == errc::timeout);
}

TEST_CASE("a wait with a deadline ends by a call, by its time or by its cancellation, and leaves no alarm behind") {
    world w;
    wakeup changed(w.io.get_executor());
    std::vector<result<void>> got;
    auto main = [](world& in, wakeup& calls, std::vector<result<void>>& out) -> task<result<void>> {
        out.push_back(co_await calls.wait(in.time, in.time.now() + 2s));
        out.push_back(co_await calls.wait(in.time, in.time.now() + 2s));
        auto longer = calls.wait(in.time, in.time.now() + 1h);
        out.push_back(co_await with_deadline(in.time, std::move(longer), in.time.now() + 2s));
        out.push_back(co_await calls.wait(in.time, in.time.now()));
        co_return ok();
    };
    w.start_main(main(w, changed, got));
    w.time.advance(1s);
    CHECK(got.empty());
    changed.notify();
    w.time.settle();
    REQUIRE(got.size() == 1);
    CHECK(got[0]);
    w.time.advance(1500ms);  // the first one's deadline is nobody's any more
    REQUIRE(got.size() == 1);
    w.time.advance(1s);
    REQUIRE(got.size() == 2);
    CHECK(got[1].error().code == errc::timeout);
    CHECK(w.time.alarms() == 2);
    w.time.advance(2s);
    REQUIRE(got.size() == 4);
    CHECK(got[2].error().code == errc::timeout);
    CHECK(got[3].error().code == errc::timeout);
    CHECK(w.time.alarms() == 0);
    CHECK(w.outcome);
}

TEST_CASE("who waits for a time in the past gives others a turn, hears of a call, and can be cancelled") {
    world w;
    wakeup changed(w.io.get_executor());
    scope children(w.io.get_executor());
    bool stop = false;
    std::size_t turns = 0, calls = 0;
    auto spins = [](world& in, wakeup& on, const bool& enough, std::size_t& times,
                    std::size_t& heard) -> task<result<void>> {
        for (; !enough && times < 1000; ++times) {
            const auto woken = co_await on.wait(in.time, in.time.now() - 1s);
            if (woken) ++heard;
        }
        co_return ok();
    };
    auto stops = [](wakeup& on, bool& enough) -> task<result<void>> {
        on.notify();
        enough = true;
        co_return ok();
    };
    children.spawn("spins", spins(w, changed, stop, turns, calls));
    children.spawn("stops", stops(changed, stop));
    w.start_main(children.join());
    CHECK(turns == 1);
    CHECK(calls == 1);
    REQUIRE(w.outcome);
    CHECK(*w.outcome);

    auto cancels = [](scope& all) -> task<result<void>> {
        all.cancel();
        co_return ok();
    };
    const bool never = false;
    turns = 0;
    w.outcome.reset();
    scope others(w.io.get_executor());
    others.spawn("spins", spins(w, changed, never, turns, calls));
    others.spawn("cancels", cancels(others));
    w.start_main(others.join());
    CHECK(w.outcome);
    CHECK(turns < 1000);
}

TEST_CASE("a call wakes those who wait, in the order in which they came, and not those who come later") {
    world w;
    wakeup changed(w.io.get_executor());
    std::vector<int> woken;
    scope children(w.io.get_executor());
    auto waits = [](world& in, wakeup& calls, std::vector<int>& out, int who) -> task<result<void>> {
        for (int i = 0; i < 2; ++i) {
            auto wait = who == 2 ? calls.wait(in.time, in.time.now() + 1h) : calls.wait();
            auto called = co_await std::move(wait);
            LONGHAUL_CO_TRY(called);
            out.push_back(who);
        }
        co_return ok();
    };
    for (const int who : {1, 2, 3}) children.spawn("waits", waits(w, changed, woken, who));
    w.start_main(children.join());
    changed.notify();
    w.time.settle();
    CHECK(woken == std::vector{1, 2, 3});
    changed.notify();
    changed.notify();
    w.time.settle();
    CHECK(woken == std::vector{1, 2, 3, 1, 2, 3});
    CHECK(w.outcome);
}

TEST_CASE("wait_until with a deadline looks at its condition at each call, and once more at its time") {
    world w;
    wakeup changed(w.io.get_executor());
    bool holds = false;
    std::vector<result<void>> got;
    auto main = [](world& in, wakeup& calls, bool& condition, std::vector<result<void>>& out) -> task<result<void>> {
        const auto met = [&condition] { return condition; };
        for (int i = 0; i < 3; ++i) out.push_back(co_await wait_until(calls, met, in.time, in.time.now() + 2s));
        co_return ok();
    };
    w.start_main(main(w, changed, holds, got));
    changed.notify();
    w.time.advance(1s);
    CHECK(got.empty());
    w.time.advance(1s);
    REQUIRE(got.size() == 1);
    CHECK(got[0].error().code == errc::timeout);
    holds = true;  // and nobody calls
    w.time.advance(2s);
    REQUIRE(got.size() == 3);
    CHECK(got[1]);
    CHECK(got[2]);
}

TEST_CASE("both waits for the slower one") {
    world w;
    int sum = 0;
    auto main = [](world& in, int& out) -> task<result<void>> {
        auto pair = co_await both(after(in.time, 1s, 1), after(in.time, 3s, 2));
        out = *pair.first + *pair.second;
        co_return ok();
    };
    w.start_main(main(w, sum));
    w.time.advance(1s);
    CHECK(sum == 0);
    w.time.advance(2s);
    CHECK(sum == 3);
}

TEST_CASE("a scope joins its children and passes on the first error, having cancelled the others") {
    world w;
    int ended = 0;
    auto main = [](world& in, int& count) -> task<result<void>> {
        scope children(in.io.get_executor());
        children.spawn("slow", counts_end(in.time, 100s, count));
        children.spawn("failing", fails_after(in.time, 1s, errc::limit));
        co_return co_await children.join();
    };
    w.start_main(main(w, ended));
    w.time.advance(1s);
    REQUIRE(w.outcome.has_value());
    CHECK(w.outcome->error().code == errc::limit);
    CHECK(w.outcome->error().message == "failing: as planned");
    CHECK(ended == 1);
}

TEST_CASE("a deadline around a scope ends its children before it returns") {
    world w;
    int ended = 0;
    auto inner = [](world& in, int& count) -> task<result<void>> {
        scope children(in.io.get_executor());
        children.spawn("one", counts_end(in.time, 100s, count));
        children.spawn("two", counts_end(in.time, 200s, count));
        co_return co_await children.join();
    };
    w.start_main(with_deadline(w.time, inner(w, ended), w.time.now() + 2s));
    w.time.advance(2s);
    REQUIRE(w.outcome.has_value());
    CHECK(w.outcome->error().code == errc::timeout);
    CHECK(ended == 2);
}

TEST_CASE("a scope that is cancelled in the turn in which a child ends still ends its other children") {
    world w;
    scope outer(w.io.get_executor());
    int ended = 0;
    auto last_act = [](world& in, scope& all) -> task<result<void>> {
        auto slept = co_await in.time.sleep_for(1s);
        all.cancel();
        co_return slept;
    };
    auto inner = [&last_act](world& in, scope& all, int& count) -> task<result<void>> {
        scope children(in.io.get_executor());
        children.spawn("steady", counts_end(in.time, 100s, count));
        children.spawn("cancelling", last_act(in, all));
        co_return co_await children.join();
    };
    outer.spawn("inner", inner(w, outer, ended));
    w.start_main(outer.join());
    w.time.advance(1s);
    CHECK(ended == 1);
    CHECK(w.outcome.has_value());
    w.time.advance(100s);  // so that a failure is one, and not an abort
}

TEST_CASE("an isolated child's failure ends only itself") {
    world w;
    std::string seen;
    int ended = 0;
    auto main = [](world& in, std::string& error_seen, int& count) -> task<result<void>> {
        scope children(in.io.get_executor());
        children.spawn_isolated("lonely", fails_after(in.time, 1s, errc::closed),
                                [&error_seen](const error& e) { error_seen = e.message; });
        children.spawn("steady", counts_end(in.time, 3s, count));
        co_return co_await children.join();
    };
    w.start_main(main(w, seen, ended));
    w.time.advance(3s);
    REQUIRE(w.outcome.has_value());
    CHECK(w.outcome->has_value());
    CHECK(seen == "as planned");
    CHECK(ended == 1);
}

TEST_CASE("a child that starts another one before its own first wait stays what it is") {
    world w;
    auto main = [](world& in) -> task<result<void>> {
        scope children(in.io.get_executor());
        auto parent = [](world& of, scope& siblings) -> task<result<void>> {
            siblings.spawn_isolated("lonely", fails_after(of.time, 1s, errc::closed));
            co_return co_await fails_after(of.time, 2s, errc::timeout);
        };
        children.spawn("parent", parent(in, children));
        co_return co_await children.join();
    };
    w.start_main(main(w));
    w.time.advance(1s);
    CHECK_FALSE(w.outcome.has_value());
    w.time.advance(1s);
    REQUIRE(w.outcome.has_value());
    CHECK((!*w.outcome && w.outcome->error().code == errc::timeout));
    w.time.advance(100s);  // so that a failure is one, and not an abort
}

TEST_CASE("a child that throws is an internal error, not a crash") {
    world w;
    auto thrower = []() -> task<result<void>> {
        throw std::runtime_error("boom");
        co_return ok();
    };
    auto main = [](world& in, task<result<void>> child) -> task<result<void>> {
        scope children(in.io.get_executor());
        children.spawn("thrower", std::move(child));
        co_return co_await children.join();
    };
    w.start_main(main(w, thrower()));
    w.time.settle();
    REQUIRE(w.outcome.has_value());
    CHECK(w.outcome->error().code == errc::internal);
}

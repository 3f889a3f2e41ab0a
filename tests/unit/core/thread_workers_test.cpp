#include "core/thread_workers.hpp"

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <atomic>
#include <future>
#include <thread>

#include "core/task.hpp"
#include "tests/run_task.hpp"
#include "tests/test.hpp"

using namespace longhaul::core;
using longhaul::tests::run_task;

TEST_CASE("a job runs on another thread and its caller resumes on its own") {
    asio::io_context io;
    thread_workers pool(2);
    CHECK(pool.concurrency() == 2);
    CHECK(pool.started() == 0);
    const auto main = [](workers& on) -> task<result<void>> {
        const auto here = std::this_thread::get_id();
        auto there = here;
        std::function<void()> job = [&there] { there = std::this_thread::get_id(); };
        auto ran = co_await on.run(std::move(job), 1h);
        LONGHAUL_CO_TRY(ran);
        CHECK(there != here);
        CHECK(std::this_thread::get_id() == here);
        co_return ok();
    };
    REQUIRE(run_task(io, main(pool)));
    CHECK(pool.started() == 1);
    REQUIRE(run_task(io, main(pool)));
    CHECK(pool.started() <= 2);
}

TEST_CASE("at most N jobs run at once, and N do") {
    asio::io_context io;
    thread_workers pool(3);
    struct counters {
        std::atomic<int> running = 0, most = 0, done = 0;
        std::promise<void> three_run;
        std::shared_future<void> open = three_run.get_future().share();
    } seen;
    const auto one = [](workers& on, counters& c) -> task<result<void>> {
        std::function<void()> job = [&c] {
            const int now = ++c.running;
            int most = c.most;
            while (now > most && !c.most.compare_exchange_weak(most, now)) {
            }
            // The first three wait for each other: this ends only if three run at the same time.
            if (c.done == 0 && now == 3) c.three_run.set_value();
            c.open.wait();
            ++c.done;
            --c.running;
        };
        co_return co_await on.run(std::move(job), 0s);
    };
    const auto main = [](asio::io_context& loop, workers& on, counters& c, decltype(one) child) -> task<result<void>> {
        scope children(loop.get_executor());
        for (int i = 0; i < 20; ++i) children.spawn("job", child(on, c));
        co_return co_await children.join();
    };
    REQUIRE(run_task(io, main(io, pool, seen, one)));
    CHECK(seen.most == 3);
    CHECK(seen.done == 20);
    CHECK(pool.started() == 3);
}

TEST_CASE("workers are full while a job that is given now would wait") {
    asio::io_context io;
    thread_workers pool(2);
    CHECK_FALSE(pool.full());
    std::promise<void> gate;
    const auto open = gate.get_future().share();
    const auto waits = [](workers& on, std::shared_future<void> until) -> task<result<void>> {
        std::function<void()> job = [until] { until.wait(); };
        co_return co_await on.run(std::move(job), 0s);
    };
    const auto main = [](asio::io_context& loop, thread_workers& on, std::promise<void>& opened,
                         std::shared_future<void> until, decltype(waits) child) -> task<result<void>> {
        scope children(loop.get_executor());
        for (const bool full : {false, true}) {
            children.spawn("job", child(on, until));
            co_await asio::post(loop.get_executor(), asio::use_awaitable);
            CHECK(on.full() == full);
        }
        opened.set_value();
        co_return co_await children.join();
    };
    REQUIRE(run_task(io, main(io, pool, gate, open, waits)));
    while (pool.full()) std::this_thread::yield();  // the worker comes back a little later than the caller
}

TEST_CASE("a cancelled caller waits for its job and then ends") {
    asio::io_context io;
    thread_workers pool(1);
    struct state {
        std::promise<void> gate;
        wakeup job_runs;
        bool started = false;
        std::atomic<bool> job_ended = false;
        bool caller_saw_end = false;
        std::optional<result<void>> outcome;
        explicit state(asio::io_context& loop) : job_runs(loop.get_executor()) {}
    } s(io);
    const auto caller = [](asio::io_context& loop, workers& on, state& in) -> task<result<void>> {
        std::function<void()> job = [&loop, &in] {
            asio::post(loop, [&in] {
                in.started = true;
                in.job_runs.notify();
            });
            in.gate.get_future().wait();
            in.job_ended = true;
        };
        in.outcome = co_await on.run(std::move(job), 0s);
        in.caller_saw_end = in.job_ended;
        co_return ok();
    };
    const auto main = [](asio::io_context& loop, state& in, task<result<void>> child) -> task<result<void>> {
        scope children(loop.get_executor());
        children.spawn("caller", std::move(child));
        auto started = co_await wait_until(in.job_runs, [&in] { return in.started; });
        LONGHAUL_CO_TRY(started);
        children.cancel();
        CHECK(children.size() == 1);  // it goes on waiting
        CHECK_FALSE(in.outcome.has_value());
        in.gate.set_value();
        auto joined = co_await children.join();
        co_return joined;
    };
    REQUIRE(run_task(io, main(io, s, caller(io, pool, s))));
    CHECK(s.caller_saw_end);
    CHECK(s.outcome->has_value());  // the job did its work: that is what the caller learns
}

TEST_CASE("a caller that is already cancelled starts no job") {
    asio::io_context io;
    thread_workers pool(1);
    std::optional<result<void>> outcome;
    bool ran = false;
    const auto caller = [](asio::io_context& loop, workers& on, std::optional<result<void>>& out,
                           bool& job_ran) -> task<result<void>> {
        wakeup never(loop.get_executor());
        auto woken = co_await never.wait();
        CHECK(woken.error().code == errc::cancelled);
        co_await asio::this_coro::throw_if_cancelled(false);
        std::function<void()> job = [&job_ran] { job_ran = true; };
        out = co_await on.run(std::move(job), 0s);
        co_return ok();
    };
    const auto main = [](asio::io_context& loop, task<result<void>> child) -> task<result<void>> {
        scope children(loop.get_executor());
        children.spawn("caller", std::move(child));
        const auto yield = []() -> task<result<void>> { co_return ok(); };
        auto turn = co_await both(yield(), yield());
        CHECK(turn.first);
        children.cancel();
        co_return co_await children.join();
    };
    REQUIRE(run_task(io, main(io, caller(io, pool, outcome, ran))));
    REQUIRE(outcome.has_value());
    CHECK(outcome->error().code == errc::cancelled);
    CHECK_FALSE(ran);
    CHECK(pool.started() == 0);
}

TEST_CASE("a job that throws is an internal error of its caller alone") {
    asio::io_context io;
    thread_workers pool(1);
    const auto main = [](workers& on) -> task<result<void>> {
        std::function<void()> thrower = [] { throw std::runtime_error("boom"); };
        auto threw = co_await on.run(std::move(thrower), 0s);
        CHECK(threw.error().code == errc::internal);
        CHECK(threw.error().message == "a job threw: boom");
        std::function<void()> calm = [] {};
        co_return co_await on.run(std::move(calm), 0s);
    };
    CHECK(run_task(io, main(pool)));
}

TEST_CASE("destruction waits for running jobs and drops the others") {
    asio::io_context io;
    std::atomic<int> ended = 0;
    std::promise<void> gate, running;
    const auto one = [](workers& on, std::function<void()> job) -> task<result<void>> {
        co_return co_await on.run(std::move(job), 0s);
    };
    {
        thread_workers pool(1);
        start(io.get_executor(),
              one(pool,
                  [&] {
                      running.set_value();
                      gate.get_future().wait();
                      ++ended;
                  }),
              [](result<void>) {});
        start(io.get_executor(), one(pool, [&] { ended += 100; }), [](result<void>) {});
        io.poll();
        running.get_future().wait();
        gate.set_value();
    }
    CHECK(ended % 100 == 1);
}

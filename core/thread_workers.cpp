#include "core/thread_workers.hpp"

#include <algorithm>
#include <asio/any_io_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

namespace longhaul::core {

struct thread_workers::pool {
    struct item {
        std::function<void()> job;
        std::function<void()> completed;  ///< posts the caller's resumption
    };

    explicit pool(unsigned n) : limit(std::max(1U, n)) {}

    const unsigned limit;
    mutable std::mutex mutex;
    std::condition_variable changed;
    std::deque<item> queue;
    std::vector<std::thread> threads;
    unsigned idle = 0;
    unsigned jobs = 0;  ///< queued or running
    bool stopping = false;

    void serve() {
        std::unique_lock lock(mutex);
        for (;;) {
            ++idle;
            changed.wait(lock, [this] { return stopping || !queue.empty(); });
            --idle;
            if (stopping) return;
            auto next = std::move(queue.front());
            queue.pop_front();
            lock.unlock();
            next.job();
            next.completed();
            next = {};  // whatever the job held is released before the next wait
            lock.lock();
            --jobs;
        }
    }

    /// Makes sure that somebody will serve the queue; the lock is held.
    std::optional<error> start_thread_if_needed() {
        if (idle > queue.size() || threads.size() >= limit) return std::nullopt;
        // Signals go to the I/O thread, which knows what to do with them.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        std::optional<error> failed;
        try {
            threads.emplace_back([this] { serve(); });
        } catch (const std::system_error& e) {
            if (threads.empty())
                failed =
                    error(errc::io, fmt::format("no worker thread can be started: {}; raise the limit on processes",
                                                e.code().message()));
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return failed;
    }
};

thread_workers::thread_workers(unsigned threads) : pool_(std::make_unique<pool>(threads)) {}

thread_workers::~thread_workers() {
    std::deque<pool::item> dropped;
    {
        std::lock_guard lock(pool_->mutex);
        pool_->stopping = true;
        dropped.swap(pool_->queue);
    }
    pool_->changed.notify_all();
    for (auto& t : pool_->threads) t.join();
}

unsigned thread_workers::concurrency() const { return pool_->limit; }

bool thread_workers::full() const {
    std::lock_guard lock(pool_->mutex);
    return pool_->jobs >= pool_->limit;
}

unsigned thread_workers::started() const {
    std::lock_guard lock(pool_->mutex);
    return static_cast<unsigned>(pool_->threads.size());
}

task<result<void>> thread_workers::run(std::function<void()> job, duration /*modelled*/) {
    const auto cancellation = co_await asio::this_coro::cancellation_state;
    if (cancellation.cancelled() != asio::cancellation_type::none) co_return fail(errc::cancelled, "cancelled");
    auto executor = co_await asio::this_coro::executor;

    // Written by the worker before it posts the resumption, read after it: the post orders the two.
    std::optional<error> failed;
    auto guarded_job = [&job, &failed] {
        try {
            job();
        } catch (const std::exception& e) {
            failed = error(errc::internal, fmt::format("a job threw: {}", e.what()));
        } catch (...) {
            failed = error(errc::internal, "a job threw an unknown exception");
        }
    };
    // The handler has a cancellation slot, and nothing is ever put into it: that is what makes the wait uncancellable.
    // The work guard keeps the I/O thread's loop running while nothing else happens.
    auto initiate = [this, &failed, executor, guarded_job](auto handler) {
        auto held = std::make_shared<decltype(handler)>(std::move(handler));
        auto guard = std::make_shared<asio::executor_work_guard<asio::any_io_executor>>(executor);
        auto resume = [held, guard, executor] { asio::post(executor, std::move(*held)); };
        // Once the job is queued, `failed` is the worker's until the resumption: it is not read here after that.
        bool queued = false;
        {
            std::lock_guard lock(pool_->mutex);
            failed = pool_->start_thread_if_needed();
            queued = !failed;
            if (queued) {
                pool_->queue.push_back({guarded_job, resume});
                ++pool_->jobs;
            }
        }
        if (queued)
            pool_->changed.notify_one();
        else
            resume();
    };
    auto operation =
        asio::async_initiate<const asio::use_awaitable_t<>, void()>(std::move(initiate), asio::use_awaitable);
    co_await std::move(operation);
    if (failed) co_return fail(*failed);
    co_return ok();
}

}  // namespace longhaul::core

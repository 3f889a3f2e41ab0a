#pragma once
/// Coroutines of longhaul: `task<T>`, and the only four ways to wait for more than one thing.
/// docs/COROUTINES.md shows each idiom before and after. In short:
///   - protocol functions return `task<result<T>>`; a lost peer is a value, not an exception;
///   - every wait has a deadline: `with_deadline(clock, op(), clock.now() + 3s)`;
///   - children live in a `scope`, which joins them and passes on the first error; nothing is detached;
///   - name aggregates and capturing lambdas before a `co_await` (g++ 12.2 destroys such temporaries twice);
///   - a coroutine is never a capturing lambda; reference parameters only when the caller awaits at once.

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "core/clock.hpp"
#include "core/result.hpp"

namespace longhaul::core {

/// Awaits both tasks, always to their ends, and returns both results.
template <typename A, typename B>
task<std::pair<result<A>, result<B>>> both(task<result<A>> a, task<result<B>> b);

/// Awaits whichever of two tasks finishes first, cancels the other and waits until it has ended. Index 0 or 1 tells who
/// won.
template <typename A, typename B>
task<std::variant<result<A>, result<B>>> race(task<result<A>> a, task<result<B>> b);

/// Runs `op` until `deadline`; then cancels it and returns errc::timeout.
template <typename T>
task<result<T>> with_deadline(clock& clock, task<result<T>> op, time_point deadline);

/// Something to wait for: `notify` wakes everybody who waits now. Waits are cancellable. Waiters must re-check
/// their condition. One thread only. Must outlive its waiters.
class wakeup {
public:
    explicit wakeup(asio::any_io_executor executor);
    ~wakeup();
    wakeup(const wakeup&) = delete;
    wakeup& operator=(const wakeup&) = delete;
    void notify();
    /// Returns at the next `notify`; errc::cancelled when the waiting task is cancelled.
    task<result<void>> wait();
    /// The same; errc::timeout at `until`, and when that is past, after others had a turn. A wait that spawns nothing,
    /// unlike one inside of `with_deadline`.
    task<result<void>> wait(clock& clock, time_point until);

private:
    struct state;
    std::shared_ptr<state> state_;
};

/// Waits until `condition()` holds, looking again at each `notify` of `changed`.
task<result<void>> wait_until(wakeup& changed, std::function<bool()> condition);
/// The same; errc::timeout when it does not hold at `deadline`.
task<result<void>> wait_until(wakeup& changed, std::function<bool()> condition, clock& clock, time_point deadline);

/// Owns concurrent children. The first child that fails (other than by errc::cancelled) cancels its siblings, and
/// `join` returns its error. A scope must be joined before it is destroyed.
class scope {
public:
    explicit scope(asio::any_io_executor executor);
    ~scope();
    scope(const scope&) = delete;
    scope& operator=(const scope&) = delete;

    /// Starts a child; it may run at once, up to its first wait. `name` appears in its error.
    void spawn(std::string name, task<result<void>> child);
    /// Starts a child whose failure ends only itself: the error goes to `on_error` (may be empty: ignored).
    void spawn_isolated(std::string name, task<result<void>> child, std::function<void(const error&)> on_error = {});
    /// Asks all children to end. They end as their pending waits return errc::cancelled.
    void cancel();
    /// Waits for all children, those spawned meanwhile included. Being cancelled itself, cancels them and still waits.
    task<result<void>> join();
    /// Children that have not ended.
    std::size_t size() const;

private:
    struct state;
    std::shared_ptr<state> state_;
};

/// Runs `main` on `executor` as a root task; `done` gets its result. For mains and tests only.
void start(asio::any_io_executor executor, task<result<void>> main, std::function<void(result<void>)> done);

}  // namespace longhaul::core

#include "core/task_impl.hpp"

#include "core/task.hpp"

#include <algorithm>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <exception>
#include <list>
#include <system_error>

namespace longhaul::core {

namespace detail {

error error_from_current_exception() {
    try {
        throw;
    } catch (const std::system_error& e) {
        if (e.code() == asio::error::operation_aborted) return {errc::cancelled, "cancelled"};
        return {errc::internal, fmt::format("unexpected exception: {}", e.what())};
    } catch (const std::exception& e) {
        return {errc::internal, fmt::format("unexpected exception: {}", e.what())};
    } catch (...) {
        return {errc::internal, "unexpected exception of unknown type"};
    }
}

}  // namespace detail

namespace {

/// What continues a waiting task.
using continuation = asio::async_result<asio::use_awaitable_t<>, void()>::handler_type;

}  // namespace

/// Those who wait, in order: each in the frame of its `wait`, so that waiting takes no memory of its own.
struct wakeup::state {
    struct waiter;

    explicit state(const asio::any_io_executor& executor)
        : later(asio::require(executor, asio::execution::blocking.never)) {}

    asio::any_io_executor later;  ///< never runs what it is given inside of the call
    std::uint64_t generation = 0;
    waiter* first = nullptr;
    waiter* last = nullptr;
};

struct wakeup::state::waiter {
    explicit waiter(state& s) : in(s) {}
    ~waiter() { leave(); }
    waiter(const waiter&) = delete;
    waiter& operator=(const waiter&) = delete;

    /// Suspends the calling task until `end`, or its cancellation.
    task<void> ended() {
        return asio::async_initiate<const asio::use_awaitable_t<>, void()>(
            [](continuation task, waiter* self) { self->begin(std::move(task)); }, asio::use_awaitable, this);
    }
    void begin(continuation task) {
        then.emplace(std::move(task));
        before = std::exchange(in.last, this);
        (before != nullptr ? before->next : in.first) = this;
        auto slot = asio::get_associated_cancellation_slot(*then);
        if (slot.is_connected()) slot.assign([this](asio::cancellation_type) { end(); });
    }
    void end() {
        if (!then) return;
        leave();
        in.later.execute(*std::exchange(then, std::nullopt));
    }
    void leave() {
        if (!then) return;
        (before != nullptr ? before->next : in.first) = next;
        (next != nullptr ? next->before : in.last) = before;
    }

    state& in;
    std::optional<continuation> then;  ///< while it waits
    waiter* before = nullptr;
    waiter* next = nullptr;
};

wakeup::wakeup(asio::any_io_executor executor) : state_(std::make_shared<state>(executor)) {}
wakeup::~wakeup() { notify(); }

void wakeup::notify() {
    ++state_->generation;
    while (state_->first != nullptr) state_->first->end();
}

task<result<void>> wakeup::wait() {
    const auto held = state_;
    const auto before = held->generation;
    state::waiter self(*held);
    co_await self.ended();
    if (held->generation != before) co_return ok();
    co_return fail(errc::cancelled, "cancelled");
}

task<result<void>> wakeup::wait(clock& clock, time_point until) {
    const auto held = state_;
    const auto before = held->generation;
    if (clock.now() >= until) {
        // Others have a turn: a caller whose time stays in the past holds up nobody.
        state::waiter self(*held);
        bool over = false;
        const auto turn = std::make_shared<std::function<void()>>([&self, &over] {
            over = true;
            self.end();
        });
        held->later.execute([call = std::weak_ptr(turn)] {
            if (const auto here = call.lock()) (*here)();
        });
        co_await self.ended();
        if (held->generation != before) co_return ok();
        if (!over) co_return fail(errc::cancelled, "cancelled");
    }
    // A clock that was slowed down meanwhile rings too early.
    while (clock.now() < until) {
        state::waiter self(*held);
        bool rang = false;
        const auto alarm = clock.call_at(until, [&self, &rang] {
            rang = true;
            self.end();
        });
        co_await self.ended();
        if (held->generation != before) co_return ok();
        if (!rang) co_return fail(errc::cancelled, "cancelled");
    }
    co_return fail(errc::timeout, "the deadline passed");
}

task<result<void>> clock::sleep_until(time_point until) {
    if (until <= now()) co_return ok();
    const auto executor = co_await asio::this_coro::executor;
    wakeup nobody_calls(executor);
    auto slept = co_await nobody_calls.wait(*this, until);
    if (slept.error().code == errc::timeout) co_return ok();
    co_return slept;
}

task<result<void>> wait_until(wakeup& changed, std::function<bool()> condition) {
    while (!condition()) {
        auto woken = co_await changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return ok();
}

task<result<void>> wait_until(wakeup& changed, std::function<bool()> condition, clock& clock, time_point deadline) {
    while (!condition()) {
        auto woken = co_await changed.wait(clock, deadline);
        if (!woken && woken.error().code == errc::timeout && condition()) break;
        LONGHAUL_CO_TRY(woken);
    }
    co_return ok();
}

struct scope::state : std::enable_shared_from_this<scope::state> {
    struct child {
        std::string name;
        asio::cancellation_signal stop;
        bool isolated = false;
        std::function<void(const error&)> on_error;
    };

    explicit state(asio::any_io_executor e) : executor(e), ended_all(std::move(e)) {}

    asio::any_io_executor executor;
    wakeup ended_all;
    std::list<child> children;  // a list: the signals must not move
    std::optional<error> first_error;
    bool cancelling = false;

    void cancel() {
        cancelling = true;
        // Emitting may end a child inside the call, which erases it: walk with the next iterator in hand.
        for (auto it = children.begin(); it != children.end();) {
            auto current = it++;
            current->stop.emit(asio::cancellation_type::terminal);
        }
    }

    /// The entry must be whole before: the child may run at once, up to its first wait, and start others.
    static void start(const std::shared_ptr<state>& self, std::string name, bool isolated,
                      std::function<void(const error&)> on_error, task<result<void>> body) {
        const auto it = self->children.emplace(self->children.end());
        it->name = std::move(name);
        it->isolated = isolated;
        it->on_error = std::move(on_error);
        const child* const entry = &*it;
        asio::co_spawn(
            self->executor, detail::guarded(std::move(body)),
            asio::bind_cancellation_slot(it->stop.slot(), [self, it](std::exception_ptr, result<void> outcome) {
                self->ended(it, std::move(outcome));
            }));
        if (!self->cancelling) return;
        // A child of a scope that is already ending is told so as soon as it has something to cancel; unless it is
        // over.
        const auto still = std::ranges::find(self->children, entry, [](const child& c) { return &c; });
        if (still != self->children.end()) still->stop.emit(asio::cancellation_type::terminal);
    }

    void ended(std::list<child>::iterator it, result<void> outcome) {
        if (!outcome && outcome.error().code != errc::cancelled) {
            if (it->isolated) {
                if (it->on_error) it->on_error(outcome.error());
            } else if (!first_error) {
                first_error = outcome.error().within(it->name);
            }
        }
        const bool failed = first_error.has_value() && !cancelling;
        children.erase(it);
        if (failed) cancel();
        if (children.empty()) ended_all.notify();
    }
};

scope::scope(asio::any_io_executor executor) : state_(std::make_shared<state>(std::move(executor))) {}
scope::~scope() { LONGHAUL_ENSURE(state_->children.empty(), "a scope was destroyed before its children had ended"); }

std::size_t scope::size() const { return state_->children.size(); }
void scope::cancel() { state_->cancel(); }

void scope::spawn(std::string name, task<result<void>> child) {
    state::start(state_, std::move(name), false, {}, std::move(child));
}

void scope::spawn_isolated(std::string name, task<result<void>> child, std::function<void(const error&)> on_error) {
    state::start(state_, std::move(name), true, std::move(on_error), std::move(child));
}

task<result<void>> scope::join() {
    auto held = state_;
    bool cancelled = false;
    // Children must end before their scope does, so a cancelled join goes on waiting.
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!held->children.empty()) {
        // Asked each time: a child that ends in the turn of the cancellation wakes the wait below as if nothing had
        // happened, and nobody is told twice.
        const asio::cancellation_state asked = co_await asio::this_coro::cancellation_state;
        if (!cancelled && asked.cancelled() != asio::cancellation_type::none) {
            cancelled = true;
            held->cancel();
            continue;
        }
        auto woken = co_await held->ended_all.wait();
        if (!woken) {
            cancelled = true;
            held->cancel();
        }
    }
    co_await asio::this_coro::throw_if_cancelled(true);
    if (held->first_error) co_return fail(*held->first_error);
    if (cancelled) co_return fail(errc::cancelled, "cancelled");
    co_return ok();
}

void start(asio::any_io_executor executor, task<result<void>> main, std::function<void(result<void>)> done) {
    asio::co_spawn(std::move(executor), detail::guarded(std::move(main)),
                   [done = std::move(done)](std::exception_ptr, result<void> outcome) { done(std::move(outcome)); });
}

}  // namespace longhaul::core

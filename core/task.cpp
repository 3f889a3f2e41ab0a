#include "core/task.hpp"

#include <algorithm>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
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

// A timer that never expires: Asio's cancellation slots work on it unmodified, in real and in virtual time alike.
struct wakeup::state {
    asio::steady_timer never;
    std::uint64_t generation = 0;
    explicit state(asio::any_io_executor executor)
        : never(std::move(executor), asio::steady_timer::time_point::max()) {}
};

wakeup::wakeup(asio::any_io_executor executor) : state_(std::make_shared<state>(std::move(executor))) {}
wakeup::~wakeup() { notify(); }

void wakeup::notify() {
    ++state_->generation;
    state_->never.cancel();
}

task<result<void>> wakeup::wait() {
    auto held = state_;
    const auto before = held->generation;
    asio::error_code ignored;
    co_await held->never.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    if (held->generation != before) co_return ok();
    co_return fail(errc::cancelled, "cancelled");
}

task<result<void>> wait_until(wakeup& changed, std::function<bool()> condition) {
    while (!condition()) {
        auto woken = co_await changed.wait();
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

#pragma once
/// Templates of core/task.hpp; include that file instead. The only user of Asio's experimental operators.

#include <asio/experimental/awaitable_operators.hpp>

#include "core/task.hpp"  // IWYU pragma: keep: this header compiles alone, too

namespace longhaul::core {

namespace detail {

/// The value of the exception in flight: cancellation as errc::cancelled, anything else as errc::internal.
error error_from_current_exception();

/// Turns exceptions (Asio throws when a cancelled coroutine awaits again) into values.
template <typename T>
task<result<T>> guarded(task<result<T>> op) {
    std::optional<error> thrown;
    try {
        co_return co_await std::move(op);
    } catch (...) {
        thrown = error_from_current_exception();
    }
    co_return fail(std::move(*thrown));
}

inline task<result<void>> sleeping(clock& clock, time_point until) { co_return co_await clock.sleep_until(until); }

}  // namespace detail

template <typename A, typename B>
task<std::pair<result<A>, result<B>>> both(task<result<A>> a, task<result<B>> b) {
    using namespace asio::experimental::awaitable_operators;  // NOLINT: the operators are found no other way
    auto ended = co_await (detail::guarded(std::move(a)) && detail::guarded(std::move(b)));
    co_return std::pair<result<A>, result<B>>(std::move(std::get<0>(ended)), std::move(std::get<1>(ended)));
}

template <typename A, typename B>
task<std::variant<result<A>, result<B>>> race(task<result<A>> a, task<result<B>> b) {
    using namespace asio::experimental::awaitable_operators;  // NOLINT
    auto ended = co_await (detail::guarded(std::move(a)) || detail::guarded(std::move(b)));
    using out = std::variant<result<A>, result<B>>;
    if (ended.index() == 0) {
        co_return out(std::in_place_index<0>, std::move(std::get<0>(ended)));
    }
    co_return out(std::in_place_index<1>, std::move(std::get<1>(ended)));
}

template <typename T>
task<result<T>> with_deadline(clock& clock, task<result<T>> op, time_point deadline) {
    auto first = co_await race(std::move(op), detail::sleeping(clock, deadline));
    if (first.index() == 0) co_return std::move(std::get<0>(first));
    if (!std::get<1>(first)) co_return fail(std::get<1>(first).error());
    co_return fail(errc::timeout, "the deadline passed");
}

}  // namespace longhaul::core

#pragma once
/// Runs one task to its end on a loop of its own: for tests of things that wait for real threads or sockets.

#include <asio/io_context.hpp>

#include "core/task.hpp"

namespace longhaul::tests {

namespace detail {

template <typename T>
core::task<core::result<void>> keep(core::task<core::result<T>> op, std::optional<core::result<T>>& out) {
    out = co_await std::move(op);
    co_return core::ok();
}

}  // namespace detail

/// `op`'s result; errc::internal when the loop ran dry before it.
template <typename T>
core::result<T> run_task(asio::io_context& io, core::task<core::result<T>> op) {
    std::optional<core::result<T>> out;
    core::result<void> ended = core::fail(core::errc::internal, "the loop ran dry");
    core::start(io.get_executor(), detail::keep(std::move(op), out),
                [&](core::result<void> r) { ended = std::move(r); });
    io.restart();
    io.run();
    if (!ended) return core::fail(ended.error());
    return std::move(*out);
}

}  // namespace longhaul::tests

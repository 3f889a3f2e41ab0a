#pragma once
/// Production's environment: one I/O thread (the caller's), real clock, network and randomness.

#include <asio/io_context.hpp>
#include <optional>

#include "core/task.hpp"
#include "core/thread_workers.hpp"
#include "net/asio_network.hpp"
#include "net/environment.hpp"

namespace longhaul::peers::command {

/// What every command has. A daemon adds storage and events of its own.
struct machine {
    explicit machine(unsigned worker_threads) : workers(worker_threads) {}
    asio::io_context io{1};
    net::asio_clock clock{io.get_executor()};
    core::system_entropy entropy;
    net::asio_network network{io.get_executor()};
    core::thread_workers workers;

    /// Runs `main` and everything that it started on this thread, to the end.
    core::result<void> run(core::task<core::result<void>> main);
};

/// An environment for commands that ask and go: it keeps no files and reports no events.
class visitor {
public:
    visitor();
    ~visitor();
    machine& host() { return machine_; }
    net::environment& env() { return env_; }
    /// Runs one question to its answer.
    template <typename T>
    core::result<T> ask(core::task<core::result<T>> question) {
        std::optional<core::result<T>> answer;
        auto done = machine_.run(keep(std::move(question), answer));
        if (!done) return core::fail(std::move(done).error());
        return std::move(*answer);
    }

private:
    template <typename T>
    static core::task<core::result<void>> keep(core::task<core::result<T>> question,
                                               std::optional<core::result<T>>& answer) {
        auto got = co_await std::move(question);
        answer.emplace(std::move(got));
        co_return core::ok();
    }

    struct no_files;
    struct no_events;
    machine machine_;
    std::unique_ptr<no_files> files_;
    std::unique_ptr<no_events> events_;
    net::environment env_;
};

}  // namespace longhaul::peers::command

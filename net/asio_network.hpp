#pragma once
/// Production's network and clock: sockets and timers of the operating system. net/asio_network.cpp is the only file
/// of longhaul that sees asio/ip.

#include <asio/any_io_executor.hpp>

#include "core/task.hpp"
#include "net/stream.hpp"

namespace longhaul::net {

/// Real time. Alarms ring on the executor.
class asio_clock final : public core::clock {
public:
    explicit asio_clock(asio::any_io_executor executor);
    core::time_point now() const override;
    double wall_seconds() const override;
    std::unique_ptr<core::alarm> call_at(core::time_point when, std::function<void()> what) override;

private:
    asio::any_io_executor executor_;
};

/// TCP over both address families; a host that begins with '/' is the path of a Unix-domain socket (its port is 0).
///
/// A Unix socket file is made with mode 0600; one that nobody answers on is replaced, and it is removed when its
/// listener closes.
class asio_network final : public network {
public:
    /// `congestion_control` is that of bulk connections; where the kernel does not offer it, its own default stays;
    /// empty: always the default.
    explicit asio_network(asio::any_io_executor executor, std::string congestion_control = "bbr");
    void set_congestion_control(std::string name) { congestion_control_ = std::move(name); }
    core::task<core::result<std::vector<endpoint>>> resolve(endpoint of) override;
    core::task<core::result<std::unique_ptr<stream>>> connect(endpoint to, stream_purpose purpose) override;
    core::result<std::unique_ptr<listener>> listen(endpoint at) override;

private:
    asio::any_io_executor executor_;
    std::string congestion_control_;
};

/// SIGINT, SIGTERM and SIGHUP as values: while it lives they do not kill the process. SIGHUP stays ignored where the
/// process was started so (nohup). Those that come while nobody waits are kept.
class signals {
public:
    explicit signals(const asio::any_io_executor& executor);
    ~signals();
    signals(const signals&) = delete;
    signals& operator=(const signals&) = delete;
    /// The number of the next one; errc::cancelled. One waiter at a time.
    core::task<core::result<int>> next();

private:
    struct state;
    std::unique_ptr<state> state_;
};

}  // namespace longhaul::net

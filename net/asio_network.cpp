#include "net/asio_network.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <asio/basic_socket_acceptor.hpp>
#include <asio/basic_waitable_timer.hpp>
#include <asio/generic/stream_protocol.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/ip/v6_only.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/redirect_error.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <type_traits>

#include "net/kernel_tcp.hpp"

namespace longhaul::net {

using core::errc;
using core::fail;
using core::ok;
using core::result;
using core::task;

namespace {

using asio::ip::tcp;
using unix_socket = asio::local::stream_protocol;
using any_socket = asio::generic::stream_protocol::socket;

/// Unsent bytes in the kernel beyond which a bulk socket wants no more data.
constexpr int unsent_low_water = 128 * 1024;

/// An IPv4 address that arrived on a dual-stack socket is shown as IPv4.
endpoint describe(const tcp::endpoint& e) {
    auto address = e.address();
    if (address.is_v6() && address.to_v6().is_v4_mapped()) {
        address = asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
    }
    return {address.to_string(), e.port()};
}

class socket_stream final : public stream {
public:
    socket_stream(any_socket socket, endpoint local, endpoint remote, stream_purpose purpose,
                  std::string congestion_control)
        : socket_(std::move(socket)),
          local_(std::move(local)),
          remote_(std::move(remote)),
          congestion_control_(std::move(congestion_control)) {
        asio::error_code ignored;
        socket_.non_blocking(true, ignored);
        set_purpose(purpose);
    }
    ~socket_stream() override { close(); }

    task<result<std::size_t>> read_some(core::mutable_bytes out) override {
        if (closed_) co_return broken(asio::error::bad_descriptor);
        if (read_end_) co_return 0;  // Asio would wait for ever for news after the end
        asio::error_code ec;
        const auto n = co_await socket_.async_read_some(asio::buffer(out.data(), out.size()),
                                                        asio::redirect_error(asio::use_awaitable, ec));
        if (ec == asio::error::eof) {
            read_end_ = true;
            co_return 0;
        }
        if (ec || closed_) co_return broken(ec);
        co_return n;
    }

    task<result<void>> writable() override {
        if (closed_) co_return broken(asio::error::bad_descriptor);
        asio::error_code ec;
        co_await socket_.async_wait(any_socket::wait_write, asio::redirect_error(asio::use_awaitable, ec));
        if (ec || closed_) co_return broken(ec);
        co_return ok();
    }

    task<result<std::size_t>> write_some(core::const_bytes data) override {
        if (closed_) co_return broken(asio::error::bad_descriptor);
        asio::error_code ec;
        if (purpose_ == stream_purpose::bulk) {
            // Only waiting for writability respects TCP_NOTSENT_LOWAT: send() itself fills the whole buffer.
            co_await socket_.async_wait(any_socket::wait_write, asio::redirect_error(asio::use_awaitable, ec));
            if (ec || closed_) co_return broken(ec);
        }
        const auto n = co_await socket_.async_write_some(asio::buffer(data.data(), data.size()),
                                                         asio::redirect_error(asio::use_awaitable, ec));
        if (ec || closed_) co_return broken(ec);
        co_return n;
    }

    void close() override {
        if (closed_) return;
        closed_ = true;
        asio::error_code ignored;
        socket_.shutdown(any_socket::shutdown_both, ignored);
        socket_.close(ignored);
    }

    endpoint local() const override { return local_; }
    endpoint remote() const override { return remote_; }

    std::optional<stream_info> info() const override {
        if (closed_ || !is_tcp()) return std::nullopt;
        const auto facts = facts_of(const_cast<any_socket&>(socket_).native_handle());
        if (!facts) return std::nullopt;
        stream_info info;
        info.rtt = std::chrono::microseconds(facts->rtt_microseconds);
        info.segments_sent = facts->segments_sent;
        info.retransmits = facts->retransmits;
        info.congestion_window_bytes = facts->congestion_window_bytes;
        info.window_limit_bytes = facts->window_limit_bytes;
        info.delivered_bytes = facts->delivered_bytes;
        info.queued_bytes = facts->queued_bytes;
        info.unsent_bytes = facts->unsent_bytes;
        return info;
    }

    void set_pace(double bytes_per_second) override {
        if (!closed_ && is_tcp()) set_pacing_rate(socket_.native_handle(), bytes_per_second);
    }

    void set_purpose(stream_purpose purpose) override {
        purpose_ = purpose;
        if (closed_ || !is_tcp()) return;
        // Bulk writes whole segments, so that Nagle's algorithm could only delay their tails.
        asio::error_code ignored;
        socket_.set_option(tcp::no_delay(true), ignored);
        if (purpose != stream_purpose::bulk) return;
        set_unsent_low_water(socket_.native_handle(), unsent_low_water);
        // Where it is refused the system's default stays: `doctor` says how to allow it.
        if (!congestion_control_.empty()) set_congestion_control(socket_.native_handle(), congestion_control_);
    }

private:
    bool is_tcp() const { return !local_.host.starts_with('/'); }

    tl::unexpected<core::error> broken(asio::error_code ec) const {
        if (closed_) return fail(errc::closed, "the connection to {} was closed here", remote_.text());
        if (ec == asio::error::operation_aborted) return fail(errc::cancelled, "cancelled");
        return fail(errc::closed, "the connection to {} broke: {}", remote_.text(), ec.message());
    }

    any_socket socket_;
    endpoint local_, remote_;
    std::string congestion_control_;
    stream_purpose purpose_ = stream_purpose::control;
    bool closed_ = false;
    bool read_end_ = false;
};

std::unique_ptr<stream> make_stream(tcp::socket socket, stream_purpose purpose, const std::string& congestion_control) {
    asio::error_code ignored;
    auto local = describe(socket.local_endpoint(ignored));
    auto remote = describe(socket.remote_endpoint(ignored));
    return std::make_unique<socket_stream>(any_socket(std::move(socket)), std::move(local), std::move(remote), purpose,
                                           congestion_control);
}

std::unique_ptr<stream> make_stream(unix_socket::socket socket, const std::string& path, stream_purpose purpose) {
    return std::make_unique<socket_stream>(any_socket(std::move(socket)), endpoint{path, 0}, endpoint{path, 0}, purpose,
                                           std::string());
}

template <typename Protocol>
class socket_listener final : public listener {
public:
    using acceptor = asio::basic_socket_acceptor<Protocol>;

    socket_listener(acceptor a, endpoint local, std::string congestion_control = {})
        : acceptor_(std::move(a)), local_(std::move(local)), congestion_control_(std::move(congestion_control)) {}
    ~socket_listener() override { close(); }

    task<result<std::unique_ptr<stream>>> accept() override {
        while (!closed_) {
            asio::error_code ec;
            auto socket = co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, ec));
            if (closed_) break;
            // The dialler was gone before we looked: not our trouble.
            if (ec == asio::error::connection_aborted) continue;
            if (ec == asio::error::operation_aborted) co_return fail(errc::cancelled, "cancelled");
            if (ec) {
                co_return fail(errc::io, "cannot accept a connection on {}: {}", local_.text(), ec.message());
            }
            if constexpr (std::is_same_v<Protocol, tcp>) {
                co_return make_stream(std::move(socket), stream_purpose::control, congestion_control_);
            } else {
                co_return make_stream(std::move(socket), local_.host, stream_purpose::control);
            }
        }
        co_return fail(errc::closed, "the listener on {} was closed", local_.text());
    }

    endpoint local() const override { return local_; }

    void close() override {
        if (closed_) return;
        closed_ = true;
        asio::error_code ignored;
        acceptor_.close(ignored);
        if constexpr (std::is_same_v<Protocol, unix_socket>) ::unlink(local_.host.c_str());
    }

private:
    acceptor acceptor_;
    endpoint local_;
    std::string congestion_control_;
    bool closed_ = false;
};

/// Of one name that is being looked up. getaddrinfo cannot be interrupted: a cancelled caller leaves it behind.
struct lookup {
    explicit lookup(const asio::any_io_executor& executor) : resolver(executor), changed(executor) {}
    tcp::resolver resolver;
    core::wakeup changed;
    bool done = false;
    asio::error_code ec;
    std::vector<endpoint> found;
};

result<unix_socket::endpoint> unix_endpoint(const std::string& path) {
    if (path.size() >= sizeof(sockaddr_un::sun_path)) {
        return fail(errc::limit, "the socket path {} is longer than {} bytes: choose a shorter state directory", path,
                    sizeof(sockaddr_un::sun_path) - 1);
    }
    return unix_socket::endpoint(path);
}

/// Whether a process answers on the Unix socket file at `path`.
bool somebody_answers(const asio::any_io_executor& executor, const unix_socket::endpoint& at) {
    unix_socket::socket probe(executor);
    asio::error_code ec;
    probe.open(unix_socket(), ec);
    if (!ec) probe.non_blocking(true, ec);
    if (!ec) probe.connect(at, ec);
    return ec != asio::error::connection_refused;
}

result<std::unique_ptr<listener>> listen_unix(const asio::any_io_executor& executor, const std::string& path) {
    LONGHAUL_TRY_ASSIGN(const auto at, unix_endpoint(path));
    struct ::stat found{};
    if (::lstat(path.c_str(), &found) == 0) {
        if (!S_ISSOCK(found.st_mode)) {
            return fail(errc::address_in_use, "{} exists and is not a socket: remove it or choose another path", path);
        }
        if (somebody_answers(executor, at)) {
            return fail(errc::address_in_use, "{} is in use by another process: stop it or choose another path", path);
        }
        ::unlink(path.c_str());
    }
    asio::basic_socket_acceptor<unix_socket> acceptor(executor);
    asio::error_code ec;
    acceptor.open(unix_socket(), ec);
    if (!ec) {
        // The file must never be open to others, not even for an instant: mode by umask instead of chmod.
        const auto before = ::umask(0177);
        acceptor.bind(at, ec);
        ::umask(before);
    }
    if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
    if (ec) return fail(errc::io, "cannot listen on {}: {}", path, ec.message());
    return std::make_unique<socket_listener<unix_socket>>(std::move(acceptor), endpoint{path, 0});
}

asio::error_code try_listen(tcp::acceptor& acceptor, const tcp::endpoint& at, bool both_families) {
    asio::error_code ec;
    acceptor.open(at.protocol(), ec);
    if (ec) return ec;
    acceptor.set_option(asio::socket_base::reuse_address(true), ec);
    if (!ec && at.protocol() == tcp::v6()) acceptor.set_option(asio::ip::v6_only(!both_families), ec);
    if (!ec) acceptor.bind(at, ec);
    if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
    return ec;
}

class timer_alarm final : public core::alarm {
public:
    timer_alarm(const asio::any_io_executor& executor, core::time_point when, std::function<void()> what)
        : timer_(executor, when), what_(std::make_shared<std::function<void()>>(std::move(what))) {
        // A timer that has expired already calls in spite of its end: the call itself must be gone by then.
        timer_.async_wait([call = std::weak_ptr(what_)](asio::error_code cancelled) {
            const auto here = call.lock();
            if (here && !cancelled) (*here)();
        });
    }

private:
    asio::steady_timer timer_;
    std::shared_ptr<std::function<void()>> what_;
};

}  // namespace

asio_clock::asio_clock(asio::any_io_executor executor) : executor_(std::move(executor)) {}

core::time_point asio_clock::now() const { return std::chrono::steady_clock::now(); }

double asio_clock::wall_seconds() const {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::unique_ptr<core::alarm> asio_clock::call_at(core::time_point when, std::function<void()> what) {
    return std::make_unique<timer_alarm>(executor_, when, std::move(what));
}

asio_network::asio_network(asio::any_io_executor executor, std::string congestion_control)
    : executor_(std::move(executor)), congestion_control_(std::move(congestion_control)) {}

task<result<std::vector<endpoint>>> asio_network::resolve(endpoint of) {
    if (of.host.empty() || of.host.size() > 253) {
        co_return fail(errc::unreachable, "'{}' is not a host name: give a name or an address", of.host.substr(0, 64));
    }
    auto pending = std::make_shared<lookup>(executor_);
    pending->resolver.async_resolve(of.host, std::to_string(of.port),
                                    [pending](asio::error_code error, const tcp::resolver::results_type& results) {
                                        pending->done = true;
                                        pending->ec = error;
                                        for (const auto& r : results) pending->found.push_back(describe(r.endpoint()));
                                        pending->changed.notify();
                                    });
    while (!pending->done) {
        auto woken = co_await pending->changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    if (pending->ec || pending->found.empty()) {
        co_return fail(errc::unreachable, "no host is called '{}' ({}): check the name", of.host,
                       pending->ec ? pending->ec.message() : "it has no address");
    }
    co_return std::move(pending->found);
}

task<result<std::unique_ptr<stream>>> asio_network::connect(endpoint to, stream_purpose purpose) {
    asio::error_code ec;
    if (to.host.starts_with('/')) {
        auto at = unix_endpoint(to.host);
        LONGHAUL_CO_TRY(at);
        unix_socket::socket socket(executor_);
        co_await socket.async_connect(*at, asio::redirect_error(asio::use_awaitable, ec));
        if (ec == asio::error::operation_aborted) co_return fail(errc::cancelled, "cancelled");
        if (ec) co_return fail(errc::unreachable, "nobody answers at {}: {}", to.host, ec.message());
        co_return make_stream(std::move(socket), to.host, purpose);
    }
    const auto address = asio::ip::make_address(to.host, ec);
    LONGHAUL_ENSURE(!ec, "only addresses are connected to; a dialler looks names up");
    tcp::socket socket(executor_);
    const tcp::endpoint at(address, to.port);
    co_await socket.async_connect(at, asio::redirect_error(asio::use_awaitable, ec));
    if (ec == asio::error::operation_aborted) co_return fail(errc::cancelled, "cancelled");
    if (ec) co_return fail(errc::unreachable, "nobody answers at {}: {}", to.text(), ec.message());
    co_return make_stream(std::move(socket), purpose, congestion_control_);
}

result<std::unique_ptr<listener>> asio_network::listen(endpoint at) {
    if (at.host.starts_with('/')) return listen_unix(executor_, at.host);
    asio::error_code ec;
    tcp::endpoint where(asio::ip::address_v6::any(), at.port);
    if (!at.host.empty()) {
        auto address = asio::ip::make_address(at.host, ec);
        if (ec) {
            // A name of this machine, looked up once at the start.
            tcp::resolver resolver(executor_);
            const auto found = resolver.resolve(at.host, std::to_string(at.port), tcp::resolver::passive, ec);
            if (ec || found.empty()) {
                return fail(errc::unreachable, "cannot listen on '{}': no such host; give an address of this machine",
                            at.host);
            }
            address = found.begin()->endpoint().address();
        }
        where.address(address);
    }
    tcp::acceptor acceptor(executor_);
    ec = try_listen(acceptor, where, at.host.empty());
    if (at.host.empty() && (ec == asio::error::address_family_not_supported || ec.value() == EADDRNOTAVAIL)) {
        // A machine without IPv6.
        asio::error_code ignored;
        acceptor.close(ignored);
        ec = try_listen(acceptor, tcp::endpoint(asio::ip::address_v4::any(), at.port), false);
    }
    if (ec == asio::error::address_in_use) {
        return fail(errc::address_in_use, "port {} is in use: choose another with --listen", at.port);
    }
    if (ec) return fail(errc::io, "cannot listen on {}: {}", at.text(), ec.message());
    const auto bound = acceptor.local_endpoint(ec).port();
    return std::make_unique<socket_listener<tcp>>(std::move(acceptor), endpoint{at.host, bound}, congestion_control_);
}

struct signals::state {
    asio::signal_set set;
};

signals::signals(const asio::any_io_executor& executor)
    : state_(new state{asio::signal_set(executor, SIGINT, SIGTERM)}) {
    struct sigaction now{};
    if (::sigaction(SIGHUP, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) state_->set.add(SIGHUP);
}

signals::~signals() = default;

task<result<int>> signals::next() {
    asio::error_code ec;
    const int number = co_await state_->set.async_wait(asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return fail(errc::cancelled, "cancelled");
    co_return number;
}

}  // namespace longhaul::net

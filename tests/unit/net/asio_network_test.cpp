#include "net/asio_network.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::net;
using core::errc;
using core::ok;
using core::result;
using core::task;
using namespace std::chrono_literals;

namespace {

struct real_world {
    asio::io_context io;
    asio_clock clock{io.get_executor()};
    asio_network network{io.get_executor()};

    /// Runs `main` to its end; fails the test after ten seconds.
    result<void> run(task<result<void>> main) {
        std::optional<result<void>> outcome;
        auto limited = core::with_deadline(clock, std::move(main), clock.now() + 10s);
        core::start(io.get_executor(), std::move(limited), [&](result<void> r) { outcome = std::move(r); });
        io.restart();
        io.run();
        REQUIRE(outcome);
        return *outcome;
    }
    void must(task<result<void>> main) {
        const auto r = run(std::move(main));
        INFO((r ? std::string() : r.error().message));
        CHECK(r);
    }
};

struct pair_of_streams {
    std::unique_ptr<stream> dialled, accepted;
};

task<result<pair_of_streams>> connected(real_world& w, listener& l, endpoint to,
                                        stream_purpose purpose = stream_purpose::control) {
    auto connecting = w.network.connect(std::move(to), purpose);
    auto ends = co_await core::both(std::move(connecting), l.accept());
    LONGHAUL_CO_TRY(ends.first);
    LONGHAUL_CO_TRY(ends.second);
    pair_of_streams out;
    out.dialled = std::move(*ends.first);
    out.accepted = std::move(*ends.second);
    co_return out;
}

task<result<void>> says_hello(real_world& w, listener& l, endpoint to) {
    auto connecting = connected(w, l, std::move(to));
    auto ends = co_await std::move(connecting);
    LONGHAUL_CO_TRY(ends);
    auto wrote = co_await write_all(*ends->dialled, core::as_bytes("hello"));
    LONGHAUL_CO_TRY(wrote);
    core::byte_vector got(5);
    auto read = co_await read_exact(*ends->accepted, got);
    LONGHAUL_CO_TRY(read);
    CHECK(core::as_text(got) == "hello");
    ends->dialled->close();
    auto end = co_await ends->accepted->read_some(got);
    LONGHAUL_CO_TRY(end);
    CHECK(*end == 0);
    end = co_await ends->accepted->read_some(got);
    LONGHAUL_CO_TRY(end);
    CHECK(*end == 0);  // whoever asks again is told again
    co_return ok();
}

/// An option of this process's own socket at that end of a connection, as the kernel has it; -1: there is none.
int option_of(const stream& s, int which) {
    const auto port_of = [](int fd, auto ask) {
        sockaddr_in6 at{};
        socklen_t size = sizeof at;
        return ask(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0 ? ntohs(at.sin6_port) : 0;  // IPv4's is there, too
    };
    for (int fd = 0; fd < 1024; ++fd) {
        if (port_of(fd, ::getsockname) != s.local().port || port_of(fd, ::getpeername) != s.remote().port) continue;
        int value = -1;
        socklen_t size = sizeof value;
        if (::getsockopt(fd, IPPROTO_TCP, which, &value, &size) == 0) return value;
    }
    return -1;
}

std::filesystem::path scratch() {
    auto path = std::filesystem::temp_directory_path() / ("longhaul_net_" + std::to_string(::getpid()));
    std::filesystem::create_directories(path);
    return path;
}

}  // namespace

TEST_CASE("endpoints print with IPv6 in brackets") {
    CHECK(endpoint{"10.0.0.1", 7400}.text() == "10.0.0.1:7400");
    CHECK(endpoint{"fe80::1", 7400}.text() == "[fe80::1]:7400");
    CHECK(endpoint{"/run/x.sock", 0}.text() == "/run/x.sock");
}

TEST_CASE("bytes cross both families: an end is seen as an end") {
    real_world w;
    auto l = w.network.listen({"", 0});
    REQUIRE(l);
    const auto port = (*l)->local().port;
    REQUIRE(port != 0);
    w.must(says_hello(w, **l, {"127.0.0.1", port}));
    if (std::filesystem::exists("/proc/net/if_inet6")) w.must(says_hello(w, **l, {"::1", port}));
}

TEST_CASE("addresses of a stream are shown without the dual-stack prefix, and the kernel's view is there") {
    real_world w;
    auto l = w.network.listen({"", 0});
    REQUIRE(l);
    auto body = [](real_world& world, listener& at) -> task<result<void>> {
        auto connecting = connected(world, at, {"127.0.0.1", at.local().port});
        auto ends = co_await std::move(connecting);
        LONGHAUL_CO_TRY(ends);
        CHECK(ends->accepted->remote() == ends->dialled->local());
        CHECK(ends->accepted->remote().host == "127.0.0.1");
        CHECK(ends->dialled->remote().port == at.local().port);
        const auto info = ends->dialled->info();
        CHECK((info && info->congestion_window_bytes > 0));
        co_return ok();
    };
    w.must(body(w, **l));
}

TEST_CASE("control is sent at once, and bulk keeps little unsent in the kernel, at both ends") {
    real_world w;
    auto l = w.network.listen({"127.0.0.1", 0});
    REQUIRE(l);
    auto body = [](real_world& world, listener& at, stream_purpose purpose) -> task<result<void>> {
        auto connecting = connected(world, at, at.local(), purpose);
        auto ends = co_await std::move(connecting);
        LONGHAUL_CO_TRY(ends);
        ends->accepted->set_purpose(purpose);  // which the one that dials says in its hello
        for (const auto* end : {ends->dialled.get(), ends->accepted.get()}) {
            CHECK(option_of(*end, TCP_NODELAY) == 1);
            CHECK((option_of(*end, TCP_NOTSENT_LOWAT) == 128 * 1024) == (purpose == stream_purpose::bulk));
        }
        co_return ok();
    };
    w.must(body(w, **l, stream_purpose::control));
    w.must(body(w, **l, stream_purpose::bulk));
}

TEST_CASE("a name is looked up with its port, and an unknown host says so") {
    real_world w;
    auto asks = [](real_world& world, std::string host, std::vector<endpoint>& out) -> task<result<void>> {
        const endpoint of{std::move(host), 7400};
        auto found = co_await world.network.resolve(of);
        LONGHAUL_CO_TRY(found);
        out = std::move(*found);
        co_return ok();
    };
    std::vector<endpoint> found;
    w.must(asks(w, "localhost", found));
    REQUIRE_FALSE(found.empty());
    for (const auto& e : found) CHECK((e == endpoint{"127.0.0.1", 7400} || e == endpoint{"::1", 7400}));
    // A label longer than a name server may be asked for: whether there is one, and how it is today, is no matter.
    const std::string nobody(64, 'x');
    const auto r = w.run(asks(w, nobody, found));
    REQUIRE_FALSE(r);
    CHECK(r.error().code == errc::unreachable);
    CHECK(r.error().message.starts_with("no host is called '" + nobody + "'"));
}

TEST_CASE("a taken port and a silent port say so") {
    real_world w;
    auto l = w.network.listen({"127.0.0.1", 0});
    REQUIRE(l);
    const auto port = (*l)->local().port;
    const auto again = w.network.listen({"127.0.0.1", port});
    REQUIRE_FALSE(again);
    CHECK(again.error().code == errc::address_in_use);
    CHECK(again.error().message == fmt::format("port {} is in use: choose another with --listen", port));
    CHECK(w.network.listen({"", port}).error().code == errc::address_in_use);
    CHECK(w.network.listen({"203.0.113.77", 0}).error().code == errc::io);

    // Where a socket is bound that does not listen nobody answers, and nobody else comes.
    asio::ip::tcp::socket bound(w.io, {asio::ip::address_v4::loopback(), 0});
    const auto silent = bound.local_endpoint().port();
    auto refused = [](real_world& world, endpoint to) -> task<result<void>> {
        auto connecting = world.network.connect(std::move(to), stream_purpose::control);
        auto s = co_await std::move(connecting);
        LONGHAUL_CO_TRY(s);
        co_return ok();
    };
    const auto r = w.run(refused(w, {"127.0.0.1", silent}));
    REQUIRE_FALSE(r);
    CHECK(r.error().code == errc::unreachable);
    CHECK(r.error().message == fmt::format("nobody answers at 127.0.0.1:{}: Connection refused", silent));
}

TEST_CASE("a pending read ends by close as closed and by cancellation as cancelled") {
    real_world w;
    auto l = w.network.listen({"127.0.0.1", 0});
    REQUIRE(l);
    auto body = [](real_world& world, listener& at) -> task<result<void>> {
        auto connecting = connected(world, at, at.local());
        auto ends = co_await std::move(connecting);
        LONGHAUL_CO_TRY(ends);
        core::byte_vector buffer(16);
        auto late =
            co_await core::with_deadline(world.clock, ends->dialled->read_some(buffer), world.clock.now() + 20ms);
        CHECK((!late && late.error().code == errc::timeout));
        auto closer = [](real_world& inner, stream& s) -> task<result<void>> {
            auto slept = co_await inner.clock.sleep_for(20ms);
            LONGHAUL_CO_TRY(slept);
            s.close();
            co_return ok();
        };
        auto ended = co_await core::both(ends->dialled->read_some(buffer), closer(world, *ends->dialled));
        CHECK((!ended.first && ended.first.error().code == errc::closed));
        auto after = co_await ends->dialled->write_some(buffer);
        CHECK((!after && after.error().code == errc::closed));
        co_return ok();
    };
    w.must(body(w, **l));
}

TEST_CASE("a bulk stream carries more than the kernel's buffers while it is read slowly") {
    real_world w;
    auto l = w.network.listen({"127.0.0.1", 0});
    REQUIRE(l);
    auto body = [](real_world& world, listener& at) -> task<result<void>> {
        auto connecting = connected(world, at, at.local(), stream_purpose::bulk);
        auto ends = co_await std::move(connecting);
        LONGHAUL_CO_TRY(ends);
        core::byte_vector sent(16 << 20), got(sent.size());
        for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<std::byte>(i * 2654435761U >> 13U);
        auto moved = co_await core::both(write_all(*ends->dialled, sent), read_exact(*ends->accepted, got));
        LONGHAUL_CO_TRY(moved.first);
        LONGHAUL_CO_TRY(moved.second);
        CHECK(sent == got);
        co_return ok();
    };
    w.must(body(w, **l));
}

TEST_CASE("a Unix socket is private, replaces a stale file and nothing else") {
    real_world w;
    const auto path = (scratch() / "control.sock").string();
    {
        auto l = w.network.listen({path, 0});
        REQUIRE(l);
        struct ::stat found{};
        REQUIRE(::stat(path.c_str(), &found) == 0);
        CHECK((found.st_mode & 0777U) == 0600U);
        w.must(says_hello(w, **l, {path, 0}));
        const auto second = w.network.listen({path, 0});
        CHECK((!second && second.error().code == errc::address_in_use));
        // What a killed process leaves behind: the file without anybody.
        std::filesystem::rename(path, path + ".stale");
    }
    std::filesystem::rename(path + ".stale", path);
    {
        auto l = w.network.listen({path, 0});
        REQUIRE(l);
        w.must(says_hello(w, **l, {path, 0}));
    }
    CHECK_FALSE(std::filesystem::exists(path));
    std::ofstream(path) << "precious";
    const auto over_file = w.network.listen({path, 0});
    CHECK((!over_file && over_file.error().code == errc::address_in_use));
    CHECK(std::filesystem::exists(path));
    CHECK(w.network.listen({"/" + std::string(200, 'x'), 0}).error().code == errc::limit);
    std::filesystem::remove_all(scratch());
}

TEST_CASE("a signal is a value, also one that came while nobody waited") {
    const auto before = std::signal(SIGHUP, SIG_DFL);  // the tester's nohup ignores it
    real_world w;
    auto body = [](real_world& world) -> task<result<void>> {
        signals all(world.io.get_executor());
        auto raiser = [](real_world& inner) -> task<result<void>> {
            auto slept = co_await inner.clock.sleep_for(5ms);
            LONGHAUL_CO_TRY(slept);
            ::raise(SIGTERM);
            co_return ok();
        };
        auto got = co_await core::both(all.next(), raiser(world));
        LONGHAUL_CO_TRY(got.first);
        CHECK(*got.first == SIGTERM);
        ::raise(SIGHUP);
        auto kept = co_await all.next();
        LONGHAUL_CO_TRY(kept);
        CHECK(*kept == SIGHUP);
        auto late = co_await core::with_deadline(world.clock, all.next(), world.clock.now() + 5ms);
        CHECK((!late && late.error().code == errc::timeout));
        co_return ok();
    };
    w.must(body(w));
    (void)std::signal(SIGHUP, before);
}

TEST_CASE("SIGHUP stays ignored where it was") {
    const auto before = std::signal(SIGHUP, SIG_IGN);
    {
        real_world w;
        signals all(w.io.get_executor());
        ::raise(SIGHUP);
        struct sigaction now{};
        REQUIRE(::sigaction(SIGHUP, nullptr, &now) == 0);
        CHECK(now.sa_handler == SIG_IGN);
    }
    (void)std::signal(SIGHUP, before);
}

TEST_CASE("the clock sleeps until its time, not at all into the past, and wakes when cancelled") {
    real_world w;
    auto body = [](real_world& world) -> task<result<void>> {
        const auto start = world.clock.now();
        auto slept = co_await world.clock.sleep_until(start - 1h);
        LONGHAUL_CO_TRY(slept);
        slept = co_await world.clock.sleep_until(start + 10ms);
        LONGHAUL_CO_TRY(slept);
        CHECK(world.clock.now() >= start + 10ms);
        auto first = co_await core::race(world.clock.sleep_for(1h), world.clock.sleep_for(1ms));
        CHECK(first.index() == 1);
        co_return ok();
    };
    w.must(body(w));
}

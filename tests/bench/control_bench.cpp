/// Round trip of a small control request: over a daemon's Unix socket, and over an encrypted link on loopback

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "net/mesh.hpp"
#include "peers/command/control.hpp"
#include "peers/command/world.hpp"
#include "tests/bench/daemon_process.hpp"

namespace {

using namespace longhaul;

constexpr int warm_up = 100;
constexpr int measured = 2000;

void report(const char* what, std::vector<double> seconds) {
    std::ranges::sort(seconds);
    const auto at = [&](double q) { return seconds[static_cast<std::size_t>(q * double(seconds.size() - 1))] * 1e6; };
    fmt::print("{:<34} median {:.0f} us, 99th percentile {:.0f} us, {} requests\n", what, at(0.5), at(0.99),
               seconds.size());
}

/// {"do":"status"} and its answer, over and over on one connection.
core::task<core::result<std::vector<double>>> over_unix_socket(net::environment& env, std::string path) {
    net::endpoint at;
    at.host = std::move(path);
    auto s = co_await env.network.connect(std::move(at), net::stream_purpose::control);
    LONGHAUL_CO_TRY(s);
    const std::string request = "{\"do\":\"status\"}\n";
    std::array<std::byte, 65536> buffer;
    std::vector<double> out;
    for (int i = 0; i < warm_up + measured; ++i) {
        const auto begun = env.clock.now();
        auto written = co_await net::write_all(**s, core::as_bytes(request));
        LONGHAUL_CO_TRY(written);
        for (bool whole = false; !whole;) {
            const core::mutable_bytes into(buffer);
            auto n = co_await (*s)->read_some(into);
            LONGHAUL_CO_TRY(n);
            if (*n == 0) co_return core::fail(core::errc::closed, "the daemon closed");
            whole = buffer[*n - 1] == std::byte{'\n'};
        }
        if (i >= warm_up) out.push_back(core::to_seconds(env.clock.now() - begun));
    }
    co_return out;
}

core::task<core::result<void>> echo(std::shared_ptr<net::link> l) {
    for (;;) {
        auto message = co_await l->receive();
        LONGHAUL_CO_TRY(message);
        auto bytes = std::move(*message);
        auto sent = co_await l->send(std::move(bytes));
        LONGHAUL_CO_TRY(sent);
    }
}

core::task<core::result<void>> ask(net::environment& env, net::mesh& mesh, net::endpoint to, std::vector<double>& out) {
    auto l = co_await mesh.dial(std::move(to));
    LONGHAUL_CO_TRY(l);
    for (int i = 0; i < warm_up + measured; ++i) {
        const auto begun = env.clock.now();
        core::byte_vector request(64);
        auto sent = co_await (*l)->send(std::move(request));
        LONGHAUL_CO_TRY(sent);
        auto answer = co_await (*l)->receive();
        LONGHAUL_CO_TRY(answer);
        if (i >= warm_up) out.push_back(core::to_seconds(env.clock.now() - begun));
    }
    (*l)->close("done");
    co_return core::fail(core::errc::closed, "done");
}

/// Both ends in this process and on one thread: it does the work of both.
core::task<core::result<std::vector<double>>> over_a_link(net::environment& env) {
    const auto first = net::identity::generate(env.entropy), second = net::identity::generate(env.entropy);
    net::mesh_options options;
    options.run = env.entropy.key();
    options.name = "bench";
    const auto welcome = [](const net::remote_peer&, bool) { return core::ok(); };
    core::scope tasks(env.executor);
    const auto serve_echo = [&](std::shared_ptr<net::link> l) { tasks.spawn_isolated("echo", echo(std::move(l))); };
    net::mesh server(env, first, options, welcome, serve_echo);
    net::mesh client(env, second, options, welcome, [](std::shared_ptr<net::link>) {});
    net::endpoint any;
    any.host = "127.0.0.1";
    LONGHAUL_CO_TRY_ASSIGN(const auto at, server.listen(any));
    std::vector<double> out;
    tasks.spawn_isolated("server", server.serve());
    tasks.spawn_isolated("client", client.serve());
    tasks.spawn("requests", ask(env, client, at, out));
    (void)co_await tasks.join();
    client.close("done");
    server.close("done");
    if (out.size() != measured) co_return core::fail(core::errc::closed, "the link broke");
    co_return out;
}

}  // namespace

int main() {
    const bench::daemon_process daemon({"run", "RUN.toml"});
    peers::command::visitor here;
    auto& env = here.env();
    const auto path = daemon.state_dir() + "/" + peers::command::control_socket_name;
    auto unix_socket = here.ask(over_unix_socket(env, path));
    auto link = here.ask(over_a_link(env));
    for (const auto* r : {&unix_socket, &link}) {
        if (*r) continue;
        fmt::print(stderr, "control_bench: {}\n", r->error().message);
        return 1;
    }
    report("status over the Unix socket", std::move(*unix_socket));
    report("64 bytes over an encrypted link", std::move(*link));
    return 0;
}

/// Round trip of a status request over the Unix socket of a daemon at rest

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "peers/command/control.hpp"
#include "peers/command/world.hpp"
#include "tests/bench/daemon_process.hpp"

namespace {

using namespace longhaul;

constexpr int warm_up = 100;
constexpr int measured = 2000;

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

}  // namespace

int main() {
    const bench::daemon_process daemon({"run", "RUN.toml"});
    peers::command::visitor here;
    auto& env = here.env();
    auto round_trips = here.ask(over_unix_socket(env, daemon.state_dir() + "/" + peers::command::control_socket_name));
    if (!round_trips) {
        fmt::print(stderr, "control_bench: {}\n", round_trips.error().message);
        return 1;
    }
    std::ranges::sort(*round_trips);
    const auto at = [&](double q) {
        return (*round_trips)[static_cast<std::size_t>(q * static_cast<double>(measured - 1))] * 1e6;
    };
    fmt::print("status over the Unix socket: median {:.0f} us, 99th percentile {:.0f} us, {} requests\n", at(0.5),
               at(0.99), measured);
    return 0;
}

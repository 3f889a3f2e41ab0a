// A link over loopback between two processes: control round trips, and transfers until the receiver confirmed.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <asio/io_context.hpp>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "core/posix_storage.hpp"
#include "core/thread_workers.hpp"
#include "net/asio_network.hpp"
#include "net/mesh.hpp"

namespace longhaul::net {

namespace {

using core::result;
using core::task;

constexpr int round_trips = 5000;
constexpr std::size_t transfer_bytes = std::size_t{256} << 20U;
constexpr int transfers = 5;

class no_events final : public core::event_sink {
public:
    void emit(const core::event&) override {}
};

/// Echoes control messages and takes all transfers, until the link ends.
task<result<void>> be_echo(mesh& m, std::shared_ptr<link> l, core::scope& all) {
    auto buffer = std::make_shared<core::byte_vector>(transfer_bytes);
    auto take = [](std::shared_ptr<link> from, std::string tag, std::shared_ptr<core::byte_vector> to,
                   std::size_t n) -> task<result<void>> {
        auto taking = from->receive_transfer(std::move(tag), core::mutable_bytes(*to).first(n));
        co_return co_await std::move(taking);
    };
    l->on_offer([&all, l, buffer, take](const std::string& tag, std::uint64_t bytes) {
        all.spawn_isolated("take", take(l, tag, buffer, bytes));
    });
    for (;;) {
        auto got = co_await l->receive();
        if (!got) break;
        auto sending = l->send(std::move(*got));
        auto sent = co_await std::move(sending);
        if (!sent) break;
    }
    l->on_offer({});
    m.close("done");
    co_return core::ok();
}

task<result<void>> measure(core::clock& clock, mesh& m, endpoint to) {
    auto dialling = m.dial(std::move(to));
    auto made = co_await std::move(dialling);
    LONGHAUL_CO_TRY(made);
    auto& l = **made;
    std::vector<double> microseconds;
    for (int i = 0; i < round_trips; ++i) {
        const auto begun = clock.now();
        auto sending = l.send(core::byte_vector(64));
        auto sent = co_await std::move(sending);
        LONGHAUL_CO_TRY(sent);
        auto got = co_await l.receive();
        LONGHAUL_CO_TRY(got);
        microseconds.push_back(core::to_seconds(clock.now() - begun) * 1e6);
    }
    std::ranges::sort(microseconds);
    std::printf("control round trip of 64 bytes: median %.1f us, 99th percentile %.1f us\n",
                microseconds[microseconds.size() / 2], microseconds[microseconds.size() * 99 / 100]);
    const auto data = std::make_shared<const core::byte_vector>(transfer_bytes, std::byte{42});
    std::vector<double> rates;
    for (int i = 0; i < transfers; ++i) {
        const auto begun = clock.now();
        auto sending = l.send_transfer(std::to_string(i), data);
        auto sent = co_await std::move(sending);
        LONGHAUL_CO_TRY(sent);
        rates.push_back(static_cast<double>(transfer_bytes) / core::to_seconds(clock.now() - begun) / 1e9);
    }
    std::ranges::sort(rates);
    std::printf("transfer of %zu MiB: median %.2f GB/s, best %.2f GB/s\n", transfer_bytes >> 20U,
                rates[rates.size() / 2], rates.back());
    m.close("measured");
    co_return core::ok();
}

/// One end. The listener writes its port to `port_pipe`, the dialler reads it.
int run_end(bool listens, int port_pipe) {
    asio::io_context io(1);
    asio_clock clock(io.get_executor());
    core::system_entropy entropy;
    asio_network network(io.get_executor());
    core::thread_workers workers(1);
    const std::string folder = "/tmp/longhaul_link_bench_" + std::to_string(::getpid());
    auto storage = core::posix_storage::open(folder, workers);
    if (!storage) return 1;
    no_events events;
    environment env{io.get_executor(), clock, entropy, network, **storage, workers, events};
    const auto self = identity::generate(entropy);
    core::scope all(io.get_executor());
    std::optional<mesh> m;
    m.emplace(
        env, self, mesh_options{}, [](const remote_peer&, bool) -> result<void> { return core::ok(); },
        [&](std::shared_ptr<link> l) {
            if (listens) all.spawn("echo", be_echo(*m, std::move(l), all));
        });
    std::uint16_t port = 0;
    if (listens) {
        const auto at = m->listen({"127.0.0.1", 0});
        if (!at) return 1;
        port = at->port;
        if (::write(port_pipe, &port, sizeof port) != sizeof port) return 1;
    } else {
        if (::read(port_pipe, &port, sizeof port) != sizeof port) return 1;
        all.spawn("measure", measure(clock, *m, {"127.0.0.1", port}));
    }
    all.spawn("serve", m->serve());
    int status = 0;
    core::start(io.get_executor(), all.join(), [&](result<void> r) {
        if (!r) std::fprintf(stderr, "%s\n", r.error().message.c_str());
        status = r ? 0 : 1;
    });
    io.run();
    storage->reset();
    std::filesystem::remove_all(folder);
    return status;
}

}  // namespace

}  // namespace longhaul::net

int main() {
    int ends[2];
    if (::pipe(ends) != 0) return 1;
    const auto child = ::fork();
    if (child == 0) return longhaul::net::run_end(true, ends[1]);
    const int status = longhaul::net::run_end(false, ends[0]);
    int other = 0;
    ::waitpid(child, &other, 0);
    return status == 0 ? other : status;
}

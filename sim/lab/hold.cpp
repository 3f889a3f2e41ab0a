#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "sim/lab/network.hpp"
#include "sim/lab/schedule.hpp"

namespace longhaul::sim::lab {

using core::result;

namespace {

void print_machines(const scenario& s, const network& net) {
    nlohmann::ordered_json j;
    j["holding"] = true;
    j["root"] = net.made_as() == privilege::root;
    auto& peers = j["peers"];
    for (std::uint32_t i = 0; i < net.machines().size(); ++i) {
        const auto& m = net.machines()[i];
        auto& p = peers[s.net.peers[i].name];
        p["address"] = m.address;
        if (!m.address6.empty()) p["address6"] = m.address6;
        p["pid"] = m.holder;
        p["enter"] = net.enter(i, true);
        p["enter_as_administrator"] = net.enter(i, false);
        for (std::uint32_t k = 0; k < net.machines().size(); ++k) {
            if (k != i)
                p["rtt_seconds"][s.net.peers[k].name] = core::to_seconds(s.net.one_way(i, k) + s.net.one_way(k, i));
        }
    }
    std::puts(j.dump().c_str());
    std::fflush(stdout);
}

}  // namespace

result<int> hold(const scenario& s, std::uint64_t seed) {
    for (const auto& f : s.faults) {
        const bool of_network =
            f.what == fault_kind::partition || f.what == fault_kind::one_way || f.what == fault_kind::rate;
        if (!of_network || f.round > 0) {
            return core::fail(core::errc::config,
                              "lab --hold runs no daemons: a {} fault{} has no meaning here; take it out, or leave out "
                              "--hold",
                              name_of(f.what), f.round > 0 ? " at a round" : "");
        }
    }
    const deferred_signals signals;
    LONGHAUL_TRY_ASSIGN(auto net, network::start(s.net, seed));
    fault_schedule faults(s.faults);
    const auto began = real_time();
    print_machines(s, net);
    for (;;) {
        const auto now = real_time() - began;
        for (const auto& due : faults.due(now)) apply_to_network(net, due);
        pollfd polled[] = {{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
                           {.fd = net.relay_fd(), .events = POLLIN, .revents = 0},
                           {.fd = signals.fd(), .events = POLLIN, .revents = 0}};
        const int n = ::poll(polled, 3, poll_milliseconds(faults.next(), now));
        if (n < 0 && errno != EINTR) return core::fail(core::system_error(errno, "wait for stdin"));
        if (n <= 0) continue;
        if (polled[1].revents != 0) return core::fail(core::errc::internal, "the lab's relay has died");
        if (polled[2].revents != 0) break;
        if (polled[0].revents == 0) continue;
        char buffer[256];
        const auto got = ::read(STDIN_FILENO, buffer, sizeof buffer);
        if (got <= 0) break;
        for (auto lines = std::count(buffer, buffer + got, '\n'); lines > 0; --lines) {
            LONGHAUL_TRY_ASSIGN(const auto line, net.stats());
            std::puts(line.c_str());
            std::fflush(stdout);
        }
    }
    LONGHAUL_TRY_ASSIGN(const auto last, net.stats());
    std::puts(last.c_str());
    return 0;
}

}  // namespace longhaul::sim::lab

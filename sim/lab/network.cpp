#include "sim/lab/network.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "sim/lab/relay.hpp"

namespace longhaul::sim::lab {

using core::errc;
using core::fail;
using core::result;

result<network> network::start(const topology& t, std::uint64_t seed) {
    if (t.peers.size() > max_lab_peers) {
        return fail(errc::limit, "the lab runs at most {} peers and the scenario has {}: use longhaul sim",
                    max_lab_peers, t.peers.size());
    }
    network out;
    LONGHAUL_TRY_ASSIGN(out.privilege_, gain_namespaces());
    for (std::uint32_t i = 0; i < t.peers.size(); ++i) {
        LONGHAUL_TRY_ASSIGN(auto made, make_machine(i, t.mtu));
        out.machines_.push_back(std::move(made));
    }
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        return fail(core::system_error(errno, "make a socket pair"));
    }
    out.control_ = core::file_descriptor(ends[0]);
    core::file_descriptor theirs(ends[1]);
    const pid_t self = ::getpid();
    out.relay_ = ::fork();
    if (out.relay_ < 0) return fail(core::system_error(errno, "start the relay"));
    if (out.relay_ == 0) {
        die_with(self);
        ::setpgid(0, 0);
        std::signal(SIGINT, SIG_DFL);
        std::signal(SIGTERM, SIG_DFL);
        ::close(STDIN_FILENO);
        ::close(STDOUT_FILENO);
        out.control_ = core::file_descriptor();
        run_relay(t, seed, out.machines_, theirs.get());
        ::_exit(0);
    }
    // The relay alone reads the devices.
    for (auto& m : out.machines_) m.tun = core::file_descriptor();
    return out;
}

network::~network() {
    const auto end = [](pid_t child) {
        if (child <= 0) return;
        ::kill(child, SIGKILL);
        while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
        }
    };
    if (control_) end(relay_);  // neither moved from, nor without a relay yet
    for (const auto& m : machines_) end(m.holder);
}

std::vector<std::string> network::enter(std::uint32_t peer, bool as_user) const {
    std::vector<std::string> out{"nsenter", "-t", std::to_string(machines_[peer].holder)};
    if (privilege_ == privilege::user_namespace) {
        out.emplace_back("-U");
        out.emplace_back("--preserve-credentials");
    }
    out.emplace_back("-n");
    out.emplace_back("--");
    if (as_user) {
        for (const char* word : {"setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"}) {
            out.emplace_back(word);
        }
    }
    return out;
}

void network::tell(const std::string& line) {
    // A dead relay shows at the next statistics.
    (void)::send(control_.get(), line.data(), line.size(), MSG_NOSIGNAL);
}

void network::set_cut(std::uint32_t from, std::uint32_t to, bool cut) {
    tell(fmt::format("cut {} {} {}\n", from, to, cut ? 1 : 0));
}

void network::set_factor(std::uint32_t peer, double factor) { tell(fmt::format("factor {} {}\n", peer, factor)); }

result<std::string> network::stats() {
    tell("stats\n");
    std::string line;
    while (!line.ends_with('\n')) {
        pollfd p{.fd = control_.get(), .events = POLLIN, .revents = 0};
        constexpr int patience_ms = 10'000;
        const int n = ::poll(&p, 1, patience_ms);
        if (n < 0 && errno == EINTR) continue;
        char buffer[4096];
        const auto got = n > 0 ? ::recv(control_.get(), buffer, sizeof buffer, 0) : 0;
        if (got <= 0) return fail(errc::closed, "the lab's relay has died or does not answer");
        line.append(buffer, static_cast<std::size_t>(got));
    }
    line.pop_back();
    return line;
}

}  // namespace longhaul::sim::lab

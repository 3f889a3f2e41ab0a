#include "sim/lab/daemons.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "sim/checkers.hpp"
#include "sim/lab/schedule.hpp"

namespace longhaul::sim::lab {

using core::errc;
using core::fail;

namespace {

constexpr int port = 7400;

std::string text_of(const std::string& path, std::uint64_t limit) {
    const auto bytes = core::read_file(path, limit);
    return bytes ? std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()) : std::string();
}

/// Our own environment less what would configure the daemons.
std::vector<std::string> daemon_environment() {
    std::vector<std::string> out;
    for (char** e = environ; *e != nullptr; ++e) {
        if (std::strncmp(*e, "LONGHAUL_", 9) != 0 || std::strncmp(*e, "LONGHAUL_TORCH", 14) == 0) out.emplace_back(*e);
    }
    return out;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> out;
    for (auto& w : words) out.push_back(w.data());
    out.push_back(nullptr);
    return out;
}

}  // namespace

daemons::daemons(const scenario& s, const network& net, std::string binary, std::string folder)
    : scenario_(s), network_(net), binary_(std::move(binary)), folder_(std::move(folder)), peers_(s.net.peers.size()) {
    for (std::size_t i = 0; i < peers_.size(); ++i) {
        peers_[i].folder = folder_ + "/" + s.net.peers[i].name;
        peers_[i].reader.emplace(peers_[i].folder + "/events.jsonl");
    }
}

daemons::~daemons() {
    for (std::uint32_t i = 0; i < peers_.size(); ++i) kill(i);
}

core::result<void> daemons::start(std::uint32_t peer) {
    one& p = peers_[peer];
    LONGHAUL_ENSURE(p.process == 0, "a daemon is started once at a time");
    if (peer != 0 && ticket_.empty()) return fail(errc::usage, "there is no run to join yet");
    if (::mkdir(p.folder.c_str(), 0700) != 0 && errno != EEXIST) {
        return fail(core::system_error(errno, "make the folder " + p.folder));
    }
    const auto& machine = network_.machines()[peer];
    std::vector<std::string> words{binary_};
    if (peer == 0) {
        words.insert(words.end(), {"run", folder_ + "/run.toml"});
    } else {
        words.insert(words.end(), {"join", ticket_});
    }
    words.insert(words.end(), {"--listen", fmt::format("{}:{}", machine.address, port), "--state-dir", p.folder,
                               "--name", scenario_.net.peers[peer].name, "--threads", "1", "--json-ready"});
    if (const auto step = scenario_.peers[peer].step_time; step > core::duration{}) {
        words.insert(words.end(), {"--set", fmt::format("node.step_time={} ns", step.count())});
    }
    auto environment = daemon_environment();
    const auto arguments = pointers(words), variables = pointers(environment);
    const auto space = core::open_file(fmt::format("/proc/{}/ns/net", machine.holder), O_RDONLY);
    const auto out = core::open_file(p.folder + "/stdout.log", O_WRONLY | O_CREAT | O_TRUNC);
    const auto err = core::open_file(p.folder + "/stderr.log", O_WRONLY | O_CREAT | O_APPEND);
    const auto none = core::open_file("/dev/null", O_RDONLY);
    if (!space || !out || !err || !none) return fail(core::system_error(errno, "prepare " + p.folder));

    const pid_t self = ::getpid();
    const pid_t child = ::fork();
    if (child < 0) return fail(core::system_error(errno, "start a daemon"));
    if (child == 0) {
        die_with(self);
        ::setpgid(0, 0);
        deferred_signals::restore();
        ::dup2(none.get(), STDIN_FILENO);
        ::dup2(out.get(), STDOUT_FILENO);
        ::dup2(err.get(), STDERR_FILENO);
        if (become_user_of(space.get())) ::execve(binary_.c_str(), arguments.data(), variables.data());
        constexpr std::string_view sentence = "longhaul: the lab could not start this daemon\n";
        (void)!::write(STDERR_FILENO, sentence.data(), sentence.size());
        ::_exit(127);
    }
    p.process = child;
    p.exit_code.reset();
    return core::ok();
}

std::size_t daemons::running() const {
    return static_cast<std::size_t>(
        std::count_if(peers_.begin(), peers_.end(), [](const one& p) { return p.process > 0; }));
}

void daemons::kill(std::uint32_t peer) {
    one& p = peers_[peer];
    if (p.process == 0) return;
    ::kill(p.process, SIGKILL);
    while (::waitpid(p.process, nullptr, 0) < 0 && errno == EINTR) {
    }
    p.process = 0;
    p.exit_code = 128 + SIGKILL;
}

void daemons::signal(std::uint32_t peer, int number) {
    if (peers_[peer].process > 0) ::kill(peers_[peer].process, number);
}

bool daemons::look() {
    bool news = ticket_.empty() && read_ticket();
    for (auto& p : peers_) {
        int status = 0;
        if (p.process > 0 && ::waitpid(p.process, &status, WNOHANG) == p.process) {
            p.process = 0;
            p.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            news = true;
        }
        news |= read_events(p);
    }
    return news;
}

bool daemons::read_ticket() {
    const auto text = text_of(peers_[0].folder + "/stdout.log", 1 << 16);
    const auto end = text.find('\n');
    if (end == std::string::npos) return false;
    const auto ready = core::parse_json(std::string_view(text).substr(0, end), 1 << 16, 4);
    if (!ready) return false;
    auto ticket = core::json_string(*ready, "ticket");
    if (!ticket) return false;
    ticket_ = std::move(*ticket);
    return true;
}

bool daemons::read_events(one& p) {
    const auto known = static_cast<std::ptrdiff_t>(p.events.size());
    if (!p.reader->poll(p.events)) return false;
    for (auto e = p.events.begin() + known; e != p.events.end(); ++e) {
        if (e->event.name != "round_committed") continue;
        newest_round_ = std::max(newest_round_, field<std::uint64_t>(e->event, "round").value_or(0));
    }
    return true;
}

std::string daemons::complaint(std::uint32_t peer) const {
    const auto text = text_of(peers_[peer].folder + "/stderr.log", 8 << 20);
    const auto at = text.rfind("longhaul: ");
    if (at == std::string::npos) return {};
    return text.substr(at + 10, text.find('\n', at) - at - 10);
}

}  // namespace longhaul::sim::lab

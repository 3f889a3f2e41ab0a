#pragma once
/// A real daemon for a benchmark: `longhaul run` in a temporary folder, ended with its owner.

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "peers/command/facts.hpp"

namespace longhaul::bench {

/// Waits for more peers than will come: at rest, but for heartbeats.
inline constexpr const char* waiting_run = R"(
name = "bench"
[model]
kind = "quadratic"
[peers]
admission = "open"
min = 100
max = 100
)";

class daemon_process {
public:
    /// Starts `longhaul ARGUMENTS… --state-dir <folder>` of this build and waits until its first line of stdout is
    /// whole.
    explicit daemon_process(std::vector<std::string> arguments) {
        char name[] = "/tmp/longhaul-bench-XXXXXX";
        if (::mkdtemp(name) == nullptr) std::exit(1);
        folder_ = name;
        std::ofstream(folder_ + "/run.toml") << waiting_run;
        const auto program = std::filesystem::path(peers::command::own_program()).parent_path() / "../../longhaul";
        std::vector<std::string> words{program.string()};
        for (auto& a : arguments) words.push_back(a == "RUN.toml" ? folder_ + "/run.toml" : std::move(a));
        for (const auto* more : {"--listen", "127.0.0.1:0", "--json-ready", "--state-dir"}) words.emplace_back(more);
        words.push_back(folder_ + "/state");
        int ends[2];
        if (::pipe(ends) != 0) std::exit(1);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            ::dup2(ends[1], STDOUT_FILENO);
            ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
            std::vector<char*> raw;
            for (auto& w : words) raw.push_back(w.data());
            raw.push_back(nullptr);
            ::execv(raw[0], raw.data());
            std::_Exit(127);
        }
        ::close(ends[1]);
        for (char c = 0; ::read(ends[0], &c, 1) == 1 && c != '\n';) ready_ += c;
        ::close(ends[0]);
        if (ready_.empty()) {
            std::fprintf(stderr, "%s did not start\n", words[0].c_str());
            std::exit(1);
        }
    }
    ~daemon_process() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    daemon_process(const daemon_process&) = delete;
    daemon_process& operator=(const daemon_process&) = delete;

    pid_t pid() const { return pid_; }
    std::string state_dir() const { return folder_ + "/state"; }
    /// The text of a field of the ready line.
    std::string ready(const std::string& key) const {
        const auto begin = ready_.find("\"" + key + "\":\"") + key.size() + 4;
        return ready_.substr(begin, ready_.find('"', begin) - begin);
    }

private:
    pid_t pid_ = -1;
    std::string folder_, ready_;
};

}  // namespace longhaul::bench

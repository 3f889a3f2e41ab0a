/// CPU, threads and memory of a daemon at rest: a founder and a joiner that wait for more peers, with a link between
/// them

#include <fmt/format.h>

#include <sstream>

#include "core/task.hpp"
#include "peers/command/world.hpp"
#include "tests/bench/daemon_process.hpp"

namespace {

using namespace longhaul;

constexpr auto settle = std::chrono::seconds(3);
constexpr auto watch = std::chrono::seconds(20);

/// Seconds of CPU that a process has used: fields 14 and 15 of /proc/PID/stat.
double cpu_seconds(pid_t pid) {
    const auto line = peers::command::first_line(fmt::format("/proc/{}/stat", pid));
    std::istringstream in(line.substr(line.rfind(')') + 2));
    std::string word;
    for (int field = 3; field < 14; ++field) in >> word;
    double user = 0, system = 0;
    in >> user >> system;
    return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

/// What it holds of the machine's memory, in MB.
double resident(pid_t pid) {
    std::istringstream in(peers::command::first_line(fmt::format("/proc/{}/statm", pid)));
    double all = 0, resident_pages = 0;
    in >> all >> resident_pages;
    return resident_pages * static_cast<double>(::sysconf(_SC_PAGESIZE)) * 1e-6;
}

long threads(pid_t pid) {
    const std::filesystem::directory_iterator tasks(fmt::format("/proc/{}/task", pid)), end;
    return std::distance(tasks, end);
}

core::task<core::result<bool>> wait_some(core::clock& clock, core::duration d) {
    auto slept = co_await clock.sleep_for(d);
    LONGHAUL_CO_TRY(slept);
    co_return true;
}

}  // namespace

int main() {
    const bench::daemon_process founder({"run", "RUN.toml"});
    const bench::daemon_process joiner({"join", founder.ready("ticket")});
    peers::command::visitor here;
    (void)here.ask(wait_some(here.env().clock, settle));
    const double before[] = {cpu_seconds(founder.pid()), cpu_seconds(joiner.pid())};
    (void)here.ask(wait_some(here.env().clock, watch));
    const double after[] = {cpu_seconds(founder.pid()), cpu_seconds(joiner.pid())};
    const auto seconds = core::to_seconds(watch);
    const auto tell = [&](const char* who, double used, pid_t pid) {
        fmt::print("{} at rest: {:.2f} % of a core, {} threads, {:.0f} MB\n", who, used / seconds * 100, threads(pid),
                   resident(pid));
    };
    tell("founder", after[0] - before[0], founder.pid());
    tell("joiner", after[1] - before[1], joiner.pid());
    return 0;
}

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "core/units.hpp"
#include "net/hello.hpp"
#include "net/ticket.hpp"
#include "optim/trainer.hpp"
#include "peers/command/command.hpp"
#include "peers/command/control.hpp"
#include "peers/command/facts.hpp"
#include "peers/command/files.hpp"
#include "peers/command/world.hpp"

namespace longhaul::peers::command {

namespace {

/// One line of the examination.
struct finding {
    const char* verdict;  ///< ok | warn | fail
    std::string what, found;
    std::string advice;  ///< what to do; empty when ok
};

constexpr std::uint64_t gibibyte = std::uint64_t{1} << 30;
/// A connection must hold a window's worth of data: 100 Mbit/s over 200 ms are 2.5 MB.
constexpr std::uint64_t wanted_window = 4 << 20;

finding check_memory() {
    const auto bytes = usable_memory();
    if (bytes < 2 * gibibyte) {
        return {"warn", "memory", core::format_bytes(bytes),
                "LibTorch alone takes about half a GiB: use small models here"};
    }
    return {"ok", "memory", core::format_bytes(bytes), ""};
}

finding check_disk(const std::string& folder) {
    const auto bytes = free_disk(folder);
    if (!bytes) return {"fail", "disk", folder + " cannot be reached", "name another folder with --state-dir"};
    const auto found = fmt::format("{} free in {}", core::format_bytes(*bytes), folder);
    if (*bytes < gibibyte) return {"warn", "disk", found, "free some space: checkpoints of large models will not fit"};
    return {"ok", "disk", found, ""};
}

core::task<core::result<std::string>> ask_node_here(net::environment& env, std::string state_dir) {
    auto folder = co_await find_daemon(env, std::move(state_dir));
    LONGHAUL_CO_TRY(folder);
    co_return co_await ask_daemon(env, *folder, "status");
}

/// What the node says that runs on this machine, if one does.
std::optional<nlohmann::json> node_here(const std::string& state_dir) {
    visitor here;
    const auto text = here.ask(ask_node_here(here.env(), state_dir));
    if (!text) return std::nullopt;
    auto parsed = core::parse_json(*text, 8 << 20, 8);
    if (!parsed || !parsed->is_object()) return std::nullopt;
    return std::move(*parsed);
}

std::string text_of(const nlohmann::json& status, const char* key) {
    const auto found = core::json_string(status, key);
    return found ? *found : std::string();
}

finding check_port(const std::string& listen, const std::optional<nlohmann::json>& running) {
    const auto at = net::parse_listen_endpoint(listen);
    if (!at) return {"fail", "port", listen, at.error().message};
    if (running && text_of(*running, "listen").ends_with(fmt::format(":{}", at->port))) {
        return {"ok", "port", fmt::format("{} is listened on by the node that runs here", listen), ""};
    }
    visitor here;
    const auto bound = here.env().network.listen(*at);
    if (bound) return {"ok", "port", fmt::format("{} is free", listen), ""};
    const bool taken = bound.error().code == core::errc::address_in_use;
    return {"fail", "port", bound.error().message,
            taken ? "stop what uses it, or choose another with --listen" : "name an address of this machine"};
}

/// Whether others can connect to this machine: only a node that runs in a run can have tried.
finding check_inbound(const std::optional<nlohmann::json>& running) {
    if (!running) return {"ok", "inbound", "no node runs here that members could have tried to connect to", ""};
    const auto found = text_of(*running, "reach");
    const auto reachable = running->find("reachable");
    const bool no = reachable != running->end() && reachable->is_boolean() && !reachable->get<bool>();
    return {no ? "warn" : "ok", "inbound", found, no ? text_of(*running, "reach_advice") : ""};
}

/// Links have up to 64 connections each, and strangers at the door come on top.
finding check_descriptors() {
    constexpr std::uint64_t wanted = 4096;
    const auto most = descriptor_limit();
    const auto found = fmt::format("{} at most", most);
    if (most >= wanted) return {"ok", "descriptors", found, ""};
    return {"warn", "descriptors", found,
            fmt::format("many peers or strangers need more: raise \"ulimit -Hn\" to {}, or LimitNOFILE of the service",
                        wanted)};
}

finding check_torch() {
    optim::trainer_options o;
    // The smallest model, with data that every machine has: whether the module loads is the question.
    o.model.layers = 1;
    o.model.width = 8;
    o.model.heads = 1;
    o.model.context = 8;
    const auto trainer = optim::make_torch_trainer(o);
    if (trainer) return {"ok", "trainer", (*trainer)->description(), ""};
    const bool absent = trainer.error().code == core::errc::unsupported;
    return {
        absent ? "warn" : "fail", "trainer", trainer.error().message,
        "without LibTorch only model.kind = \"quadratic\" trains here: run scripts/setup and build the release preset"};
}

finding check_congestion() {
    const auto available = first_line("/proc/sys/net/ipv4/tcp_available_congestion_control");
    const auto allowed = first_line("/proc/sys/net/ipv4/tcp_allowed_congestion_control");
    const auto chosen = first_line("/proc/sys/net/ipv4/tcp_congestion_control");
    const auto found = fmt::format("{} in use, available: {}, allowed: {}", chosen, available, allowed);
    if (chosen.empty()) return {"warn", "congestion control", "unknown", "/proc/sys/net is not readable here"};
    if (available.find("bbr") == std::string::npos) {
        return {"warn", "congestion control", found,
                "bbr is faster on lossy long links: as root, \"modprobe tcp_bbr\" if the kernel has it"};
    }
    if (allowed.find("bbr") == std::string::npos && chosen != "bbr") {
        return {"warn", "congestion control", found,
                "allow bbr: as root, \"sysctl net.ipv4.tcp_allowed_congestion_control='" + allowed + " bbr'\""};
    }
    return {"ok", "congestion control", found, ""};
}

/// tcp_rmem and tcp_wmem hold least, default and most bytes of a connection's buffer.
finding check_window(const char* name) {
    const auto line = first_line(std::string("/proc/sys/net/ipv4/") + name);
    if (line.empty()) return {"warn", name, "unknown", "/proc/sys/net is not readable here"};
    const auto last = line.find_last_of(" \t");
    const auto most = std::strtoull(line.c_str() + (last == std::string::npos ? 0 : last + 1), nullptr, 10);
    const auto found = fmt::format("a connection holds at most {}", core::format_bytes(most));
    if (most < wanted_window) {
        return {"warn", name, found,
                fmt::format("long fat links need more: as root, \"sysctl net.ipv4.{}='4096 131072 {}'\"", name,
                            wanted_window)};
    }
    return {"ok", name, found, ""};
}

finding check_clock() {
    const auto now = std::time(nullptr);
    constexpr std::time_t year_2024 = 1704067200;
    std::tm broken{};
    ::gmtime_r(&now, &broken);
    char text[64];
    std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &broken);
    if (now < year_2024) {
        return {"warn", "clock", text, "set the clock: times in events will mislead (training does not depend on it)"};
    }
    return {"ok", "clock", text, ""};
}

finding check_state(const std::string& folder) {
    // Of a folder that is to be made, the nearest one above it decides.
    std::filesystem::path at(folder);
    std::error_code e;
    while (!std::filesystem::exists(at, e) && !e && at.has_relative_path()) at = at.parent_path();
    if (e || !std::filesystem::is_directory(at, e) || ::access(at.c_str(), W_OK | X_OK) != 0) {
        const auto why = e ? e.message() : fmt::format("{} is not a folder that this user may write", at.string());
        return {"fail", "state folder", fmt::format("{}: {}", folder, why), "name another folder with --state-dir"};
    }
    return {"ok", "state folder", folder + (at == folder ? "" : " (made on the first start)"), ""};
}

core::result<int> doctor(const std::string& asked, const std::string& listen, bool as_json) {
    LONGHAUL_TRY_ASSIGN(const auto folder, state_dir(asked, "run"));
    const auto running = node_here(asked);
    const std::vector<finding> findings{
        {"ok", "version",
         fmt::format("longhaul {}, wire version {} to {}", LONGHAUL_VERSION, net::wire_version_min,
                     net::wire_version_max),
         ""},
        {"ok", "processor", fmt::format("{} cores", usable_cores()), ""},
        check_memory(),
        check_state(folder),
        check_disk(folder),
        check_port(listen, running),
        check_inbound(running),
        check_descriptors(),
        check_torch(),
        check_congestion(),
        check_window("tcp_rmem"),
        check_window("tcp_wmem"),
        check_clock(),
    };
    bool ok = true;
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const auto& f : findings) {
        ok = ok && std::string_view(f.verdict) != "fail";
        if (as_json) {
            all.push_back({{"verdict", f.verdict}, {"what", f.what}, {"found", f.found}, {"advice", f.advice}});
            continue;
        }
        fmt::print("{:<5} {:<19} {}\n", f.verdict, f.what, f.found);
        if (!f.advice.empty()) fmt::print("{:<25} {}\n", "", f.advice);
    }
    if (as_json) {
        nlohmann::ordered_json j;
        j["ok"] = ok;
        j["findings"] = std::move(all);
        std::puts(j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    }
    return ok ? 0 : core::exit_code_of(core::errc::config);
}

}  // namespace

void add_doctor(CLI::App& app, action& chosen) {
    auto* command = app.add_subcommand("doctor", "what this machine can do, and what to change");
    const auto folder = std::make_shared<std::string>();
    const auto listen = std::make_shared<std::string>(fmt::format(":{}", net::default_port));
    const auto as_json = std::make_shared<bool>(false);
    command->add_option("--state-dir", *folder, "folder of the node");
    command->add_option("--listen", *listen, "address to try");
    command->add_flag("--json", *as_json, "for programs");
    command->callback([=, &chosen] { chosen = [=] { return doctor(*folder, *listen, *as_json); }; });
}

}  // namespace longhaul::peers::command

#include <CLI/CLI.hpp>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "peers/command/command.hpp"
#include "sim/lab/experiment.hpp"
#include "sim/lab/network.hpp"
#include "sim/play.hpp"
#include "sim/swarm.hpp"

namespace longhaul::peers::command {

namespace {

struct scenario_arguments {
    std::string scenario, folder;
    std::uint64_t seed = 1;
    bool json = false;
    bool hold = false;
    bool swarm = false;
    std::string seeds = "1..10";
};

int show(const sim::outcome& o, bool json) {
    fmt::print("{}", json ? sim::to_json(o) + "\n" : sim::describe(o));
    return o.ok ? 0 : core::exit_code_of(core::errc::internal);
}

/// A folder of our own, removed when all went well.
core::result<std::string> temporary_folder() {
    std::error_code e;
    auto pattern = (std::filesystem::temp_directory_path(e) / "longhaul-lab-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) {
        return core::fail(core::errc::io, "cannot make a folder like {}: use --folder", pattern);
    }
    return pattern;
}

core::result<void> make_folder(const std::string& path) {
    std::error_code e;
    if (!std::filesystem::create_directories(path, e) && e) {
        return core::fail(core::errc::io, "cannot make the folder {}: {}", path, e.message());
    }
    return core::ok();
}

core::result<std::pair<std::uint64_t, std::uint64_t>> seeds_of(const std::string& text) {
    const auto dots = text.find("..");
    const auto number = [&](std::string_view part) -> std::optional<std::uint64_t> {
        std::uint64_t n = 0;
        const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), n);
        return error == std::errc() && end == part.data() + part.size() ? std::optional(n) : std::nullopt;
    };
    const auto first = number(std::string_view(text).substr(0, dots));
    const auto last = dots == std::string::npos ? first : number(std::string_view(text).substr(dots + 2));
    if (!first || !last || *last < *first || *last - *first >= 10'000'000)
        return core::fail(core::errc::usage, "--seeds {} is not a range: give it like 1..400 or 17", text);
    return std::pair(*first, *last);
}

/// What is being played, for whoever looks at a crash in the middle of it.
std::string playing;

extern "C" void tell_playing(int signal) {
    (void)!::write(STDERR_FILENO, playing.data(), playing.size());
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

/// Plays a drawn scenario for each seed. What fails is printed with what was drawn and the line that does it again.
core::result<int> simulate_swarm(const scenario_arguments& a) {
    LONGHAUL_TRY_ASSIGN(const auto seeds, seeds_of(a.seeds));
    sim::swarm_tally tally;
    std::signal(SIGABRT, tell_playing);
    for (auto seed = seeds.first; seed <= seeds.second; ++seed) {
        const auto text = sim::draw_scenario(seed);
        const auto again = fmt::format("again: longhaul sim --swarm --seeds {}\n", seed);
        LONGHAUL_TRY_ASSIGN(const auto s, sim::parse_scenario(text, fmt::format("seed {}", seed), {}));
        playing = text + again;
        // The outcome is one line of JSON: everything else beside it.
        if (a.json) fmt::print(stderr, "seed {}\n", seed);
        const auto o = sim::play(s, seed);
        tally.add(o);
        if (!a.json) fmt::print("{}", sim::describe_drawn(o));
        if (!o.ok) fmt::print(a.json ? stderr : stdout, "{}{}{}", text, sim::describe(o), again);
        std::fflush(stdout);
    }
    std::signal(SIGABRT, SIG_DFL);
    fmt::print("{}", a.json ? sim::to_json(tally) + "\n" : sim::describe(tally));
    return tally.failed.empty() ? 0 : core::exit_code_of(core::errc::internal);
}

core::result<int> simulate(const scenario_arguments& a) {
    if (a.swarm) return simulate_swarm(a);
    if (a.scenario.empty()) return core::fail(core::errc::usage, "name a scenario, or draw some with --swarm");
    LONGHAUL_TRY_ASSIGN(const auto s, sim::load_scenario(a.scenario));
    if (a.folder.empty()) return show(sim::play(s, a.seed), a.json);
    std::map<std::string, std::ofstream> files;
    for (const auto& peer : s.net.peers) {
        const auto folder = a.folder + "/" + peer.name;
        LONGHAUL_TRY(make_folder(folder));
        files[peer.name].open(folder + "/events.jsonl");
    }
    const auto outcome = sim::play(s, a.seed, sim::simulated_trainer,
                                   [&](const std::string& peer, core::duration at, const core::event& e) {
                                       files[peer] << core::to_json_line(e, core::to_seconds(at), peer) << '\n';
                                   });
    for (auto& [peer, file] : files) {
        if (!file.flush()) return core::fail(core::errc::io, "cannot write the events into {}/{}", a.folder, peer);
    }
    return show(outcome, a.json);
}

core::result<int> lab(const scenario_arguments& a) {
    LONGHAUL_TRY_ASSIGN(const auto s, sim::load_scenario(a.scenario));
    if (a.hold) return sim::lab::hold(s, a.seed);
    sim::lab::experiment_options o;
    o.seed = a.seed;
    std::error_code e;
    o.binary = std::filesystem::read_symlink("/proc/self/exe", e).string();
    o.folder = a.folder;
    if (o.folder.empty()) {
        LONGHAUL_TRY_ASSIGN(o.folder, temporary_folder());
    } else {
        LONGHAUL_TRY(make_folder(o.folder));
    }
    const auto outcome = sim::lab::run_experiment(s, o);
    const bool of_no_use = outcome ? outcome->ok : outcome.error().code == core::errc::cancelled;
    if (a.folder.empty() && of_no_use) {
        std::filesystem::remove_all(o.folder, e);
    } else {
        std::fprintf(stderr, "the daemons' files are in %s\n", o.folder.c_str());
    }
    if (!outcome) return core::fail(outcome.error());
    return show(*outcome, a.json);
}

CLI::App* add(CLI::App& app, const char* name, const char* help, const std::shared_ptr<scenario_arguments>& a) {
    auto* command = app.add_subcommand(name, help);
    command->add_option("SCENARIO.toml", a->scenario, "a run, machines, links, faults; sim/README.md has the keys");
    command->add_option("--seed", a->seed, "of all that is drawn")->capture_default_str();
    command->add_flag("--json", a->json, "the outcome as one line of JSON");
    return command;
}

}  // namespace

void add_lab(CLI::App& app, action& chosen) {
    const auto virtual_one = std::make_shared<scenario_arguments>();
    auto* simulation = add(app, "sim", "play a scenario in virtual time, with the real protocol code", virtual_one);
    simulation->add_option("--folder", virtual_one->folder, "write each peer's events.jsonl there");
    auto* swarm =
        simulation->add_flag("--swarm", virtual_one->swarm, "instead of one scenario, draw one for each of --seeds");
    swarm->excludes("SCENARIO.toml")->excludes("--seed")->excludes("--folder");
    simulation->add_option("--seeds", virtual_one->seeds, "for --swarm: FIRST..LAST, or one")
        ->capture_default_str()
        ->needs(swarm);
    simulation->callback([virtual_one, &chosen] { chosen = [virtual_one] { return simulate(*virtual_one); }; });

    const auto a = std::make_shared<scenario_arguments>();
    auto* command =
        add(app, "lab", "run a scenario with real daemons on this machine, in namespaces joined by emulated links", a);
    command->get_option("SCENARIO.toml")->required();
    command->add_option("--folder", a->folder, "keep what the daemons write there; default: a temporary folder");
    command->add_flag("--hold", a->hold,
                      "start no daemons: print one line of JSON that says how to enter each machine, and hold the "
                      "network until stdin ends; each line on stdin is answered by a line of statistics");
    command->callback([a, &chosen] { chosen = [a] { return lab(*a); }; });
}

}  // namespace longhaul::peers::command

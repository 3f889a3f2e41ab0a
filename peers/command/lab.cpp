#include <CLI/CLI.hpp>

#include "peers/command/command.hpp"
#include "sim/lab/network.hpp"

namespace longhaul::peers::command {

namespace {

struct lab_arguments {
    std::string scenario;
    std::uint64_t seed = 1;
    bool hold = false;
};

core::result<int> lab(const lab_arguments& a) {
    LONGHAUL_TRY_ASSIGN(const auto s, sim::load_scenario(a.scenario));
    return sim::lab::hold(s, a.seed);
}

}  // namespace

void add_lab(CLI::App& app, action& chosen) {
    auto* command = app.add_subcommand(
        "lab", "build a scenario's network on this machine, from namespaces and an emulator of links");
    const auto a = std::make_shared<lab_arguments>();
    command->add_option("SCENARIO.toml", a->scenario, "machines, links, faults; sim/README.md has the keys")
        ->required();
    command->add_option("--seed", a->seed, "of losses and jitter")->capture_default_str();
    command
        ->add_flag("--hold", a->hold,
                   "start no daemons: print one line of JSON that says how to enter each machine, and hold the network "
                   "until stdin ends; each line on stdin is answered by a line of statistics")
        ->required();
    command->callback([a, &chosen] { chosen = [a] { return lab(*a); }; });
}

}  // namespace longhaul::peers::command

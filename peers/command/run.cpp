#include <CLI/CLI.hpp>
#include <cstdio>

#include "peers/command/arguments.hpp"
#include "peers/command/command.hpp"
#include "peers/command/daemon.hpp"

namespace longhaul::peers::command {

namespace {

core::result<int> run(const arguments& a) {
    LONGHAUL_TRY_ASSIGN(auto settings, resolve(a, true, ""));
    if (a.print_config) {
        std::fputs(settings.shown.c_str(), stdout);
        return 0;
    }
    founding found{.config = settings.run};
    return run_daemon(a, std::move(settings), std::move(found), std::nullopt);
}

}  // namespace

void add_run(CLI::App& app, action& chosen) {
    auto* command = app.add_subcommand("run", "found a run and take part; prints one ticket for others to join");
    const auto a = std::make_shared<arguments>();
    command->add_option("RUN.toml", a->run_file, "what is trained and how; without it, the defaults");
    add_arguments(*command, *a, true);
    command->callback([a, &chosen] { chosen = [a] { return run(*a); }; });
}

}  // namespace longhaul::peers::command

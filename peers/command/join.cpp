#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "peers/command/address.hpp"
#include "peers/command/arguments.hpp"
#include "peers/command/command.hpp"
#include "peers/command/daemon.hpp"

namespace longhaul::peers::command {

namespace {

/// A folder for the state of a run of which only an address is known.
std::string folder_name(const net::ticket& t) {
    if (!t.name.empty()) return t.name;
    auto name = t.addresses.front().text();
    std::ranges::replace_if(name, [](char c) { return c == ':' || c == '/' || c == '[' || c == ']'; }, '-');
    return name;
}

core::result<int> join(const std::string& address, const arguments& a) {
    LONGHAUL_TRY_ASSIGN(auto ticket, read_address(address));
    LONGHAUL_TRY_ASSIGN(auto settings, resolve(a, false, folder_name(ticket)));
    if (a.print_config) {
        std::fputs(settings.shown.c_str(), stdout);
        return 0;
    }
    joining join{.ticket = std::move(ticket), .expected = std::nullopt};
    if (settings.run_given) join.expected = settings.run;
    return run_daemon(a, std::move(settings), std::nullopt, std::move(join));
}

}  // namespace

void add_join(CLI::App& app, action& chosen) {
    auto* command = app.add_subcommand("join", "join a run by the address of any member, and take part");
    const auto a = std::make_shared<arguments>();
    const auto address = std::make_shared<std::string>();
    command->add_option("ADDR", *address, address_help)->required();
    command->add_option("RUN.toml", a->run_file, "refuse to join unless the run's [model] is this one");
    add_arguments(*command, *a, false);
    command->callback([a, address, &chosen] { chosen = [a, address] { return join(*address, *a); }; });
}

}  // namespace longhaul::peers::command

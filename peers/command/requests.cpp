#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "peers/command/command.hpp"
#include "peers/command/control.hpp"
#include "peers/command/world.hpp"

namespace longhaul::peers::command {

namespace {

core::task<core::result<std::string>> request(net::environment& env, std::string asked, std::string what) {
    auto folder = co_await find_daemon(env, std::move(asked));
    LONGHAUL_CO_TRY(folder);
    auto done = co_await ask_daemon(env, *folder, what);
    LONGHAUL_CO_TRY(done);
    co_return *folder;
}

core::result<int> request_and_say(const std::string& asked, const std::string& what) {
    visitor here;
    LONGHAUL_TRY_ASSIGN(const auto folder, here.ask(request(here.env(), asked, what)));
    fmt::print("{}: asked the node in {}\n", what, folder);
    return 0;
}

void add(CLI::App& app, action& chosen, const std::string& what, const std::string& help) {
    auto* command = app.add_subcommand(what, help);
    const auto state_dir = std::make_shared<std::string>();
    command->add_option("--state-dir", *state_dir, "of the node that is meant; default: the one that started last");
    command->callback([=, &chosen] { chosen = [state_dir, what] { return request_and_say(*state_dir, what); }; });
}

/// Says what it would cost; acts only when that is accepted.
core::result<int> recover(const std::string& asked, bool sure) {
    visitor here;
    LONGHAUL_TRY_ASSIGN(const auto folder, here.ask(find_daemon(here.env(), asked)));
    LONGHAUL_TRY_ASSIGN(const auto text, here.ask(ask_daemon(here.env(), folder, "status")));
    LONGHAUL_TRY_ASSIGN(const auto status, core::parse_json(text, max_answer, 8));
    LONGHAUL_TRY_ASSIGN(const auto what, core::json_string(status, "recovery"));
    const auto may = status.find("may_recover");
    if (may == status.end() || !may->is_boolean() || !may->get<bool>())
        return core::fail(core::errc::usage, "{}", what);
    fmt::print("recover: {}.\n", what);
    if (!sure) {
        fmt::print("Nothing was done. To do it: longhaul recover --yes --state-dir {}\n", folder);
        return 0;
    }
    LONGHAUL_TRY(here.ask(ask_daemon(here.env(), folder, "recover")));
    fmt::print("recover: asked the node in {}\n", folder);
    return 0;
}

void add_recover(CLI::App& app, action& chosen) {
    auto* command = app.add_subcommand(
        "recover", "go on without those who order the run's records, when a majority of them is gone for good");
    const auto state_dir = std::make_shared<std::string>();
    const auto sure = std::make_shared<bool>(false);
    command->add_option("--state-dir", *state_dir, "of the node that goes on; default: the one that started last");
    command->add_flag("--yes", *sure, "do it; otherwise it only says what it would cost");
    command->callback([=, &chosen] { chosen = [state_dir, sure] { return recover(*state_dir, *sure); }; });
}

}  // namespace

void add_requests(CLI::App& app, action& chosen) {
    add(app, chosen, "leave", "this machine's node leaves its run; the others go on");
    add(app, chosen, "stop", "end the whole run: every member checkpoints and stops (ask the coordinator's node)");
    add(app, chosen, "pause", "hold the run after the round in flight (ask the coordinator's node)");
    add_recover(app, chosen);
    add(app, chosen, "resume", "let a paused run go on (ask the coordinator's node)");
}

}  // namespace longhaul::peers::command

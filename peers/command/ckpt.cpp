#include <CLI/CLI.hpp>
#include <cstdio>

#include "peers/checkpoint_tools.hpp"
#include "peers/command/command.hpp"

namespace longhaul::peers::command {

namespace {

core::result<int> inspect(const std::string& path, bool as_json) {
    LONGHAUL_TRY_ASSIGN(const auto summary, inspect_checkpoint(path));
    std::puts((as_json ? summary.json() : summary.text()).c_str());
    return 0;
}

core::result<int> export_model(const std::string& path, const std::string& target) {
    LONGHAUL_TRY(export_checkpoint(path, target));
    fmt::print("{}\n", target);
    return 0;
}

}  // namespace

void add_ckpt(CLI::App& app, action& chosen) {
    auto* command = app.add_subcommand("ckpt", "look into checkpoints");
    command->require_subcommand(1);
    const auto path = std::make_shared<std::string>(), target = std::make_shared<std::string>("model.safetensors");
    const auto as_json = std::make_shared<bool>(false);
    auto* look = command->add_subcommand("inspect", "verify a checkpoint and show what it holds");
    look->add_option("FILE", *path, "a checkpoint's folder or file, or a state folder (its newest)")->required();
    look->add_flag("--json", *as_json, "for programs");
    look->callback([=, &chosen] { chosen = [=] { return inspect(*path, *as_json); }; });
    auto* out = command->add_subcommand("export", "verify a checkpoint and copy its model, as safetensors");
    out->add_option("FILE", *path, "a checkpoint's folder or file, or a state folder (its newest)")->required();
    out->add_option("-o,--out", *target, "file to write; must not exist")->capture_default_str();
    out->callback([=, &chosen] { chosen = [=] { return export_model(*path, *target); }; });
}

}  // namespace longhaul::peers::command

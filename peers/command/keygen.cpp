#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "peers/command/command.hpp"
#include "peers/command/files.hpp"
#include "peers/peer.hpp"

namespace longhaul::peers::command {

namespace {

core::result<int> unwritable(const std::string& problem) {
    return core::fail(core::errc::config, "{}; name a folder that exists and that you may write", problem);
}

core::result<int> keygen(const std::string& out, const std::string& dir, bool as_json) {
    std::string path = out;
    if (path.empty()) {
        if (dir.empty()) {
            return core::fail(core::errc::usage,
                              "keygen needs a place: --state-dir DIR for a node's folder, or --out FILE");
        }
        std::error_code e;
        const auto made = std::filesystem::create_directories(dir, e);
        if (e) return unwritable(fmt::format("cannot make the folder {}: {}", dir, e.message()));
        // As the daemon makes it; a folder that was there before is its owner's matter.
        if (made) std::filesystem::permissions(dir, std::filesystem::perms::owner_all, e);
        if (e) return core::fail(core::errc::io, "cannot make the folder {} private: {}", dir, e.message());
        path = dir + "/" + identity_file;
    }
    const auto made = create_identity(path);
    if (!made && (made.error().code == core::errc::io || made.error().code == core::errc::not_found)) {
        return unwritable(made.error().message);
    }
    if (!made) return core::fail(made.error());
    if (as_json) {
        fmt::print("{{\"key\":\"{}\"}}\n", made->key().hex());
    } else {
        fmt::print("{}\n", made->key().hex());
    }
    return 0;
}

}  // namespace

void add_keygen(CLI::App& app, action& chosen) {
    auto* command =
        app.add_subcommand("keygen", "draw a node's identity before its first start; prints its public key");
    const auto out = std::make_shared<std::string>(), dir = std::make_shared<std::string>();
    const auto as_json = std::make_shared<bool>(false);
    command->add_option("--out", *out, "file to write");
    command->add_option("--state-dir", *dir, "folder of the node");
    command->add_flag("--json", *as_json, "for programs");
    command->callback([=, &chosen] { chosen = [=] { return keygen(*out, *dir, *as_json); }; });
}

}  // namespace longhaul::peers::command

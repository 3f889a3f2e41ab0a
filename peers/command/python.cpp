#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "peers/command/command.hpp"
#include "peers/command/facts.hpp"

namespace longhaul::peers::command {

namespace {

namespace fs = std::filesystem;

/// The first existing PATH/suffix, from the program's folder upwards: a build folder lies two below the source tree.
fs::path above_program(const fs::path& suffix) {
    std::error_code e;
    for (auto at = fs::path(own_program()).parent_path(); !at.empty(); at = at.parent_path()) {
        if (fs::exists(at / suffix, e)) return at / suffix;
        if (at == at.root_path()) break;
    }
    return {};
}

/// LONGHAUL_PYTHON, else a .venv beside the program or its source tree, else python3.
std::string find_python() {
    if (const char* named = std::getenv("LONGHAUL_PYTHON"); named != nullptr && *named != 0) return named;
    if (const auto venv = above_program(".venv/bin/python"); !venv.empty()) return venv.string();
    return "python3";
}

core::result<int> hand_over(const std::string& command, const std::vector<std::string>& rest) {
    const auto python = find_python();
    if (const auto package = above_program("scripts/longhaul/__main__.py"); !package.empty()) {
        auto path = package.parent_path().parent_path().string();
        if (const char* before = std::getenv("PYTHONPATH"); before != nullptr && *before != 0)
            path += ":" + std::string(before);
        ::setenv("PYTHONPATH", path.c_str(), 1);
    }
    // The launcher starts this very program.
    ::setenv("LONGHAUL_BINARY", own_program().c_str(), 0);
    std::vector<std::string> words{python, "-m", "longhaul", command};
    words.insert(words.end(), rest.begin(), rest.end());
    std::vector<char*> raw;
    for (auto& word : words) raw.push_back(word.data());
    raw.push_back(nullptr);
    ::execvp(raw[0], raw.data());
    return core::fail(core::errc::unsupported,
                      "cannot start {} for \"{}\": {}; name a Python with the longhaul package in LONGHAUL_PYTHON",
                      python, command, std::strerror(errno));
}

}  // namespace

void add_python(CLI::App& app, action& chosen) {
    const auto add = [&](const std::string& name, const std::string& help) {
        auto* command = app.add_subcommand(name, help);
        // Every flag behind the name is Python's, --help as well.
        command->prefix_command();
        command->set_help_flag();
        command->callback([name, command, &chosen] {
            chosen = [name, rest = command->remaining()] { return hand_over(name, rest); };
        });
    };
    add("launch", "several local daemons as one run (Python)");
    add("top", "a live view of runs (Python)");
    add("plot", "figures of loss over time and over bytes (Python)");
}

}  // namespace longhaul::peers::command

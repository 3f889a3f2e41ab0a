#include <CLI/CLI.hpp>
#include <cstdio>

#include "net/hello.hpp"
#include "peers/command/command.hpp"

namespace longhaul::peers::command {

namespace {

std::string version_line() {
    return fmt::format("longhaul {}, wire versions {} to {}, built by {}{}", LONGHAUL_VERSION, net::wire_version_min,
                       net::wire_version_max, LONGHAUL_COMPILER,
                       net::null_cipher ? ", WITHOUT ENCRYPTION: for measurements only" : "");
}

}  // namespace

void add_version(CLI::App& app, action& chosen) {
    app.set_version_flag("--version", version_line());
    auto* command = app.add_subcommand("version", "what this program is");
    const auto as_json = std::make_shared<bool>(false);
    command->add_flag("--json", *as_json, "for programs");
    command->callback([as_json, &chosen] {
        chosen = [as_json]() -> core::result<int> {
            if (*as_json) {
                fmt::print(
                    "{{\"version\":\"{}\",\"wire_min\":{},\"wire_max\":{},\"compiler\":\"{}\","
                    "\"encrypts\":{}}}\n",
                    LONGHAUL_VERSION, net::wire_version_min, net::wire_version_max, LONGHAUL_COMPILER,
                    !net::null_cipher);
            } else {
                std::puts(version_line().c_str());
            }
            return 0;
        };
    });
}

}  // namespace longhaul::peers::command

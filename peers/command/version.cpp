#include <CLI/CLI.hpp>
#include <cstdio>

#include "net/hello.hpp"
#include "peers/command/command.hpp"

namespace longhaul::peers::command {

void add_version(CLI::App& app, action& chosen) {
    auto* command = app.add_subcommand("version", "what this program is");
    const auto as_json = std::make_shared<bool>(false);
    command->add_flag("--json", *as_json, "for programs");
    command->callback([as_json, &chosen] {
        chosen = [as_json]() -> core::result<int> {
            if (*as_json) {
                fmt::print("{{\"version\":\"{}\",\"wire_min\":{},\"wire_max\":{},\"compiler\":\"{}\"}}\n",
                           LONGHAUL_VERSION, net::wire_version_min, net::wire_version_max, LONGHAUL_COMPILER);
            } else {
                fmt::print("longhaul {}, wire versions {} to {}, built by {}\n", LONGHAUL_VERSION,
                           net::wire_version_min, net::wire_version_max, LONGHAUL_COMPILER);
            }
            return 0;
        };
    });
}

}  // namespace longhaul::peers::command

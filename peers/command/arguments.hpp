#pragma once
/// The flags that `run` and `join` share, and how defaults, files, environment and flags become one configuration.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "peers/node_config.hpp"
#include "peers/run_config.hpp"

namespace CLI {
class App;
}

namespace longhaul::peers::command {

struct arguments {
    std::string run_file;                      ///< RUN.toml; empty: none
    std::string state_dir, node_file;          ///< as given; empty: the defaults
    std::map<std::string, std::string> flags;  ///< spelling → text, of the flags that were given
    std::vector<std::string> settings;         ///< --set key=value
    std::string trainer = "auto";              ///< auto | torch | quadratic
    std::string fit_budget;                    ///< empty: the run is as long as configured
    std::string fit_exchange = "50 ms";
    int fit_peers = 1;
    int die_with_fd = -1;
    bool json_ready = false;
    bool print_config = false;
};

/// Adds the flags of a node; the run's own (--rounds, --lr …) as well when `founder`.
void add_arguments(CLI::App& command, arguments& into, bool founder);

/// Everything that a daemon is told, resolved.
struct resolved {
    run_config run;
    bool run_given = false;  ///< RUN.toml, a flag or the environment said something of the run
    node_config node;
    std::string state_dir;
    std::string shown;  ///< what --print-config prints: each value with its origin; reads back
};

/// Defaults < TOML < LONGHAUL_* < flags. `name_if_unknown` names the state folder of a joiner without RUN.toml.
core::result<resolved> resolve(const arguments& a, bool founder, const std::string& name_if_unknown);

}  // namespace longhaul::peers::command

#include "peers/command/environment.hpp"

#include <unistd.h>

#include "peers/node_config.hpp"
#include "peers/run_config.hpp"

namespace longhaul::peers::command {

std::vector<std::string> environment_strings() {
    std::vector<std::string> out;
    for (char** e = environ; *e != nullptr; ++e) out.emplace_back(*e);
    return out;
}

core::result<void> check_environment() {
    run_config run;
    node_config node;
    core::config_binder keys;
    bind(keys, run);
    bind(keys, node);
    std::vector<std::string> others;
    for (const auto& v : other_variables) others.emplace_back(v.name);
    return core::config_values::check_environment(environment_strings(), keys.keys(), others);
}

}  // namespace longhaul::peers::command

#pragma once
/// The LONGHAUL_* variables: one for each key of the configuration, and the few others, all named here.

#include <string>
#include <vector>

#include "core/result.hpp"

namespace longhaul::peers::command {

/// A variable that is no key of the configuration.
struct variable {
    const char* name;
    const char* help;
};

/// All of them, whichever part of longhaul reads them.
inline constexpr variable other_variables[] = {
    {"LONGHAUL_STATE_DIR", "the state folder, where --state-dir names none"},
    {"LONGHAUL_PYTHON", "the Python of launch, top and plot, and of the default text"},
    {"LONGHAUL_BINARY", "the daemon that launch and the tests start"},
    {"LONGHAUL_TORCH_MODULE", "the file with the LibTorch trainers"},
    {"LONGHAUL_SHARED", "the folder of data that tests and experiments use"},
};

/// What this process was started with, as "NAME=value".
std::vector<std::string> environment_strings();

/// errc::config when a LONGHAUL_* variable is set that nothing reads; it names the nearest.
core::result<void> check_environment();

}  // namespace longhaul::peers::command

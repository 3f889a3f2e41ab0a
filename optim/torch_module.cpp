#include "optim/torch_module.hpp"

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vector>

namespace longhaul::optim {
namespace fs = std::filesystem;
namespace {

constexpr const char* module_name = "liblonghaul_torch.so";

/// Where the module may be, best first.
std::vector<fs::path> candidates() {
    if (const char* named = std::getenv("LONGHAUL_TORCH_MODULE"); named != nullptr && *named != '\0') return {named};
    std::error_code error;
    const auto folder = fs::read_symlink("/proc/self/exe", error).parent_path();
    return {folder / module_name, folder.parent_path() / "lib/longhaul" / module_name};
}

}  // namespace

core::result<std::unique_ptr<trainer>> make_torch_trainer(const trainer_options& options) {
    std::string looked;
    for (const auto& path : candidates()) {
        std::error_code error;
        looked += (looked.empty() ? "" : ", ") + path.string();
        if (!fs::exists(path, error)) continue;
        // Loaded once and never unloaded: LibTorch has threads and destructors of its own. The loader counts, so that
        // later calls find it there.
        void* module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (module == nullptr) {
            const char* why = ::dlerror();
            return core::fail(core::errc::unsupported,
                              "cannot load the LibTorch trainers: {}; was torch moved or upgraded? build again "
                              "(cmake --build build/release)",
                              why != nullptr ? why : path.c_str());
        }
        const auto version = reinterpret_cast<torch_version_function>(::dlsym(module, torch_version_symbol));
        const auto factory = reinterpret_cast<torch_factory_function>(::dlsym(module, torch_factory_symbol));
        if (version == nullptr || factory == nullptr || std::string_view(version()) != LONGHAUL_TRAINER_VERSION)
            return core::fail(
                core::errc::unsupported,
                "{} was built from other sources (its version is {}, this program's {}); build both again",
                path.string(), version == nullptr ? "unknown" : version(), LONGHAUL_TRAINER_VERSION);
        core::result<std::unique_ptr<trainer>> made = core::fail(core::errc::internal, "the module made nothing");
        factory(options, made);
        return made;
    }
    return core::fail(
        core::errc::unsupported,
        "model \"{}\" needs the LibTorch trainers, which are not here (looked for {}): run scripts/setup and "
        "build the preset release, or name the module with LONGHAUL_TORCH_MODULE",
        options.model.kind, looked);
}

}  // namespace longhaul::optim

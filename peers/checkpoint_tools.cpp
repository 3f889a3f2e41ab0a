#include "peers/checkpoint_tools.hpp"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "core/posix_file.hpp"
#include "core/units.hpp"
#include "peers/checkpoint_format.hpp"
#include "peers/generation.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t max_file = std::uint64_t{1} << 42;

struct read_checkpoint {
    std::string folder;
    checkpoint_state state;
    std::map<std::string, core::byte_vector> contents;
};

core::result<read_checkpoint> read_all(const std::string& path) {
    read_checkpoint out;
    LONGHAUL_TRY_ASSIGN(out.folder, checkpoint_folder_of(path));
    const auto file = [&](const std::string& name) { return (fs::path(out.folder) / name).string(); };
    LONGHAUL_TRY_ASSIGN(const auto text, core::read_file(file(checkpoint_state_file), max_checkpoint_state));
    auto state = parse_checkpoint_state(text);
    if (!state) return fail(state.error().within(file(checkpoint_state_file)));
    out.state = std::move(*state);
    for (const auto& [name, entry] : out.state.files) {
        LONGHAUL_TRY_ASSIGN(auto content, core::read_file(file(name), max_file));
        if (auto verified = verify_file(out.state, name, content); !verified)
            return fail(verified.error().within(out.folder));
        out.contents.emplace(name, std::move(content));
    }
    return out;
}

}  // namespace

core::result<std::string> checkpoint_folder_of(const std::string& path) {
    std::error_code ignored;
    fs::path at = path;
    if (!fs::exists(at, ignored)) return fail(errc::not_found, "there is no {}", path);
    if (!fs::is_directory(at, ignored)) at = at.has_parent_path() ? at.parent_path() : fs::path(".");
    if (fs::exists(at / checkpoint_state_file, ignored)) return at.string();
    if (fs::is_directory(at / "checkpoints", ignored)) at /= "checkpoints";
    std::optional<std::uint64_t> newest;
    for (auto it = fs::directory_iterator(at, ignored); !ignored && it != fs::directory_iterator();
         it.increment(ignored))
        if (const auto round = checkpoint_round(it->path().filename().string())) newest = std::max(newest, round);
    if (!newest)
        return fail(errc::not_found, "{} holds no checkpoint; name a folder like checkpoints/{}", path,
                    checkpoint_folder(120));
    return (at / checkpoint_folder(*newest)).string();
}

core::result<checkpoint_summary> inspect_checkpoint(const std::string& path) {
    LONGHAUL_TRY_ASSIGN(auto read, read_all(path));
    checkpoint_summary out;
    out.folder = read.folder;
    out.bytes = read.state.total_bytes();
    out.model_hash = read.state.files.at(checkpoint_model_file).hash;
    auto assembled = assemble(read.state, std::move(read.contents));
    if (!assembled) return fail(assembled.error().within(out.folder));
    const auto& c = *assembled;
    out.run = c.run;
    out.generation = c.generation;
    out.round = c.round;
    out.step = c.step;
    out.tokens = c.tokens;
    out.parameters = c.manifest.elements();
    out.has_momentum = !c.momentum.empty();
    out.has_residual = !c.residual.empty();
    out.has_inner = !c.inner.empty();
    out.extra_json = c.extra_json;
    for (std::size_t i = 0; i < c.manifest.size(); ++i) {
        double squares = 0;
        for (const float v : c.manifest.part(std::span<const float>(c.anchor), i))
            squares += static_cast<double>(v) * static_cast<double>(v);
        checkpoint_summary::tensor t;
        t.name = c.manifest.specs()[i].name;
        t.shape = c.manifest.specs()[i].shape;
        t.norm = std::sqrt(squares);
        out.tensors.push_back(std::move(t));
    }
    return out;
}

std::string checkpoint_summary::text() const {
    std::string out = fmt::format("{}: verified\n", folder);
    out += fmt::format("run        {}\n", run.hex());
    out += fmt::format("round      {} (generation {}, step {}, {} tokens)\n", round, generation_name(generation), step,
                       tokens);
    out += fmt::format("model      {} parameters in {} tensors, BLAKE3 {}\n", parameters, tensors.size(),
                       model_hash.hex());
    out +=
        fmt::format("files      {}: model{}{}{}\n", core::format_bytes(bytes), has_momentum ? ", outer momentum" : "",
                    has_residual ? ", residual" : "", has_inner ? ", inner optimizer" : "");
    for (const auto& t : tensors)
        out +=
            fmt::format("  {:<48} {:<20} norm {:.6g}\n", t.name, fmt::format("[{}]", fmt::join(t.shape, ", ")), t.norm);
    return out;
}

std::string checkpoint_summary::json() const {
    nlohmann::json out{{"folder", folder},
                       {"run", run.hex()},
                       {"generation", generation},
                       {"round", round},
                       {"step", step},
                       {"tokens", tokens},
                       {"parameters", parameters},
                       {"bytes", bytes},
                       {"model_hash", model_hash.hex()},
                       {"momentum", has_momentum},
                       {"residual", has_residual},
                       {"inner", has_inner},
                       {"extra", extra_json},
                       {"tensors", nlohmann::json::array()}};
    for (const auto& t : tensors) out["tensors"].push_back({{"name", t.name}, {"shape", t.shape}, {"norm", t.norm}});
    return core::json_text(out);
}

core::result<void> export_checkpoint(const std::string& path, const std::string& target) {
    LONGHAUL_TRY_ASSIGN(const auto read, read_all(path));
    const auto file = core::open_file(target, O_WRONLY | O_CREAT | O_EXCL);
    if (!file && errno == EEXIST) {
        return fail(errc::usage, "{} exists already and is not replaced: name another file with -o", target);
    }
    if (!file) return fail(core::system_error(errno, "write " + target));
    std::size_t written = 0;
    int failed = core::write_fully(file.get(), read.contents.at(checkpoint_model_file), written);
    if (failed == 0 && ::fsync(file.get()) != 0) failed = errno;
    if (failed == 0) return core::ok();
    ::unlink(target.c_str());
    return fail(core::system_error(failed, "write " + target));
}

}  // namespace longhaul::peers

#include "peers/checkpoint_format.hpp"

#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/hash.hpp"
#include "core/json.hpp"
#include "core/utf8.hpp"
#include "peers/safetensors.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

constexpr std::uint64_t state_format = 1;
constexpr std::string_view folder_prefix = "round-";

core::result<checkpoint_file> tensors_file(std::string name, const core::tensor_manifest& manifest,
                                           std::span<const float> values, std::string_view content) {
    LONGHAUL_ENSURE(values.size() == manifest.elements(), "a buffer of a checkpoint belongs to another model");
    checkpoint_file out;
    out.name = std::move(name);
    // "format" is what PyTorch's loaders look for.
    LONGHAUL_TRY_ASSIGN(out.head,
                        safetensors_header(manifest, {{"format", "pt"}, {"longhaul.content", std::string(content)}}));
    out.body = core::bytes_of(values);
    return out;
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const auto c = core::first_utf8(text);
        if (c.length == 0) return false;
        text.remove_prefix(c.length);
    }
    return true;
}

bool is_known(std::string_view name) {
    return name == checkpoint_model_file || name == checkpoint_outer_file || name == checkpoint_residual_file ||
           name == checkpoint_said_file || name == checkpoint_inner_file;
}

core::result<core::digest> json_digest(const nlohmann::json& object, const std::string& key) {
    LONGHAUL_TRY_ASSIGN(const auto text, core::json_string(object, key));
    core::digest out;
    LONGHAUL_TRY(core::from_hex(text, out.bytes));
    return out;
}

/// The text of state.json: the object with its own hash in it. One object has one text.
std::string sealed(nlohmann::json state) {
    state["check"] = core::hash(core::as_bytes(core::json_text(state))).hex();
    return core::json_text(state) + "\n";
}

/// The values of one of the tensor files; `manifest` is the model's.
core::result<core::flat_buffer> tensor_values(const core::tensor_manifest& manifest, const core::byte_vector& content) {
    LONGHAUL_TRY_ASSIGN(const auto view, parse_safetensors(content));
    if (const auto difference = manifest.first_difference(view.manifest); !difference.empty())
        return fail(errc::malformed, "its tensors differ from the model's: {}", difference);
    return view.values();
}

}  // namespace

core::result<std::vector<checkpoint_file>> lay_out(const checkpoint_view& c) {
    if (c.extra_json.size() > max_checkpoint_extra)
        return fail(errc::limit, "the extra text of a checkpoint has {} bytes, more than {}", c.extra_json.size(),
                    max_checkpoint_extra);
    if (!is_utf8(c.extra_json)) return fail(errc::limit, "the extra text of a checkpoint is not UTF-8");
    std::vector<checkpoint_file> out;
    LONGHAUL_TRY_ASSIGN(auto model, tensors_file(checkpoint_model_file, *c.manifest, c.anchor, "anchor"));
    out.push_back(std::move(model));
    if (!c.momentum.empty()) {
        LONGHAUL_TRY_ASSIGN(auto outer, tensors_file(checkpoint_outer_file, *c.manifest, c.momentum, "momentum"));
        out.push_back(std::move(outer));
    }
    if (!c.residual.empty()) {
        LONGHAUL_TRY_ASSIGN(auto residual, tensors_file(checkpoint_residual_file, *c.manifest, c.residual, "residual"));
        out.push_back(std::move(residual));
    }
    if (!c.said.empty()) {
        LONGHAUL_TRY_ASSIGN(auto said, tensors_file(checkpoint_said_file, *c.manifest, c.said, "said"));
        out.push_back(std::move(said));
    }
    if (!c.inner.empty()) {
        checkpoint_file inner;
        inner.name = checkpoint_inner_file;
        inner.body = c.inner;
        out.push_back(std::move(inner));
    }
    nlohmann::json state{{"format", state_format},
                         {"run", c.run.hex()},
                         {"generation", c.generation},
                         {"round", c.round},
                         {"step", c.step},
                         {"tokens", c.tokens},
                         {"extra", std::string(c.extra_json)},
                         {"files", nlohmann::json::object()}};
    for (auto& file : out) {
        file.hash = core::hasher().update(file.head).update(file.body).finish();
        state["files"][file.name] = {{"bytes", file.bytes()}, {"blake3", file.hash.hex()}};
    }
    const auto text = sealed(std::move(state));
    checkpoint_file last;
    last.name = checkpoint_state_file;
    last.head = core::byte_writer().raw(core::as_bytes(text)).take();
    last.hash = core::hash(last.head);
    out.push_back(std::move(last));
    return out;
}

std::uint64_t checkpoint_state::total_bytes() const {
    std::uint64_t total = 0;
    for (const auto& [name, f] : files)
        total = f.bytes > std::numeric_limits<std::uint64_t>::max() - total ? std::numeric_limits<std::uint64_t>::max()
                                                                            : total + f.bytes;
    return total;
}

core::result<checkpoint_state> parse_checkpoint_state(core::const_bytes text) {
    LONGHAUL_TRY_ASSIGN(auto json, core::parse_json(core::as_text(text), max_checkpoint_state, 4));
    if (!json.is_object()) return fail(errc::malformed, "it is not an object");
    LONGHAUL_TRY_ASSIGN(const auto format, core::json_u64(json, "format"));
    if (format != state_format)
        return fail(errc::malformed, "it has format {}, and only {} is known", format, state_format);
    auto unsealed = json;
    unsealed.erase("check");
    if (sealed(std::move(unsealed)) != core::as_text(text))
        return fail(errc::malformed, "its text does not match its own hash");
    checkpoint_state out;
    LONGHAUL_TRY_ASSIGN(out.run, json_digest(json, "run"));
    LONGHAUL_TRY_ASSIGN(out.generation, core::json_u64(json, "generation"));
    LONGHAUL_TRY_ASSIGN(out.round, core::json_u64(json, "round"));
    LONGHAUL_TRY_ASSIGN(out.step, core::json_u64(json, "step"));
    LONGHAUL_TRY_ASSIGN(out.tokens, core::json_u64(json, "tokens"));
    LONGHAUL_TRY_ASSIGN(out.extra_json, core::json_string(json, "extra"));
    const auto files = json.find("files");
    if (files == json.end() || !files->is_object()) return fail(errc::malformed, "\"files\" is not an object");
    for (const auto& [name, entry] : files->items()) {
        if (!is_known(name)) return fail(errc::malformed, "it lists an unknown file");
        if (!entry.is_object()) return fail(errc::malformed, "\"{}\" is not an object", name);
        checkpoint_state::file f;
        LONGHAUL_TRY_ASSIGN(f.bytes, core::json_u64(entry, "bytes"));
        LONGHAUL_TRY_ASSIGN(f.hash, json_digest(entry, "blake3"));
        out.files.emplace(name, f);
    }
    if (!out.files.contains(checkpoint_model_file))
        return fail(errc::malformed, "it does not list {}", checkpoint_model_file);
    return out;
}

core::result<void> verify_file(const checkpoint_state& state, const std::string& name, core::const_bytes content) {
    const auto it = state.files.find(name);
    LONGHAUL_ENSURE(it != state.files.end(), "a file that the checkpoint does not list");
    if (content.size() != it->second.bytes)
        return fail(errc::malformed, "{} has {} bytes instead of {}", name, content.size(), it->second.bytes);
    if (core::hash(content) != it->second.hash) return fail(errc::malformed, "{} does not match its hash", name);
    return core::ok();
}

core::result<checkpoint> assemble(const checkpoint_state& state, std::map<std::string, core::byte_vector> contents) {
    checkpoint out;
    out.run = state.run;
    out.generation = state.generation;
    out.round = state.round;
    out.step = state.step;
    out.tokens = state.tokens;
    out.extra_json = state.extra_json;
    for (const auto& [name, file] : state.files) {
        if (!contents.contains(name)) return fail(errc::malformed, "{} is missing", name);
        LONGHAUL_TRY(verify_file(state, name, contents[name]));
    }
    const auto take = [&contents](const char* name) {
        const auto it = contents.find(name);
        return it == contents.end() ? core::byte_vector() : std::exchange(it->second, {});
    };
    {
        const auto model = take(checkpoint_model_file);
        const auto view = parse_safetensors(model);
        if (!view) return fail(view.error().within(checkpoint_model_file));
        out.manifest = view->manifest;
        out.anchor = view->values();
    }
    const auto fill = [&](const char* name, core::flat_buffer& buffer) -> core::result<void> {
        if (!state.files.contains(name)) return core::ok();
        auto values = tensor_values(out.manifest, take(name));
        if (!values) return fail(values.error().within(name));
        buffer = std::move(*values);
        return core::ok();
    };
    LONGHAUL_TRY(fill(checkpoint_outer_file, out.momentum));
    LONGHAUL_TRY(fill(checkpoint_residual_file, out.residual));
    LONGHAUL_TRY(fill(checkpoint_said_file, out.said));
    out.inner = take(checkpoint_inner_file);
    return out;
}

std::string checkpoint_folder(std::uint64_t round) { return fmt::format("{}{:09}", folder_prefix, round); }

std::optional<std::uint64_t> checkpoint_round(std::string_view folder) {
    if (!folder.starts_with(folder_prefix)) return std::nullopt;
    const auto digits = folder.substr(folder_prefix.size());
    std::uint64_t round = 0;
    const auto* last = digits.data() + digits.size();
    const auto [end, code] = std::from_chars(digits.data(), last, round);
    if (code != std::errc{} || end != last || checkpoint_folder(round) != folder) return std::nullopt;
    return round;
}

}  // namespace longhaul::peers

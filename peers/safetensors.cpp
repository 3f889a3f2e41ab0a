#include "peers/safetensors.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "core/utf8.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

constexpr auto roles_key = "longhaul.roles";

struct placed_tensor {
    core::tensor_spec spec;
    std::uint64_t begin = 0, end = 0;
};

core::result<std::uint64_t> whole_number(const nlohmann::json& v, const std::string& name) {
    if (!v.is_number_unsigned())
        return fail(errc::malformed, "tensor \"{}\" has a shape or offset that is not a whole number", name);
    return v.get<std::uint64_t>();
}

core::result<placed_tensor> parse_tensor(const std::string& name, const nlohmann::json& entry) {
    placed_tensor out;
    // Checked first: names appear in the sentences below.
    if (name.size() > core::max_tensor_name || !core::is_printable_utf8(name))
        return fail(errc::malformed, "a tensor's name is too long or not printable");
    out.spec.name = name;
    LONGHAUL_TRY_ASSIGN(const auto dtype, core::json_string(entry, "dtype"));
    if (dtype != "F32") return fail(errc::malformed, "tensor \"{}\" is not F32, and nothing else is read", name);
    const auto shape = entry.find("shape"), offsets = entry.find("data_offsets");
    if (shape == entry.end() || !shape->is_array() || offsets == entry.end() || !offsets->is_array() ||
        offsets->size() != 2 || entry.size() != 3)
        return fail(errc::malformed, "tensor \"{}\" has not just dtype, shape and data_offsets", name);
    if (shape->size() > core::max_tensor_rank)
        return fail(errc::limit, "tensor \"{}\" has {} dimensions", name, shape->size());
    for (const auto& d : *shape) {
        LONGHAUL_TRY_ASSIGN(const auto n, whole_number(d, name));
        if (n > core::max_elements) return fail(errc::limit, "tensor \"{}\" has a dimension of {}", name, n);
        out.spec.shape.push_back(static_cast<std::int64_t>(n));
    }
    LONGHAUL_TRY_ASSIGN(out.begin, whole_number((*offsets)[0], name));
    LONGHAUL_TRY_ASSIGN(out.end, whole_number((*offsets)[1], name));
    return out;
}

core::result<std::map<std::string, std::string>> parse_metadata(const nlohmann::json& entry) {
    std::map<std::string, std::string> out;
    if (!entry.is_object()) return fail(errc::malformed, "\"__metadata__\" is not an object");
    for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return fail(errc::malformed, "\"__metadata__\" may hold texts only");
        out.emplace(key, value.get<std::string>());
    }
    return out;
}

}  // namespace

core::result<core::byte_vector> safetensors_header(const core::tensor_manifest& manifest,
                                                   std::map<std::string, std::string> metadata) {
    std::string roles;
    for (const auto& s : manifest.specs()) roles += s.role == core::tensor_role::buffer ? 'b' : 'p';
    if (roles.find('b') != std::string::npos) metadata[roles_key] = roles;
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    for (std::size_t i = 0; i < manifest.size(); ++i) {
        const auto& s = manifest.specs()[i];
        const auto begin = manifest.offset(i) * sizeof(float);
        nlohmann::ordered_json entry;
        entry["dtype"] = "F32";
        entry["shape"] = s.shape;
        entry["data_offsets"] = {begin, begin + s.elements() * sizeof(float)};
        // Not operator[]: an ordered object would search its keys, and names are unique already.
        header.get_ref<nlohmann::ordered_json::object_t&>().emplace_back(s.name, std::move(entry));
    }
    auto text = header.dump();
    text.append((8 - text.size() % 8) % 8, ' ');
    if (text.size() > max_safetensors_header)
        return fail(errc::limit, "a safetensors header of {} bytes exceeds {}", text.size(), max_safetensors_header);
    core::byte_writer out;
    out.u64(text.size()).raw(core::as_bytes(text));
    return out.take();
}

core::flat_buffer safetensors_view::values() const {
    core::flat_buffer out(manifest.elements());
    if (!out.empty()) std::memcpy(out.data(), data.data(), data.size());
    return out;
}

core::result<safetensors_view> parse_safetensors(core::const_bytes file) {
    core::byte_reader in(file);
    const auto length = in.u64();
    if (!length) return fail(errc::malformed, "a safetensors file of {} bytes is too short", file.size());
    if (*length > max_safetensors_header)
        return fail(errc::limit, "a safetensors header of {} bytes exceeds {}", *length, max_safetensors_header);
    if (*length > in.remaining())
        return fail(errc::malformed, "the safetensors file ends inside its header of {} bytes", *length);
    const auto text = core::as_text(*in.take(*length));
    if (!text.starts_with('{')) return fail(errc::malformed, "the safetensors header does not start with '{{'");
    const auto parsed = core::parse_json(text, max_safetensors_header, 4);
    if (!parsed) return fail(parsed.error().within("safetensors header"));

    safetensors_view out;
    out.data = *in.take(in.remaining());
    std::vector<placed_tensor> placed;
    for (const auto& [name, entry] : parsed->items()) {
        if (name == "__metadata__") {
            LONGHAUL_TRY_ASSIGN(out.metadata, parse_metadata(entry));
            continue;
        }
        if (placed.size() == core::max_tensors)
            return fail(errc::limit, "the safetensors file has more than {} tensors", core::max_tensors);
        LONGHAUL_TRY_ASSIGN(auto tensor, parse_tensor(name, entry));
        placed.push_back(std::move(tensor));
    }
    std::ranges::sort(placed, {}, &placed_tensor::begin);

    const auto roles = out.metadata.find(roles_key);
    if (roles != out.metadata.end() && roles->second.size() != placed.size())
        return fail(errc::malformed, "\"{}\" does not have one letter a tensor", roles_key);
    std::vector<core::tensor_spec> specs;
    for (std::size_t i = 0; i < placed.size(); ++i) {
        specs.push_back(placed[i].spec);
        if (roles == out.metadata.end()) continue;
        const char letter = roles->second[i];
        if (letter != 'p' && letter != 'b') return fail(errc::malformed, "\"{}\" has an unknown letter", roles_key);
        if (letter == 'b') specs.back().role = core::tensor_role::buffer;
    }
    LONGHAUL_TRY_ASSIGN(out.manifest, core::tensor_manifest::make(std::move(specs)));
    for (std::size_t i = 0; i < placed.size(); ++i) {
        const auto begin = out.manifest.offset(i) * sizeof(float);
        const auto end = begin + out.manifest.specs()[i].elements() * sizeof(float);
        if (placed[i].begin != begin || placed[i].end != end)
            return fail(errc::malformed, "tensor \"{}\" lies at bytes {} to {}, and must lie at {} to {}",
                        placed[i].spec.name, placed[i].begin, placed[i].end, begin, end);
    }
    if (out.manifest.elements() * sizeof(float) != out.data.size())
        return fail(errc::malformed, "the safetensors file has {} bytes of data, its tensors {}", out.data.size(),
                    out.manifest.elements() * sizeof(float));
    return out;
}

}  // namespace longhaul::peers

#include "compress/codec.hpp"

#include <fmt/ranges.h>

#include <array>

#include "compress/dense.hpp"
#include "core/config.hpp"

namespace longhaul::compress {

namespace {

std::array<const codec*, 2> all_codecs() { return {&f32_codec(), &bf16_codec()}; }

}  // namespace

core::result<const codec*> find_codec(std::string_view name) {
    for (const auto* c : all_codecs())
        if (c->name() == name) return c;
    const auto names = codec_names();
    const auto near = core::nearest(name, names);
    return core::fail(core::errc::config, "unknown codec \"{}\"; there are {}{}", name.substr(0, 80),
                      fmt::join(names, ", "), near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
}

core::result<void> codec::encode_range(std::span<const float>, core::mutable_bytes) const {
    return core::fail(core::errc::usage, "the codec {} has no ranges", name());
}

core::result<void> codec::decode_range(core::const_bytes, std::span<float>) const {
    return core::fail(core::errc::usage, "the codec {} has no ranges", name());
}

std::vector<std::string> codec_names() {
    std::vector<std::string> out;
    for (const auto* c : all_codecs()) out.emplace_back(c->name());
    return out;
}

}  // namespace longhaul::compress

// Any bytes as a safetensors file and as state.json, bare and behind what a fuzzer does not guess: never more than an
// error; what parses, writes and parses the same.
#include <nlohmann/json.hpp>

#include "core/hash.hpp"
#include "core/json.hpp"
#include "peers/checkpoint_format.hpp"
#include "peers/safetensors.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

namespace {

void tensors(core::const_bytes file) {
    const auto view = peers::parse_safetensors(file);
    if (!view) return;
    FUZZ_CHECK(view->data.size() == view->manifest.elements() * sizeof(float));
    const auto values = view->values();
    auto again = *peers::safetensors_header(view->manifest, view->metadata);
    const auto body = core::bytes_of(values);
    again.insert(again.end(), body.begin(), body.end());
    const auto back = peers::parse_safetensors(again);
    FUZZ_CHECK(back && back->manifest == view->manifest && back->metadata == view->metadata);
}

/// A text with a valid seal around whatever object the input is.
void sealed_state(core::const_bytes input) {
    auto object = core::parse_json(core::as_text(input), 1 << 16, 4);
    if (!object || !object->is_object()) return;
    object->erase("check");
    (*object)["check"] = core::hash(core::as_bytes(core::json_text(*object))).hex();
    const auto text = core::json_text(*object) + "\n";
    if (const auto state = peers::parse_checkpoint_state(core::as_bytes(text))) {
        std::map<std::string, core::byte_vector> contents;
        for (const auto& [name, file] : state->files) contents.emplace(name, core::byte_vector());
        FUZZ_CHECK(!peers::assemble(*state, std::move(contents)));
    }
}

}  // namespace

FUZZ_TARGET(checkpoint) {
    const core::const_bytes input(reinterpret_cast<const std::byte*>(data), size);
    tensors(input);
    // The input as the header, with as much data behind it as its first byte says.
    const std::size_t behind = input.empty() ? 0 : 4 * (data[0] & 15U);
    core::byte_writer with_length;
    const auto header = input.empty() ? input : input.subspan(1);
    with_length.u64(header.size()).raw(header).raw(core::byte_vector(behind));
    tensors(with_length.bytes());
    FUZZ_CHECK(!peers::parse_checkpoint_state(input) || size > 64);
    sealed_state(input);
}

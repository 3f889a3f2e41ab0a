#pragma once
/// Checkpoints: folders `checkpoints/round-000000123` of a node's storage, one run a storage.
///
///   model.safetensors     the anchor, names as in the model
///   outer.safetensors     the outer optimizer's momentum, the same names
///   residual.safetensors  this node's residual or carry; absent when there is none
///   said.safetensors      what others hold of this node's payloads ("ef21", "econtrol"); absent when there is none
///   inner.bin             this node's inner optimizer, opaque; absent when there is none
///   state.json            format, run, generation, round, step, tokens, extra; size and BLAKE3 of each other
///                         file; "check": BLAKE3 of all of that
///
/// The first two depend on the replicated state alone: equal on all nodes, byte for byte. A checkpoint is written under
/// another name, synced, read back and verified before it gets its own.

#include <optional>
#include <span>
#include <string_view>

#include "core/storage.hpp"
#include "core/tensor.hpp"
#include "core/workers.hpp"

namespace longhaul::peers {

struct checkpoint {
    core::digest run;
    std::uint64_t generation = 0, round = 0, step = 0, tokens = 0;
    core::tensor_manifest manifest;
    core::flat_buffer anchor;     ///< manifest.elements() floats
    core::flat_buffer momentum;   ///< as many, or none
    core::flat_buffer residual;   ///< as many, or none
    core::flat_buffer said;       ///< as many, or none
    core::byte_vector inner;      ///< opaque, may be empty
    std::string extra_json = "";  ///< the caller's, opaque UTF-8, at most max_checkpoint_extra bytes
};

/// A checkpoint whose buffers are somebody else's, who keeps them until it is saved.
struct checkpoint_view {
    checkpoint_view() = default;
    checkpoint_view(const checkpoint& c);

    core::digest run;
    std::uint64_t generation = 0, round = 0, step = 0, tokens = 0;
    const core::tensor_manifest* manifest = nullptr;
    std::span<const float> anchor, momentum, residual, said;
    core::const_bytes inner;
    std::string_view extra_json;
};

inline constexpr std::size_t max_checkpoint_extra = 1 << 20;

/// Writes a checkpoint, replaces one of the same round, then removes all but the newest `keep` (at least 1), and later
/// ones of the same run: they belong to a past that this run has left. On any error (errc::no_space, errc::io) the
/// checkpoints that exist stay as they are. One call at a time; all references must live until it returns.
core::task<core::result<void>> save_checkpoint(core::storage& files, core::workers& workers, checkpoint_view c,
                                               unsigned keep = 3);

struct loaded_checkpoint {
    checkpoint value;
    std::vector<std::string> skipped;  ///< one sentence for each newer one that is damaged
};

/// The newest checkpoint that verifies; nullopt when there is none at all. errc::malformed, naming each, when there are
/// some and all are damaged: a joiner may go on without, a founder should not start over silently. `max_bytes` bounds
/// the files of one checkpoint together. With `run`, only checkpoints of that run count. References as above.
core::task<core::result<std::optional<loaded_checkpoint>>> load_newest_checkpoint(
    core::storage& files, core::workers& workers, std::uint64_t max_bytes,
    std::optional<core::digest> run = std::nullopt);

}  // namespace longhaul::peers

#pragma once
/// What `longhaul ckpt inspect` and `longhaul ckpt export` do: blocking, on paths of the file system, for commands
/// only.

#include <string>

#include "peers/checkpoint.hpp"

namespace longhaul::peers {

struct checkpoint_summary {
    struct tensor {
        std::string name;
        std::vector<std::int64_t> shape;
        double norm = 0;  ///< Euclidean, of the anchor
    };
    std::string folder;
    core::digest run;
    std::uint64_t generation = 0, round = 0, step = 0, tokens = 0;
    std::uint64_t parameters = 0;
    std::uint64_t bytes = 0;  ///< of all files
    core::digest model_hash;  ///< of model.safetensors: equal on all nodes
    bool has_momentum = false, has_residual = false, has_inner = false;
    std::string extra_json;
    std::vector<tensor> tensors;

    std::string text() const;
    std::string json() const;
};

/// The folder of the checkpoint that `path` means: its folder, a file in it, or a folder with several ("checkpoints",
/// or a state directory): then the newest by its name. errc::not_found with what to name instead.
core::result<std::string> checkpoint_folder_of(const std::string& path);

/// Reads and verifies all of a checkpoint; `path` as above. errc::not_found; errc::malformed names what is damaged.
core::result<checkpoint_summary> inspect_checkpoint(const std::string& path);

/// Verifies the checkpoint at `path` (as above) and writes its model.safetensors to `target`, which must not exist yet
/// (errc::usage).
core::result<void> export_checkpoint(const std::string& path, const std::string& target);

}  // namespace longhaul::peers

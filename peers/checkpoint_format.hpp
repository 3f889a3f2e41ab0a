#pragma once
/// The bytes of a checkpoint's files, without any I/O: what save, load, inspect and export share.

#include <map>

#include "peers/checkpoint.hpp"

namespace longhaul::peers {

inline constexpr auto checkpoint_model_file = "model.safetensors";
inline constexpr auto checkpoint_outer_file = "outer.safetensors";
inline constexpr auto checkpoint_residual_file = "residual.safetensors";
inline constexpr auto checkpoint_said_file = "said.safetensors";
inline constexpr auto checkpoint_inner_file = "inner.bin";
inline constexpr auto checkpoint_state_file = "state.json";
/// Largest state.json: the extra text, escaped at worst, and room for the rest.
inline constexpr std::uint64_t max_checkpoint_state = 8 * max_checkpoint_extra;

/// A file to write: a head of its own and a body borrowed from the checkpoint.
struct checkpoint_file {
    std::string name;
    core::byte_vector head;
    core::const_bytes body;
    core::digest hash;

    std::uint64_t bytes() const { return head.size() + body.size(); }
};

/// The files of a checkpoint, state.json last. errc::limit when a header or the extra text is too large.
core::result<std::vector<checkpoint_file>> lay_out(const checkpoint_view& c);

/// What state.json says.
struct checkpoint_state {
    struct file {
        std::uint64_t bytes = 0;
        core::digest hash;
    };
    core::digest run;
    std::uint64_t generation = 0, round = 0, step = 0, tokens = 0;
    std::string extra_json;
    std::map<std::string, file> files;

    std::uint64_t total_bytes() const;  ///< of the other files; saturates
};

/// Hostile input. errc::malformed unless these are the very bytes that were written.
core::result<checkpoint_state> parse_checkpoint_state(core::const_bytes text);

/// errc::malformed unless `content` is what `state` says of the file `name`.
core::result<void> verify_file(const checkpoint_state& state, const std::string& name, core::const_bytes content);

/// Verifies the files of `state` and makes a checkpoint of them; `contents` is emptied on the way, so that memory holds
/// most parts once.
core::result<checkpoint> assemble(const checkpoint_state& state, std::map<std::string, core::byte_vector> contents);

/// `round-000000123`, and back.
std::string checkpoint_folder(std::uint64_t round);
std::optional<std::uint64_t> checkpoint_round(std::string_view folder);

}  // namespace longhaul::peers

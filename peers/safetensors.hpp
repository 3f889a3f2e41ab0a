#pragma once
/// The safetensors format (https://github.com/huggingface/safetensors, "Format"): u64 header length, little-endian; the
/// header, JSON padded with spaces to a multiple of 8; the tensors' bytes. Only F32 is written and read here.

#include <map>
#include <string>

#include "core/tensor.hpp"

namespace longhaul::peers {

/// A header may not be larger, written or read.
inline constexpr std::uint64_t max_safetensors_header = 16 << 20;

/// All of a file that comes before the flat buffer: `safetensors_header(m, …)` followed by `bytes_of(flat)` is the
/// file. Equal arguments give equal bytes. Roles other than parameter go into "__metadata__" as "longhaul.roles".
/// errc::limit when the header would be too large.
core::result<core::byte_vector> safetensors_header(const core::tensor_manifest& manifest,
                                                   std::map<std::string, std::string> metadata);

/// A parsed file; `data` is borrowed from it and has manifest.elements() floats, unaligned.
struct safetensors_view {
    core::tensor_manifest manifest;  ///< in the order of the data
    std::map<std::string, std::string> metadata;
    core::const_bytes data;

    core::flat_buffer values() const;
};

/// Parses a file of a stranger. errc::malformed: not the format, a tensor that is not F32, or whose bytes overlap
/// another's, leave a gap or lie outside; errc::limit as in core/tensor.hpp.
core::result<safetensors_view> parse_safetensors(core::const_bytes file);

}  // namespace longhaul::peers

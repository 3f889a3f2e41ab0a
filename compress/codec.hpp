#pragma once
/// A codec turns a flat f32 buffer into a self-describing payload and back. One small file a codec.

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"

namespace longhaul::compress {

/// Stateless; safe to use from any thread.
class codec {
public:
    virtual ~codec() = default;
    /// As in configuration and events: "f32", "bf16".
    virtual std::string_view name() const = 0;
    /// Never reused once released.
    virtual std::uint16_t wire_id() const = 0;
    /// An upper bound of `encode`'s output for this manifest, header included. A payload announced larger is refused
    /// before anything is allocated.
    virtual std::uint64_t max_payload_bytes(const core::tensor_manifest& manifest) const = 0;
    /// Encodes `values` (manifest.elements() floats). errc::limit when a value is not finite: the sentence names the
    /// tensor.
    virtual core::result<core::byte_vector> encode(const core::tensor_manifest& manifest,
                                                   std::span<const float> values) const = 0;
    /// Decodes a payload made for exactly this manifest into `out` (manifest.elements() floats). Hostile input: on any
    /// error (errc::malformed, errc::run_mismatch) `out` is unchanged.
    virtual core::result<void> decode(const core::tensor_manifest& manifest, core::const_bytes payload,
                                      std::span<float> out) const = 0;
};

/// The codec of that name, or errc::config naming the nearest. The object lives for ever.
core::result<const codec*> find_codec(std::string_view name);
std::vector<std::string> codec_names();

}  // namespace longhaul::compress

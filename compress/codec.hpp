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

    /// Dense codecs: wire bytes of one element, so that any range of elements travels alone, without a header. 0: this
    /// codec has no ranges.
    virtual std::size_t element_bytes() const { return 0; }
    /// Encodes a range into exactly values.size() · element_bytes() bytes. errc::limit when a value is not finite.
    virtual core::result<void> encode_range(std::span<const float> values, core::mutable_bytes out) const;
    /// Decodes a range, hostile input. errc::malformed when the sizes do not match or a value is not finite; `out` is
    /// then unchanged.
    virtual core::result<void> decode_range(core::const_bytes in, std::span<float> out) const;
};

/// The codec of that name, or errc::config naming the nearest. The object lives for ever.
core::result<const codec*> find_codec(std::string_view name);
std::vector<std::string> codec_names();

}  // namespace longhaul::compress

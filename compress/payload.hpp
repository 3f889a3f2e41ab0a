#pragma once
/// What every payload starts with: enough to refuse one that was made for something else, before it is looked into.

#include <cstdint>

#include "core/tensor.hpp"

namespace longhaul::compress {

/// Layout, little-endian: magic "LHPG" | u16 format version, 1 | u16 codec's wire id | the first 16 bytes of the
/// manifest's fingerprint | u64 elements; then the codec's body.
inline constexpr std::size_t payload_header_bytes = 32;

/// A payload of `body_bytes` zero bytes behind its header.
core::byte_vector make_payload(std::uint16_t wire_id, const core::tensor_manifest& manifest, std::uint64_t body_bytes);

/// The body of a payload, borrowed. errc::malformed when the header is not one, has another codec or another version,
/// or when the body has not exactly `body_bytes`; errc::run_mismatch when it was made for another model.
core::result<core::const_bytes> payload_body(std::uint16_t wire_id, const core::tensor_manifest& manifest,
                                             core::const_bytes payload, std::uint64_t body_bytes);

}  // namespace longhaul::compress

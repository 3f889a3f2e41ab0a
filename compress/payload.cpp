#include "compress/payload.hpp"

#include <algorithm>

namespace longhaul::compress {

using core::errc;

namespace {

constexpr std::string_view magic = "LHPG";
constexpr std::uint16_t format_version = 1;
constexpr std::size_t fingerprint_bytes = 16;

}  // namespace

core::byte_vector make_payload(std::uint16_t wire_id, const core::tensor_manifest& manifest, std::uint64_t body_bytes) {
    const auto fingerprint = manifest.fingerprint();
    core::byte_writer header;
    header.raw(core::as_bytes(magic)).u16(format_version).u16(wire_id);
    header.raw(core::const_bytes(fingerprint.bytes).first(fingerprint_bytes)).u64(manifest.elements());
    core::byte_vector out(payload_header_bytes + body_bytes);
    std::ranges::copy(header.bytes(), out.begin());
    return out;
}

core::result<core::const_bytes> payload_body(std::uint16_t wire_id, const core::tensor_manifest& manifest,
                                             core::const_bytes payload, std::uint64_t body_bytes) {
    core::byte_reader in(payload);
    if (payload.size() < payload_header_bytes)
        return core::fail(errc::malformed, "a payload of {} bytes is too short for its header", payload.size());
    if (core::as_text(*in.take(magic.size())) != magic)
        return core::fail(errc::malformed, "these bytes are no payload");
    if (const auto version = *in.u16(); version != format_version)
        return core::fail(errc::malformed, "the payload has format {}, and only {} is known", version, format_version);
    if (const auto id = *in.u16(); id != wire_id)
        return core::fail(errc::malformed, "the payload was encoded with codec {}, not {}", id, wire_id);
    const auto fingerprint = manifest.fingerprint();
    if (!std::ranges::equal(*in.take(fingerprint_bytes), core::const_bytes(fingerprint.bytes).first(fingerprint_bytes)))
        return core::fail(errc::run_mismatch, "the payload was made for another model: its tensors differ");
    if (const auto elements = *in.u64(); elements != manifest.elements())
        return core::fail(errc::run_mismatch, "the payload has {} elements, the model {}", elements,
                          manifest.elements());
    if (in.remaining() != body_bytes)
        return core::fail(errc::malformed, "the payload's body has {} bytes, not {}", in.remaining(), body_bytes);
    return in.take(body_bytes);
}

}  // namespace longhaul::compress

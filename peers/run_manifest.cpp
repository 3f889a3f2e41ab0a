#include "peers/run_manifest.hpp"

#include <algorithm>

#include "core/hash.hpp"
#include "net/printable.hpp"
#include "peers/manifest.pb.h"

namespace longhaul::peers {

namespace {

/// Fits into one control message.
constexpr std::size_t max_manifest_bytes = (1 << 20) - 1024;
constexpr std::size_t max_config_bytes = 64 << 10;
constexpr std::size_t max_description_bytes = 256;
constexpr std::uint32_t manifest_version = 1;
constexpr std::string_view signature_purpose = "longhaul-manifest-v1";

std::string field_of(const core::digest& d) { return std::string(core::as_text(d.bytes)); }

core::result<core::digest> digest_of(const std::string& field, std::string_view what) {
    core::digest d;
    if (field.size() != d.bytes.size()) {
        return core::fail(core::errc::malformed, "its {} has {} bytes instead of {}", what, field.size(),
                          d.bytes.size());
    }
    std::ranges::copy(core::as_bytes(field), d.bytes.begin());
    return d;
}

/// Strangers' texts reach terminals and logs.
core::result<void> printable(std::string_view text, std::size_t max, std::string_view what) {
    if (net::is_printable_utf8(text, max)) return core::ok();
    return core::fail(core::errc::malformed, "its {} is not printable text of at most {} bytes", what, max);
}

std::string canonical_config(run_config config) {
    core::config_binder binder;
    bind(binder, config);
    return binder.canonical();
}

/// Reads a configuration that must name every key in canonical form, so that no default of this build slips in.
core::result<run_config> parse_config(const std::string& text) {
    if (text.size() > max_config_bytes) {
        return core::fail(core::errc::limit, "its configuration has {} bytes, more than {}", text.size(),
                          max_config_bytes);
    }
    LONGHAUL_TRY_ASSIGN(const auto values, core::config_values::from_toml(text, "manifest"));
    run_config config;
    core::config_binder binder;
    bind(binder, config);
    LONGHAUL_TRY(binder.apply(values));
    if (binder.canonical() != text) {
        return core::fail(core::errc::malformed,
                          "its configuration lacks keys or is not in canonical form: the founder runs another version "
                          "of longhaul");
    }
    // A path of a stranger must never be opened here.
    if (!config.data.path.empty())
        return core::fail(core::errc::malformed, "its configuration names a path (data.path)");
    LONGHAUL_TRY(validate(config));
    return config;
}

core::result<core::tensor_manifest> parse_tensors(const manifest::Manifest& body) {
    if (body.tensors().empty()) return core::fail(core::errc::malformed, "it lists no tensors");
    if (static_cast<std::size_t>(body.tensors_size()) > core::max_tensors) {
        return core::fail(core::errc::limit, "it lists {} tensors, more than {}", body.tensors_size(),
                          core::max_tensors);
    }
    std::vector<core::tensor_spec> specs;
    specs.reserve(static_cast<std::size_t>(body.tensors_size()));
    for (const auto& tensor : body.tensors()) {
        LONGHAUL_TRY(printable(tensor.name(), core::max_tensor_name, "name of a tensor"));
        if (tensor.role() > static_cast<std::uint32_t>(core::tensor_role::buffer)) {
            return core::fail(core::errc::malformed, "its tensor {} has the unknown role {}", tensor.name(),
                              tensor.role());
        }
        specs.push_back({.name = tensor.name(),
                         .shape = {tensor.shape().begin(), tensor.shape().end()},
                         .role = static_cast<core::tensor_role>(tensor.role())});
    }
    return core::tensor_manifest::make(std::move(specs));
}

core::result<run_manifest> parse_body(const manifest::Manifest& body) {
    run_manifest m;
    LONGHAUL_TRY_ASSIGN(m.config, parse_config(body.config()));
    LONGHAUL_TRY_ASSIGN(m.tensors, parse_tensors(body));
    LONGHAUL_TRY_ASSIGN(m.parts, fragments::cut(m.tensors, static_cast<std::size_t>(m.config.exchange.fragments)));
    LONGHAUL_TRY_ASSIGN(m.data_hash, digest_of(body.data_hash(), "hash of the data"));
    LONGHAUL_TRY(printable(body.data_description(), max_description_bytes, "description of the data"));
    m.data_description = body.data_description();
    LONGHAUL_TRY_ASSIGN(m.nonce, digest_of(body.nonce(), "nonce"));
    if (!body.token_hash().empty()) {
        LONGHAUL_TRY_ASSIGN(m.token_hash, digest_of(body.token_hash(), "hash of the token"));
    }
    if (m.invite() != (m.config.peers.admission == "invite")) {
        return core::fail(core::errc::malformed, "peers.admission is \"{}\", but it {} a hash of a token",
                          m.config.peers.admission, m.invite() ? "has" : "lacks");
    }
    return m;
}

core::result<signed_manifest> parse_signed(core::const_bytes bytes) {
    net::signature signature;
    if (bytes.size() <= signature.size() || bytes.size() > max_manifest_bytes) {
        return core::fail(core::errc::limit, "it has {} bytes; between {} and {} are possible", bytes.size(),
                          signature.size() + 1, max_manifest_bytes);
    }
    const auto body_bytes = bytes.first(bytes.size() - signature.size());
    std::ranges::copy(bytes.last(signature.size()), signature.begin());
    manifest::Manifest body;
    if (!body.ParseFromArray(body_bytes.data(), static_cast<int>(body_bytes.size()))) {
        return core::fail(core::errc::malformed, "it is not a manifest");
    }
    if (body.version() != manifest_version) {
        return core::fail(core::errc::version_mismatch, "it has version {}; this longhaul reads version {}",
                          body.version(), manifest_version);
    }
    LONGHAUL_TRY_ASSIGN(const auto founder, digest_of(body.founder(), "founder's key"));
    if (!net::verify(founder, signature_purpose, body_bytes, signature)) {
        return core::fail(core::errc::malformed, "the founder's signature does not fit");
    }
    signed_manifest out;
    LONGHAUL_TRY_ASSIGN(out.manifest, parse_body(body));
    out.manifest.founder = founder;
    out.bytes.assign(bytes.begin(), bytes.end());
    out.run_id = core::hash(bytes);
    return out;
}

}  // namespace

core::result<signed_manifest> sign_manifest(const run_manifest& m, const net::identity& founder) {
    manifest::Manifest body;
    body.set_version(manifest_version);
    auto config = m.config;
    config.data.path.clear();
    body.set_config(canonical_config(std::move(config)));
    for (const auto& spec : m.tensors.specs()) {
        auto& tensor = *body.add_tensors();
        tensor.set_name(spec.name);
        tensor.mutable_shape()->Add(spec.shape.begin(), spec.shape.end());
        tensor.set_role(static_cast<std::uint32_t>(spec.role));
    }
    body.set_data_hash(field_of(m.data_hash));
    body.set_data_description(m.data_description);
    body.set_founder(field_of(founder.key()));
    body.set_nonce(field_of(m.nonce));
    if (m.token_hash) body.set_token_hash(field_of(*m.token_hash));

    const auto serialized = body.SerializeAsString();
    const auto signature = founder.sign(signature_purpose, core::as_bytes(serialized));
    core::byte_writer out;
    out.raw(core::as_bytes(serialized)).raw(signature);
    // What others would refuse is refused here, before anybody is told of the run.
    auto made = parse_signed(out.bytes());
    if (!made) return core::fail(made.error().within("the run's manifest cannot be made"));
    return made;
}

core::result<signed_manifest> parse_manifest(core::const_bytes bytes, const core::digest& expected) {
    if (const auto actual = core::hash(bytes); actual != expected) {
        return core::fail(core::errc::run_mismatch,
                          "the manifest that the peer sent is of run {}, not of {}: ask for a new ticket",
                          actual.brief(), expected.brief());
    }
    auto parsed = parse_signed(bytes);
    if (!parsed)
        return core::fail(parsed.error().within(fmt::format("the manifest of run {} is refused", expected.brief())));
    return parsed;
}

}  // namespace longhaul::peers

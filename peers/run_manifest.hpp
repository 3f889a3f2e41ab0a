#pragma once
/// The signed founding document of a run. Its hash is the run id; a joiner checks all of it before it trains.

#include <optional>
#include <string>

#include "core/tensor.hpp"
#include "net/identity.hpp"
#include "peers/fragments.hpp"
#include "peers/run_config.hpp"

namespace longhaul::peers {

/// A run as its founder fixed it.
struct run_manifest {
    run_config config;
    core::tensor_manifest tensors;
    fragments parts;  ///< of `tensors`, by exchange.fragments; filled in when it is signed or parsed
    core::digest data_hash;
    std::string data_description;  ///< for people: "Python 3.11.2's standard library, 4194304 bytes"
    net::peer_key founder;
    core::digest nonce;                      ///< makes two runs of the same configuration differ
    std::optional<core::digest> token_hash;  ///< invite runs: hash of the ticket's token

    bool invite() const { return token_hash.has_value(); }
};

/// A manifest in its signed form: these bytes are stored, sent and hashed, never made again from the parsed form.
struct signed_manifest {
    run_manifest manifest;
    core::byte_vector bytes;
    core::digest run_id;  ///< BLAKE3 of `bytes`
};

/// Signs `manifest` with the founder's identity.
core::result<signed_manifest> sign_manifest(const run_manifest& manifest, const net::identity& founder);
/// Parses and checks a manifest of a stranger: signature, limits, configuration. `expected` is the run id of the
/// ticket.
core::result<signed_manifest> parse_manifest(core::const_bytes bytes, const core::digest& expected);

/// What stays secret of a run: kept in the state directory, never in the manifest.
struct run_secrets {
    core::digest psk;                   ///< zero in open runs
    std::optional<core::digest> token;  ///< invite runs: what the ticket carries
};

}  // namespace longhaul::peers

#pragma once
/// Who a node is: an Ed25519 key for life, which signs the X25519 static key of its Noise handshakes.

#include "core/bytes.hpp"
#include "core/entropy.hpp"
#include "core/result.hpp"

namespace longhaul::net {

/// A node's public key. Peers are always visited in the order of these.
using peer_key = core::digest;
using signature = std::array<std::byte, 64>;

/// Secret; lives in the node's state directory with mode 0600. Wiped when destroyed.
class identity {
public:
    /// Draws a new identity from `entropy`.
    static identity generate(core::entropy& entropy);
    /// From the 64 bytes that `serialize` gave (Ed25519 seed, X25519 secret); errc::malformed.
    static core::result<identity> parse(core::const_bytes saved);
    core::byte_vector serialize() const;
    ~identity();
    identity(const identity&) = default;
    identity& operator=(const identity&) = default;

    const peer_key& key() const { return key_; }
    const core::digest& noise_public() const { return noise_public_; }
    const std::array<std::byte, 32>& noise_secret() const { return noise_secret_; }
    /// Ed25519 signature of `purpose` ‖ 0 ‖ message. A purpose keeps signatures of one kind from passing for another.
    signature sign(std::string_view purpose, core::const_bytes message) const;

private:
    identity() = default;
    std::array<std::byte, 32> seed_{};
    std::array<std::byte, 64> signing_secret_{};
    std::array<std::byte, 32> noise_secret_{};
    peer_key key_;
    core::digest noise_public_;
};

/// Whether `s` is `key`'s signature of this purpose and message.
bool verify(const peer_key& key, std::string_view purpose, core::const_bytes message, const signature& s);

}  // namespace longhaul::net

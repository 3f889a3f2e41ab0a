#pragma once
/// The Noise Protocol Framework, revision 34, suite 25519_ChaChaPoly_SHA256, patterns NN and XX with any psk
/// modifiers (noiseprotocol.org/noise.html; names and section numbers are its). Pure: no I/O, no clock; ephemeral
/// keys come from the entropy given. Any failure is final: the state wipes itself and refuses further use.

#include <array>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/bytes.hpp"
#include "core/entropy.hpp"
#include "core/result.hpp"

namespace longhaul::net::noise {

inline constexpr std::size_t key_size = 32;
inline constexpr std::size_t tag_size = 16;
inline constexpr std::size_t max_message = 65535;

/// 32 secret bytes, wiped when destroyed or moved from.
class secret_key {
public:
    secret_key() = default;
    explicit secret_key(const std::array<std::byte, key_size>& bytes) : bytes_(bytes) {}
    explicit secret_key(const core::digest& bytes) : bytes_(bytes.bytes) {}
    ~secret_key() { wipe(); }
    secret_key(const secret_key&) = default;
    secret_key& operator=(const secret_key&) = default;
    secret_key(secret_key&& from) noexcept : bytes_(from.bytes_) { from.wipe(); }
    secret_key& operator=(secret_key&& from) noexcept;

    core::const_bytes view() const { return bytes_; }
    core::mutable_bytes writable() { return bytes_; }
    void wipe();

private:
    std::array<std::byte, key_size> bytes_{};
};

/// HKDF of §4.3 (HMAC-SHA256): as many outputs as `out` has, 1 to 3. `out` may not alias the inputs.
void hkdf(core::const_bytes chaining_key, core::const_bytes input_key_material, std::span<secret_key> out);

/// §5.1: a key and a 64-bit counter. Nonce: 32 zero bits, then the counter, little-endian. Never copied, for two copies
/// would use one nonce twice; one that was moved from refuses further use.
class cipher_state {
public:
    explicit cipher_state(secret_key key) : key_(std::move(key)) {}
    cipher_state(cipher_state&& from) noexcept
        : key_(std::move(from.key_)), counter_(std::exchange(from.counter_, used_up)) {}
    cipher_state& operator=(cipher_state&& from) noexcept;

    /// Writes plaintext.size() + tag_size bytes to `out` (exactly that size), which may start at the plaintext itself.
    /// errc::limit when the counter is used up.
    core::result<void> encrypt(core::const_bytes ad, core::const_bytes plaintext, core::mutable_bytes out);
    /// Writes ciphertext.size() - tag_size bytes to `out` (exactly that size), which may start at the ciphertext
    /// itself. errc::protocol when it does not authenticate: what `out` holds then is undefined.
    core::result<void> decrypt(core::const_bytes ad, core::const_bytes ciphertext, core::mutable_bytes out);
    /// §11.3: the key becomes the first 32 bytes of ENCRYPT(k, 2^64-1, "", zeros); the counter stays.
    void rekey();
    std::uint64_t counter() const { return counter_; }

private:
    /// 2^64-1 is reserved for rekey.
    static constexpr std::uint64_t used_up = ~std::uint64_t{0};
    secret_key key_;
    std::uint64_t counter_ = 0;
};

/// What one message of a pattern does, in order (§7.1).
enum class token : std::uint8_t { e, s, ee, es, se, ss, psk };

/// A handshake pattern: the base and the positions of psk modifiers as bits (bit 0: psk0, bit 3: psk3 …).
struct pattern {
    enum class base_pattern : std::uint8_t { nn, xx } base;
    std::uint8_t psk_bits = 0;
    /// "Noise_XXpsk0_25519_ChaChaPoly_SHA256".
    std::string protocol_name() const;
    bool operator==(const pattern&) const = default;
};
inline constexpr pattern nn_psk0{pattern::base_pattern::nn, 1};
inline constexpr pattern xx_psk0{pattern::base_pattern::xx, 1};

/// An X25519 key pair.
struct key_pair {
    secret_key secret;
    std::array<std::byte, key_size> public_key{};
    static key_pair generate(core::entropy& entropy);
    static key_pair from_secret(secret_key secret);
};

/// What a handshake ends with (§5.2 Split).
struct session {
    cipher_state send;
    cipher_state receive;
    /// A secret that only the two ends know: the third output of the HKDF that gave the two keys. Not `hash`, which is
    /// public.
    secret_key exporter;
    /// The handshake hash: names this session to both ends, not secret.
    core::digest hash;
};

/// §5.3. Messages alternate, the initiator's first.
class handshake_state {
public:
    /// `static_keys`: needed by XX, ignored by NN. `psks`: one for each psk modifier, in order. `entropy` must outlive
    /// the state.
    handshake_state(const pattern& what, bool initiator, core::const_bytes prologue,
                    std::optional<key_pair> static_keys, std::vector<secret_key> psks, core::entropy& entropy);
    handshake_state(const handshake_state&) = delete;
    handshake_state& operator=(const handshake_state&) = delete;

    bool my_turn() const;
    /// All messages went by: `split` is next.
    bool complete() const;
    bool failed() const { return failed_; }
    /// The length of the next message with a payload of this size.
    std::size_t message_size(std::size_t payload) const;
    /// The next message. errc::limit beyond max_message, errc::protocol when the other side's key gives an all-zero
    /// shared secret.
    core::result<core::byte_vector> write(core::const_bytes payload);
    /// Reads the other side's next message and returns its payload. errc::protocol.
    core::result<core::byte_vector> read(core::const_bytes message);
    /// The other side's static public key, once it was received.
    const std::optional<core::digest>& remote_static() const { return remote_static_; }
    /// Once, after `complete`. The state is wiped.
    session split();
    /// Gives up, as after a failure: wipes the state. For a layer above that refused a payload.
    void abandon();

private:
    // §5.2, the symmetric state.
    void mix_hash(core::const_bytes data);
    void mix_key(core::const_bytes input);
    void mix_key_and_hash(core::const_bytes input);
    core::result<void> encrypt_and_hash(core::const_bytes plaintext, core::byte_vector& out);
    core::result<core::byte_vector> decrypt_and_hash(core::const_bytes ciphertext);
    core::result<void> mix_dh(token which);
    core::result<core::byte_vector> write_tokens(core::const_bytes payload);
    core::result<core::byte_vector> read_tokens(core::const_bytes message);
    void mix_next_psk();

    std::vector<std::vector<token>> messages_;
    bool initiator_;
    bool uses_psk_;
    bool failed_ = false;
    std::size_t next_ = 0;
    std::size_t next_psk_ = 0;
    secret_key chaining_key_;
    core::digest hash_;
    std::optional<cipher_state> cipher_;
    std::optional<key_pair> static_;
    std::optional<key_pair> ephemeral_;
    std::optional<core::digest> remote_static_;
    std::optional<core::digest> remote_ephemeral_;
    std::vector<secret_key> psks_;
    core::entropy& entropy_;
};

}  // namespace longhaul::net::noise

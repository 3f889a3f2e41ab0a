#include "net/noise.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/sodium.hpp"
#include "net/hello.hpp"

namespace longhaul::net::noise {

namespace {

const unsigned char* input(core::const_bytes b) { return reinterpret_cast<const unsigned char*>(b.data()); }
unsigned char* output(core::mutable_bytes b) { return reinterpret_cast<unsigned char*>(b.data()); }

std::array<unsigned char, 12> nonce_of(std::uint64_t counter) {
    std::array<unsigned char, 12> nonce{};
    for (std::size_t i = 0; i < 8; ++i) nonce[4 + i] = static_cast<unsigned char>(counter >> (8 * i));
    return nonce;
}

void hmac(core::const_bytes key, core::const_bytes first, core::const_bytes second, secret_key& out) {
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, input(key), key.size());
    crypto_auth_hmacsha256_update(&state, input(first), first.size());
    crypto_auth_hmacsha256_update(&state, input(second), second.size());
    crypto_auth_hmacsha256_final(&state, output(out.writable()));
    sodium_memzero(&state, sizeof state);
}

void append(core::byte_vector& out, core::const_bytes bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

core::digest to_digest(core::const_bytes bytes) {
    core::digest d;
    std::ranges::copy(bytes, d.bytes.begin());
    return d;
}

std::vector<std::vector<token>> messages_of(const pattern& what) {
    using enum token;
    std::vector<std::vector<token>> messages;
    switch (what.base) {
        case pattern::base_pattern::nn: messages = {{e}, {e, ee}}; break;
        case pattern::base_pattern::xx: messages = {{e}, {e, ee, s, es}, {s, se}}; break;
    }
    LONGHAUL_ENSURE((what.psk_bits >> (messages.size() + 1)) == 0, "a psk modifier beyond the last message");
    if ((what.psk_bits & 1U) != 0) messages[0].insert(messages[0].begin(), psk);
    for (std::size_t i = 1; i <= messages.size(); ++i) {
        if ((what.psk_bits >> i & 1U) != 0) messages[i - 1].push_back(psk);
    }
    return messages;
}

}  // namespace

secret_key& secret_key::operator=(secret_key&& from) noexcept {
    if (this != &from) {
        bytes_ = from.bytes_;
        from.wipe();
    }
    return *this;
}

void secret_key::wipe() { sodium_memzero(bytes_.data(), bytes_.size()); }

void hkdf(core::const_bytes chaining_key, core::const_bytes input_key_material, std::span<secret_key> out) {
    LONGHAUL_ENSURE(!out.empty() && out.size() <= 3, "Noise's HKDF gives one to three outputs");
    core::ensure_sodium();
    secret_key temporary;
    hmac(chaining_key, input_key_material, {}, temporary);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const std::array number{static_cast<std::byte>(i + 1)};
        hmac(temporary.view(), i == 0 ? core::const_bytes{} : out[i - 1].view(), number, out[i]);
    }
}

cipher_state& cipher_state::operator=(cipher_state&& from) noexcept {
    if (this != &from) {
        key_ = std::move(from.key_);
        counter_ = std::exchange(from.counter_, used_up);
    }
    return *this;
}

core::result<void> cipher_state::encrypt(core::const_bytes ad, core::const_bytes plaintext, core::mutable_bytes out) {
    LONGHAUL_ENSURE(out.size() == plaintext.size() + tag_size, "the output has the plaintext's size and a tag's");
    if (counter_ == used_up) return core::fail(core::errc::limit, "a cipher's counter is used up");
    if constexpr (null_cipher) {
        std::memmove(out.data(), plaintext.data(), plaintext.size());
        std::ranges::fill(out.last(tag_size), std::byte{0});
    } else {
        const auto nonce = nonce_of(counter_);
        crypto_aead_chacha20poly1305_ietf_encrypt(output(out), nullptr, input(plaintext), plaintext.size(), input(ad),
                                                  ad.size(), nullptr, nonce.data(), input(key_.view()));
    }
    ++counter_;
    return core::ok();
}

core::result<void> cipher_state::decrypt(core::const_bytes ad, core::const_bytes ciphertext, core::mutable_bytes out) {
    if (ciphertext.size() < tag_size) {
        return core::fail(core::errc::protocol, "{} encrypted bytes are less than a tag of {}", ciphertext.size(),
                          tag_size);
    }
    LONGHAUL_ENSURE(out.size() == ciphertext.size() - tag_size, "the output has the ciphertext's size less a tag's");
    if (counter_ == used_up) return core::fail(core::errc::limit, "a cipher's counter is used up");
    if constexpr (null_cipher) {
        std::memmove(out.data(), ciphertext.data(), out.size());
    } else {
        const auto nonce = nonce_of(counter_);
        if (crypto_aead_chacha20poly1305_ietf_decrypt(output(out), nullptr, nullptr, input(ciphertext),
                                                      ciphertext.size(), input(ad), ad.size(), nonce.data(),
                                                      input(key_.view())) != 0) {
            return core::fail(core::errc::protocol, "encrypted bytes do not authenticate");
        }
    }
    ++counter_;
    return core::ok();
}

void cipher_state::rekey() {
    constexpr std::array<std::byte, key_size> zeros{};
    std::array<std::byte, key_size + tag_size> out{};
    const auto nonce = nonce_of(used_up);
    crypto_aead_chacha20poly1305_ietf_encrypt(output(out), nullptr, input(zeros), zeros.size(), nullptr, 0, nullptr,
                                              nonce.data(), input(key_.view()));
    std::copy_n(out.begin(), key_size, key_.writable().begin());
    sodium_memzero(out.data(), out.size());
}

std::string pattern::protocol_name() const {
    std::string name = base == base_pattern::nn ? "Noise_NN" : "Noise_XX";
    const char* separator = "";
    for (unsigned i = 0; i < 8; ++i) {
        if ((psk_bits >> i & 1U) == 0) continue;
        name += fmt::format("{}psk{}", separator, i);
        separator = "+";
    }
    return name + "_25519_ChaChaPoly_SHA256";
}

key_pair key_pair::generate(core::entropy& entropy) {
    secret_key secret;
    entropy.fill(secret.writable());
    return from_secret(std::move(secret));
}

key_pair key_pair::from_secret(secret_key secret) {
    core::ensure_sodium();
    key_pair pair;
    pair.secret = std::move(secret);
    crypto_scalarmult_base(output(pair.public_key), input(pair.secret.view()));
    return pair;
}

handshake_state::handshake_state(const pattern& what, bool initiator, core::const_bytes prologue,
                                 std::optional<key_pair> static_keys, std::vector<secret_key> psks,
                                 core::entropy& entropy)
    : messages_(messages_of(what)),
      initiator_(initiator),
      uses_psk_(what.psk_bits != 0),
      static_(std::move(static_keys)),
      psks_(std::move(psks)),
      entropy_(entropy) {
    LONGHAUL_ENSURE(what.base == pattern::base_pattern::nn || static_.has_value(), "XX needs a static key");
    LONGHAUL_ENSURE(psks_.size() == static_cast<std::size_t>(std::popcount(what.psk_bits)),
                    "one key for each psk modifier");
    core::ensure_sodium();
    const auto name = what.protocol_name();
    if (name.size() <= hash_.bytes.size()) {
        std::ranges::copy(core::as_bytes(name), hash_.bytes.begin());
    } else {
        crypto_hash_sha256(output(hash_.bytes), input(core::as_bytes(name)), name.size());
    }
    chaining_key_ = secret_key(hash_);
    mix_hash(prologue);
}

bool handshake_state::my_turn() const { return !failed_ && !complete() && (next_ % 2 == 0) == initiator_; }

bool handshake_state::complete() const { return !failed_ && next_ == messages_.size(); }

std::size_t handshake_state::message_size(std::size_t payload) const {
    if (failed_ || complete()) return 0;
    bool keyed = cipher_.has_value();
    std::size_t size = payload;
    for (const auto t : messages_[next_]) {
        if (t == token::e) {
            size += key_size;
            keyed = keyed || uses_psk_;
        } else if (t == token::s) {
            size += key_size + (keyed ? tag_size : 0);
        } else {
            keyed = true;
        }
    }
    return size + (keyed ? tag_size : 0);
}

core::result<core::byte_vector> handshake_state::write(core::const_bytes payload) {
    if (failed_) return core::fail(core::errc::protocol, "this handshake has failed already");
    LONGHAUL_ENSURE(my_turn(), "the other side writes the next message");
    auto message = write_tokens(payload);
    if (message) {
        ++next_;
    } else {
        abandon();
    }
    return message;
}

core::result<core::byte_vector> handshake_state::read(core::const_bytes message) {
    if (failed_) return core::fail(core::errc::protocol, "this handshake has failed already");
    LONGHAUL_ENSURE(!complete() && !my_turn(), "this side writes the next message");
    auto payload = read_tokens(message);
    if (payload) {
        ++next_;
    } else {
        abandon();
    }
    return payload;
}

session handshake_state::split() {
    LONGHAUL_ENSURE(complete(), "only a complete handshake splits");
    std::array<secret_key, 3> keys;
    hkdf(chaining_key_.view(), {}, keys);
    session s{cipher_state(std::move(keys[initiator_ ? 0 : 1])), cipher_state(std::move(keys[initiator_ ? 1 : 0])),
              std::move(keys[2]), hash_};
    abandon();
    return s;
}

void handshake_state::mix_hash(core::const_bytes data) {
    crypto_hash_sha256_state state;
    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, input(hash_.bytes), hash_.bytes.size());
    crypto_hash_sha256_update(&state, input(data), data.size());
    crypto_hash_sha256_final(&state, output(hash_.bytes));
}

void handshake_state::mix_key(core::const_bytes input) {
    std::array<secret_key, 2> out;
    hkdf(chaining_key_.view(), input, out);
    chaining_key_ = std::move(out[0]);
    cipher_.emplace(std::move(out[1]));
}

void handshake_state::mix_next_psk() {
    std::array<secret_key, 3> out;
    hkdf(chaining_key_.view(), psks_[next_psk_++].view(), out);
    chaining_key_ = std::move(out[0]);
    mix_hash(out[1].view());
    cipher_.emplace(std::move(out[2]));
}

core::result<void> handshake_state::mix_dh(token which) {
    // es is the initiator's ephemeral with the responder's static key, se the reverse.
    const bool my_static = which == token::ss || which == (initiator_ ? token::se : token::es);
    const bool their_static = which == token::ss || which == (initiator_ ? token::es : token::se);
    const auto& mine = my_static ? static_ : ephemeral_;
    const auto& theirs = their_static ? remote_static_ : remote_ephemeral_;
    secret_key shared;
    // libsodium refuses an all-zero result: a key of small order would let its owner choose the secret.
    if (crypto_scalarmult(output(shared.writable()), input(mine->secret.view()), input(theirs->bytes)) != 0) {
        return core::fail(core::errc::protocol, "the other side's handshake key has small order");
    }
    mix_key(shared.view());
    return core::ok();
}

core::result<void> handshake_state::encrypt_and_hash(core::const_bytes plaintext, core::byte_vector& out) {
    const auto start = out.size();
    if (cipher_) {
        out.resize(start + plaintext.size() + tag_size);
        LONGHAUL_TRY(cipher_->encrypt(hash_.bytes, plaintext, std::span(out).subspan(start)));
    } else {
        append(out, plaintext);
    }
    mix_hash(std::span(out).subspan(start));
    return core::ok();
}

core::result<core::byte_vector> handshake_state::decrypt_and_hash(core::const_bytes ciphertext) {
    core::byte_vector plaintext;
    if (cipher_) {
        plaintext.resize(ciphertext.size() - std::min(ciphertext.size(), tag_size));
        LONGHAUL_TRY(cipher_->decrypt(hash_.bytes, ciphertext, plaintext));
    } else {
        append(plaintext, ciphertext);
    }
    mix_hash(ciphertext);
    return plaintext;
}

core::result<core::byte_vector> handshake_state::write_tokens(core::const_bytes payload) {
    if (payload.size() > max_message || message_size(payload.size()) > max_message) {
        return core::fail(core::errc::limit, "a handshake payload of {} bytes makes the message larger than {}",
                          payload.size(), max_message);
    }
    core::byte_vector out;
    out.reserve(message_size(payload.size()));
    for (const auto t : messages_[next_]) {
        switch (t) {
            case token::e:
                ephemeral_ = key_pair::generate(entropy_);
                append(out, ephemeral_->public_key);
                mix_hash(ephemeral_->public_key);
                if (uses_psk_) mix_key(ephemeral_->public_key);
                break;
            case token::s: LONGHAUL_TRY(encrypt_and_hash(static_->public_key, out)); break;
            case token::psk: mix_next_psk(); break;
            case token::ee:
            case token::es:
            case token::se:
            case token::ss: LONGHAUL_TRY(mix_dh(t)); break;
        }
    }
    LONGHAUL_TRY(encrypt_and_hash(payload, out));
    return out;
}

core::result<core::byte_vector> handshake_state::read_tokens(core::const_bytes message) {
    if (message.size() > max_message || message.size() < message_size(0)) {
        return core::fail(core::errc::protocol, "handshake message {} has {} bytes, not {} to {}", next_ + 1,
                          message.size(), message_size(0), max_message);
    }
    const auto take = [&message](std::size_t n) {
        const auto front = message.first(n);
        message = message.subspan(n);
        return front;
    };
    for (const auto t : messages_[next_]) {
        switch (t) {
            case token::e:
                remote_ephemeral_ = to_digest(take(key_size));
                mix_hash(remote_ephemeral_->bytes);
                if (uses_psk_) mix_key(remote_ephemeral_->bytes);
                break;
            case token::s: {
                LONGHAUL_TRY_ASSIGN(const auto key, decrypt_and_hash(take(key_size + (cipher_ ? tag_size : 0))));
                remote_static_ = to_digest(key);
                break;
            }
            case token::psk: mix_next_psk(); break;
            case token::ee:
            case token::es:
            case token::se:
            case token::ss: LONGHAUL_TRY(mix_dh(t)); break;
        }
    }
    return decrypt_and_hash(message);
}

void handshake_state::abandon() {
    failed_ = true;
    chaining_key_.wipe();
    cipher_.reset();
    static_.reset();
    ephemeral_.reset();
    psks_.clear();
}

}  // namespace longhaul::net::noise

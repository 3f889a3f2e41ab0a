#include "net/identity.hpp"

#include <algorithm>

#include "core/sodium.hpp"

namespace longhaul::net {

namespace {

unsigned char* output(core::mutable_bytes b) { return reinterpret_cast<unsigned char*>(b.data()); }
const unsigned char* input(core::const_bytes b) { return reinterpret_cast<const unsigned char*>(b.data()); }

/// purpose ‖ 0 ‖ message: no purpose holds a zero byte, so two purposes never make the same text.
core::byte_vector signed_text(std::string_view purpose, core::const_bytes message) {
    LONGHAUL_ENSURE(!purpose.empty() && purpose.find('\0') == std::string_view::npos, "a purpose is a plain word");
    core::byte_writer text;
    text.raw(core::as_bytes(purpose)).u8(0).raw(message);
    return text.take();
}

}  // namespace

identity identity::generate(core::entropy& entropy) {
    std::array<std::byte, 64> saved{};
    entropy.fill(saved);
    auto made = parse(saved);
    sodium_memzero(saved.data(), saved.size());
    return *std::move(made);
}

core::result<identity> identity::parse(core::const_bytes saved) {
    core::ensure_sodium();
    identity id;
    if (saved.size() != id.seed_.size() + id.noise_secret_.size()) {
        return core::fail(core::errc::malformed,
                          "an identity has {} bytes, this one has {}: restore the file from a copy, or remove it to "
                          "get a new identity",
                          id.seed_.size() + id.noise_secret_.size(), saved.size());
    }
    const auto is_zero = [](core::const_bytes b) {
        return std::ranges::all_of(b, [](std::byte v) { return v == std::byte{0}; });
    };
    if (is_zero(saved.first(id.seed_.size())) || is_zero(saved.subspan(id.seed_.size()))) {
        return core::fail(core::errc::malformed,
                          "an identity of zeros is no secret (a crash may have emptied the file): restore it from a "
                          "copy, or remove it to get a new identity");
    }
    std::ranges::copy(saved.first(id.seed_.size()), id.seed_.begin());
    std::ranges::copy(saved.subspan(id.seed_.size()), id.noise_secret_.begin());
    crypto_sign_seed_keypair(output(id.key_.bytes), output(id.signing_secret_), input(id.seed_));
    crypto_scalarmult_base(output(id.noise_public_.bytes), input(id.noise_secret_));
    return id;
}

core::byte_vector identity::serialize() const {
    core::byte_vector saved(seed_.begin(), seed_.end());
    saved.insert(saved.end(), noise_secret_.begin(), noise_secret_.end());
    return saved;
}

identity::~identity() {
    sodium_memzero(seed_.data(), seed_.size());
    sodium_memzero(signing_secret_.data(), signing_secret_.size());
    sodium_memzero(noise_secret_.data(), noise_secret_.size());
}

signature identity::sign(std::string_view purpose, core::const_bytes message) const {
    const auto text = signed_text(purpose, message);
    signature s{};
    crypto_sign_detached(output(s), nullptr, input(text), text.size(), input(signing_secret_));
    return s;
}

bool verify(const peer_key& key, std::string_view purpose, core::const_bytes message, const signature& s) {
    core::ensure_sodium();
    const auto text = signed_text(purpose, message);
    return crypto_sign_verify_detached(input(s), input(text), text.size(), input(key.bytes)) == 0;
}

}  // namespace longhaul::net

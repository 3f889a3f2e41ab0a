#include "core/hash.hpp"

#include "core/sodium.hpp"

namespace longhaul::core {

namespace {

const unsigned char* raw(const_bytes b) { return reinterpret_cast<const unsigned char*>(b.data()); }
unsigned char* raw(digest& d) { return reinterpret_cast<unsigned char*>(d.bytes.data()); }

}  // namespace

struct hasher::state {
    crypto_generichash_state blake;
};

digest hash(const_bytes input) {
    ensure_sodium();
    digest out;
    crypto_generichash(raw(out), out.bytes.size(), raw(input), input.size(), nullptr, 0);
    return out;
}

hasher::hasher() : state_(std::make_unique<state>()) {
    ensure_sodium();
    crypto_generichash_init(&state_->blake, nullptr, 0, sizeof(digest::bytes));
}
hasher::~hasher() = default;
hasher::hasher(hasher&&) noexcept = default;
hasher& hasher::operator=(hasher&&) noexcept = default;

hasher& hasher::update(const_bytes piece) {
    crypto_generichash_update(&state_->blake, raw(piece), piece.size());
    return *this;
}

digest hasher::finish() {
    digest out;
    crypto_generichash_final(&state_->blake, raw(out), out.bytes.size());
    return out;
}

}  // namespace longhaul::core

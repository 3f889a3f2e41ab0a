#include "core/hash.hpp"

#include <blake3.h>

namespace longhaul::core {

namespace {

// The library looks at the processor on its first hash, into a plain static: no two threads may be first.
void begin(blake3_hasher& blake) {
    static const bool looked = [] {
        digest ignored;
        blake3_hasher first;
        blake3_hasher_init(&first);
        blake3_hasher_finalize(&first, reinterpret_cast<std::uint8_t*>(ignored.bytes.data()), ignored.bytes.size());
        return true;
    }();
    static_cast<void>(looked);
    blake3_hasher_init(&blake);
}

digest end(const blake3_hasher& blake) {
    digest out;
    blake3_hasher_finalize(&blake, reinterpret_cast<std::uint8_t*>(out.bytes.data()), out.bytes.size());
    return out;
}

}  // namespace

struct hasher::state {
    blake3_hasher blake;
};

digest hash(const_bytes input) {
    blake3_hasher blake;
    begin(blake);
    blake3_hasher_update(&blake, input.data(), input.size());
    return end(blake);
}

hasher::hasher() : state_(std::make_unique<state>()) { begin(state_->blake); }
hasher::~hasher() = default;
hasher::hasher(hasher&&) noexcept = default;
hasher& hasher::operator=(hasher&&) noexcept = default;

hasher& hasher::update(const_bytes piece) {
    blake3_hasher_update(&state_->blake, piece.data(), piece.size());
    return *this;
}

digest hasher::finish() { return end(state_->blake); }

}  // namespace longhaul::core

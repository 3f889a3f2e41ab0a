#pragma once
/// BLAKE3 with 32 bytes of output, the one hash of longhaul outside the Noise handshake. Every byte of a round is
/// hashed three times, and libsodium's BLAKE2b took more of a core than the cipher and TCP together.

#include <memory>

#include "core/bytes.hpp"

namespace longhaul::core {

/// BLAKE3 of `input`.
digest hash(const_bytes input);

/// The same, fed piece by piece; pieces of 16 KiB and more are hashed fastest. Cheap to construct; not copyable.
class hasher {
public:
    hasher();
    ~hasher();
    hasher(hasher&&) noexcept;
    hasher& operator=(hasher&&) noexcept;
    hasher& update(const_bytes piece);
    /// The hash of everything fed so far; the hasher must not be used afterwards.
    digest finish();

private:
    struct state;
    std::unique_ptr<state> state_;
};

}  // namespace longhaul::core

#pragma once
/// BLAKE2b-256 (libsodium's generichash), the one hash of longhaul outside the Noise handshake.

#include <memory>

#include "core/bytes.hpp"

namespace longhaul::core {

/// BLAKE2b-256 of `input`.
digest hash(const_bytes input);

/// The same, fed piece by piece. Cheap to construct; not copyable.
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

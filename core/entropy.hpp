#pragma once
/// All randomness, keys included: the operating system's in production, seeded in simulation.

#include <array>
#include <cstdint>

#include "core/bytes.hpp"

namespace longhaul::core {

class entropy {
public:
    virtual ~entropy() = default;
    /// Fills `out` with bytes fit for keys (in production).
    virtual void fill(mutable_bytes out) = 0;

    std::uint64_t u64();
    /// Uniform in [0, bound), bound ≥ 1.
    std::uint64_t below(std::uint64_t bound);
    /// Uniform in [0, 1).
    double unit();
    digest key() {
        digest d;
        fill(d.bytes);
        return d;
    }
};

/// The operating system's generator, through libsodium.
class system_entropy final : public entropy {
public:
    void fill(mutable_bytes out) override;
};

/// A deterministic stream from a seed (ChaCha20 through libsodium): the same bytes on every machine and compiler.
class seeded_entropy final : public entropy {
public:
    explicit seeded_entropy(std::uint64_t seed);
    /// A stream of its own for `purpose`, independent of how much anyone else draws.
    seeded_entropy(std::uint64_t seed, std::string_view purpose);
    void fill(mutable_bytes out) override;

private:
    std::array<std::byte, 32> key_{};
    std::uint64_t block_ = 0;
    std::array<std::byte, 64> buffer_{};
    std::size_t used_ = 64;
};

}  // namespace longhaul::core

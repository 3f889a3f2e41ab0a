#pragma once
/// How sparse codecs send the values that they keep: in two bits each, a sign and whether the magnitude is above its
/// group's mean; decoded to the mean of those above or of the others. For compress/*.cpp alone.

#include <cstddef>
#include <span>

namespace longhaul::compress {

/// `count` values in groups of `group`: two bf16 means for each group, then the codes.
class kept_values {
public:
    kept_values(std::size_t count, std::size_t group) : count_(count), group_(group) {}
    std::size_t bytes() const { return codes_at() + (count_ + per_byte - 1) / per_byte; }
    /// Finite values, into bytes() bytes. Sums are in double and in order: the same everywhere.
    void encode(std::span<const float> values, std::byte* out) const;
    /// Whether the means are finite and not negative, and unused bits zero.
    bool check(const std::byte* in) const;
    /// The values that share two means.
    struct group {
        float low, high;
        const std::byte* codes;
        /// The i-th of all values, which is one of the group.
        float at(std::size_t i) const {
            const auto code = std::to_integer<unsigned>(codes[i / per_byte]) >> i % per_byte * 2;
            const float m = (code & 1U) != 0 ? high : low;
            return (code & 2U) != 0 ? -m : m;
        }
    };
    /// The i-th value's group in an encoding that was checked.
    group group_of(const std::byte* in, std::size_t i) const;

private:
    static constexpr std::size_t means_bytes = 4, per_byte = 4;
    std::size_t codes_at() const { return (count_ + group_ - 1) / group_ * means_bytes; }
    void encode_group(std::span<const float> values, std::size_t first, std::byte* means, std::byte* codes) const;

    std::size_t count_, group_;
};

}  // namespace longhaul::compress

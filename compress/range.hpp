#pragma once
/// A range: elements of a model's flat buffer that are encoded, sent and decoded on their own; and the pieces of
/// tensors that it is made of.

#include <cstdint>
#include <vector>

#include "core/tensor.hpp"

namespace longhaul::compress {

/// Consecutive elements of one tensor.
struct piece {
    std::size_t tensor = 0;
    std::size_t first = 0;  ///< in the range
    std::size_t count = 0;
    /// The tensor as a matrix of its first dimension: elements of a row, and those of the piece's first row before it.
    std::size_t row = 1, skipped = 0;
    /// Too small or too sensitive to lose much of: one dimension, fewer than 4,096 elements, or a buffer. Codecs that
    /// go below 16 bits send it as bf16.
    bool dense = false;
    bool buffer = false;  ///< tensor_role::buffer
};

inline constexpr std::uint64_t least_compressed_elements = 4096;

class range {
public:
    /// Elements [first, first + count) of the manifest, which must outlive the range.
    range(const core::tensor_manifest& manifest, std::uint64_t first, std::size_t count);
    /// The whole model as one range.
    explicit range(const core::tensor_manifest& manifest) : range(manifest, 0, manifest.elements()) {}

    const core::tensor_manifest& manifest() const { return *manifest_; }
    std::uint64_t first() const { return first_; }
    std::size_t size() const { return count_; }
    const std::vector<piece>& pieces() const { return pieces_; }

private:
    const core::tensor_manifest* manifest_;
    std::uint64_t first_;
    std::size_t count_;
    std::vector<piece> pieces_;
};

}  // namespace longhaul::compress

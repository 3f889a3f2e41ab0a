#pragma once
/// A model as longhaul sees it: named tensors laid one after another in one flat f32 buffer.
/// This is the only currency between trainers, codecs and peers; no torch type crosses it.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/bytes.hpp"
#include "core/result.hpp"

namespace longhaul::core {

/// What a tensor is for: parameters are trained; buffers (BatchNorm statistics) are averaged, never stepped.
enum class tensor_role : std::uint8_t { parameter = 0, buffer = 1 };

/// One tensor: its name (as in the model's state dict) and shape. Element type is f32 in the flat buffer.
struct tensor_spec {
    std::string name;
    std::vector<std::int64_t> shape;
    tensor_role role = tensor_role::parameter;
    std::uint64_t elements() const;
    bool operator==(const tensor_spec&) const = default;
};

/// Limits that every manifest from outside must respect.
inline constexpr std::size_t max_tensors = 100'000;
inline constexpr std::size_t max_tensor_name = 512;
inline constexpr std::size_t max_tensor_rank = 8;
inline constexpr std::uint64_t max_elements = std::uint64_t{1} << 40;

/// The ordered list of a model's tensors, with the offset of each in the flat buffer. Immutable once made.
class tensor_manifest {
public:
    tensor_manifest() = default;
    /// Checks names (unique, non-empty, bounded), shapes (positive, bounded) and the total; errc::malformed or
    /// errc::limit.
    static result<tensor_manifest> make(std::vector<tensor_spec> specs);

    const std::vector<tensor_spec>& specs() const { return specs_; }
    std::size_t size() const { return specs_.size(); }
    /// Offset of tensor i in the flat buffer, in elements.
    std::uint64_t offset(std::size_t i) const { return offsets_[i]; }
    /// Elements of all tensors together: the length of the flat buffer.
    std::uint64_t elements() const { return total_; }
    /// Tensor i's part of a flat buffer of `elements()` floats.
    std::span<float> part(std::span<float> flat, std::size_t i) const;
    std::span<const float> part(std::span<const float> flat, std::size_t i) const;
    /// Hash of names, shapes and roles in order: equal exactly when the layouts are equal.
    digest fingerprint() const;
    /// Empty when equal; otherwise one sentence naming the first tensor that differs and how.
    std::string first_difference(const tensor_manifest& other) const;
    bool operator==(const tensor_manifest& other) const { return specs_ == other.specs_; }

private:
    std::vector<tensor_spec> specs_;
    std::vector<std::uint64_t> offsets_;
    std::uint64_t total_ = 0;
};

/// The flat buffer of a model: `manifest.elements()` floats.
using flat_buffer = std::vector<float>;

/// The bytes of a flat buffer as they are hashed, stored and sent: f32, little-endian.
inline const_bytes bytes_of(std::span<const float> f) { return std::as_bytes(f); }

}  // namespace longhaul::core

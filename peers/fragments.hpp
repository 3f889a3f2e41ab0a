#pragma once
/// The parts of a model that rounds exchange in turn (Streaming DiLoCo, arXiv 2501.18512): each holds about as many
/// elements, and is a model of its own for everything that encodes, sends and sums.

#include "core/result.hpp"
#include "core/tensor.hpp"

namespace longhaul::peers {

/// Consecutive rows of consecutive tensors.
struct fragment {
    std::uint64_t first = 0;  ///< element of the whole model
    core::tensor_manifest tensors;

    /// Its part of a buffer of the whole model.
    template <typename Float>
    std::span<Float> of(std::span<Float> whole) const {
        return whole.subspan(first, tensors.elements());
    }
};

class fragments {
public:
    /// Cuts a model into so many; errc::config when it has not as many rows in the right places.
    static core::result<fragments> cut(const core::tensor_manifest& whole, std::size_t count);

    std::size_t count() const { return parts_.size(); }
    /// What a round exchanges.
    const fragment& of_round(std::uint64_t round) const { return parts_[(round + parts_.size() - 1) % parts_.size()]; }
    const fragment& largest() const;

private:
    std::vector<fragment> parts_;
};

}  // namespace longhaul::peers

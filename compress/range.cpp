#include "compress/range.hpp"

#include <algorithm>

namespace longhaul::compress {

namespace {

/// The tensor that holds element `at` of the flat buffer.
std::size_t tensor_at(const core::tensor_manifest& manifest, std::uint64_t at) {
    std::size_t low = 0, high = manifest.size();
    while (high - low > 1) {
        const auto middle = (low + high) / 2;
        (manifest.offset(middle) <= at ? low : high) = middle;
    }
    return low;
}

}  // namespace

range::range(const core::tensor_manifest& manifest, std::uint64_t first, std::size_t count)
    : manifest_(&manifest), first_(first), count_(count) {
    LONGHAUL_ENSURE(first <= manifest.elements() && count <= manifest.elements() - first, "a range is in its model");
    const auto end = first + count;
    for (auto at = first, t = count > 0 ? tensor_at(manifest, first) : 0; at < end; ++t) {
        const auto& spec = manifest.specs()[t];
        const auto elements = spec.elements();
        const auto to = std::min(end, manifest.offset(t) + elements);
        piece p;
        p.tensor = t;
        p.first = at - first;
        p.count = to - at;
        const auto rows = spec.shape.empty() ? std::uint64_t{1} : static_cast<std::uint64_t>(spec.shape[0]);
        p.row = elements / rows;
        p.skipped = (at - manifest.offset(t)) % p.row;
        p.buffer = spec.role == core::tensor_role::buffer;
        p.dense = p.buffer || spec.shape.size() < 2 || elements < least_compressed_elements;
        pieces_.push_back(p);
        at = to;
    }
}

}  // namespace longhaul::compress

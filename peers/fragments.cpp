#include "peers/fragments.hpp"

#include <algorithm>

namespace longhaul::peers {

namespace {

/// Elements that stay together: a row of a matrix, or the whole of anything else.
std::uint64_t row_of(const core::tensor_spec& s) {
    const bool matrix = s.role == core::tensor_role::parameter && s.shape.size() >= 2;
    return matrix ? s.elements() / static_cast<std::uint64_t>(s.shape[0]) : s.elements();
}

/// The place between two rows that is nearest to `target`.
std::uint64_t cut_near(const core::tensor_manifest& whole, std::uint64_t target) {
    std::size_t t = 0;
    while (t + 1 < whole.size() && whole.offset(t + 1) <= target) ++t;
    const auto row = row_of(whole.specs()[t]);
    return whole.offset(t) + (target - whole.offset(t) + row / 2) / row * row;
}

core::result<fragment> part_between(const core::tensor_manifest& whole, std::uint64_t first, std::uint64_t end) {
    std::vector<core::tensor_spec> specs;
    for (std::size_t t = 0; t < whole.size(); ++t) {
        auto spec = whole.specs()[t];
        const auto from = std::max(first, whole.offset(t)), to = std::min(end, whole.offset(t) + spec.elements());
        if (from >= to) continue;
        if (to - from < spec.elements()) spec.shape[0] = static_cast<std::int64_t>((to - from) / row_of(spec));
        specs.push_back(std::move(spec));
    }
    fragment part;
    part.first = first;
    LONGHAUL_TRY_ASSIGN(part.tensors, core::tensor_manifest::make(std::move(specs)));
    return part;
}

}  // namespace

core::result<fragments> fragments::cut(const core::tensor_manifest& whole, std::size_t count) {
    LONGHAUL_ENSURE(count > 0, "a model has at least one part");
    fragments out;
    std::uint64_t first = 0;
    for (std::size_t i = 1; i <= count; ++i) {
        const auto end = i == count ? whole.elements() : cut_near(whole, whole.elements() / count * i);
        if (end <= first || (end == whole.elements() && i < count)) {
            return core::fail(core::errc::config,
                              "exchange.fragments = {} is too many for this model of {} tensors: it is cut between "
                              "rows of its matrices, and part {} would be empty; {} is possible",
                              count, whole.size(), i, std::max<std::size_t>(1, i - 1));
        }
        LONGHAUL_TRY_ASSIGN(auto part, part_between(whole, first, end));
        out.parts_.push_back(std::move(part));
        first = end;
    }
    return out;
}

const fragment& fragments::largest() const {
    return *std::ranges::max_element(parts_, {}, [](const fragment& f) { return f.tensors.elements(); });
}

}  // namespace longhaul::peers

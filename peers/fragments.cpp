#include "peers/fragments.hpp"

#include <algorithm>
#include <ranges>

namespace longhaul::peers {

namespace {

/// Elements that stay together: a row of a matrix, or the whole of anything else.
std::uint64_t row_of(const core::tensor_spec& s) {
    const bool matrix = s.role == core::tensor_role::parameter && s.shape.size() >= 2;
    return matrix ? s.elements() / static_cast<std::uint64_t>(s.shape[0]) : s.elements();
}

/// The place between two rows that is nearest to `target`.
std::uint64_t cut_near(const core::tensor_manifest& whole, std::uint64_t target) {
    const auto all = std::views::iota(std::size_t{1}, whole.size());
    const auto behind = std::ranges::partition_point(all, [&](auto i) { return whole.offset(i) <= target; });
    const auto t = static_cast<std::size_t>(behind - all.begin());
    const auto row = row_of(whole.specs()[t]);
    return whole.offset(t) + (target - whole.offset(t) + row / 2) / row * row;
}

core::result<fragment> part_between(const core::tensor_manifest& whole, std::uint64_t first, std::uint64_t end) {
    std::vector<core::tensor_spec> specs;
    for (std::size_t t = 0; t < whole.size(); ++t) {
        const auto& all = whole.specs()[t];
        const auto from = std::max(first, whole.offset(t)), to = std::min(end, whole.offset(t) + all.elements());
        if (from >= to) continue;
        auto spec = all;
        if (to - from < all.elements()) spec.shape[0] = static_cast<std::int64_t>((to - from) / row_of(all));
        specs.push_back(std::move(spec));
    }
    fragment part;
    part.first = first;
    LONGHAUL_TRY_ASSIGN(part.tensors, core::tensor_manifest::make(std::move(specs)));
    return part;
}

/// Where the parts end; nothing when one of them would be empty.
std::vector<std::uint64_t> ends_of(const core::tensor_manifest& whole, std::size_t count) {
    std::vector<std::uint64_t> ends;
    std::uint64_t first = 0;
    for (std::size_t i = 1; i <= count; ++i, first = ends.back()) {
        const auto end = i == count ? whole.elements() : cut_near(whole, whole.elements() / count * i);
        if (end <= first || (end == whole.elements() && i < count)) return {};
        ends.push_back(end);
    }
    return ends;
}

}  // namespace

core::result<fragments> fragments::cut(const core::tensor_manifest& whole, std::size_t count) {
    LONGHAUL_ENSURE(count > 0, "a model has at least one part");
    if (count == 1) {
        fragments all;
        all.parts_.push_back({0, whole});
        return all;
    }
    const auto ends = ends_of(whole, count);
    if (ends.empty()) {
        auto possible = count - 1;
        while (possible > 1 && ends_of(whole, possible).empty()) --possible;
        return core::fail(core::errc::config,
                          "exchange.fragments = {} is too many for this model, which is cut between rows of its "
                          "matrices: one of them would be empty; {} is possible",
                          count, possible);
    }
    fragments out;
    std::uint64_t first = 0;
    for (const auto end : ends) {
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

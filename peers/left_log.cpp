#include "peers/left_log.hpp"

namespace longhaul::peers {

merged_log merge_left_log(const core::tensor_manifest& manifest, const optim::round_plan& plan, const left_log& left,
                          const model_state& now, const generation_line& origins, std::size_t contributors) {
    merged_log out;
    const auto parted = tokens_in_common(left.origins, origins);
    if (!parted || left.state->tokens <= *parted || now.tokens < *parted) return out;
    out.tokens = left.state->tokens - *parted;
    const auto alone = static_cast<double>(out.tokens), others = static_cast<double>(now.tokens - *parted);
    out.share = alone / (alone + others);

    auto& m = out.mass;
    m.values.resize(now.anchor.size());
    const double outer =
        plan.outer_lr > 0 ? (1.0 - static_cast<double>(plan.outer_momentum)) / static_cast<double>(plan.outer_lr) : 0;
    for (std::size_t t = 0; t < manifest.size(); ++t) {
        const bool buffer = manifest.specs()[t].role == core::tensor_role::buffer;
        const auto factor = static_cast<float>(out.share * static_cast<double>(contributors) * (buffer ? 1.0 : outer));
        const auto to = manifest.part(std::span(m.values), t);
        const auto from = manifest.part(std::span(now.anchor), t),
                   other = manifest.part(std::span(left.state->anchor), t);
        for (std::size_t i = 0; i < to.size(); ++i) to[i] = factor * (from[i] - other[i]);
    }
    return out;
}

}  // namespace longhaul::peers

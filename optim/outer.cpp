#include "optim/outer.hpp"

namespace longhaul::optim {

void outer_step(const core::tensor_manifest& manifest, bool nesterov, float lr, float beta, std::span<float> anchor,
                std::span<float> momentum, std::span<const float> delta) {
    const std::uint64_t n = manifest.elements();
    LONGHAUL_ENSURE(anchor.size() == n && momentum.size() == n && delta.size() == n,
                    "anchor, momentum and pseudo-gradient must have the manifest's length");
    for (std::size_t t = 0; t < manifest.size(); ++t) {
        const auto theta = manifest.part(anchor, t);
        const auto d = manifest.part(delta, t);
        if (manifest.specs()[t].role == core::tensor_role::buffer) {
            for (std::size_t i = 0; i < d.size(); ++i) theta[i] -= d[i];
            continue;
        }
        const auto m = manifest.part(momentum, t);
        for (std::size_t i = 0; i < d.size(); ++i) {
            m[i] = beta * m[i] + d[i];
            theta[i] -= lr * (nesterov ? d[i] + beta * m[i] : m[i]);
        }
    }
}

}  // namespace longhaul::optim

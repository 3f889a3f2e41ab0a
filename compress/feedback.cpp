#include "compress/feedback.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "compress/kernels.hpp"
#include "core/config.hpp"

namespace longhaul::compress {

using core::errc;
using core::fail;

std::vector<std::string> feedback_names() { return {"none", "ef"}; }

core::result<feedback_rule> find_feedback(std::string_view name, double beta, const codec& c) {
    const auto names = feedback_names();
    if (std::ranges::find(names, name) == names.end()) {
        const auto near = core::nearest(name, names);
        return fail(errc::config, "unknown feedback \"{}\"; there are {}; did you mean \"{}\"?", name.substr(0, 80),
                    fmt::join(names, ", "), near.empty() ? names.back() : near);
    }
    feedback_rule rule;
    const auto share = static_cast<float>(beta);
    if (!(share > 0 && share <= 1)) {
        return fail(errc::config,
                    "exchange.beta = {} is no share of a residual: it is above 0 and at most 1, which forgets nothing; "
                    "the nearest of use is {}",
                    beta, beta > 1 ? "1" : "0.5");
    }
    if (name == "none") {
        if (!c.wants_feedback()) return rule;
        return fail(errc::config,
                    "codec \"{}\" loses too much to be used without feedback: set exchange.feedback = \"ef\", or take "
                    "the nearest codec that does without, int4",
                    c.name());
    }
    rule.keeps_residual = true;
    rule.beta = share;
    return rule;
}

mass_sums& mass_sums::operator+=(const mass_sums& o) {
    produced += o.produced;
    residual += o.residual;
    compensated += o.compensated;
    sent += o.sent;
    size += o.size;
    return *this;
}

mass_sums compensate(const payload_source& s, std::uint64_t first, std::size_t count) {
    const auto n = s.anchor.size();
    LONGHAUL_ENSURE(s.values.size() == n && first <= n && count <= n - first,
                    "a payload is made of spans of the model's length");
    LONGHAUL_ENSURE(s.left.empty() || s.left.size() == n, "what is left has the model's length");
    LONGHAUL_ENSURE(s.residual.empty() || s.residual.size() == n, "a residual has the model's length");
    const float* residual = s.residual.empty() ? nullptr : s.residual.data() + first;
    std::array<double, 4> sums{};
    float* left = s.left.empty() ? nullptr : s.left.data() + first;
    best_kernels().compensate(s.anchor.data() + first, residual, s.beta, count, s.values.data() + first, left,
                              sums.data());
    return {sums[0], sums[1], sums[2], 0, sums[3]};
}

core::result<void> encode(const payload_source& s, const codec& c, const range& r, const rounding& how,
                          core::mutable_bytes out, mass_sums& sums) {
    sums += compensate(s, r.first(), r.size());
    const auto p = s.values.subspan(r.first(), r.size());
    if (s.left.empty()) return c.encode(r, p, how, out);
    remainder rest{s.left.subspan(r.first(), r.size())};
    LONGHAUL_TRY(c.encode(r, p, how, out, &rest));
    sums.sent += rest.sent;
    return core::ok();
}

}  // namespace longhaul::compress

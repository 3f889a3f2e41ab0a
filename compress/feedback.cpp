#include "compress/feedback.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "compress/kernels.hpp"
#include "core/config.hpp"

namespace longhaul::compress {

using core::errc;
using core::fail;

std::vector<std::string> feedback_names() { return {"none", "ef", "dgc", "ef21", "econtrol"}; }

core::result<feedback_rule> find_feedback(std::string_view name, const feedback_wishes& wishes, const codec& c) {
    const auto names = feedback_names();
    if (std::ranges::find(names, name) == names.end()) {
        const auto near = core::nearest(name, names);
        return fail(errc::config, "unknown feedback \"{}\"; there are {}; did you mean \"{}\"?", name.substr(0, 80),
                    fmt::join(names, ", "), near.empty() ? names.back() : near);
    }
    feedback_rule rule;
    const auto share = static_cast<float>(wishes.beta);
    if (!(share > 0 && share <= 1)) {
        return fail(errc::config,
                    "exchange.beta = {} is no share of a residual: it is above 0 and at most 1, which forgets nothing; "
                    "the nearest of use is {}",
                    wishes.beta, wishes.beta > 1 ? "1" : "0.5");
    }
    const auto momentum = static_cast<float>(wishes.momentum);
    if (!(momentum > 0 && momentum < 1)) {
        return fail(
            errc::config,
            "exchange.momentum = {} is none that dies away: it is above 0 and below 1; the nearest of use is {}",
            wishes.momentum, wishes.momentum > 0.5 ? "0.9" : "0.1");
    }
    const auto gain = static_cast<float>(wishes.gain);
    if (!(gain > 0 && gain <= 1)) {
        return fail(
            errc::config,
            "exchange.gain = {} is no share of a residual: it is above 0 and at most 1; the nearest of use is {}",
            wishes.gain, wishes.gain > 1 ? "1" : "0.001");
    }
    if (name == "none") {
        if (!c.wants_feedback()) return rule;
        return fail(errc::config,
                    "codec \"{}\" loses too much to be used without feedback: set exchange.feedback = \"ef\", or take "
                    "the nearest codec that does without, int4",
                    c.name());
    }
    rule.keeps_residual = true;
    if (name == "ef") {
        rule.beta = share;
        return rule;
    }
    if (name == "ef21" || name == "econtrol") {
        rule.repeats = static_cast<float>(wishes.heavy_ball);
        if (!(rule.repeats > 0)) {
            return fail(errc::config,
                        "feedback \"{}\" sends what receivers do not hold already, and it is the outer momentum that "
                        "holds it: set outer.optimizer = \"sgd\" and outer.momentum = 0.99, or take the nearest, "
                        "\"ef\"",
                        name);
        }
        rule.forgets = name == "ef21";
        rule.gain = rule.forgets ? 0 : gain;
        return rule;
    }
    if (!c.wants_feedback()) {
        return fail(errc::config,
                    "feedback \"dgc\" lets stand still what a payload says, and {} says everything: take \"ef\", or a "
                    "codec that sends a few values, the nearest is topk-4/64",
                    c.name());
    }
    rule.momentum = momentum;
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

namespace {

/// compensate with momentum.
mass_sums compensate_moving(const payload_source& s, std::uint64_t first, std::size_t count) {
    mass_sums sums;
    for (auto i = first; i < first + count; ++i) {
        const float u = s.momentum * s.velocity[i] + (s.anchor[i] - s.values[i]);
        const float found = s.residual.empty() ? 0.0F : s.residual[i];
        const float p = u + s.beta * found;
        s.velocity[i] = u;
        s.values[i] = p;
        if (!s.left.empty()) s.left[i] = p;
        sums.produced += static_cast<double>(u);
        sums.residual += static_cast<double>(found);
        sums.compensated += static_cast<double>(p);
        sums.size += static_cast<double>(std::abs(p)) + static_cast<double>(std::abs(found));
    }
    return sums;
}

/// compensate with what receivers repeat: EF21 (arXiv 2106.05203, algorithm 2, line 6: C(∇f − g)) and EControl (arXiv
/// 2311.05645, algorithm 3: C(η·e + g − h)), where receivers' memory decays by their momentum.
mass_sums compensate_unsaid(const payload_source& s, std::uint64_t first, std::size_t count) {
    mass_sums sums;
    for (auto i = first; i < first + count; ++i) {
        const float unsaid = (s.anchor[i] - s.values[i]) - s.repeats * s.said[i];
        const float found = s.residual.empty() ? 0.0F : s.residual[i];
        const float p = unsaid + s.gain * found;
        s.values[i] = p;
        if (!s.left.empty()) s.left[i] = p;
        sums.produced += static_cast<double>(unsaid);
        sums.residual += static_cast<double>(found);
        sums.compensated += static_cast<double>(p);
        sums.size += static_cast<double>(std::abs(p)) + static_cast<double>(std::abs(found));
    }
    return sums;
}

/// What of the residual was no part of p goes on top again.
void keep_rest(const payload_source& s, const range& r, mass_sums& sums) {
    for (auto i = r.first(); i < r.first() + r.size(); ++i) {
        const float rest = (1 - s.gain) * s.residual[i];
        s.values[i] += rest;
        s.left[i] += rest;
        sums.compensated += static_cast<double>(rest);
        sums.size += static_cast<double>(std::abs(s.values[i]));
    }
}

}  // namespace

void follow_sent(std::span<float> said, float repeats, std::span<const float> compensated,
                 std::span<const float> left) {
    for (std::size_t i = 0; i < said.size(); ++i) said[i] = repeats * said[i] + (compensated[i] - left[i]);
}

void mask_sent(std::span<float> velocity, std::span<const float> compensated, std::span<const float> left) {
    for (std::size_t i = 0; i < velocity.size(); ++i)
        if (left[i] != compensated[i]) velocity[i] = 0;
}

mass_sums compensate(const payload_source& s, std::uint64_t first, std::size_t count) {
    const auto n = s.anchor.size();
    LONGHAUL_ENSURE(s.values.size() == n && first <= n && count <= n - first,
                    "a payload is made of spans of the model's length");
    LONGHAUL_ENSURE(s.left.empty() || s.left.size() == n, "what is left has the model's length");
    LONGHAUL_ENSURE(s.residual.empty() || s.residual.size() == n, "a residual has the model's length");
    LONGHAUL_ENSURE(s.said.empty() || s.said.size() == n, "what was said has the model's length");
    LONGHAUL_ENSURE(s.velocity.empty() || s.velocity.size() == n, "what moves has the model's length");
    if (!s.velocity.empty()) return compensate_moving(s, first, count);
    if (!s.said.empty()) return compensate_unsaid(s, first, count);
    const float* residual = s.residual.empty() ? nullptr : s.residual.data() + first;
    std::array<double, 4> sums{};
    float* left = s.left.empty() ? nullptr : s.left.data() + first;
    best_kernels().compensate(s.anchor.data() + first, residual, s.beta, count, s.values.data() + first, left,
                              sums.data());
    return {sums[0], sums[1], sums[2], 0, sums[3]};
}

core::result<void> encode(const payload_source& s, const codec& c, const range& r, const rounding& how,
                          core::mutable_bytes out, mass_sums& sums) {
    const auto p = s.values.subspan(r.first(), r.size());
    if (s.left.empty()) {
        sums += compensate(s, r.first(), r.size());
        return c.encode(r, p, how, out);
    }
    remainder rest{s.left.subspan(r.first(), r.size())};
    rest.make = [&](std::size_t first, std::size_t count) { sums += compensate(s, r.first() + first, count); };
    LONGHAUL_TRY(c.encode(r, p, how, out, &rest));
    sums.sent += rest.sent;
    if (s.gain < 1 && !s.residual.empty()) keep_rest(s, r, sums);
    return core::ok();
}

}  // namespace longhaul::compress

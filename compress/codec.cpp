#include "compress/codec.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/dense.hpp"
#include "compress/ecsq.hpp"
#include "compress/low_rank.hpp"
#include "compress/quantize.hpp"
#include "compress/threshold.hpp"
#include "compress/topk.hpp"
#include "core/config.hpp"
#include "core/counter_random.hpp"

namespace longhaul::compress {

using core::errc;
using core::fail;

namespace {

const std::vector<const codec*>& all_codecs() {
    static const std::vector<const codec*> all{&f32_codec(),       &bf16_codec(),           &int8_codec(),
                                               &int4_codec(),      &e3m0_codec(),           &ecsq_4_codec(),
                                               &ecsq_3_codec(),    &ecsq_2_codec(),         &ecsq_1_codec(),
                                               &sign2_codec(),     &sign1_codec(),          &topk_64_4096_codec(),
                                               &topk_4_64_codec(), &topk_1_percent_codec(), &topk_1_per_mille_codec(),
                                               &low_rank_4_codec()};
    return all;
}

/// A value that explains why a piece cannot be encoded: the first that is not finite, otherwise the largest.
float culprit(std::span<const float> values) {
    const auto bad = std::ranges::find_if_not(values, [](float v) { return std::isfinite(v); });
    return bad != values.end() ? *bad : *std::ranges::max_element(values, {}, [](float v) { return std::abs(v); });
}

}  // namespace

template <typename Visit>
void codec::each_piece(const range& r, Visit visit) const {
    std::size_t at = 0;
    for (const auto& p : r.pieces()) {
        // Sixteen bits are enough for what is small, and no codec with more has anything to gain.
        const codec& c = p.dense && !lossless() ? bf16_codec() : *this;
        if (!visit(c, p, at)) return;
        at += c.piece_bytes(p);
    }
}

std::uint64_t codec::range_bytes(const range& r) const {
    std::uint64_t n = 0;
    each_piece(r, [&n](const codec& c, const piece& p, std::size_t) {
        n += c.piece_bytes(p);
        return true;
    });
    return n;
}

core::result<void> codec::encode(const range& r, std::span<const float> values, const rounding& how,
                                 core::mutable_bytes out, remainder* rest) const {
    LONGHAUL_ENSURE(rest == nullptr || rest->left.size() == r.size(), "the remainder belongs to another range");
    LONGHAUL_ENSURE(values.size() == r.size() && out.size() == range_bytes(r), "the buffers belong to another range");
    LONGHAUL_ENSURE(how.before.empty() || how.before.size() == out.size(), "the last encoding is of another range");
    core::result<void> done = core::ok();
    each_piece(r, [&](const codec& c, const piece& p, std::size_t at) {
        const auto part = values.subspan(p.first, p.count);
        const auto key = core::combine_key(how.seed, r.first() + p.first);
        encode_hints hints;
        if (how.stochastic) hints.key = &key;
        if (!how.before.empty()) hints.before = how.before.data() + at;
        remainder piece_rest;
        if (rest != nullptr) {
            piece_rest.left = rest->left.subspan(p.first, p.count);
            if (rest->make && c.makes_parts())
                piece_rest.make = [&](std::size_t first, std::size_t n) { rest->make(p.first + first, n); };
            else if (rest->make)
                rest->make(p.first, p.count);
        }
        if (!c.encode_piece(p, part, hints, out.data() + at, rest ? &piece_rest : nullptr))
            done = fail(errc::limit, "tensor \"{}\" holds {}, which {} cannot carry",
                        r.manifest().specs()[p.tensor].name, culprit(part), c.name());
        if (rest != nullptr) rest->sent += piece_rest.sent;
        return done.has_value();
    });
    return done;
}

core::result<void> codec::check(const range& r, core::const_bytes in) const {
    if (const auto n = range_bytes(r); in.size() != n)
        return fail(errc::malformed, "a range of {} elements has {} bytes in {}, not {}", r.size(), n, name_,
                    in.size());
    core::result<void> done = core::ok();
    each_piece(r, [&](const codec& c, const piece& p, std::size_t at) {
        if (!c.check_piece(p, in.data() + at))
            done =
                fail(errc::malformed, "what came of tensor \"{}\" is not {}: a number is not finite, or out of place",
                     r.manifest().specs()[p.tensor].name, c.name());
        return done.has_value();
    });
    return done;
}

core::result<void> codec::decode(const range& r, core::const_bytes in, std::span<float> out) const {
    LONGHAUL_ENSURE(out.size() == r.size(), "the buffer belongs to another range");
    LONGHAUL_TRY(check(r, in));
    each_piece(r, [&](const codec& c, const piece& p, std::size_t at) {
        c.decode_piece(p, in.data() + at, out.subspan(p.first, p.count));
        return true;
    });
    return core::ok();
}

core::result<void> codec::add(const range& r, core::const_bytes in, const factors& by, std::span<float> sum) const {
    LONGHAUL_ENSURE(sum.size() == r.size(), "the buffer belongs to another range");
    LONGHAUL_TRY(check(r, in));
    each_piece(r, [&](const codec& c, const piece& p, std::size_t at) {
        c.add_piece(p, in.data() + at, p.buffer ? by.buffers : by.parameters, sum.subspan(p.first, p.count));
        return true;
    });
    return core::ok();
}

core::result<const codec*> find_codec(std::string_view name) {
    for (const auto* c : all_codecs())
        if (c->name() == name) return c;
    const auto names = codec_names();
    const auto near = core::nearest(name, names);
    return fail(errc::config, "unknown codec \"{}\"; there are {}{}", name.substr(0, 80), fmt::join(names, ", "),
                near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
}

std::vector<std::string> codec_names() {
    std::vector<std::string> out;
    for (const auto* c : all_codecs()) out.emplace_back(c->name());
    return out;
}

}  // namespace longhaul::compress

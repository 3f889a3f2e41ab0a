#include "compress/codec.hpp"

#include <limits>
#include <set>

#include "compress/dense.hpp"
#include "compress/quantize.hpp"
#include "core/entropy.hpp"
#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

/// A matrix that is compressed between small tensors, a vector and a buffer that are not.
tensor_manifest mixed_model() {
    return *tensor_manifest::make({{"first", {2, 3}},
                                   {"big", {100, 60}},
                                   {"bias", {5000}},
                                   {"statistics", {80, 60}, tensor_role::buffer},
                                   {"other", {64, 70}}});
}

std::vector<const codec*> every_codec() {
    std::vector<const codec*> out;
    for (const auto& name : codec_names()) out.push_back(*find_codec(name));
    return out;
}

}  // namespace

TEST_CASE("codecs are found by name, and an unknown one names the nearest") {
    CHECK(*find_codec("f32") == &f32_codec());
    CHECK(*find_codec("bf16") == &bf16_codec());
    std::set<std::uint16_t> ids;
    for (const auto* c : every_codec()) ids.insert(c->wire_id());
    CHECK(ids.size() == codec_names().size());
    const auto wrong = find_codec("int9");
    CHECK(wrong.error().code == errc::config);
    CHECK(wrong.error().message.starts_with("unknown codec \"int9\"; there are f32, bf16, "));
    CHECK(wrong.error().message.ends_with("did you mean \"int8\"?"));
}

TEST_CASE("a range is cut into its tensors' pieces") {
    const auto m = mixed_model();
    const range whole(m);
    REQUIRE(whole.pieces().size() == 5);
    std::size_t at = 0;
    for (std::size_t t = 0; t < 5; ++t) {
        const auto& p = whole.pieces()[t];
        CHECK(p.tensor == t);
        CHECK(p.first == at);
        at += p.count;
        CHECK(p.dense == (t == 0 || t == 2 || t == 3));
        CHECK(p.buffer == (t == 3));
    }
    CHECK(at == m.elements());
    const range part(m, 5, 3);
    REQUIRE(part.pieces().size() == 2);
    CHECK(part.pieces()[0].count == 1);
    CHECK(part.pieces()[1].tensor == 1);
    CHECK(part.pieces()[1].first == 1);
    CHECK(part.pieces()[1].count == 2);
    CHECK(range(m, m.elements(), 0).pieces().empty());
    CHECK(range(*tensor_manifest::make({})).pieces().empty());
}

TEST_CASE("any cut into ranges is decoded alone, small tensors are bf16, and adding is decoding and adding") {
    const auto m = mixed_model();
    const auto values = some_values(m.elements());
    const factors by{0.3F, 0.7F};
    seeded_entropy random(5);
    for (const auto* c : every_codec()) {
        INFO(c->name());
        std::uint64_t at = 0;
        while (at < m.elements()) {
            const auto n = std::min<std::uint64_t>(1 + random.below(6000), m.elements() - at);
            const range r(m, at, n);
            const auto part = std::span(values).subspan(at, n);
            byte_vector wire(c->range_bytes(r)), again(wire.size(), std::byte{0xee});
            REQUIRE(c->encode(r, part, {}, wire));
            REQUIRE(c->encode(r, part, {}, again));
            REQUIRE(wire == again);  // every byte is written, the same each time
            REQUIRE(c->check(r, wire));
            flat_buffer out(n, 7.0F), sum = some_values(n, 9), expected = sum;
            REQUIRE(c->decode(r, wire, out));
            REQUIRE(c->add(r, wire, by, sum));
            for (const auto& p : r.pieces()) {
                for (auto i = p.first; i < p.first + p.count; ++i) {
                    expected[i] += (p.buffer ? by.buffers : by.parameters) * out[i];
                    if (p.dense) REQUIRE(std::abs(out[i] - part[i]) <= std::abs(part[i]) * 0x1p-8F);
                }
            }
            REQUIRE(sum == expected);
            at += n;
        }
    }
}

TEST_CASE("values that are not finite are refused with the tensor's name") {
    const auto m = mixed_model();
    const range whole(m);
    for (const auto* c : every_codec()) {
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity()}) {
            for (const std::size_t at : {2U, 3000U, 6005U, 6006U, 12000U}) {
                auto values = some_values(m.elements());
                values[at] = bad;
                byte_vector wire(c->range_bytes(whole));
                const auto r = c->encode(whole, values, {}, wire);
                REQUIRE_FALSE(r);
                CHECK(r.error().code == errc::limit);
                const auto* tensor = at < 6 ? "first" : at < 6006 ? "big" : at < 11006 ? "bias" : "statistics";
                CHECK(r.error().message.starts_with(fmt::format("tensor \"{}\" holds ", tensor)));
            }
        }
    }
    auto values = some_values(m.elements());
    values[1] = std::numeric_limits<float>::max();
    byte_vector wire(f32_codec().range_bytes(whole));
    CHECK(f32_codec().encode(whole, values, {}, wire));
    wire.resize(bf16_codec().range_bytes(whole));
    CHECK(bf16_codec().encode(whole, values, {}, wire).error().message ==
          "tensor \"first\" holds 3.4028235e+38, which bf16 cannot carry");
}

TEST_CASE("zeros, denormals and huge values come back as what they are, within the codec's error") {
    for (const auto* c : every_codec()) {
        INFO(c->name());
        const flat_buffer zeros(9000, 0.0F);
        CHECK(through(*c, zeros) == zeros);
        flat_buffer tiny(9000, std::numeric_limits<float>::denorm_min());
        for (const float v : through(*c, tiny)) CHECK(std::abs(v) < 0x1p-100F);
        for (const float huge : {1e38F, -2.8e38F}) {
            const flat_buffer constant(9000, huge);
            const auto out = through(*c, constant);
            std::size_t sent = 0;
            for (const float v : out) {
                REQUIRE(std::isfinite(v));
                if (v == 0) continue;
                ++sent;
                REQUIRE(std::abs(v / huge - 1) < 0.01F);
            }
            CHECK(sent > 0);
        }
    }
}

TEST_CASE("truncations and extensions are refused, and hostile bytes leave the output alone or give finite numbers") {
    const auto m = mixed_model();
    const range part(m, 0, 7000);
    const auto values = some_values(7000);
    const flat_buffer before(7000, 7.0F);
    seeded_entropy random(11);
    for (const auto* c : every_codec()) {
        INFO(c->name());
        byte_vector wire(c->range_bytes(part));
        REQUIRE(c->encode(part, values, {}, wire));
        auto out = before;
        for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, wire.size() / 2, wire.size() - 1}) {
            CHECK(c->decode(part, const_bytes(wire).first(cut), out).error().code == errc::malformed);
            CHECK(c->add(part, const_bytes(wire).first(cut), {}, out).error().code == errc::malformed);
        }
        auto longer = wire;
        longer.push_back(std::byte{0});
        CHECK(c->decode(part, longer, out).error().code == errc::malformed);
        CHECK(out == before);
        for (int i = 0; i < 300; ++i) {
            auto broken = wire;
            for (auto n = 1 + random.below(20); n > 0; --n)
                broken[random.below(broken.size())] = static_cast<std::byte>(random.below(256));
            if (i % 10 == 0) random.fill(broken);
            const auto r = c->decode(part, broken, out);
            REQUIRE(r.has_value() == c->check(part, broken).has_value());
            if (!r) {
                CHECK(r.error().code == errc::malformed);
                REQUIRE(out == before);
                REQUIRE_FALSE(c->add(part, broken, {}, out));
                REQUIRE(out == before);
            } else {
                for (const float v : out) REQUIRE(std::isfinite(v));
            }
            out = before;
        }
    }
}

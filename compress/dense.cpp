#include "compress/dense.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "compress/payload.hpp"

namespace longhaul::compress {

using core::const_bytes;
using core::errc;
using core::tensor_manifest;

namespace {

/// Name of the tensor that element `at` belongs to.
const std::string& tensor_of(const tensor_manifest& manifest, std::uint64_t at) {
    std::size_t i = 0;
    while (i + 1 < manifest.size() && manifest.offset(i + 1) <= at) ++i;
    return manifest.specs()[i].name;
}

/// The wire form of one element. `finite` is about the wire form: a large f32 may have none in bf16.
struct as_f32 {
    using word = std::uint32_t;
    static word pack(float v) { return std::bit_cast<word>(v); }
    static float unpack(word w) { return std::bit_cast<float>(w); }
    static bool finite(word w) { return (w & 0x7f800000U) != 0x7f800000U; }
};
struct as_bf16 {
    using word = std::uint16_t;
    static word pack(float v) {
        const auto bits = std::bit_cast<std::uint32_t>(v);
        // A NaN's mantissa could round away; keep one bit of it, so that it stays visible as not finite.
        if (v != v) return 0x7fc0;
        return static_cast<word>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
    }
    static float unpack(word w) { return std::bit_cast<float>(static_cast<std::uint32_t>(w) << 16U); }
    static bool finite(word w) { return (w & 0x7f80U) != 0x7f80U; }
};

template <typename Form>
typename Form::word word_at(const_bytes body, std::size_t i) {
    typename Form::word w;
    std::memcpy(&w, body.data() + i * sizeof(w), sizeof(w));
    return w;
}

/// The first element whose wire form is not finite, or `n`. The first pass is free of branches: it vectorises.
template <typename Form>
std::size_t first_not_finite(const_bytes body, std::size_t n) {
    bool all = true;
    for (std::size_t i = 0; i < n; ++i) all &= Form::finite(word_at<Form>(body, i));
    if (all) return n;
    std::size_t i = 0;
    while (Form::finite(word_at<Form>(body, i))) ++i;
    return i;
}

template <typename Form>
class dense_codec final : public codec {
public:
    dense_codec(std::string_view name, std::uint16_t wire_id) : name_(name), wire_id_(wire_id) {}

    std::string_view name() const override { return name_; }
    std::uint16_t wire_id() const override { return wire_id_; }
    std::uint64_t max_payload_bytes(const tensor_manifest& manifest) const override {
        return payload_header_bytes + body_bytes(manifest);
    }

    core::result<core::byte_vector> encode(const tensor_manifest& manifest,
                                           std::span<const float> values) const override {
        LONGHAUL_ENSURE(values.size() == manifest.elements(), "the buffer belongs to another model");
        auto out = make_payload(wire_id_, manifest, body_bytes(manifest));
        const auto body = std::span(out).subspan(payload_header_bytes);
        for (std::size_t i = 0; i < values.size(); ++i) {
            const auto w = Form::pack(values[i]);
            std::memcpy(body.data() + i * sizeof(w), &w, sizeof(w));
        }
        if (const auto at = first_not_finite<Form>(body, values.size()); at != values.size())
            return core::fail(errc::limit, "tensor \"{}\" holds {}, which {} cannot carry", tensor_of(manifest, at),
                              values[at], name_);
        return out;
    }

    core::result<void> decode(const tensor_manifest& manifest, const_bytes payload,
                              std::span<float> out) const override {
        LONGHAUL_ENSURE(out.size() == manifest.elements(), "the buffer belongs to another model");
        LONGHAUL_TRY_ASSIGN(const auto body, payload_body(wire_id_, manifest, payload, body_bytes(manifest)));
        // One NaN from one peer would reach every replica's anchor.
        if (const auto at = first_not_finite<Form>(body, out.size()); at != out.size())
            return core::fail(errc::malformed, "the payload's tensor \"{}\" holds a value that is not finite",
                              tensor_of(manifest, at));
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = Form::unpack(word_at<Form>(body, i));
        return core::ok();
    }

    std::size_t element_bytes() const override { return sizeof(typename Form::word); }

    core::result<void> encode_range(std::span<const float> values, core::mutable_bytes out) const override {
        LONGHAUL_ENSURE(out.size() == values.size() * sizeof(typename Form::word), "a range has its codec's size");
        for (std::size_t i = 0; i < values.size(); ++i) {
            const auto w = Form::pack(values[i]);
            std::memcpy(out.data() + i * sizeof(w), &w, sizeof(w));
        }
        if (const auto at = first_not_finite<Form>(out, values.size()); at != values.size())
            return core::fail(errc::limit, "element {} of a range is {}, which {} cannot carry", at, values[at], name_);
        return core::ok();
    }

    core::result<void> decode_range(const_bytes in, std::span<float> out) const override {
        if (in.size() != out.size() * sizeof(typename Form::word))
            return core::fail(errc::malformed, "a range of {} elements has {} bytes", out.size(), in.size());
        if (const auto at = first_not_finite<Form>(in, out.size()); at != out.size())
            return core::fail(errc::malformed, "element {} of a range is not finite", at);
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = Form::unpack(word_at<Form>(in, i));
        return core::ok();
    }

private:
    static std::uint64_t body_bytes(const tensor_manifest& manifest) {
        return manifest.elements() * sizeof(typename Form::word);
    }

    std::string_view name_;
    std::uint16_t wire_id_;
};

}  // namespace

const codec& f32_codec() {
    static const dense_codec<as_f32> instance("f32", 1);
    return instance;
}

const codec& bf16_codec() {
    static const dense_codec<as_bf16> instance("bf16", 2);
    return instance;
}

}  // namespace longhaul::compress

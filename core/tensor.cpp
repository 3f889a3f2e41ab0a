#include "core/tensor.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "core/hash.hpp"

namespace longhaul::core {

namespace {

std::string_view name_of(tensor_role role) { return role == tensor_role::parameter ? "parameter" : "buffer"; }

std::string text_of(const tensor_spec& s) {
    return fmt::format("\"{}\" [{}] ({})", s.name, fmt::join(s.shape, ", "), name_of(s.role));
}

// Names are printed, and stored in JSON: printable ASCII needs no further care in either.
bool printable(std::string_view name) {
    return std::ranges::all_of(name, [](char c) { return c >= ' ' && c <= '~'; });
}

result<std::uint64_t> checked_elements(const tensor_spec& s) {
    std::uint64_t n = 1;
    for (const auto d : s.shape) {
        if (d <= 0) return fail(errc::malformed, "tensor \"{}\" has a dimension of {}", s.name, d);
        const auto dim = static_cast<std::uint64_t>(d);
        if (dim > max_elements / n)
            return fail(errc::limit, "tensor \"{}\" has more than {} elements", s.name, max_elements);
        n *= dim;
    }
    return n;
}

}  // namespace

std::uint64_t tensor_spec::elements() const {
    std::uint64_t n = 1;
    for (const auto d : shape) n *= d > 0 ? static_cast<std::uint64_t>(d) : 0;
    return n;
}

result<tensor_manifest> tensor_manifest::make(std::vector<tensor_spec> specs) {
    if (specs.size() > max_tensors)
        return fail(errc::limit, "a model of {} tensors exceeds {}", specs.size(), max_tensors);
    tensor_manifest m;
    m.offsets_.reserve(specs.size());
    std::set<std::string_view> seen;
    for (std::size_t i = 0; i < specs.size(); ++i) {
        const auto& s = specs[i];
        if (s.name.empty()) return fail(errc::malformed, "tensor {} has no name", i);
        if (s.name.size() > max_tensor_name)
            return fail(errc::limit, "the name of tensor {} has {} bytes, more than {}", i, s.name.size(),
                        max_tensor_name);
        if (!printable(s.name)) return fail(errc::malformed, "the name of tensor {} is not printable ASCII", i);
        if (s.name == "__metadata__")
            return fail(errc::malformed, "tensor {} is named __metadata__, which safetensors reserves", i);
        if (!seen.insert(s.name).second) return fail(errc::malformed, "two tensors are named \"{}\"", s.name);
        if (s.shape.size() > max_tensor_rank)
            return fail(errc::limit, "tensor \"{}\" has {} dimensions, more than {}", s.name, s.shape.size(),
                        max_tensor_rank);
        if (s.role != tensor_role::parameter && s.role != tensor_role::buffer)
            return fail(errc::malformed, "tensor \"{}\" has an unknown role", s.name);
        LONGHAUL_TRY_ASSIGN(const auto n, checked_elements(s));
        if (n > max_elements - m.total_) return fail(errc::limit, "the model has more than {} elements", max_elements);
        m.offsets_.push_back(m.total_);
        m.total_ += n;
    }
    m.specs_ = std::move(specs);
    return m;
}

std::span<float> tensor_manifest::part(std::span<float> flat, std::size_t i) const {
    LONGHAUL_ENSURE(flat.size() == total_ && i < specs_.size(), "the buffer belongs to another model");
    return flat.subspan(offsets_[i], specs_[i].elements());
}

std::span<const float> tensor_manifest::part(std::span<const float> flat, std::size_t i) const {
    LONGHAUL_ENSURE(flat.size() == total_ && i < specs_.size(), "the buffer belongs to another model");
    return flat.subspan(offsets_[i], specs_[i].elements());
}

digest tensor_manifest::fingerprint() const {
    byte_writer w;
    w.raw(as_bytes("longhaul tensors")).u32(static_cast<std::uint32_t>(specs_.size()));
    for (const auto& s : specs_) {
        w.sized(as_bytes(s.name)).u8(static_cast<std::uint8_t>(s.role)).u8(static_cast<std::uint8_t>(s.shape.size()));
        for (const auto d : s.shape) w.u64(static_cast<std::uint64_t>(d));
    }
    return hash(w.bytes());
}

std::string tensor_manifest::first_difference(const tensor_manifest& other) const {
    const auto common = std::min(specs_.size(), other.specs_.size());
    for (std::size_t i = 0; i < common; ++i) {
        if (specs_[i] == other.specs_[i]) continue;
        return fmt::format("tensor {} is {} here and {} there", i, text_of(specs_[i]), text_of(other.specs_[i]));
    }
    if (specs_.size() > common)
        return fmt::format("tensor {} is {} here and missing there", common, text_of(specs_[common]));
    if (other.specs_.size() > common)
        return fmt::format("tensor {} is missing here and {} there", common, text_of(other.specs_[common]));
    return {};
}

}  // namespace longhaul::core

#include "core/tensor.hpp"

#include <numeric>

#include "tests/test.hpp"

using namespace longhaul::core;

namespace {

std::vector<tensor_spec> small_model() {
    return {{"embed.weight", {4, 3}, tensor_role::parameter},
            {"norm.scale", {}, tensor_role::parameter},
            {"norm.mean", {3}, tensor_role::buffer}};
}

errc refusal(std::vector<tensor_spec> specs) {
    const auto m = tensor_manifest::make(std::move(specs));
    REQUIRE_FALSE(m);
    return m.error().code;
}

}  // namespace

TEST_CASE("tensors lie one after another in the flat buffer") {
    const auto m = *tensor_manifest::make(small_model());
    CHECK(m.size() == 3);
    CHECK(m.elements() == 16);
    CHECK(m.offset(0) == 0);
    CHECK(m.offset(1) == 12);
    CHECK(m.offset(2) == 13);
    flat_buffer flat(16);
    std::iota(flat.begin(), flat.end(), 0.0F);
    CHECK(m.part(std::span<const float>(flat), 2)[0] == 13.0F);
    CHECK(m.part(std::span<float>(flat), 1).size() == 1);
    CHECK(bytes_of(flat).size() == 64);
    CHECK(tensor_manifest::make({})->elements() == 0);
}

TEST_CASE("a manifest from outside is checked") {
    CHECK(refusal({{"", {1}}}) == errc::malformed);
    CHECK(refusal({{"a", {1}}, {"a", {2}}}) == errc::malformed);
    CHECK(refusal({{"a", {0}}}) == errc::malformed);
    CHECK(refusal({{"a", {2, -1}}}) == errc::malformed);
    CHECK(refusal({{"a\n", {1}}}) == errc::malformed);
    CHECK(refusal({{"\xff", {1}}}) == errc::malformed);
    CHECK(refusal({{"__metadata__", {1}}}) == errc::malformed);
    CHECK(refusal({{"a", {1}, static_cast<tensor_role>(2)}}) == errc::malformed);
    CHECK(refusal({{std::string(max_tensor_name + 1, 'x'), {1}}}) == errc::limit);
    CHECK(refusal({{"a", std::vector<std::int64_t>(max_tensor_rank + 1, 1)}}) == errc::limit);
    const auto top = static_cast<std::int64_t>(max_elements);
    CHECK(refusal({{"a", {top + 1}}}) == errc::limit);
    CHECK(refusal({{"a", {std::int64_t{1} << 62, std::int64_t{1} << 62}}}) == errc::limit);
    CHECK(refusal({{"a", {top}}, {"b", {1}}}) == errc::limit);
    CHECK(tensor_manifest::make({{"a", {top}}})->elements() == max_elements);
    CHECK(tensor_manifest::make({{std::string(max_tensor_name, 'x'), std::vector<std::int64_t>(max_tensor_rank, 1)}}));
}

TEST_CASE("the fingerprint changes with every part of the layout") {
    const auto base = tensor_manifest::make(small_model())->fingerprint();
    CHECK(base == tensor_manifest::make(small_model())->fingerprint());
    auto changed = small_model();
    changed[0].name = "embed.Weight";
    CHECK(tensor_manifest::make(changed)->fingerprint() != base);
    changed = small_model();
    changed[0].shape = {3, 4};
    CHECK(tensor_manifest::make(changed)->fingerprint() != base);
    changed = small_model();
    changed[0].shape = {12};
    CHECK(tensor_manifest::make(changed)->fingerprint() != base);
    changed = small_model();
    changed[2].role = tensor_role::parameter;
    CHECK(tensor_manifest::make(changed)->fingerprint() != base);
    changed = small_model();
    std::swap(changed[1], changed[2]);
    CHECK(tensor_manifest::make(changed)->fingerprint() != base);
    changed.pop_back();
    CHECK(tensor_manifest::make(changed)->fingerprint() != base);
}

TEST_CASE("the first difference of two models is named") {
    const auto base = *tensor_manifest::make(small_model());
    CHECK(base.first_difference(base).empty());
    auto changed = small_model();
    changed[1].shape = {1};
    changed[2].name = "other";
    CHECK(base.first_difference(*tensor_manifest::make(changed)) ==
          "tensor 1 is \"norm.scale\" [] (parameter) here and \"norm.scale\" [1] (parameter) there");
    changed = small_model();
    changed.pop_back();
    const auto shorter = *tensor_manifest::make(changed);
    CHECK(base.first_difference(shorter) == "tensor 2 is \"norm.mean\" [3] (buffer) here and missing there");
    CHECK(shorter.first_difference(base) == "tensor 2 is missing here and \"norm.mean\" [3] (buffer) there");
}

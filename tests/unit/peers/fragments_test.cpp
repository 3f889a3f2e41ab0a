#include "peers/fragments.hpp"

#include "peers/replica.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::peers;

namespace {

/// An embedding, a norm, a matrix and a buffer: 1,000 × 8, 8, 60 × 50, 5.
core::tensor_manifest some_model() {
    return *core::tensor_manifest::make(
        {{"embedding", {1000, 8}}, {"norm", {8}}, {"matrix", {60, 50}}, {"mean", {5}, core::tensor_role::buffer}});
}

}  // namespace

TEST_CASE("a model is cut between rows, into parts of about as many elements, with every element in one") {
    const auto model = some_model();
    for (std::size_t count = 1; count <= 40; ++count) {
        INFO(count << " parts");
        const auto parts = fragments::cut(model, count);
        REQUIRE(parts);
        REQUIRE(parts->count() == count);
        std::uint64_t at = 0;
        for (std::size_t i = 1; i <= count; ++i) {
            const auto& part = parts->of_round(i);
            CHECK(&part == &parts->of_round(i + 3 * count));
            REQUIRE(part.first == at);
            at += part.tensors.elements();
            const auto exact = static_cast<double>(model.elements()) / static_cast<double>(count);
            CHECK(static_cast<double>(part.tensors.elements()) < exact + 60);
            CHECK(static_cast<double>(part.tensors.elements()) > exact - 60);
        }
        CHECK(at == model.elements());
        CHECK(parts->largest().tensors.elements() * count >= model.elements());
    }
    const auto one = *fragments::cut(model, 1);
    CHECK(one.of_round(7).tensors == model);
    const auto three = *fragments::cut(model, 3);
    // 11,013 / 3 = 3,671: 459 rows of 8 are 3,672; and 918 rows, for 7,342.
    CHECK(three.of_round(1).tensors == *core::tensor_manifest::make({{"embedding", {459, 8}}}));
    CHECK(three.of_round(2).tensors == *core::tensor_manifest::make({{"embedding", {459, 8}}}));
    CHECK(three.of_round(3).tensors ==
          *core::tensor_manifest::make(
              {{"embedding", {82, 8}}, {"norm", {8}}, {"matrix", {60, 50}}, {"mean", {5}, core::tensor_role::buffer}}));
}

TEST_CASE("more parts than there are rows to cut between are refused, with how many are possible") {
    const auto vectors = *core::tensor_manifest::make({{"a", {100}}, {"b", {100}}, {"c", {100}}});
    CHECK(fragments::cut(vectors, 3));
    const auto refused = fragments::cut(vectors, 4);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == core::errc::config);
    CHECK(refused.error().message.find("exchange.fragments = 4") != std::string::npos);
    CHECK(refused.error().message.ends_with("; 3 is possible"));
    const auto uneven = *core::tensor_manifest::make({{"a", {1}}, {"b", {1}}, {"c", {1}}, {"d", {1}}, {"e", {96}}});
    CHECK(fragments::cut(uneven, 64).error().message.ends_with("; 2 is possible"));
}

TEST_CASE("a round moves its own part of the state, and its root is that of all of it") {
    const auto model = *core::tensor_manifest::make({{"w", {6000, 100}}});
    const auto parts = *fragments::cut(model, 4);
    model_state before;
    before.anchor.assign(model.elements(), 2);
    before.momentum.assign(model.elements(), 1);
    seal(before);
    round_plan plan;
    plan.inner_steps = 5;
    plan.outer_lr = 1;
    plan.outer_momentum = 0.5F;
    for (std::uint64_t round = 1; round <= 4; ++round) {
        const auto& part = parts.of_round(round);
        const core::flat_buffer aggregate(part.tensors.elements(), 1);
        commit_record commit;
        commit.round = round;
        commit.contributions = {{1, 10, 5, 2.0, {}}};
        const auto after = apply_round(part, before, plan, commit, aggregate);
        for (std::size_t i = 0; i < model.elements(); i += 99) {
            const bool inside = i >= part.first && i < part.first + part.tensors.elements();
            REQUIRE((after->anchor[i] != 2) == inside);
            REQUIRE((after->momentum[i] != 1) == inside);
        }
        auto anew = *after;
        seal(anew);
        CHECK(after->leaves == anew.leaves);
        CHECK(after->root == anew.root);
        before = *after;
        std::ranges::fill(before.anchor, 2.0F);
        std::ranges::fill(before.momentum, 1.0F);
        seal(before);
    }
}

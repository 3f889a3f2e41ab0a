#include "optim/aggregate.hpp"

#include <limits>

#include "optim/outer.hpp"
#include "optim/schedule.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using optim::contribution_weight;

namespace {

core::tensor_manifest two_tensors() {
    core::tensor_spec w, b;
    w.name = "w";
    w.shape = {2, 2};
    b.name = "running_mean";
    b.shape = {2};
    b.role = core::tensor_role::buffer;
    return core::tensor_manifest::make({w, b}).value();
}

std::vector<float> aggregate(const core::tensor_manifest& m, const std::vector<contribution_weight>& w,
                             const std::vector<std::vector<float>>& deltas) {
    auto a = optim::aggregator::begin(m, w);
    REQUIRE(a);
    for (std::size_t i = 0; i < deltas.size(); ++i) REQUIRE(a->add(i, deltas[i]));
    std::vector<float> out(m.elements());
    a->finish(out);
    return out;
}

}  // namespace

TEST_CASE("with equal steps and tokens the aggregate is the mean") {
    const auto m = two_tensors();
    CHECK(aggregate(m, {{64, 10}, {64, 10}}, {{1, 2, 3, 4, 10, 20}, {3, 2, 1, 0, 30, 40}}) ==
          std::vector<float>{2, 2, 2, 2, 20, 30});
}

TEST_CASE("with equal steps a contribution weighs as its tokens") {
    const auto m = two_tensors();
    CHECK(aggregate(m, {{100, 10}, {300, 10}}, {{4, 4, 4, 4, 4, 4}, {0, 0, 0, 0, 0, 0}}) ==
          std::vector<float>{1, 1, 1, 1, 1, 1});
}

TEST_CASE("with unequal steps tokens count once") {
    // Every inner step moves a parameter by 1. Peer 0 makes 10 steps, peer 1 makes 30 with as many tokens a step:
    // w = ¼, ¾; Σ w H = 25 steps; each Δ/H is 1, so the mean is 25. Tokens × Δ alone would give 25 too for parameters
    // that move equally, but 0.25·10 against 0.75·30 when only one of them moves.
    const auto m = two_tensors();
    const std::vector<contribution_weight> w{{10, 10}, {30, 30}};
    CHECK(aggregate(m, w, {{10, 10, 10, 10, 0, 0}, {30, 30, 30, 30, 0, 0}})[0] == 25);
    // Only peer 0's parameter moves: a quarter of the tokens, a quarter of 25 steps.
    CHECK(aggregate(m, w, {{10, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0}})[0] == 6.25F);
    CHECK(aggregate(m, w, {{0, 0, 0, 0, 0, 0}, {30, 0, 0, 0, 0, 0}})[0] == 18.75F);
    // Buffers are averaged by tokens, whatever the steps.
    CHECK(aggregate(m, w, {{0, 0, 0, 0, 4, 0}, {0, 0, 0, 0, 8, 0}})[4] == 7);
}

TEST_CASE("the order of the round fixes the bits") {
    const auto m = two_tensors();
    const std::vector<contribution_weight> w{{1, 1}, {1, 1}, {1, 1}};
    const std::vector<float> big(6, 3e7F), one(6, 1.0F), minus(6, -3e7F);
    const auto first = aggregate(m, w, {big, one, minus});
    CHECK(first == aggregate(m, w, {big, one, minus}));
    // The sum is not associative: another order is another result, so the order must be agreed.
    CHECK(first != aggregate(m, w, {big, minus, one}));
}

TEST_CASE("no contributors give zero") { CHECK(aggregate(two_tensors(), {}, {}) == std::vector<float>(6, 0.0F)); }

TEST_CASE("claims and values beyond reason are refused") {
    const auto m = two_tensors();
    const auto refused = [&](contribution_weight w) {
        const std::vector<contribution_weight> list{{5, 5}, w};
        const auto r = optim::aggregator::begin(m, list);
        return !r && r.error().code == core::errc::malformed;
    };
    CHECK(refused({0, 1}));
    CHECK(refused({1, 0}));
    CHECK(refused({optim::max_contribution_tokens + 1, 1}));
    CHECK(refused({1, optim::max_contribution_steps + 1}));
    CHECK(refused({~std::uint64_t{0}, ~std::uint64_t{0}}));
    CHECK_FALSE(refused({optim::max_contribution_tokens, optim::max_contribution_steps}));

    const std::vector<contribution_weight> one{{1, 1}};
    auto a = optim::aggregator::begin(m, one);
    REQUIRE(a);
    std::vector<float> bad{1, 1, 1, std::numeric_limits<float>::quiet_NaN(), 1, 1};
    const auto r = a->add(0, bad);
    REQUIRE_FALSE(r);
    CHECK(r.error().code == core::errc::limit);
    CHECK(r.error().message.find("w") != std::string::npos);
    bad[3] = 1;
    REQUIRE(a->add(0, bad));
    std::vector<float> out(6);
    a->finish(out);
    CHECK(out == bad);
}

TEST_CASE("positions and ramp") {
    CHECK(optim::run_position(300, 0, 30, 30) == 300);
    CHECK(optim::run_position(300, 29, 30, 30) == 329);
    // A peer at a third of the speed covers the round's 30 positions in 10 steps.
    CHECK(optim::run_position(300, 9, 30, 10) == 327);
    CHECK(optim::run_position(300, 1, 10, 30) == 300);
    CHECK(optim::ramp(0) == Approx(0.05));
    CHECK(optim::ramp(18) == Approx(0.95));
    CHECK(optim::ramp(19) == 1);
    CHECK(optim::ramp(1'000'000) == 1);
}

#include "optim/schedule.hpp"

#include "tests/test.hpp"

using namespace longhaul;

namespace {

optim::round_plan plan_of(const optim::outer_config& outer, std::string_view codec) {
    return optim::fixed_plan({}, outer, **compress::find_codec(codec));
}

}  // namespace

TEST_CASE(
    "what the outer section leaves open depends on the codec: momentum for fine ones, none behind error feedback") {
    const auto fine = plan_of({}, "int8");
    CHECK(fine.nesterov);
    CHECK(fine.outer_lr == 0.7F);
    CHECK(fine.outer_momentum == 0.8F);
    CHECK(fine.codec == "int8");
    const auto coarse = plan_of({}, "topk-64/4096");
    CHECK_FALSE(coarse.nesterov);
    CHECK(coarse.outer_lr == 1.0F);
    CHECK(coarse.outer_momentum == 0.0F);
}

TEST_CASE("plain SGD is plain: without outer.momentum there is none, and with it what was asked for") {
    optim::outer_config outer;
    outer.optimizer = "sgd";
    CHECK(plan_of(outer, "bf16").outer_momentum == 0.0F);
    CHECK(plan_of(outer, "bf16").outer_lr == 1.0F);
    outer.momentum = 0.5;
    outer.lr = 0.25;
    const auto asked = plan_of(outer, "topk-64/4096");
    CHECK_FALSE(asked.nesterov);
    CHECK(asked.outer_momentum == 0.5F);
    CHECK(asked.outer_lr == 0.25F);
    outer.optimizer = "nesterov";
    CHECK(plan_of(outer, "topk-64/4096").nesterov);
}

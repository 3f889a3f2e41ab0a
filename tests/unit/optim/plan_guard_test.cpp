#include "optim/plan_guard.hpp"

#include <cmath>

#include "core/counter_random.hpp"
#include "optim/controller.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::optim;

namespace {

round_plan plan_of_steps(std::uint64_t H) {
    round_plan p;
    p.inner_steps = H;
    return p;
}

void rounds(plan_guard& g, const round_plan& p, int count, double loss) {
    for (int i = 0; i < count; ++i) g.committed(p, loss + 0.001 * (i % 2));
}

}  // namespace

TEST_CASE("a plan after which the loss is higher is taken back, and not tried again for a while") {
    plan_guard g;
    const auto first = plan_of_steps(30), second = plan_of_steps(300);
    rounds(g, first, 8, 3.0);
    CHECK_FALSE(g.taken_back());
    rounds(g, second, 4, 3.2);
    CHECK_FALSE(g.taken_back());  // a few rounds may be anything
    rounds(g, second, 1, 3.2);
    REQUIRE(g.taken_back());
    CHECK(same_setting(g.taken_back()->back_to, first));
    CHECK(g.taken_back()->reason.starts_with("back to H = 30 with bf16: with H = 300 with bf16 the loss rose from 3"));
    CHECK_FALSE(g.allows(second));
    CHECK(g.allows(first));
    // Still high, and yet nothing leads back to what was taken back.
    rounds(g, first, 20, 3.4);
    CHECK_FALSE(g.taken_back());
    CHECK_FALSE(g.allows(second));
    rounds(g, first, static_cast<int>(plan_guard::banned_for), 2.9);
    CHECK(g.allows(second));
}

TEST_CASE("a loss that rises later under the new plan counts as well, and what is no number does not") {
    plan_guard g;
    rounds(g, plan_of_steps(30), 5, 3.0);
    rounds(g, plan_of_steps(100), 20, 2.9);
    CHECK_FALSE(g.taken_back());
    g.committed(plan_of_steps(100), std::nan(""));
    CHECK_FALSE(g.taken_back());
    rounds(g, plan_of_steps(100), 5, 3.1);
    CHECK(g.taken_back());
}

TEST_CASE("noise on a falling loss takes nothing back") {
    int taken = 0;
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        plan_guard g;
        for (std::uint64_t i = 0; i < 60; ++i) {
            const double loss =
                4 - 0.02 * static_cast<double>(i) + 0.05 * static_cast<double>(core::random_normal(seed, i));
            g.committed(plan_of_steps(30 + i / 15), loss);
            taken += g.taken_back() ? 1 : 0;
        }
    }
    CHECK(taken == 0);
}

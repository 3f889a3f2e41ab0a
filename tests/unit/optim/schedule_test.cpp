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

TEST_CASE("whoever is slower does fewer inner steps in the time of most, and whoever is faster more") {
    using list = std::vector<std::uint64_t>;
    const auto steps = [](std::vector<double> seconds, list before = {}) {
        before.resize(seconds.size());
        return optim::balanced_steps(30, seconds, before, std::vector<double>(seconds.size()));
    };
    CHECK(steps({}).empty());
    CHECK(steps({0, 0, 0}) == list{30, 30, 30});
    CHECK(steps({0.1, 0.1, 0.3}) == list{30, 30, 10});
    CHECK(steps({0.1, 0.2, 0.1, 0.05}) == list{30, 15, 30, 60});
    // Of two, the slower one does H, and the faster one more: nobody does less than was asked for.
    CHECK(steps({0.1, 0.15}) == list{45, 30});
    // At most twice, at least an eighth; who has not trained yet does H.
    CHECK(steps({0.1, 0.001, 9, 0.1, 0}) == list{30, 60, 4, 30, 30});
    CHECK(optim::balanced_steps(1, std::vector{0.1, 0.1, 0.9}, list(3), std::vector<double>(3)) == list{1, 1, 1});
    // Small differences change nothing, whatever was done before.
    CHECK(steps({0.1, 0.109, 0.092}) == list{30, 30, 30});
    CHECK(steps({0.1, 0.1, 0.2}, {0, 0, 16}) == list{30, 30, 16});
    CHECK(steps({0.1, 0.1, 0.2}, {0, 0, 20}) == list{30, 30, 15});
}

TEST_CASE("whoever begins late does the steps that are left of the time, also if its pace is not known yet") {
    using list = std::vector<std::uint64_t>;
    const auto steps = [](std::vector<double> late, list before = list(3)) {
        return optim::balanced_steps(30, std::vector{0.1, 0.1, 0.0}, before, late);
    };
    CHECK(steps({0, 0, 0}) == list{30, 30, 30});
    CHECK(steps({0, 1.0, 1.5}) == list{30, 20, 15});
    // Nobody waits for it, also when it is late by little; and it does something, also when there is no time left.
    CHECK(steps({0, 0.3, 0.1}, {0, 30, 30}) == list{30, 27, 29});
    CHECK(steps({0, 5.0, 3.0}) == list{30, 4, 4});
    CHECK(optim::balanced_steps(30, std::vector{0.0, 0.0}, list(2), std::vector{1.0, 0.0}) == list{30, 30});
}

TEST_CASE("who did twice the steps of a longer round never does more than twice those of a shorter one") {
    for (const std::uint64_t H : {8U, 30U, 35U, 240U, 250U, 299U}) {
        for (const std::uint64_t before : {0U, 60U, 80U, 600U}) {
            const auto steps = optim::balanced_steps(H, std::vector<double>{1.0, 0.4},
                                                     std::vector<std::uint64_t>{H, before}, std::vector<double>{0, 0});
            CHECK(steps[1] <= optim::most_own_steps(H));
            CHECK(steps[1] > H);
        }
    }
}

TEST_CASE("below the limit of a late outer step a run settles, and from it on it does not") {
    // Steps that reach the optimum of a quadratic, at 0: the pseudo-gradient is where they began.
    const auto end_of = [](bool nesterov, double lr, double beta) {
        double anchor = 1, momentum = 0, delta = 1, most = 0;
        for (int r = 0; r < 20'000; ++r) {
            const double next = anchor - delta;  // the next steps begin before this one is merged
            momentum = beta * momentum + delta;
            anchor -= lr * (nesterov ? delta + beta * momentum : momentum);
            delta = next;
            if (r > 19'000) most = std::max(most, std::abs(anchor));
            if (!(std::abs(anchor) < 1e12)) return 1e12;
        }
        return most;
    };
    for (const bool nesterov : {true, false}) {
        for (const double beta : {0.0, 0.3, 0.5, 0.8, 0.9}) {
            const double limit = optim::outer_lr_limit_of_delay(nesterov, beta);
            INFO("momentum " << beta << ", limit " << limit);
            CHECK(end_of(nesterov, 0.98 * limit, beta) < 1e-3);
            CHECK(end_of(nesterov, 1.02 * limit, beta) > 1);
        }
    }
    // DESIGN §6 measured 1.98, 1.36, 1.14 and 1.08.
    CHECK(optim::outer_lr_limit_of_delay(true, 0) == Approx(2));
    CHECK(optim::outer_lr_limit_of_delay(true, 0.5) == Approx(1.37).epsilon(0.01));
    CHECK(optim::outer_lr_limit_of_delay(true, 0.8) == Approx(1.16).epsilon(0.01));
    CHECK(optim::outer_lr_limit_of_delay(true, 0.9) == Approx(1.09).epsilon(0.01));
}

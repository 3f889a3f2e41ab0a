#include "optim/controller.hpp"

#include <algorithm>
#include <cmath>

#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul::optim;

namespace {

round_plan setting(std::uint64_t H, std::string codec = "bf16") {
    round_plan p;
    p.inner_steps = H;
    p.codec = std::move(codec);
    return p;
}

/// Every H with one codec, at the same exchange.
std::vector<plan_alternative> with_exchange(double seconds, std::uint64_t least = 30, std::uint64_t most = 300) {
    std::vector<plan_alternative> all;
    for (const auto H : steps_to_try(least, most)) all.push_back({setting(H), seconds});
    return all;
}

plan_decision decide(const std::vector<plan_alternative>& all, double step, std::optional<round_plan> present = {},
                     std::uint64_t kept = dwell_rounds, double beside = 0) {
    const auto quality = [](const round_plan& p) { return prior_quality(p); };
    return choose_plan(all, {step, beside, 1}, quality, present, kept);
}

/// Where (H·T_c + X)/H · (1 + κ(H/100)^q) is least: X/H² · N(H) = (T_c + X/H) · N'(H), by bisection.
double best_steps(double step, double exchange) {
    const auto slope = [&](double H) {
        const double drift = 0.6 * std::pow(H / 100, 0.625);
        return (step + exchange / H) * 0.625 * drift / H - exchange / (H * H) * (1 + drift);
    };
    double low = 1e-3, high = 1e6;
    for (int i = 0; i < 200; ++i) {
        const double middle = std::sqrt(low * high);
        (slope(middle) < 0 ? low : high) = middle;
    }
    return low;
}

}  // namespace

TEST_CASE("the steps that a controller tries go from least to most, by about a third") {
    for (const auto& [least, most] :
         std::vector<std::pair<std::uint64_t, std::uint64_t>>{{30, 300}, {1, 500}, {7, 7}}) {
        const auto steps = steps_to_try(least, most);
        CHECK(steps.front() == least);
        CHECK(steps.back() == most);
        for (std::size_t i = 1; i < steps.size(); ++i) {
            CHECK(steps[i] > steps[i - 1]);
            CHECK(static_cast<double>(steps[i]) <=
                  std::max<double>(1.5 * static_cast<double>(steps[i - 1]), static_cast<double>(steps[i - 1] + 1)));
        }
    }
}

TEST_CASE("the prior: what was measured, and coarser codecs need a little more") {
    CHECK(prior_quality(setting(100)) == Approx(1.6));
    CHECK(prior_quality(setting(100, "f32")) == prior_quality(setting(100, "bf16")));
    CHECK(prior_quality(setting(100, "int8")) == Approx(1.6 * 1.005));
    CHECK(prior_quality(setting(100, "int4")) == Approx(1.6 * 1.01));
    CHECK(prior_quality(setting(100, "topk-64/4096")) > prior_quality(setting(100, "int4")));
    for (const std::uint64_t H : {1U, 30U, 299U}) CHECK(prior_quality(setting(H + 1)) > prior_quality(setting(H)));
}

TEST_CASE("H is the one of the grid that lies beside the least of the cost") {
    longhaul::core::seeded_entropy random(3);
    for (int i = 0; i < 500; ++i) {
        const double step = std::exp(8 * random.unit() - 6), exchange = step * std::exp(9 * random.unit() - 2);
        const double best = best_steps(step, exchange);
        const auto chosen = static_cast<double>(decide(with_exchange(exchange, 1, 3000), step).chosen.plan.inner_steps);
        INFO("T_c " << step << ", X " << exchange << ": best " << best << ", chosen " << chosen);
        const double within = std::clamp(best, 1.0, 3000.0);
        CHECK(chosen <= 1.5 * within + 1);
        CHECK(chosen >= within / 1.5 - 1);
    }
}

TEST_CASE("slower links never mean fewer steps, and fast ones mean the fewest") {
    std::uint64_t before = 0;
    for (double exchange = 1e-3; exchange < 1e4; exchange *= 1.7) {
        const auto H = decide(with_exchange(exchange), 0.1).chosen.plan.inner_steps;
        CHECK(H >= before);
        before = H;
    }
    CHECK(before == 300);
    CHECK(decide(with_exchange(1e-3), 0.1).chosen.plan.inner_steps == 30);
}

TEST_CASE("a smaller codec is chosen where its bytes cost more than it loses") {
    const auto at = [](double seconds_of_bf16) {
        const std::vector<plan_alternative> all{{setting(30), seconds_of_bf16},
                                                {setting(30, "int8"), seconds_of_bf16 / 2},
                                                {setting(30, "int4"), seconds_of_bf16 / 4}};
        return decide(all, 0.1).chosen.plan.codec;
    };
    CHECK(at(0.01) == "bf16");
    CHECK(at(1) == "int4");
    // Equal in cost: the one that sends less.
    const std::vector<plan_alternative> equal{{setting(30, "f32"), 2}, {setting(30), 1}};
    CHECK(choose_plan(
              equal, {0.1, 0, 1}, [](const round_plan& p) { return p.codec == "f32" ? 1.0 : 1.25; }, {}, 0)
              .chosen.plan.codec == "bf16");
}

TEST_CASE("a plan stays unless another one clearly costs less, for a few rounds unless that is urgent") {
    const auto cost = [](double of_30, double of_60) {
        // With N = 1 the cost is the round over its steps.
        return std::vector<plan_alternative>{{setting(30), 30 * (of_30 - 1)}, {setting(60), 60 * (of_60 - 1)}};
    };
    const auto chosen = [&](double of_60, std::uint64_t kept) {
        const auto d = choose_plan(cost(10, of_60), {1, 0, 1}, [](const auto&) { return 1.0; }, setting(30), kept);
        CHECK(d.changed == (d.chosen.plan.inner_steps == 60));
        CHECK_FALSE(d.reason.empty());
        return d.chosen.plan.inner_steps;
    };
    CHECK(chosen(8.9, 100) == 30);
    CHECK(chosen(8.7, dwell_rounds) == 60);
    CHECK(chosen(8.7, dwell_rounds - 1) == 30);
    CHECK(chosen(4.9, 1) == 60);
    CHECK(chosen(5.1, 1) == 30);
}

TEST_CASE("nothing changes before steps and links are measured") {
    const auto unknown = decide(with_exchange(100), 0, setting(40));
    CHECK(unknown.chosen.plan.inner_steps == 40);
    CHECK_FALSE(unknown.changed);
    auto all = with_exchange(100);
    all.back().exchange_seconds = 0;
    const auto d = decide(all, 0.1, setting(300), 100);
    CHECK(d.chosen.plan.inner_steps == 300);
    CHECK_FALSE(d.changed);
}

TEST_CASE("what a round takes beside its steps and its exchange counts like an exchange") {
    const auto with = decide(with_exchange(1), 0.1, {}, 0, 30).chosen.plan.inner_steps;
    CHECK(with == decide(with_exchange(31), 0.1).chosen.plan.inner_steps);
    CHECK(with > decide(with_exchange(1), 0.1).chosen.plan.inner_steps);
}

TEST_CASE("rounds that took longer or shorter than predicted correct the next prediction") {
    pace_history longer, shorter;
    CHECK(longer.with(0.5).round_seconds(setting(10), 2) == Approx(7));
    for (int i = 0; i < 5; ++i) {
        longer.add(9, 5, 2, 0);
        shorter.add(6, 5, 2, 0);
    }
    CHECK(longer.with(0.5).beside_seconds == Approx(2));
    CHECK(longer.with(0.5).round_seconds(setting(10), 2) == Approx(9));
    CHECK(longer.with(0.5).round_seconds(setting(10), 4) == Approx(11));
    CHECK(shorter.with(0.5).exchange_share == Approx(0.5));
    CHECK(shorter.with(0.5).round_seconds(setting(10), 2) == Approx(6));
    CHECK(shorter.with(0.5).round_seconds(setting(10), 4) == Approx(7));
    pace_history noise;
    for (int i = 0; i < 5; ++i) noise.add(4.9, 5, 0.1, 0);
    CHECK(noise.with(0.5).exchange_share == 1);
    // One that stalled says nothing; what nobody predicted, neither.
    longer.add(1000, 5, 2, 0);
    longer.add(1000, 5, 0, 0);
    CHECK(longer.with(0.5).round_seconds(setting(10), 2) == Approx(9));
}

TEST_CASE("a round late, the exchange costs nothing beside steps that take longer") {
    auto late = setting(10);
    late.delay = 1;
    pace_history history;
    CHECK(history.with(0.5).round_seconds(late, 2) == Approx(5));
    CHECK(history.with(0.5).round_seconds(late, 7) == Approx(7));
    // Behind the steps nothing of it can be seen; in front of them all of it.
    for (int i = 0; i < 5; ++i) history.add(5.1, 5, 2, 1);
    CHECK(history.with(0.5).beside_seconds == 0);
    for (int i = 0; i < 5; ++i) history.add(9, 5, 8, 1);
    CHECK(history.with(0.5).beside_seconds == Approx(1));
    CHECK(history.with(0.5).round_seconds(late, 8) == Approx(9));
    // Also if it was predicted to be behind them.
    pace_history surprised;
    for (int i = 0; i < 5; ++i) surprised.add(7, 4, 1, 1);
    CHECK(surprised.with(0.4).round_seconds(late, 1) == Approx(7));
}

TEST_CASE("a round of delay is chosen where it saves more time than it costs steps") {
    const auto at = [](double exchange) {
        std::vector<plan_alternative> all{{setting(100), exchange}, {setting(100), exchange}};
        all.back().plan.delay = 1;
        return decide(all, 0.1).chosen.plan.delay;
    };
    CHECK(at(0.2) == 0);
    CHECK(at(5) == 0);
    CHECK(at(9) == 1);
    CHECK(at(12) == 1);
    CHECK(at(30) == 0);
    CHECK(at(1000) == 0);
    auto late = setting(100);
    late.delay = 1;
    CHECK(prior_quality(late) > prior_quality(setting(100)));
    CHECK_FALSE(same_setting(late, setting(100)));
}

TEST_CASE("of rounds of several exchanges the prior knows the steps between two, and that some staleness is cheap") {
    auto plan = setting(30);
    plan.exchange_every = 1;
    CHECK(prior_quality(plan) == prior_quality(setting(1)));
    const auto late = [&plan](std::uint32_t tau) {
        auto p = plan;
        p.staleness = tau;
        return prior_quality(p) / prior_quality(plan);
    };
    CHECK(late(4) < 1.05);
    CHECK(late(4) > late(3));
    CHECK(late(14) == Approx(2 * 1.07));
    auto other = plan;
    other.staleness = 2;
    CHECK_FALSE(same_setting(plan, other));
    CHECK(name_of(other) == "an exchange after 1 of 30 steps with bf16, 2 late");
}

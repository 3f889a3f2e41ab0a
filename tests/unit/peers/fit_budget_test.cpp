#include "peers/command/fit_budget.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using peers::command::expected_seconds;
using peers::command::fit;
using peers::command::sharing;
using peers::command::step_timing;

namespace {

peers::run_config configured() {
    peers::run_config c;
    c.stop.rounds = 100;
    c.inner.steps = 30;
    c.inner.warmup = 100;
    c.eval.every = 1;
    return c;
}

}  // namespace

TEST_CASE("a fitted run takes about its budget, however fast the machine is") {
    for (const double step : {0.001, 0.005, 0.01, 0.02, 0.05}) {
        for (const int peers : {1, 2, 4, 8}) {
            const step_timing timing{.step_seconds = step, .eval_seconds = 0.1};
            const sharing with{.peers = peers, .threads = 1, .cores = 2};
            const auto c = fit(configured(), timing, with, 150);
            const auto expected = expected_seconds(c, timing, with);
            INFO("step " << step << ", peers " << peers << ": " << c.stop.rounds << " × " << c.inner.steps);
            CHECK(c.stop.rounds >= 20);
            CHECK(c.stop.rounds <= 1000);
            CHECK(c.inner.steps <= 30);
            CHECK(expected <= 150 * 1.001);
            // One round more would be too long, unless ten times the configured length was reached.
            if (c.stop.rounds > 20 && c.stop.rounds < 1000) CHECK(expected >= 150 - 150.0 / double(c.stop.rounds));
        }
    }
}

TEST_CASE("peers that share cores take turns") {
    const step_timing timing{.step_seconds = 0.01, .eval_seconds = 0};
    auto c = configured();
    const auto alone = expected_seconds(c, timing, {.peers = 1, .threads = 1, .cores = 2});
    const auto pair = expected_seconds(c, timing, {.peers = 2, .threads = 1, .cores = 2});
    const auto four = expected_seconds(c, timing, {.peers = 4, .threads = 1, .cores = 2});
    CHECK(alone == Approx(100 * (30 * 0.01 + 0.05)));
    CHECK(pair == alone);
    CHECK(four == Approx(100 * (30 * 0.02 + 0.05)));
    CHECK(expected_seconds(c, timing, {.peers = 2, .threads = 2, .cores = 2}) == four);
    const sharing far_apart{.peers = 4, .threads = 1, .cores = 2, .exchange_seconds = 0.4};
    CHECK(expected_seconds(c, timing, far_apart) == Approx(100 * (30 * 0.02 + 0.4)));
}

TEST_CASE("a machine that is too slow for twenty rounds gets shorter rounds") {
    const step_timing timing{.step_seconds = 1, .eval_seconds = 0};
    const auto c = fit(configured(), timing, {.peers = 1, .threads = 1, .cores = 1}, 300);
    CHECK(c.stop.rounds == 20);
    CHECK(c.inner.steps == 14);  // 300 s / 20 rounds less the overhead
    const auto hopeless = fit(configured(), timing, {.peers = 1, .threads = 1, .cores = 1}, 0.1);
    CHECK(hopeless.stop.rounds == 20);
    CHECK(hopeless.inner.steps == 10);  // a longer run is better than another algorithm
}

TEST_CASE("the warm-up keeps its share of a shortened run and does not grow with a longer one") {
    const sharing with{.peers = 1, .threads = 1, .cores = 1};
    const auto half = fit(configured(), {.step_seconds = 0.1, .eval_seconds = 0}, with, 100 * 3.05 / 2);
    CHECK(half.stop.rounds == 50);
    CHECK(half.inner.warmup == 50);
    const auto longer = fit(configured(), {.step_seconds = 0.001, .eval_seconds = 0}, with, 150);
    CHECK(longer.stop.rounds > 100);
    CHECK(longer.inner.warmup == 100);
}

TEST_CASE("a run that is configured shorter than twenty rounds stays so") {
    auto c = configured();
    c.stop.rounds = 5;
    const sharing with{.peers = 1, .threads = 1, .cores = 1};
    CHECK(fit(c, {.step_seconds = 0.1, .eval_seconds = 0}, with, 5 * 3.05).stop.rounds == 5);
    CHECK(fit(c, {.step_seconds = 10, .eval_seconds = 0}, with, 1).stop.rounds == 5);
}

/// Rounds whose plan a controller chooses.

#include "tests/unit/peers/round_world.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

/// Lines of so many bytes a second between three members, whose steps take 0.1 s.
void report(table& t, double bytes_per_second) {
    for (const peer_number n : {1U, 2U, 3U}) {
        lines_message m;
        m.up = m.down = bytes_per_second;
        m.step_seconds = 0.1;
        for (const peer_number other : {1U, 2U, 3U}) {
            if (other != n) m.links.push_back({other, 100'000});
        }
        t.coordinator.lines(n, m, t.now);
    }
}

}  // namespace

TEST_CASE("a controller chooses H and the codec from what members report, and the run ends after its steps") {
    auto rules = table::rules(30, 100s);  // of 10 steps: 300 in all
    rules.choices.exchange["bf16"] = {{.chunks = 64, .payload_bytes = 8 << 20}};
    rules.choices.exchange["int4"] = {{.chunks = 64, .payload_bytes = 2 << 20}};
    for (const std::uint64_t H : {10U, 30U, 100U}) {
        for (const auto* codec : {"bf16", "int4"}) {
            auto p = short_plan(H);
            p.codec = codec;
            rules.choices.to_choose.push_back(p);
        }
    }
    table t(3, rules);
    const auto first = t.decide();
    REQUIRE(first.plan);
    CHECK_FALSE(first.plan->changed);
    CHECK(std::get<round_record>(*first.propose).plan == rules.choices.first);
    t.whole_round(1s);
    report(t, 1e9);
    t.whole_round(1s);
    CHECK(t.led.commit_of(2)->plan.inner_steps == 10);
    // Bf16 takes two minutes now: that cannot wait.
    report(t, 125e3);
    const auto d = t.decide();
    REQUIRE(d.plan);
    CHECK(d.plan->changed);
    CHECK(d.plan->alternatives.size() == 6);
    const auto opened = t.open();
    CHECK(opened.plan.inner_steps == 100);
    CHECK(opened.plan.codec == "int4");
    CHECK(opened.exchange.reason.starts_with("H = 100 with int4"));
    CHECK(opened.exchange.predicted_seconds == Approx(d.plan->chosen.exchange_seconds));
    t.now += 60s;
    for (const peer_number n : {1U, 2U, 3U}) t.ready(n);
    t.step<commit_record>();
    REQUIRE(t.coordinator.outcome());
    CHECK(t.coordinator.outcome()->round == 3);
    CHECK(t.coordinator.outcome()->seconds == Approx(60));
    for (const peer_number n : {1U, 2U, 3U}) t.coordinator.caught_up(n, 1, 3, t.now);
    CHECK(t.led.position() == 120);
    // Another coordinator goes on with it: its plan is in the log.
    auto taken_over = t;
    taken_over.coordinator = round_coordinator(rules, self);
    taken_over.coordinator.log_advanced(taken_over.led, t.now);
    for (const peer_number n : {1U, 2U, 3U}) taken_over.coordinator.caught_up(n, 1, 3, taken_over.now);
    const auto next = taken_over.open();
    CHECK(next.plan.inner_steps == 100);
    CHECK(next.plan.codec == "int4");
    // The rest is less than a round.
    t.whole_round(60s);
    CHECK(t.led.position() == 220);
    t.whole_round(60s);
    CHECK(t.led.commit_of(5)->plan.inner_steps == 80);
    CHECK(t.led.position() == 300);
    CHECK(t.waits());
}

TEST_CASE("a plan under which the loss rises is taken back") {
    auto rules = table::rules(1000, 100s);
    rules.choices.exchange["bf16"] = {{.chunks = 64, .payload_bytes = 8 << 20}};
    for (const std::uint64_t H : {10U, 100U}) rules.choices.to_choose.push_back(short_plan(H));
    table t(3, rules);
    report(t, 1e9);
    for (int i = 0; i < 6; ++i) t.whole_round(1s);
    CHECK(t.led.commit_of(6)->plan.inner_steps == 10);
    report(t, 125e3);
    t.loss = 2.8;
    for (int i = 0; i < 5; ++i) t.whole_round(100s);
    CHECK(t.led.commit_of(7)->plan.inner_steps == 100);
    CHECK(t.led.commit_of(11)->plan.inner_steps == 100);
    const auto d = t.decide();
    REQUIRE(d.plan);
    CHECK(d.plan->changed);
    CHECK(d.plan->reason.starts_with("back to H = 10 with bf16"));
    for (int i = 0; i < 20; ++i) t.whole_round(100s);
    CHECK(t.led.commit_of(31)->plan.inner_steps == 10);
}

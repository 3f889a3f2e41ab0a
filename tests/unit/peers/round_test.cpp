#include "tests/unit/peers/round_world.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

TEST_CASE("the run ends after its rounds, and stands still while it is paused or stopped") {
    table t(2, 2);
    run_state_record phase;
    phase.state = run_phase::paused;
    t.led.apply(phase);
    CHECK(t.waits());
    phase.state = run_phase::running;
    t.led.apply(phase);
    t.open();
    // A pause lets an open round end.
    phase.state = run_phase::paused;
    t.led.apply(phase);
    t.now += 1s;
    t.ready(1);
    t.ready(2);
    t.step<commit_record>();
    CHECK(t.waits());
    phase.state = run_phase::running;
    t.led.apply(phase);
    t.open();
    phase.state = run_phase::stopped;
    t.led.apply(phase);
    t.ready(1);
    t.ready(2);
    CHECK(t.waits());
    phase.state = run_phase::running;
    t.led.apply(phase);
    t.step<commit_record>();
    CHECK(t.led.committed() == 2);
    CHECK(t.waits());
    CHECK_FALSE(t.decide().wake_at);
}

TEST_CASE("a round is committed at once when all members hold the same aggregate") {
    table t(3);
    t.open();
    t.now += 10s;
    t.ready(2);
    CHECK(t.waits());
    t.ready(3);
    CHECK(t.waits());
    t.ready(1);
    const auto c = t.step<commit_record>();
    CHECK(c.round == 1);
    CHECK(c.attempt == 1);
    CHECK(c.aggregate_root == digest_of(500));
    CHECK(c.state_root == digest_of(600));
    CHECK(c.contributions == std::vector<contribution>(t.led.commit_of(1)->commit.contributions));
    CHECK(t.led.tokens() == 300);
}

TEST_CASE("a majority commits after a short patience and not before") {
    table t(5);
    t.open();
    t.now += 4s;
    t.ready(1);
    t.ready(2);
    CHECK(t.waits());  // two of five
    t.ready(3);
    // A quarter of the four seconds that the round took.
    const auto until = t.now + 1s;
    CHECK(t.waits());
    CHECK(t.decide().wake_at == until);
    t.now = until - 1ns;
    CHECK(t.waits());
    t.now = until;
    t.step<commit_record>();
}

TEST_CASE("patience is never longer than the grace and counts from the majority on") {
    table t(5);
    t.open();
    t.now += 1000s;
    for (const auto m : {1, 2, 3, 4, 5}) t.progress(static_cast<peer_number>(m), {1, 2, 3, 4, 5});
    t.ready(1);
    t.ready(2);
    t.ready(3);
    const auto until = t.now + 2s;
    CHECK(t.decide().wake_at == until);
    t.now += 1s;
    t.ready(4);  // neither a fourth READY nor talk of progress lengthens it
    t.progress(3, {1, 2, 3, 4, 5}, 1, 1);
    t.ready(2);
    CHECK(t.waits());
    CHECK(t.decide().wake_at == until);
    t.now = until;
    t.step<commit_record>();
}

TEST_CASE("half of the members is no majority") {
    table t(4);
    t.open();
    t.now += 4s;
    t.ready(1);
    t.ready(2);
    t.now += 50s;
    CHECK(t.waits());
    t.ready(3);
    t.now += 2s;
    t.step<commit_record>();
}

TEST_CASE("nothing is committed without the coordinator's own READY when it is a member") {
    table t(4);
    t.open();
    t.now += 4s;
    t.ready(2);
    t.ready(3);
    t.ready(4);
    t.now += 90s;
    CHECK(t.waits());
    t.ready(1, 9);  // it holds another aggregate: still not
    CHECK(t.waits());
    CHECK_FALSE(t.decide().problem.empty());
    t.ready(1);
    t.step<commit_record>();
}

TEST_CASE("a coordinator that is no member lets the members' majority decide") {
    table t(4);
    t.coordinator.gone(1);
    CHECK(t.open().members == numbers{2, 3, 4});
    t.now += 4s;
    t.ready(2);
    t.ready(3);
    t.ready(4);
    t.step<commit_record>();
}

TEST_CASE("a dead member opens the next attempt: without its payload unless everybody alive has it") {
    table t(4);
    t.open();
    t.now += 1s;
    t.delivered({1, 2, 3}, {4});
    t.delivered({1, 2}, {3});
    t.coordinator.gone(4);
    auto r = t.step<round_record>();
    CHECK(r.attempt == 2);
    CHECK(r.members == numbers{1, 2, 3});
    CHECK(r.contributors == numbers{1, 2, 3, 4});
    CHECK(r.reason == "lost peer 4");
    t.coordinator.gone(3);
    r = t.step<round_record>();
    CHECK(r.attempt == 3);
    CHECK(r.members == numbers{1, 2});
    CHECK(r.contributors == numbers{1, 2, 3, 4});
    t.coordinator.gone(2);
    r = t.step<round_record>();
    CHECK(r.members == numbers{1});
    CHECK(r.contributors == numbers{1, 3, 4});  // 2 had delivered nothing
    t.ready(1);
    CHECK(t.step<commit_record>().contributions.size() == 3);
}

TEST_CASE("a departed member counts as dead") {
    table t(3);
    t.open();
    depart_record left;
    left.number = 3;
    t.led.apply(left);
    t.coordinator.log_advanced(t.led, t.now);
    CHECK(t.step<round_record>().members == numbers{1, 2});
}

TEST_CASE("READY for an older attempt does not count for the next one") {
    table t(3);
    t.open();
    t.now += 1s;
    const auto old = t.ready_message_of();
    t.ready(1);
    t.coordinator.gone(3);
    t.step<round_record>();
    CHECK(t.waits());
    t.coordinator.ready(1, old, t.now);
    t.coordinator.ready(2, old, t.now);
    CHECK(t.waits());
    t.ready(1);
    t.ready(2);
    CHECK(t.step<commit_record>().attempt == 2);
}

TEST_CASE("READY and PROGRESS of other rounds, generations and strangers are ignored") {
    table t(3);
    t.coordinator.gone(3);
    t.open();
    t.now += 1s;
    auto m = t.ready_message_of();
    m.round = 2;
    t.coordinator.ready(1, m, t.now);
    m = t.ready_message_of();
    m.generation = 2;
    t.coordinator.ready(1, m, t.now);
    m = t.ready_message_of();
    t.coordinator.ready(3, m, t.now);
    t.coordinator.ready(77, m, t.now);
    t.ready(2);
    t.now += 10s;
    CHECK(t.waits());
    progress_message p;
    p.generation = 1;
    p.round = 2;
    p.payloads = {1, 2};
    t.coordinator.progress(1, p, t.now);
    p.generation = 2;
    p.round = 1;
    t.coordinator.progress(1, p, t.now);
    p.generation = 1;
    t.coordinator.progress(3, p, t.now);
    t.coordinator.gone(2);
    // Nobody is known to hold the payload of 2.
    CHECK(t.step<round_record>().contributors == numbers{1});
}

TEST_CASE("READY for what was committed counts as having applied it, and READY for anything else does not") {
    table t(4);
    // Two rounds: a peer may be one behind.
    for (int i = 0; i < 2; ++i) {
        CHECK(t.open().members == numbers{1, 2, 3, 4});
        t.now += 4s;
        t.ready(1);
        t.ready(2);
        t.ready(3);
        t.ready(4, 9);
        t.step<commit_record>();
    }
    CHECK(t.open().members == numbers{1, 2, 3});
}

TEST_CASE("a READY of an attempt that was replaced does not count as having applied the round") {
    table t(4);
    for (int i = 0; i < 2; ++i) {
        t.open();
        t.now += 1s;
        t.ready(4);
        t.coordinator.gone(3);
        t.step<round_record>();
        t.ready(1);
        t.ready(2);
        t.now += 10s;
        t.step<commit_record>();
        t.coordinator.caught_up(3, 1, t.led.committed(), t.now);
    }
    CHECK(t.open().members == numbers{1, 2, 3});
}

TEST_CASE("who trained from another state is named and has to catch up") {
    table t(4);
    for (int i = 0; i < 2; ++i) {
        t.open();
        t.now += 1s;
        auto astray = t.ready_message_of();
        astray.state_root = digest_of(13);
        t.ready(1);
        t.ready(2);
        CHECK(t.coordinator.diverged().empty());
        t.coordinator.ready(3, astray, t.now);
        CHECK(t.coordinator.diverged() == numbers{3});
        t.ready(4);
        const auto c = t.step<commit_record>();
        CHECK(c.state_root == digest_of(600));
    }
    CHECK(t.open().members == numbers{1, 2, 4});
    CHECK(t.coordinator.diverged().empty());
}

TEST_CASE("of two states with as many members each the coordinator's own is the run's") {
    for (const std::uint64_t theirs : {1, 2, 3, 4, 5, 6}) {  // the roots' order must not matter
        table t(2);
        t.open();
        t.now += 1s;
        auto astray = t.ready_message_of();
        astray.state_root = digest_of(theirs);
        t.ready(1);
        t.coordinator.ready(2, astray, t.now);
        CHECK(t.coordinator.diverged() == numbers{2});
        CHECK(t.step<commit_record>().state_root == digest_of(600));
    }
}

TEST_CASE("forged contributions under the right root are not committed") {
    table t(4);
    t.open();
    t.now += 1s;
    auto forged = t.ready_message_of();
    forged.contributions[2].payload = digest_of(1);
    forged.contributions[3].tokens = 1;
    t.coordinator.ready(2, forged, t.now);
    t.ready(1);
    t.ready(3);
    CHECK(t.waits());  // two of four vouch for the same
    t.ready(4);
    const auto c = t.step<commit_record>();
    CHECK(c.contributions[2].payload == payload_of(1, 1, 3));
    CHECK(c.contributions[3].tokens == 100);
}

TEST_CASE("a majority for contributions that the round does not have proposes nothing that the ledger would ignore") {
    table t(3);
    t.open();
    t.now += 1s;
    auto m = t.ready_message_of();
    m.contributions.pop_back();
    for (const peer_number n : {1, 2, 3}) t.coordinator.ready(n, m, t.now);
    CHECK(t.waits());
    CHECK_FALSE(t.decide().problem.empty());
}

TEST_CASE("an author of two payloads leaves the contributors when no majority holds the same one") {
    table t(4);
    t.open();
    t.now += 1s;
    auto second = t.ready_message_of(1);
    second.contributions[3].payload = digest_of(2);
    t.ready(1);
    t.ready(2);
    t.coordinator.ready(3, second, t.now);
    CHECK(t.waits());
    t.coordinator.ready(4, second, t.now);
    const auto r = t.step<round_record>();
    CHECK(r.members == numbers{1, 2, 3, 4});
    CHECK(r.contributors == numbers{1, 2, 3});
    CHECK(r.reason == "two payloads of peer 4");
}

TEST_CASE("roots that disagree without a majority stop the round and say so") {
    table t(2);
    t.open();
    t.now += 1s;
    t.ready(1, 1);
    t.ready(2, 2);
    CHECK(t.waits());
    CHECK(t.decide().problem.find("round 1") != std::string::npos);
    t.now += 1000s;
    CHECK(t.waits());
}

TEST_CASE("the first deadline is the configured one and later ones follow history") {
    table t(3, 1000, 60s);
    t.open();
    t.delivered({1, 2, 3}, {1, 2});
    t.now += 60s - 1ns;
    CHECK(t.waits());
    CHECK(t.decide().wake_at == t.now + 1ns);
    t.now += 1ns;
    auto r = t.step<round_record>();
    CHECK(r.members == numbers{1, 2, 3});  // alive, only late
    CHECK(r.contributors == numbers{1, 2});
    CHECK(r.reason == "deadline passed for peer 3");
    for (const peer_number n : {1, 2, 3}) t.ready(n);
    t.step<commit_record>();

    // After rounds of 10 s: one and a half times that and the grace. 60 s are forgotten as one of sixteen.
    for (int i = 0; i < 20; ++i) t.whole_round(10s);
    t.open();
    const auto begun = t.now;
    t.delivered({1, 2, 3}, {1, 2});
    CHECK(t.decide().wake_at == begun + 17s);
    t.now = begun + 17s;
    CHECK(t.step<round_record>().contributors == numbers{1, 2});
}

TEST_CASE("a round that was open before its coordinator says nothing about how long rounds take") {
    table before(3);
    before.whole_round(100s);
    before.open();
    // Another one takes over when all is done but the answers.
    table t(3, 1000, 50s);
    t.led = before.led;
    t.coordinator = round_coordinator(table::rules(1000, 50s), self);
    t.coordinator.log_advanced(t.led, t.now);
    for (peer_number n = 1; n <= 3; ++n) t.coordinator.caught_up(n, 1, 1, t.now);
    t.now += 1s;
    for (peer_number n = 1; n <= 3; ++n) t.ready(n);
    t.step<commit_record>();
    t.open();
    const auto opened = t.now;
    REQUIRE(t.waits());
    CHECK(*t.decide().wake_at == opened + 50s);
}

TEST_CASE("a deadline that everybody missed was too short: the next ones are longer until somebody meets one") {
    table t(2);
    t.whole_round(10s);  // and suddenly all steps take ten times as long
    std::vector<core::duration> limits;
    for (int i = 0; i < 4; ++i) {
        t.open();
        const auto opened = t.now;
        REQUIRE(t.waits());
        limits.push_back(*t.decide().wake_at - opened);
        t.now = *t.decide().wake_at;
        const auto empty = t.step<round_record>();
        REQUIRE(empty.contributors.empty());
        for (const peer_number n : {1U, 2U}) t.ready(n);
        t.step<commit_record>();
        for (const peer_number n : {1U, 2U}) t.coordinator.caught_up(n, 1, t.led.committed(), t.now);
    }
    CHECK(limits == std::vector<core::duration>{17s, 34s, 68s, 136s});
    t.whole_round(100s);
    t.open();
    REQUIRE(t.waits());
    CHECK(*t.decide().wake_at == t.now + 152s);  // the 90th percentile, half of it again, and the grace
}

TEST_CASE("a deadline stretches while the contributor works and ends at four times") {
    table t(3, 1000, 60s);
    t.open();
    const auto begun = t.now;
    t.delivered({1, 2, 3}, {1, 2});
    std::uint32_t steps = 0;
    while (t.now < begun + 239s) {
        t.now += 1s;
        t.progress(3, {1, 2}, ++steps);
        REQUIRE(t.waits());
    }
    t.now = begun + 240s - 1ns;
    CHECK(t.waits());
    t.now = begun + 240s;
    CHECK(t.step<round_record>().contributors == numbers{1, 2});
}

TEST_CASE("a deadline stretches while somebody receives, and a stall ends it") {
    table t(3, 1000, 60s);
    t.open();
    const auto begun = t.now;
    t.delivered({1, 2}, {1, 2});
    t.delivered({3}, {1, 2, 3});
    for (std::uint64_t i = 1; i <= 100; ++i) {
        t.now = begun + i * 1s;
        t.progress(2, {1, 2}, 0, i * 1000);
        REQUIRE(t.waits());
    }
    t.now = begun + 129s;
    t.progress(2, {1, 2}, 0, 100'000);  // nothing new
    CHECK(t.waits());
    t.now = begun + 130s;  // half a deadline after the last byte
    CHECK(t.step<round_record>().contributors == numbers{1, 2});
}

TEST_CASE("payloads that a majority holds, but never the same, do not stop the round for ever") {
    table t(3, 1000, 60s);
    t.open();
    const auto begun = t.now;
    t.delivered({1}, {1, 2});
    t.delivered({2}, {2, 3});
    t.delivered({3}, {1, 3});
    t.now = begun + 60s - 1ns;
    CHECK(t.waits());
    t.now = begun + 60s;
    const auto r = t.step<round_record>();
    CHECK(r.members == numbers{1, 2, 3});
    CHECK(r.contributors.empty());
    CHECK(r.reason ==
          "the payload of peer 1 did not reach peer 2; the payload of peer 2 did not reach peer 3; "
          "the payload of peer 3 did not reach peer 1");
    for (const peer_number n : {1, 2, 3}) t.ready(n);
    t.step<commit_record>();
}

TEST_CASE("a member that holds everything and never answers leaves the members in the end") {
    table t(2, 1000, 60s);
    t.open();
    const auto begun = t.now;
    t.delivered({1, 2}, {1, 2});
    t.now = begun + 10s;
    t.ready(1);
    t.now = begun + 60s - 1ns;
    CHECK(t.waits());
    CHECK(t.decide().wake_at == begun + 60s);
    t.now = begun + 60s;
    const auto r = t.step<round_record>();
    CHECK(r.members == numbers{1});
    CHECK(r.contributors == numbers{1, 2});
    t.ready(1);
    t.step<commit_record>();
}

TEST_CASE("a member that is still being sent to is waited for longer, at most four times") {
    table t(3, 1000, 60s);
    t.open();
    const auto begun = t.now;
    t.delivered({1, 2}, {1, 2, 3});
    t.delivered({3}, {1, 3});
    for (int i = 1; i < 240; ++i) {
        t.now = begun + i * 1s;
        t.progress(3, {1, 3}, 0, static_cast<std::uint64_t>(i));
        REQUIRE(t.waits());
    }
    t.now = begun + 240s;
    CHECK(t.step<round_record>().contributors == numbers{1, 3});
}

TEST_CASE("rounds that stall because two members do not reach each other do not get longer and longer") {
    table t(3, 1000, 60s);
    std::vector<std::chrono::seconds> lengths;
    for (int i = 0; i < 5; ++i) {
        t.open();
        const auto begun = t.now;
        t.now += 10s;
        t.delivered({1}, {1, 2, 3});
        t.delivered({2}, {1, 2});
        t.delivered({3}, {1, 3});
        t.now = *t.decide().wake_at;
        const auto r = t.step<round_record>();
        CHECK(r.contributors == numbers{1});
        CHECK(r.reason == "the payload of peer 2 did not reach peer 3; the payload of peer 3 did not reach peer 2");
        for (const peer_number n : {1, 2, 3}) t.ready(n);
        t.step<commit_record>();
        lengths.push_back(std::chrono::duration_cast<std::chrono::seconds>(t.now - begun));
        for (const peer_number n : {1, 2, 3}) t.coordinator.caught_up(n, 1, t.led.committed(), t.now);
    }
    // The first has the configured deadline. Of the others the deadline is one and a half times the 10 s in which
    // anything moved, and the grace: 17 s; they wait for half of it after the last movement.
    CHECK(lengths == std::vector{60s, 18s, 18s, 18s, 18s});
}

TEST_CASE("nobody is late for the lack of a link: the payload goes another way and has its time once more") {
    table t(3, 1000, 2s);  // shorter than members have to link
    const auto says = [&t](peer_number who, std::vector<peer_number> linked) {
        lines_message m;
        for (const auto n : linked) m.links.push_back({n, 20'000});
        t.coordinator.lines(who, m, t.now);
    };
    says(1, {2, 3});
    says(2, {1});
    says(3, {1});
    t.open();
    const auto begun = t.now;
    t.delivered({1}, {1, 2, 3});
    t.delivered({2}, {1, 2});
    t.delivered({3}, {1, 3});
    REQUIRE(t.waits());
    CHECK(*t.decide().wake_at == begun + exchange_planner::time_to_link);
    t.now = *t.decide().wake_at;
    const auto r = t.step<round_record>();
    CHECK(r.contributors == numbers{1, 2, 3});
    CHECK(r.exchange.relays == std::vector<relay>{{3, 2, 1}, {2, 3, 1}});
    CHECK(r.reason == "peers 2 and 3 cannot reach each other");
    t.now += 1s;
    CHECK(t.waits());
    for (const peer_number n : {1, 2, 3}) t.ready(n);
    CHECK(t.step<commit_record>().contributions.size() == 3);
    // A link that comes and goes excuses nobody for ever.
    for (const peer_number n : {1, 2, 3}) t.coordinator.caught_up(n, 1, t.led.committed(), t.now);
    says(2, {1, 3});
    t.now += 1s;
    t.open();
    const auto again = t.now;
    for (int i = 0; t.waits(); ++i) {
        REQUIRE(i < 100);
        t.now += 1s;
        says(2, {1});
        says(2, {1, 3});
        says(2, {1});
    }
    CHECK(t.now - again < 10s);
}

TEST_CASE("READY tells that its sender holds every payload") {
    table t(4);
    t.open();
    t.now += 1s;
    t.ready(1);
    t.ready(2);
    t.delivered({3}, {4});
    t.coordinator.gone(4);
    CHECK(t.step<round_record>().contributors == numbers{1, 2, 3, 4});
    t.coordinator.gone(3);
    CHECK(t.step<round_record>().contributors == numbers{1, 2, 3, 4});
}

TEST_CASE("a member that returns takes part from the next round") {
    table t(3);
    t.open();
    t.now += 1s;
    t.coordinator.gone(3);
    t.step<round_record>();
    t.coordinator.caught_up(3, 1, 0, t.now);
    CHECK(t.waits());
    t.ready(3);  // it is no member any more
    t.ready(1);
    CHECK(t.waits());
    t.ready(2);
    t.step<commit_record>();
    CHECK(t.open().members == numbers{1, 2, 3});
}

TEST_CASE("a lost link that comes back at once costs nothing") {
    table t(2);
    t.open();
    t.coordinator.gone(2);
    t.coordinator.caught_up(2, 1, 0, t.now);
    t.now += 1s;
    t.ready(1);
    t.ready(2);
    CHECK(t.step<commit_record>().attempt == 1);
}

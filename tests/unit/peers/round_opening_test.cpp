#include "tests/unit/peers/round_world.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

TEST_CASE("a round opens with those who hold the last commit and the plan of the run") {
    table t(4);
    t.coordinator.gone(3);
    t.coordinator.caught_up(4, 2, 0, t.now);  // of another generation
    const auto r = t.open();
    CHECK(r.members == numbers{1, 2});
    CHECK(r.contributors == numbers{1, 2});
    CHECK(r.attempt == 1);
    CHECK(r.position == 0);
    CHECK(r.plan == short_plan());
}

TEST_CASE("a peer two commits behind is not a member of the next round, and one behind is") {
    table t(3);
    t.open();
    t.now += 10s;
    t.ready(1);
    t.ready(2);
    t.now += 3s;  // patience is over
    t.step<commit_record>();
    const auto straggling = t.open();
    CHECK(straggling.members == numbers{1, 2, 3});  // 3 fetches the aggregate first
    CHECK(straggling.contributors == numbers{1, 2, 3});
    t.now += 10s;
    t.ready(1);
    t.ready(2);
    t.now += 3s;
    t.step<commit_record>();
    CHECK(t.open().members == numbers{1, 2});
    t.coordinator.caught_up(3, 1, 1, t.now);
    t.now += 10s;
    t.ready(1);
    t.ready(2);
    t.step<commit_record>();
    CHECK(t.open().members == numbers{1, 2});
    t.coordinator.caught_up(3, 1, 3, t.now);
    t.now += 10s;
    t.ready(1);
    t.ready(2);
    t.step<commit_record>();
    // It comes back one aggregate behind: nobody waits for its work before it can begin.
    const auto returned = t.open();
    CHECK(returned.members == numbers{1, 2, 3});
    CHECK(returned.contributors == numbers{1, 2});
    t.coordinator.caught_up(3, 1, 4, t.now);
    t.now += 10s;
    for (const peer_number n : {1U, 2U, 3U}) t.ready(n);
    t.step<commit_record>();
    CHECK(t.open().contributors == numbers{1, 2, 3});
}

TEST_CASE("short rounds wait for who is nearly back for long, with a tenth of their time and no more") {
    table t(3);
    t.coordinator.gone(3);
    for (int i = 0; i < 20; ++i) t.whole_round(1s);
    CHECK(t.led.committed() == 20);
    const auto round_of_two = [&t](core::duration length) {
        CHECK(t.open().members == numbers{1, 2});
        t.now += length;
        for (const peer_number n : {1U, 2U}) t.ready(n);
        t.step<commit_record>();
    };
    const auto three_without_it = [&] {
        for (int i = 0; i < 3; ++i) {
            t.coordinator.caught_up(3, 1, t.led.committed() - 3, t.now);
            CHECK_FALSE(t.waits());  // it may come by itself
            round_of_two(1s);
        }
    };
    three_without_it();
    // It replays them one by one, and does not catch up.
    t.coordinator.caught_up(3, 1, 20, t.now);
    CHECK(t.waits());
    REQUIRE(t.decide().wake_at);
    CHECK(*t.decide().wake_at == t.now + 2300ms);
    CHECK(t.decide().problem.empty());
    t.now += 1s;
    t.coordinator.caught_up(3, 1, 21, t.now);
    CHECK(t.waits());
    // One behind will do.
    t.coordinator.caught_up(3, 1, 22, t.now);
    CHECK(t.open().members == numbers{1, 2, 3});
    for (const peer_number n : {1U, 2U}) t.ready(n);
    t.step<commit_record>();
    // A second of it is gone; who does not move on has all of the rest, once.
    t.coordinator.restarted(3);
    three_without_it();
    t.coordinator.caught_up(3, 1, 18, t.now);
    CHECK(t.waits());
    t.now += 1700ms;
    round_of_two(0s);
    CHECK_FALSE(t.waits());
    // Nobody waits for somebody who is far behind.
    t.coordinator.gone(3);
    for (int i = 0; i < 70; ++i) t.whole_round(1s);
    t.coordinator.caught_up(3, 1, 18, t.now);
    for (int i = 0; i < 4; ++i) {
        CHECK_FALSE(t.waits());
        round_of_two(1s);
    }
}

TEST_CASE("who is a member of every second round and never contributes is waited for, too") {
    table t(3);
    t.coordinator.gone(3);
    for (int i = 0; i < 20; ++i) t.whole_round(1s);
    const auto round = [&t](const numbers& members) {
        const auto opened = t.open();
        CHECK(opened.members == members);
        CHECK(opened.contributors == numbers{1, 2});
        for (const peer_number n : {1U, 2U}) t.ready(n);
        t.step<commit_record>();
    };
    for (int i = 0; i < 2; ++i) {
        t.coordinator.caught_up(3, 1, t.led.committed() - 2, t.now);
        CHECK_FALSE(t.waits());
        round({1, 2});
        t.coordinator.caught_up(3, 1, t.led.committed() - 1, t.now);
        round({1, 2, 3});
    }
    t.coordinator.caught_up(3, 1, t.led.committed() - 2, t.now);
    CHECK(t.waits());
}

namespace {

/// A round without peer 3, which comes meanwhile and is one aggregate behind at its end: what an aggregate takes it is
/// known from the one before.
void round_with_newcomer(table& t, core::duration lateness) {
    t.open();
    t.coordinator.caught_up(3, 1, 4, t.now);
    t.now += lateness;
    t.coordinator.caught_up(3, 1, 5, t.now);
    t.now += 1s - lateness;
    for (const peer_number n : {1U, 2U}) t.ready(n);
    t.step<commit_record>();
}

/// Two of three peers have had five rounds.
table without_the_third() {
    table t(3);
    t.coordinator.gone(3);
    for (int i = 0; i < 5; ++i) t.whole_round(1s);
    return t;
}

}  // namespace

TEST_CASE("a newcomer that is one aggregate behind contributes when it begins soon enough") {
    for (const auto lateness : {100ms, 900ms}) {
        auto t = without_the_third();
        round_with_newcomer(t, lateness);
        // Two wait for as long, and one works for a second more.
        const auto with_it = t.open();
        CHECK(with_it.members == numbers{1, 2, 3});
        CHECK(with_it.contributors == (lateness == 100ms ? numbers{1, 2, 3} : numbers{1, 2}));
    }
}

TEST_CASE("a newcomer that begins late does the steps that are left, so that nobody waits for it") {
    for (const auto lateness : {400ms, 900ms}) {
        INFO(lateness.count());
        auto t = without_the_third();
        lines_message said;
        said.step_seconds = 0.1;
        for (const peer_number n : {1U, 2U}) t.coordinator.lines(n, said, t.now);
        round_with_newcomer(t, lateness);
        const auto with_it = t.open();
        CHECK(with_it.members == numbers{1, 2, 3});
        const bool enough = lateness == 400ms;
        CHECK(with_it.contributors == (enough ? numbers{1, 2, 3} : numbers{1, 2}));
        CHECK(with_it.own_steps == (enough ? std::vector<peer_steps>{{3, 6}} : std::vector<peer_steps>{}));
        t.now += 1s;
        t.delivered({1, 2, 3}, with_it.contributors);
        for (const peer_number n : {1U, 2U, 3U}) t.ready(n);
        t.step<commit_record>();
        // Then it begins with the others, and what it did late is no measure.
        const auto next = t.open();
        CHECK(next.contributors == numbers{1, 2, 3});
        CHECK(next.own_steps.empty());
    }
}

TEST_CASE("when everybody who is here is one commit behind, they train all the same") {
    table t(4);
    t.coordinator.gone(4);
    t.open();
    for (const peer_number n : {1U, 2U, 3U}) t.ready(n);
    t.step<commit_record>();
    for (const peer_number n : {1U, 2U, 3U}) t.coordinator.gone(n);
    t.coordinator.caught_up(4, 1, 0, t.now);
    const auto r = t.open();
    CHECK(r.members == numbers{4});
    CHECK(r.contributors == numbers{4});
}

TEST_CASE("the first round waits for as many members as the run wants and later rounds do not") {
    auto rules = table::rules(10, 100s);
    rules.min_members = 3;
    table t(3);
    t.coordinator = round_coordinator(rules, self);
    t.coordinator.log_advanced(t.led, t.now);
    t.coordinator.caught_up(1, 1, 0, t.now);
    t.coordinator.caught_up(2, 1, 0, t.now);
    CHECK(t.waits());
    CHECK(t.decide().problem == "the first round begins with 3 peers (peers.min); 2 of them are here");
    t.coordinator.caught_up(3, 1, 0, t.now);
    CHECK(t.decide().problem.empty());
    t.whole_round(1s);
    t.coordinator.gone(2);
    t.coordinator.gone(3);
    CHECK(t.open().members == numbers{1});
}

TEST_CASE("of many members a few contribute, drawn anew for each round, and all take its result") {
    auto rules = table::rules(1000, 100s);
    rules.per_round = 3;
    table t(10, rules);
    std::map<peer_number, int> times;
    numbers last;
    int repeated = 0;
    for (int i = 0; i < 300; ++i) {
        const auto r = t.open();
        CHECK(r.members.size() == 10);
        REQUIRE(r.contributors.size() == 3);
        CHECK(std::ranges::is_sorted(r.contributors));
        for (const auto c : r.contributors) ++times[c];
        repeated += r.contributors == last ? 1 : 0;
        last = r.contributors;
        t.now += 1s;
        for (const auto m : r.members) t.ready(m);
        t.step<commit_record>();
    }
    for (peer_number n = 1; n <= 10; ++n) {
        INFO("peer " << n << ": " << times[n] << " of 300 rounds");
        CHECK(times[n] > 60);
        CHECK(times[n] < 120);
    }
    CHECK(repeated < 20);
    // Where fewer are left, all of them.
    for (peer_number n = 3; n <= 10; ++n) t.coordinator.gone(n);
    CHECK(t.open().contributors == numbers{1, 2});
}

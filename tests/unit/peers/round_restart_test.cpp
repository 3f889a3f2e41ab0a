// Members and coordinators that start again while a round is open.

#include "tests/unit/peers/round_world.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

TEST_CASE("a restarted peer is dead for the open round and alive for the next") {
    table t(3);
    t.open();
    t.now += 1s;
    t.delivered({1, 2, 3}, {1, 2, 3});
    t.coordinator.restarted(3);
    t.coordinator.caught_up(3, 1, 0, t.now);
    const auto r = t.step<round_record>();
    CHECK(r.members == numbers{1, 2});
    CHECK(r.contributors == numbers{1, 2, 3});  // its payload had arrived
    t.ready(1);
    t.ready(2);
    t.step<commit_record>();
    t.coordinator.caught_up(3, 1, 1, t.now);
    CHECK(t.open().members == numbers{1, 2, 3});
}

namespace {

/// A member's word that it started again in the open round.
progress_message started_again(const table& t) {
    progress_message m;
    m.generation = t.led.generation();
    m.round = t.led.open()->round;
    m.restarted = true;
    return m;
}

}  // namespace

TEST_CASE("who started again in a round tells each coordinator itself, which may be a later one than admitted it") {
    table t(3);
    t.open();
    t.now += 1s;
    t.delivered({1, 2}, {1, 2});
    auto m = started_again(t);
    ++m.round;
    t.coordinator.progress(3, m, t.now);
    CHECK(t.waits());  // another round's word
    t.coordinator.progress(3, started_again(t), t.now);
    const auto r = t.step<round_record>();
    CHECK(r.members == numbers{1, 2});
    CHECK(r.contributors == numbers{1, 2});
    t.ready(1);
    t.ready(2);
    t.step<commit_record>();
    CHECK(t.open().members == numbers{1, 2, 3});
}

TEST_CASE("a round whose members all started again sums nothing, and they say so in vain") {
    table t(2);
    t.open();
    const auto m = started_again(t);
    for (const peer_number who : {1U, 2U}) t.coordinator.progress(who, m, t.now);
    const auto r = t.step<round_record>();
    CHECK(r.members == numbers{1, 2});
    CHECK(r.contributors.empty());
    for (const peer_number who : {1U, 2U}) t.coordinator.progress(who, m, t.now);
    CHECK(t.waits());
    t.ready(1);
    t.ready(2);
    t.step<commit_record>();
}

TEST_CASE("a round that lost every member is committed empty by whoever came back") {
    table t(2);
    t.open();
    t.coordinator.restarted(1);
    t.coordinator.restarted(2);
    CHECK(t.waits());
    t.coordinator.caught_up(1, 1, 0, t.now);
    t.coordinator.caught_up(2, 1, 0, t.now);
    auto r = t.step<round_record>();
    CHECK(r.members == numbers{1, 2});
    CHECK(r.contributors.empty());
    CHECK(t.waits());
    t.ready(1);
    t.ready(2);
    CHECK(t.step<commit_record>().contributions.empty());
}

TEST_CASE("a coordinator that starts with a round open waits for its members to come back") {
    table t(3);
    t.open();
    auto rules = table::rules(1000, 100s);
    round_coordinator fresh(rules, self);
    t.coordinator = fresh;
    t.coordinator.log_advanced(t.led, t.now);
    t.coordinator.restarted(1);
    t.coordinator.caught_up(1, 1, 0, t.now);
    const auto until = t.now + round_coordinator::return_wait;
    CHECK(t.waits());
    CHECK(t.decide().wake_at == until);
    t.now += 1s;
    t.coordinator.caught_up(2, 1, 0, t.now);
    t.progress(2, {1, 2, 3});
    CHECK(t.waits());
    SECTION("all are back: only the coordinator itself has lost what it held") {
        t.coordinator.caught_up(3, 1, 0, t.now);
        t.progress(3, {1, 2, 3});
        const auto r = t.step<round_record>();
        CHECK(r.members == numbers{2, 3});
        CHECK(r.contributors == numbers{1, 2, 3});
        t.ready(2);
        t.ready(3);
        CHECK(t.step<commit_record>().contributions.size() == 3);
    }
    SECTION("one stays away") {
        t.now = until;
        const auto r = t.step<round_record>();
        CHECK(r.members == numbers{2});
        CHECK(r.contributors == numbers{1, 2, 3});
    }
    SECTION("one came and went") {
        t.coordinator.caught_up(3, 1, 0, t.now);
        t.coordinator.gone(3);
        CHECK(t.step<round_record>().members == numbers{2});
    }
}

TEST_CASE("a round whose members lack the commit before, and nobody has it any more, is stranded") {
    table t(3);
    t.whole_round(10s);
    t.open();
    t.coordinator.gone(1);
    t.coordinator.gone(3);
    CHECK(t.step<round_record>().members == numbers{2});
    t.ready(2);
    t.step<commit_record>();
    // The others are back, and wait for the aggregate as members of the next round.
    for (const peer_number who : {1U, 3U}) t.coordinator.caught_up(who, 1, 1, t.now);
    CHECK(t.open().members == numbers{1, 2, 3});
    t.coordinator.gone(2);
    const auto stranded = [&t] {
        for (int steps = 0; steps < 20; ++steps) {
            const auto d = t.decide();
            if (d.stranded) return true;
            if (d.propose) {
                REQUIRE(t.led.apply(*d.propose));
                t.coordinator.log_advanced(t.led, t.now);
            } else if (d.wake_at) {
                t.now = *d.wake_at;
            } else {
                return false;
            }
        }
        return false;
    };
    CHECK(stranded());
    CHECK(t.led.open()->members == numbers{1, 3});
    // One of them has got it after all.
    t.coordinator.caught_up(3, 1, 2, t.now);
    CHECK_FALSE(t.decide().stranded);
}

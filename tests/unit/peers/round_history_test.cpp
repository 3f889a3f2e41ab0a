#include <algorithm>
#include <limits>

#include "tests/unit/peers/round_world.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

TEST_CASE("evaluations travel with the next round, unless they are of the future or no number") {
    table t(1);
    t.coordinator.evaluated(7, 1.0);
    CHECK(t.open().eval_round == 0);
    t.ready(1);
    t.step<commit_record>();
    t.coordinator.evaluated(1, std::numeric_limits<double>::quiet_NaN());
    t.coordinator.evaluated(1, std::numeric_limits<double>::infinity());
    t.coordinator.evaluated(~std::uint64_t{0}, 0.5);
    CHECK(t.open().eval_round == 0);
    t.ready(1);
    t.step<commit_record>();
    t.coordinator.evaluated(2, 1.25);
    t.coordinator.evaluated(1, 9);
    t.open();
    CHECK(t.led.evaluation() == std::pair<std::uint64_t, double>(2, 1.25));
}

TEST_CASE("a new generation starts with what its peers hold of it") {
    table t(3);
    t.whole_round(10s);
    t.whole_round(10s);
    t.open();
    t.coordinator.evaluated(2, 1.0);
    generation_record g;
    g.generation = 2;
    g.round = 1;
    g.position = 10;
    g.tokens = 300;
    t.led.apply(g);
    t.coordinator.log_advanced(t.led, t.now);
    CHECK(t.waits());  // everybody holds a state of the generation before
    t.coordinator.caught_up(1, 2, 1, t.now);
    t.coordinator.caught_up(2, 2, 1, t.now);
    const auto r = t.open();
    CHECK(r.round == 2);
    CHECK(r.members == numbers{1, 2});
    CHECK(r.eval_round == 0);
    CHECK(r.position == 10);
}

TEST_CASE("whatever happens, every proposal counts, and rounds are committed one by one by a quorum") {
    std::uint64_t rounds = 0, attempts = 0, empty = 0;
    for (std::uint64_t seed = 0; seed < 3000; ++seed) {
        INFO("seed " << seed);
        core::seeded_entropy random(seed, "round");
        const auto members = static_cast<peer_number>(1 + random.below(7));
        table t(members, 1'000'000, 20s);
        std::map<peer_number, std::set<core::digest>> vouched;  // READYs of the open attempt
        for (int i = 0; i < 150; ++i) {
            const auto who = static_cast<peer_number>(1 + random.below(members));
            switch (random.below(12)) {
                case 0: t.coordinator.gone(who); break;
                case 1: t.coordinator.restarted(who); break;
                case 2:
                case 3:
                    t.coordinator.caught_up(who, t.led.generation(),
                                            t.led.committed() - std::min(t.led.committed(), random.below(2)), t.now);
                    break;
                case 4: t.now += core::duration(random.below(60'000'000'000)); break;
                case 5: {
                    record r = random_record(random, t.led);
                    // Only what other proposers may log meanwhile.
                    const bool mine =
                        std::holds_alternative<round_record>(r) || std::holds_alternative<commit_record>(r);
                    if (mine || std::holds_alternative<admit_record>(r)) break;
                    if (auto* p = std::get_if<run_state_record>(&r)) p->state = run_phase::running;
                    if (auto* p = std::get_if<depart_record>(&r)) p->revoked = false;
                    const auto generation = t.led.generation();
                    t.led.apply(r);
                    t.coordinator.log_advanced(t.led, t.now);
                    if (t.led.generation() != generation) vouched.clear();
                    break;
                }
                case 6:
                    t.led.apply(admit_of(who));
                    t.coordinator.log_advanced(t.led, t.now);
                    break;
                case 7:
                    if (t.led.open())
                        t.progress(who, some_of(random, t.led.open()->contributors),
                                   static_cast<std::uint32_t>(random.below(10)), random.below(1000));
                    break;
                default:
                    if (t.led.open()) {
                        auto m = t.ready_message_of(random.below(8) == 0 ? 1 : 0);
                        if (random.below(12) == 0) m.state_root = digest_of(1);
                        if (random.below(12) == 0) m.attempt -= 1;
                        if (random.below(12) == 0) m.round += 1;
                        if (random.below(12) == 0 && !m.contributions.empty())
                            m.contributions[0].payload = digest_of(3);
                        t.coordinator.ready(who, m, t.now);
                        commit_record c;
                        c.round = m.round;
                        c.attempt = m.attempt;
                        c.aggregate_root = m.aggregate_root;
                        c.contributions = m.contributions;
                        vouched[who].insert(core::hash(serialize(record(c))));
                    }
            }
            // The coordinator acts until it has nothing to say; it must come to an end.
            for (int k = 0;; ++k) {
                REQUIRE(k < 50);
                const auto d = t.decide();
                if (!d.propose) {
                    if (d.wake_at) REQUIRE(*d.wake_at > t.now);
                    break;
                }
                const ledger before = t.led;
                REQUIRE(parse_record(serialize(*d.propose)));
                REQUIRE(t.led.apply(*d.propose));  // I1, I6: never anything that the ledger would ignore
                t.coordinator.log_advanced(t.led, t.now);
                if (const auto* c = std::get_if<commit_record>(&*d.propose)) {
                    ++rounds;
                    empty += c->contributions.empty() ? 1 : 0;
                    REQUIRE(t.led.committed() == before.committed() + 1);  // I2
                    // I7: a majority of the members vouched for exactly this, and the coordinator if it is one.
                    auto bare = *c;
                    bare.state_root = {};
                    const auto what = core::hash(serialize(record(bare)));
                    std::size_t votes = 0;
                    for (const auto m : before.open()->members) votes += vouched[m].contains(what) ? 1 : 0;
                    REQUIRE(2 * votes > before.open()->members.size());
                    if (std::ranges::binary_search(before.open()->members, self)) REQUIRE(vouched[self].contains(what));
                    std::uint64_t tokens = 0;
                    for (const auto& x : c->contributions) tokens += x.tokens;
                    REQUIRE(t.led.tokens() == before.tokens() + tokens);  // I6
                } else {
                    const auto& r = std::get<round_record>(*d.propose);
                    attempts += r.attempt > 1 ? 1 : 0;
                    REQUIRE(r.members.size() <= members);
                    REQUIRE_FALSE(r.members.empty());
                }
                vouched.clear();
            }
        }
        // I12: faults cease, everybody is back, holds all and answers: a round commits in bounded time.
        run_state_record running;
        t.led.apply(running);
        for (peer_number n = 1; n <= members; ++n) {
            t.led.apply(admit_of(n));
            t.coordinator.caught_up(n, t.led.generation(), t.led.committed(), t.now);
        }
        t.coordinator.log_advanced(t.led, t.now);
        const auto before = t.led.committed();
        bool committed = false;
        for (int i = 0; i < 40 && !committed; ++i) {
            t.now += 30s;
            if (t.led.open()) {
                for (const auto n : t.led.open()->members) {
                    t.progress(n, t.led.open()->contributors);
                    t.ready(n);
                }
            }
            const auto d = t.decide();
            if (d.propose) {
                REQUIRE(t.led.apply(*d.propose));
                t.coordinator.log_advanced(t.led, t.now);
            }
            committed = t.led.committed() > before;
        }
        REQUIRE(committed);
    }
    // The events are varied enough to mean something.
    CHECK(rounds > 10'000);
    CHECK(attempts > 10'000);
    CHECK(empty > 100);
    CHECK(empty < rounds / 2);
}

TEST_CASE("a round is planned by how fast its members are, and its attempts keep to that") {
    table t(3);
    const auto say = [&t](peer_number who, double step_seconds) {
        lines_message m;
        m.step_seconds = step_seconds;
        t.coordinator.lines(who, m, t.now);
    };
    CHECK(t.open().own_steps.empty());  // nobody has trained yet
    t.delivered({1, 2, 3}, {1, 2, 3});
    for (const auto m : {1U, 2U, 3U}) t.ready(m);
    t.step<commit_record>();
    say(1, 0.1);
    say(2, 0.1);
    say(3, 0.2);
    const auto open = t.open();
    CHECK(open.own_steps == std::vector<peer_steps>{{3, 5}});
    CHECK(open.steps_of(3) == 5);
    CHECK(open.steps_of(2) == 10);
    // Another attempt has the same payloads, whatever was said meanwhile.
    say(3, 0.1);
    t.coordinator.gone(3);
    CHECK(t.step<round_record>().own_steps == std::vector<peer_steps>{{3, 5}});
    for (const auto m : {1U, 2U}) t.ready(m);
    t.now += 1h;
    t.step<commit_record>();
    CHECK(t.open().own_steps.empty());
}

TEST_CASE("whose payloads do not arrive sits out, longer each time, until one does") {
    table t(3, 1000, 5s);
    std::vector<std::uint64_t> with;  // rounds that begin with peer 3
    const auto round = [&](bool arrives) {
        const auto r = t.open();
        CHECK(r.members == numbers{1, 2, 3});
        if (std::ranges::count(r.contributors, 3U) > 0) with.push_back(r.round);
        const bool late = with.back() == r.round && !arrives;
        t.now += 1s;
        if (late) {
            t.delivered({1, 2, 3}, {1, 2});
            for (int i = 0; t.waits(); ++i) {
                REQUIRE(i < 100);
                t.now += 1s;
            }
            CHECK(t.step<round_record>().contributors == numbers{1, 2});
        } else {
            CHECK(r.contributors == (with.back() == r.round ? numbers{1, 2, 3} : numbers{1, 2}));
        }
        CHECK(t.coordinator.sits_out(3) == (with.back() != r.round));
        for (const peer_number n : {1, 2, 3}) t.ready(n);
        t.step<commit_record>();
        for (const peer_number n : {1, 2, 3}) t.coordinator.caught_up(n, 1, t.led.committed(), t.now);
    };
    for (int i = 0; i < 60; ++i) round(false);
    CHECK(with == std::vector<std::uint64_t>{1, 2, 4, 8, 16, 32, 48});
    // Once one arrives, all is forgotten.
    for (int i = 60; i < 63; ++i) round(false);
    round(true);
    CHECK(with.back() == 64);
    round(false);
    round(false);
    CHECK(with.back() == 66);
    CHECK(with.size() == 10);
    // If nobody else were left, it would contribute all the same.
    t.coordinator.gone(1);
    t.coordinator.gone(2);
    CHECK(t.coordinator.sits_out(3));
    CHECK(t.open().contributors == numbers{3});
}

TEST_CASE("what the log takes to open a round is not taken from what is saved up for those who return") {
    table t(3);
    t.coordinator.gone(3);
    t.whole_round(1s);
    t.whole_round(1s);
    // Each round gives a tenth of what it takes; the log takes twice that before the next one opens.
    int rounds = 0;
    for (; rounds < 20; ++rounds) {
        t.coordinator.caught_up(3, 1, 0, t.now);  // it cannot keep up
        if (t.waits()) break;
        t.now += 200ms;
        CHECK(t.step<round_record>().members == numbers{1, 2});
        t.now += 1s;
        t.ready(1);
        t.ready(2);
        t.step<commit_record>();
        t.coordinator.caught_up(1, 1, t.led.committed(), t.now);
        t.coordinator.caught_up(2, 1, t.led.committed(), t.now);
    }
    CHECK(rounds == 8);
    CHECK(t.decide().wake_at > t.now + 900ms);
}

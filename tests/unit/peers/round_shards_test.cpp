#include "tests/unit/peers/round_world.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

namespace {

/// A round of these members, who all contribute and whose sums have these owners.
void open_shards(table& t, const numbers& members, std::vector<shard_share> shards) {
    auto r = round_of(t.led, members, members);
    r.plan.mode = "shard";
    r.exchange.shards = std::move(shards);
    REQUIRE(t.led.apply(r));
    t.coordinator.log_advanced(t.led, t.now);
}

}  // namespace

TEST_CASE("owners with windows forget what they summed: another attempt needs every contributor, and new claims") {
    for (const std::uint32_t window : {0U, 2U}) {
        INFO("window " << window);
        table t(3);
        open_shards(t, {1, 2, 3}, {{1, 5, 0}, {2, 5, window}});
        lines_message said;
        said.room = window == 0 ? 0 : 1;
        t.coordinator.lines(2, said, t.now);
        t.delivered({1, 2}, {1, 2, 3});
        t.coordinator.gone(3);
        t.now += 1s;
        // 3 delivered everything before it died; but to an owner with a window it would have to send it again.
        CHECK(t.step<round_record>().contributors == (window == 0 ? numbers{1, 2, 3} : numbers{1, 2}));
        if (window == 0) continue;
        // Claims of the attempt before that come late say nothing of this one, in which nothing arrives.
        progress_message late;
        late.generation = late.round = 1;
        late.attempt = 1;
        late.payloads = {1, 2};
        for (const peer_number owner : {1U, 2U}) t.coordinator.progress(owner, late, t.now);
        t.now += 1000s;
        CHECK(t.step<round_record>().contributors.empty());
    }
}

TEST_CASE("what an owner holds of a payload counts for the shards that it owns, not for those that it is given later") {
    table t(4);
    open_shards(t, {1, 2, 3, 4}, {{1, 5, 0}, {2, 5, 0}});
    t.delivered({1, 2}, {1, 2, 3, 4});
    t.coordinator.gone(2);
    const auto second = t.step<round_record>();
    CHECK(second.contributors == numbers{1, 3, 4});
    CHECK(second.exchange.shards[1].owner == 1);
    // What came late of the attempt before says nothing about the shard that 1 owns since.
    progress_message late;
    late.generation = late.round = late.attempt = 1;
    late.payloads = {1, 3, 4};
    t.coordinator.progress(1, late, t.now);
    t.coordinator.gone(3);
    CHECK(t.step<round_record>().contributors == numbers{1, 4});
}

TEST_CASE("where most payloads are late at one owner, another one sums, and nobody's work is lost for it") {
    table t(5);
    open_shards(t, {1, 2, 3, 4, 5}, {{2, 10, 0}});
    std::set<peer_number> owners{2};
    // Who has not made its payload yet is late itself.
    for (const peer_number n : {1U, 2U, 3U, 4U, 5U}) t.progress(n, {n}, 1);
    t.now += 1000s;
    {
        const auto d = t.decide();
        REQUIRE(d.propose);
        CHECK(std::get<round_record>(*d.propose).exchange.shards[0].owner == 2);
    }
    for (const peer_number n : {1U, 2U, 3U, 4U, 5U}) t.progress(n, {n}, 1000);
    for (const std::uint32_t attempt : {2U, 3U}) {
        t.now += 1000s;
        const auto next = t.step<round_record>();
        CHECK(next.attempt == attempt);
        CHECK(next.contributors == numbers{1, 2, 3, 4, 5});
        CHECK(owners.insert(next.exchange.shards[0].owner).second);
        CHECK(next.reason.find("took too long") != std::string::npos);
    }
    // When two others were no faster, it is for those who send.
    t.now += 1000s;
    CHECK(t.step<round_record>().contributors.size() < 5);
}

TEST_CASE("an owner that has all, and whose sum nobody has, is relieved") {
    table t(4);
    open_shards(t, {1, 2, 3, 4}, {{2, 10, 0}});
    t.delivered({2}, {1, 2, 3, 4});
    t.now += 1000s;
    const auto next = t.step<round_record>();
    CHECK(next.contributors == numbers{1, 2, 3, 4});
    CHECK(next.exchange.shards[0].owner != 2);
}

TEST_CASE("payloads that nobody has got are late where they come from, and healthy owners stay") {
    table t(4);
    open_shards(t, {1, 2, 3, 4}, {{1, 5, 0}, {2, 5, 0}});
    for (const peer_number n : {3U, 4U}) t.progress(n, {n}, 1000);
    t.delivered({1, 2}, {1, 2});
    t.now += 1000s;
    const auto next = t.step<round_record>();
    CHECK(next.contributors == numbers{1, 2});
    CHECK(next.exchange.shards == std::vector<shard_share>{{1, 5, 0}, {2, 5, 0}});
}

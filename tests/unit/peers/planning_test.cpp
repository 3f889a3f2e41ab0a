#include "peers/planning.hpp"

#include <algorithm>

#include "core/entropy.hpp"
#include "peers/exchange.hpp"
#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

namespace {

constexpr core::time_point start{std::chrono::hours(1)};

exchange_planner::model dense(std::string mode = "auto") {
    return {chunk_grid::of(std::uint64_t{1} << 22).count(), std::uint64_t{4} << 22, true, std::move(mode)};
}

lines_message lines(double mbit_up, double mbit_down, std::vector<peer_number> linked) {
    lines_message m;
    m.up = mbit_up * 125e3;
    m.down = mbit_down * 125e3;
    for (const auto n : linked) m.links.push_back({n, 50'000});
    return m;
}

/// Peers 1 to n, all linked, with these uplinks.
exchange_planner everybody_linked(const std::vector<double>& up, exchange_planner::model m) {
    exchange_planner p(std::move(m));
    for (peer_number n = 1; n <= up.size(); ++n) {
        std::vector<peer_number> others;
        for (peer_number o = 1; o <= up.size(); ++o) {
            if (o != n) others.push_back(o);
        }
        p.heard(n, lines(up[n - 1], up[n - 1], others), start);
    }
    return p;
}

}  // namespace

TEST_CASE("the plan follows the lines: owners with room, and never somebody that nobody measured") {
    const auto p = everybody_linked({1000, 500, 500, 50, 50}, dense());
    const std::vector<peer_number> all{1, 2, 3, 4, 5};
    const auto c = p.plan(all, all, start, "");
    CHECK(c.mode == "shard");
    std::uint32_t chunks = 0;
    for (const auto& s : c.plan.shards) {
        CHECK(s.owner <= 3);
        chunks += s.chunks;
    }
    CHECK(chunks == chunk_grid::of(std::uint64_t{1} << 22).count());
    CHECK(c.plan.predicted_seconds > 16.7e6 / (50 * 125e3));
    CHECK_FALSE(c.plan.reason.empty());
    const exchange_planner nothing_known(dense());
    CHECK(nothing_known.plan(all, all, start, "").mode == "gather");
    CHECK(nothing_known.plan(all, all, start, "").plan.predicted_seconds == 0);
}

TEST_CASE(
    "exchange.mode decides, a codec that does not fit sums is never sharded, and a present mode is kept for a little") {
    const std::vector<peer_number> all{1, 2, 3, 4, 5};
    const std::vector<double> up{1000, 500, 500, 50, 50};
    CHECK(everybody_linked(up, dense("gather")).plan(all, all, start, "").plan.shards.empty());
    CHECK(everybody_linked({50, 50}, dense("shard")).plan({1, 2}, {1, 2}, start, "").mode == "shard");
    auto whole = dense();
    whole.may_shard = false;
    CHECK(everybody_linked(up, whole).plan(all, all, start, "").mode == "gather");
    // Three equal lines: gather sends 2·S, shard 4/3·S: not close, so it changes whatever was before.
    CHECK(everybody_linked({100, 100, 100}, dense()).plan({1, 2, 3}, {1, 2, 3}, start, "gather").mode == "shard");
}

TEST_CASE("members that have not linked in time go through one that both reach, and a lost link has that time again") {
    exchange_planner p(dense("gather"));
    p.heard(1, lines(100, 100, {2, 3}), start);
    p.heard(2, lines(100, 100, {1}), start);
    p.heard(3, lines(100, 100, {1}), start + 1s);
    const std::vector<peer_number> all{1, 2, 3};
    CHECK(p.reach(2, 3, start + 4s));
    CHECK_FALSE(p.reach(2, 3, start + 1s + exchange_planner::time_to_link));
    CHECK(p.reach(1, 2, start + 1h));
    CHECK(p.reach(2, 9, start + 1h));  // a stranger
    round_record r;
    r.members = r.contributors = all;
    const auto step = p.missing(r);
    REQUIRE(step);
    CHECK(std::pair(step->from, step->to) == std::pair<peer_number, peer_number>{2, 3});
    CHECK(step->lost_at == start + 1s + exchange_planner::time_to_link);
    r.exchange = p.replan(r, start + 1min);
    CHECK(r.exchange.relays == std::vector<relay>{{3, 2, 1}, {2, 3, 1}});
    CHECK_FALSE(p.missing(r));
    // They find each other, and lose each other again.
    p.heard(3, lines(100, 100, {1, 2}), start + 2min);
    CHECK(p.reach(2, 3, start + 2min));
    p.heard(3, lines(100, 100, {1}), start + 3min);
    CHECK(p.reach(2, 3, start + 3min + 1s));
    CHECK_FALSE(p.reach(2, 3, start + 3min + exchange_planner::time_to_link));
    p.gone(2);
    CHECK(p.reach(2, 3, start + 1h));
}

TEST_CASE("another attempt keeps the shards and gives those of the dead to the living") {
    core::seeded_entropy random(1);
    const exchange_planner p(dense("shard"));
    for (int i = 0; i < 500; ++i) {
        round_record r;
        r.plan.mode = "shard";
        for (peer_number n = 1; n <= 6; ++n) {
            if (random.below(3) != 0) r.members.push_back(n);
        }
        if (r.members.empty()) continue;
        r.contributors = r.members;
        for (std::uint64_t n = 1 + random.below(6); n > 0; --n) {
            r.exchange.shards.push_back(
                {static_cast<peer_number>(1 + random.below(6)), static_cast<std::uint32_t>(random.below(9))});
        }
        const auto next = p.replan(r, start);
        REQUIRE(next.shards.size() == r.exchange.shards.size());
        for (std::size_t s = 0; s < next.shards.size(); ++s) {
            const auto was = r.exchange.shards[s].owner, is = next.shards[s].owner;
            CHECK(next.shards[s].chunks == r.exchange.shards[s].chunks);
            CHECK(std::ranges::binary_search(r.members, is));
            if (std::ranges::binary_search(r.members, was)) CHECK(is == was);
        }
    }
}

TEST_CASE("the plan chooses by memory: no gather that does not fit, and a window for an owner who cannot keep all") {
    const std::vector<peer_number> all{1, 2, 3};
    const auto model = dense();
    auto p = everybody_linked({100, 100, 100}, model);
    // Nobody counts its memory.
    for (const auto& s : p.plan(all, all, start, "").plan.shards) CHECK(s.window == 0);
    const auto say = [&p](peer_number who, double payloads, std::vector<peer_number> others) {
        auto said = lines(100, 100, std::move(others));
        said.room = static_cast<std::uint64_t>(payloads * static_cast<double>(std::uint64_t{4} << 22));
        p.heard(who, said, start);
    };
    say(1, 4, {2, 3});    // the sums and both others' thirds, of two rounds: 2 + 4/3 payloads
    say(2, 2.5, {1, 3});  // the sums, and half a payload for windows
    say(3, 2.1, {1, 2});
    const auto c = p.plan(all, all, start, "");
    REQUIRE(c.plan.shards.size() == 3);
    CHECK(c.plan.shards[0].window == 0);
    CHECK(c.plan.shards[1].window == exchange_planner::usual_window);
    CHECK(c.plan.shards[2].window >= 1);
    CHECK(c.plan.shards[2].window < exchange_planner::usual_window);
    CHECK(c.plan.streams());
    CHECK(c.plan.reason.find("a window of chunks a sender at peer 2 of 8, 3 of ") != std::string::npos);
    // A window serves the new owner of a shard, too, if it has as little.
    round_record r;
    r.members = r.contributors = {2, 3};
    r.exchange = c.plan;
    for (const auto& s : p.replan(r, start).shards) CHECK(s.window >= 1);
    // Two members exchange everything with each other, unless that does not fit.
    auto two = everybody_linked({100, 100}, model);
    CHECK(two.plan({1, 2}, {1, 2}, start, "").mode == "gather");
    auto said = lines(100, 100, {1});
    said.room = std::uint64_t{5} << 22;
    two.heard(2, said, start);
    const auto forced = two.plan({1, 2}, {1, 2}, start, "gather");
    CHECK(forced.mode == "shard");
    CHECK(forced.plan.reason.find("do not fit the memory of peer 2") != std::string::npos);
}

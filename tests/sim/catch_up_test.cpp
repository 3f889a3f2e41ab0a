/// A joiner's download of a whole state, from several donors, in virtual time.

#include "tests/sim/swarm.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::sim::testing;

namespace {

constexpr std::int64_t width = 1'000'000;
constexpr double bits_of(double parameters) { return 2 * parameters * sizeof(float) * 8; }
constexpr double state_bits = bits_of(width);
constexpr double donor_up = 8e6, joiner_down = 20e6;

/// Three members whose uplinks together exceed the joiner's downlink, and rounds of some seconds.
void start_members(small_run& r, std::int64_t rounds, std::int64_t parameters = width) {
    auto c = quadratic_run(rounds, 3);
    c.model.width = parameters;
    c.exchange.codec = "sign1";
    c.exchange.feedback = "ef";
    c.eval.every = 0;
    c.checkpoint.every = 1000;
    c.inner.steps = 2;
    r.s.step_time = 2s;
    r.start(c, 3, [](int) {
        sim::node_options o;
        o.up = {donor_up};
        o.down = {joiner_down};
        return o;
    });
    sim::node_options line;
    line.up = {donor_up};
    line.down = {joiner_down};
    r.w.add_node("late", line);
}

void start_joiner(small_run& r) { r.w["late"].start(r.s.main_of("late", std::nullopt)); }

std::optional<core::event> caught_up(const sim::node& n) {
    for (const auto& [at, e] : n.events()) {
        if (e.name == "catch_up") return e;
    }
    return std::nullopt;
}

double seconds_of(const core::event& e) { return std::get<double>(*e.find("seconds")); }

/// Of the rounds from `first` on that a node applied, the seconds between two commits.
double mean_round(const sim::node& n, std::uint64_t first, std::uint64_t last) {
    core::time_point from{}, to{};
    for (const auto& [at, e] : n.events()) {
        if (e.name != "round_committed") continue;
        const auto round = std::get<std::uint64_t>(*e.find("round"));
        if (round == first) from = core::time_point(at);
        if (round == last) to = core::time_point(at);
    }
    return core::to_seconds(to - from) / static_cast<double>(last - first);
}

}  // namespace

TEST_CASE("a joiner downloads from all donors at once, as fast as its own line is", "[sim]") {
    small_run r(11);
    start_members(r, 11);
    REQUIRE(r.until_round(5));
    start_joiner(r);
    REQUIRE(r.w.run_while([&] { return !caught_up(r.w["late"]); }, 1min));
    const auto e = *caught_up(r.w["late"]);
    CHECK(std::get<std::uint64_t>(*e.find("donors")) == 3);
    CHECK(std::get<std::uint64_t>(*e.find("bytes")) == 2 * width * sizeof(float));
    const double line = state_bits / joiner_down, one_donor = state_bits / donor_up;
    INFO(seconds_of(e) << " s; its line alone " << line << ", one donor " << one_donor);
    CHECK(seconds_of(e) < 1.25 * line + 0.3);
    CHECK(seconds_of(e) < 0.7 * one_donor);
    const auto problem = r.finish(11, "");
    INFO(problem);
    CHECK(problem.empty());
    // The rounds that go on meanwhile become hardly longer by it, and nobody waits for the newcomer afterwards.
    const auto before = mean_round(r.w["n0"], 2, 5);
    for (std::uint64_t round = 5; round < 11; ++round) {
        INFO("round " << round + 1 << ": " << mean_round(r.w["n0"], round, round + 1) << " s, before: " << before);
        CHECK(mean_round(r.w["n0"], round, round + 1) < 1.1 * before);
    }
}

TEST_CASE("a donor dies in the middle of a download, and the others bring the rest", "[sim]") {
    small_run r(12);
    start_members(r, 11);
    REQUIRE(r.until_ordered_by(3));
    REQUIRE(r.until_round(5));
    start_joiner(r);
    // A third of the state.
    const auto came = [&r] { return r.w.network().bytes_received(3); };
    REQUIRE(r.w.run_while([&] { return came() < 2 * width * sizeof(float) / 3; }, 1min));
    REQUIRE_FALSE(caught_up(r.w["late"]));
    r.w["n1"].kill();
    REQUIRE(r.w.run_while([&] { return !caught_up(r.w["late"]); }, 1min));
    CHECK(seconds_of(*caught_up(r.w["late"])) < 1.25 * state_bits / (2 * donor_up) + 1);
    // Little came twice.
    CHECK(static_cast<double>(came()) < 1.2 * state_bits / 8);
    const auto problem = r.finish(11, "n1");
    INFO(problem);
    CHECK(problem.empty());
}

TEST_CASE("a joiner whose line is cut in the middle of a download goes on where it was", "[sim]") {
    constexpr std::int64_t parameters = 2 * width;
    constexpr double bytes = bits_of(parameters) / 8;
    small_run r(13);
    start_members(r, 14, parameters);
    REQUIRE(r.until_round(2));
    start_joiner(r);
    const auto came = [&r] { return static_cast<double>(r.w.network().bytes_received(3)); };
    REQUIRE(r.w.run_while([&] { return came() < 0.4 * bytes; }, 1min));
    // Longer than the silence limit: its links are given up and made anew, and rounds go on meanwhile.
    r.w.cut({"late"}, {"n0", "n1", "n2"});
    r.w.run_for(15s);
    REQUIRE_FALSE(caught_up(r.w["late"]));
    r.w.heal();
    REQUIRE(r.w.run_while([&] { return !caught_up(r.w["late"]); }, 1min));
    // Twice came at most what was under way: two lanes of three donors, a piece of a mebibyte each.
    CHECK(came() < 0.85 * bytes + 6 * (1 << 20));
    CHECK(r.w["late"].count_events("catch_up") == 1);
    const auto problem = r.finish(14, "");
    INFO(problem);
    CHECK(problem.empty());
}

TEST_CASE("who was away for some rounds asks for all that it lacks at once", "[sim]") {
    // As many are kept of a small model.
    const std::uint64_t missed = GENERATE(2U, 7U);
    auto c = quadratic_run(30, 4);
    c.model.width = 1000;
    c.checkpoint.every = 1;
    small_run r(15);
    r.s.step_time = 200ms;
    r.start(c, 4, usual_line);
    r.w.set_default_path({.delay = 100ms});
    REQUIRE(r.until_ordered_by(3));
    // One that orders no records: they go on without it at once.
    const auto away = std::string(r.w["n3"].count_events("voters") > 0 ? "n3" : "n2");
    REQUIRE(r.until_round(8));
    r.w[away].kill();
    const auto gone_at = newest_round(r.w["n0"]);
    REQUIRE(r.until_round(gone_at + missed));
    r.w[away].start(r.s.main_of(away, std::nullopt));
    // When it applied the rounds that it had missed, and no whole state.
    std::vector<core::duration> applied;
    REQUIRE(r.w.run_while([&] { return newest_round(r.w[away]) < gone_at + missed; }, 1min));
    for (const auto& [at, e] : r.w[away].events()) {
        if (e.name != "round_committed") continue;
        const auto round = std::get<std::uint64_t>(*e.find("round"));
        if (round > gone_at && round <= gone_at + missed) applied.push_back(at);
    }
    CHECK(r.w[away].count_events("catch_up") == 1);
    REQUIRE(applied.size() == missed);
    // One after another, each would take two round trips of 200 ms.
    CHECK(applied.back() - applied.front() < 300ms);
    const auto problem = r.finish(30, "");
    INFO(problem);
    CHECK(problem.empty());
}

TEST_CASE("who is restarted asks the one that coordinates as soon as somebody has named it", "[sim]") {
    for (std::uint64_t seed = 1; seed <= seeds_of(4); ++seed) {
        INFO("seed " << seed);
        small_run r(seed);
        r.s.step_time = 200ms;
        r.start(quadratic_run(40, 6), 6, usual_line);
        r.w.set_default_path({.delay = 100ms});
        REQUIRE(r.until_ordered_by(5));
        REQUIRE(r.until_round(5));
        // Then its ticket's address leads to a member that does not.
        r.w["n0"].kill();
        REQUIRE(r.w.run_while([&] { return newest_round(r.w["n1"]) < 8; }, 1min));
        r.w["n0"].restart();
        REQUIRE(r.w.run_while([&] { return newest_round(r.w["n1"]) < 15; }, 1min));
        const std::string away = "n5";
        r.w[away].kill();
        r.w.run_for(3s);
        const auto begun = r.w.now();
        const auto starts = r.w[away].count_events("started");
        r.w[away].restart();
        REQUIRE(r.w.run_while([&] { return r.w[away].count_events("started") == starts; }, 1min));
        // Six one-way trips to be linked with a member, two to be told, six to be linked with the other, and four.
        CHECK(core::to_seconds(r.w.now() - begun) < 2.3);
        const auto problem = r.finish(40, "");
        INFO(problem);
        CHECK(problem.empty());
    }
}

/// Who orders records is gone for good, or cut off: the run goes on in another log, and when two logs meet one is left.

#include <cstdlib>

#include "core/entropy.hpp"
#include "tests/sim/swarm.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::sim::testing;
using namespace std::chrono_literals;

namespace {

/// Without a coordinator for three silence limits the run goes on; then a round, and a moment for those who come over.
constexpr auto soon = 60s;

struct generations {
    small_run r;
    sim::world& w = r.w;

    generations(std::uint64_t seed, std::int64_t count, std::int64_t rounds, const std::string& policy = "auto",
                const std::string& admission = "invite")
        : r(seed) {
        r.s.step_time = 80ms;
        auto c = quadratic_run(rounds, count);
        c.model.width = 4'000;
        c.peers.on_quorum_loss = policy;
        c.peers.admission = admission;
        r.start(c, count, [](int) { return usual_line(0); });
    }
    bool until(const std::function<bool()>& condition, core::duration limit = soon) {
        return w.run_while([&condition] { return !condition(); }, limit);
    }
    std::uint64_t round_of(const std::string& name) { return newest_round(w[name]); }
    /// Of the newest round that the node has committed.
    std::uint64_t generation_of(const std::string& name) {
        std::uint64_t last = 0;
        for (const auto& [at, e] : w[name].events()) {
            if (e.name == "round_committed" || e.name == "catch_up")
                last = std::get<std::uint64_t>(*e.find("generation"));
        }
        return last;
    }
    bool goes_on(const std::string& name, std::uint64_t more = 3) {
        const auto goal = round_of(name) + more;
        return until([&] { return round_of(name) >= goal; });
    }
    /// They are in one generation again, and in the same round but for one.
    bool meet(const std::vector<std::string>& names, core::duration limit = soon) {
        return until(
            [&] {
                return std::ranges::all_of(names, [&](const auto& n) {
                    return generation_of(n) == generation_of(names[0]) && round_of(n) + 1 >= round_of(names[0]) &&
                           round_of(n) <= round_of(names[0]) + 1;
                });
            },
            limit);
    }
    /// To the end of the run on everybody who lives, with the same root.
    std::string finish(std::int64_t rounds, std::vector<std::string> living) {
        const auto ended = [&] { return std::ranges::none_of(living, [&](const auto& n) { return w[n].running(); }); };
        std::string problem, root;
        if (!until(ended, 1h)) problem = "the run did not end\n";
        for (const auto& n : living) {
            std::string last;
            for (const auto& [at, e] : w[n].events()) {
                if (e.name == "left" && e.find("root") != nullptr) last = std::get<std::string>(*e.find("root"));
            }
            if (round_of(n) != static_cast<std::uint64_t>(rounds) || last.empty() || (!root.empty() && root != last)) {
                problem += fmt::format("{} ended at round {} with root {}\n{}", n, round_of(n), last, errors_of(w[n]));
            }
            root = last;
        }
        for (const auto& sentence : sim::check_invariants(w).broken) problem += sentence + "\n";
        return problem;
    }
};

struct outcome {
    core::digest trace;
    std::string problem;
};

outcome concluded(generations& g, std::string problem) {
    if (!problem.empty()) problem += story(g.w);
    return {g.w.trace_hash(), std::move(problem)};
}

/// An honest simulation repeats itself. GENERATION_SEED=N plays only that seed.
template <typename Play>
void play_twice(std::uint64_t seed, const Play& play) {
    if (const char* only = std::getenv("GENERATION_SEED"); only != nullptr && std::strtoull(only, nullptr, 10) != seed)
        return;
    INFO("seed " << seed);
    const outcome first = play(seed);
    INFO(first.problem);
    REQUIRE(first.problem.empty());
    CHECK(play(seed).trace == first.trace);
}

}  // namespace

TEST_CASE("the founder of a run of two dies for good: the other goes on, and a newcomer joins by it", "[sim]") {
    const auto dies = [](std::uint64_t seed) {
        generations g(seed, 2, 60);
        core::seeded_entropy random(seed);
        std::string problem;
        if (!g.until([&] { return g.round_of("n1") >= 5; })) problem += "the run did not begin\n";
        g.w.run_for(core::from_seconds(random.unit()));
        g.w["n0"].kill();
        if (!g.goes_on("n1")) problem += "the other did not go on\n";
        if (g.generation_of("n1") == 1) problem += "it goes on in the old generation\n";
        g.r.s.ticket = g.r.s.tickets.at("n1");
        g.w.add_node("late", usual_line(0));
        g.w["late"].start(g.r.s.main_of("late", std::nullopt));
        if (!g.until([&] { return g.round_of("late") > 0; })) problem += "nobody can join\n";
        problem += g.finish(60, {"n1", "late"});
        return concluded(g, std::move(problem));
    };
    for (std::uint64_t seed = 1; seed <= seeds_of(4); ++seed) play_twice(seed, dies);
}

TEST_CASE("the founder of a run of two comes back after the other went on without it: it follows", "[sim]") {
    const auto returns = [](std::uint64_t seed, core::duration away) {
        generations g(seed, 2, 150);
        core::seeded_entropy random(seed);
        std::string problem;
        if (!g.until([&] { return g.round_of("n1") >= 5; })) problem += "the run did not begin\n";
        g.w.run_for(core::from_seconds(random.unit()));
        g.w["n0"].kill();
        g.w.run_for(away);
        g.w["n0"].restart();
        if (!g.goes_on("n0")) problem += "the founder does not take part again\n";
        if (!g.meet({"n0", "n1"})) problem += "they did not meet\n";
        problem += g.finish(150, {"n0", "n1"});
        return concluded(g, std::move(problem));
    };
    std::uint64_t seed = 0;
    // Before, about when, and long after the other goes on.
    for (const core::duration away :
         {core::duration(5s), core::duration(29s), core::duration(31s), core::duration(60s)}) {
        ++seed;
        play_twice(seed, [&](std::uint64_t s) { return returns(s, away); });
    }
}

TEST_CASE("two are cut off from each other: both go on, and when they meet one log is left", "[sim]") {
    const auto split = [](std::uint64_t seed, std::int64_t count) {
        generations g(seed, count, 200);
        core::seeded_entropy random(seed);
        std::string problem;
        if (!g.until([&] { return g.round_of("n1") >= 5; })) problem += "the run did not begin\n";
        g.w.run_for(core::from_seconds(random.unit()));
        std::vector<std::string> here{"n0"}, there{"n1"};
        g.w.cut(here, there);
        // Both train on; the one that was never alone is ahead, or it sleeps and is not.
        if (random.below(2) == 0) {
            g.w.run_for(45s);
            g.w["n0"].pause();
            g.w.run_for(40s);
            g.w["n0"].resume();
        } else {
            g.w.run_for(60s + core::from_seconds(30 * random.unit()));
        }
        if (g.generation_of("n0") == g.generation_of("n1")) problem += "one of them stood still\n";
        g.w.heal();
        if (!g.meet({"n0", "n1"})) problem += "they did not meet again\n";
        // What the lesser side has learnt goes into the run, once.
        int merged = 0;
        for (const auto& n : g.w.nodes()) {
            for (const auto& [at, e] : n->events()) {
                if (e.name != "log_merged") continue;
                ++merged;
                const auto share = std::get<double>(*e.find("share"));
                if (!(share > 0 && share <= 0.5)) problem += fmt::format("a share of {}\n", share);
            }
        }
        if (merged != 1) problem += fmt::format("{} logs were merged\n", merged);
        problem += g.finish(200, {"n0", "n1"});
        return concluded(g, std::move(problem));
    };
    for (std::uint64_t seed = 1; seed <= seeds_of(6); ++seed) {
        play_twice(seed, [&](std::uint64_t s) { return split(s, 2); });
    }
}

TEST_CASE("the founder of a run of three dies in its first second: the others go on", "[sim]") {
    const auto dies = [](std::uint64_t seed) {
        small_run r(seed);
        r.s.step_time = 2ms;
        auto c = quadratic_run(30, 3);
        c.inner.steps = 5;
        r.start(c, 3, usual_line);
        r.w.set_default_path({.delay = 5ms});
        std::string problem;
        if (!r.until_round(1)) problem += "the run did not begin\n";
        r.w.run_for(core::from_seconds(0.05 * static_cast<double>(seed)));
        r.w["n0"].kill();
        const auto over = [&r] { return !r.w["n1"].running() && !r.w["n2"].running(); };
        if (!r.w.run_while([&] { return !over(); }, 10min)) problem += "the others did not end\n";
        for (const auto* n : {"n1", "n2"}) {
            if (newest_round(r.w[n]) != 30) problem += fmt::format("{} ended at round {}\n", n, newest_round(r.w[n]));
        }
        if (!problem.empty()) problem += story(r.w);
        return outcome{r.w.trace_hash(), std::move(problem)};
    };
    for (std::uint64_t seed = 1; seed <= 6; ++seed) play_twice(seed, dies);
}

TEST_CASE("who would go on without the others, and has just linked with one, hears first what that one holds",
          "[sim]") {
    const auto meets = [](std::uint64_t seed, core::duration away) {
        generations g(seed, 2, 400);
        // What the other one says takes longer than a look.
        g.w.set_default_path({.delay = 500ms});
        std::string problem;
        if (!g.until([&] { return g.round_of("n1") >= 3; })) problem += "the run did not begin\n";
        std::vector<std::string> here{"n0"}, there{"n1"};
        g.w.cut(here, there);
        g.w.run_for(away);
        g.w.heal();
        g.w.run_for(30s);
        bool linked = false;
        for (const auto& [at, e] : g.w["n1"].events()) {
            if (e.name == "peer_up") linked = true;
            if (e.name == "link_lost" || e.name == "peer_silent") linked = false;
            if (e.name == "generation" && linked)
                problem += fmt::format("cut off for {} s, it went on alone although linked\n", core::to_seconds(away));
        }
        return concluded(g, std::move(problem));
    };
    for (int i = 0; i < 8; ++i) {
        const auto away = 27s + i * 500ms;
        play_twice(static_cast<std::uint64_t>(i + 1), [&](std::uint64_t s) { return meets(s, away); });
    }
}

TEST_CASE("one comes over to a log whose only other peer dies at that moment: it goes on with what it has", "[sim]") {
    const auto alone = [](std::uint64_t seed) {
        generations g(seed, 2, 250);
        core::seeded_entropy random(seed);
        std::string problem;
        if (!g.until([&] { return g.round_of("n1") >= 5; })) problem += "the run did not begin\n";
        std::vector<std::string> here{"n0"}, there{"n1"};
        g.w.cut(here, there);
        g.w.run_for(70s);
        g.w.heal();
        std::string leaver;
        for (const auto* name : {"n0", "n1"}) {
            g.w[name].on_event([&leaver, name](const core::event& e) {
                if (e.name == "leaving_log" && leaver.empty()) leaver = name;
            });
        }
        if (!g.until([&] { return !leaver.empty(); })) problem += "nobody left its log\n";
        g.w.run_for(core::from_seconds(0.05 * random.unit()));
        g.w[leaver == "n0" ? "n1" : "n0"].kill();
        if (!g.goes_on(leaver)) problem += "the other did not go on\n";
        problem += g.finish(250, {leaver});
        return concluded(g, std::move(problem));
    };
    for (std::uint64_t seed = 1; seed <= seeds_of(5); ++seed) play_twice(seed, alone);
}

TEST_CASE("who was admitted to a log that is gone, and orders it, is admitted to the one that goes on", "[sim]") {
    const auto stranger = [](std::uint64_t seed) {
        generations g(seed, 2, 400);
        std::string problem;
        if (!g.until([&] { return g.round_of("n1") >= 5; })) problem += "the run did not begin\n";
        std::vector<std::string> here{"n0"}, there{"n1"};
        g.w.cut(here, there);
        for (const auto* name : {"n2", "n3"}) {
            g.w.add_node(name, usual_line(0));
            here.emplace_back(name);
        }
        g.w.cut(here, there);
        for (const auto* name : {"n2", "n3"}) g.w[name].start(g.r.s.main_of(name, std::nullopt));
        if (!g.r.until_ordered_by(3)) problem += "the newcomers do not vote\n";
        if (!g.until([&] { return g.generation_of("n1") != 1; })) problem += "the other did not go on\n";
        // The log that knows the newcomers has lost its majority, and the other one has never heard of them.
        for (const auto* name : {"n0", "n2", "n3"}) g.w[name].kill();
        g.w.heal();
        g.w["n2"].restart();
        if (!g.until([&] { return g.generation_of("n2") == g.generation_of("n1"); })) problem += "it stays alone\n";
        problem += g.finish(400, {"n1", "n2"});
        return concluded(g, std::move(problem));
    };
    for (std::uint64_t seed = 1; seed <= seeds_of(3); ++seed) play_twice(seed, stranger);
}

TEST_CASE("a majority of those who order records dies: as the run says, the others go on or wait", "[sim]") {
    const auto majority = [](std::uint64_t seed, const std::string& policy) {
        generations g(seed, 5, 300, policy);
        std::string problem;
        if (!g.r.until_ordered_by(5) || !g.until([&] { return g.round_of("n4") >= 8; })) problem += "no beginning\n";
        std::vector<std::string> voters;
        for (const auto& [at, e] : g.w["n0"].events()) {
            if (e.name != "voters") continue;
            voters.clear();
            const auto names = std::get<std::string>(*e.find("names"));
            for (int i = 0; i < 5; ++i) {
                if (names.find(fmt::format("n{}", i)) != std::string::npos) voters.push_back(fmt::format("n{}", i));
            }
        }
        REQUIRE(voters.size() == 5);
        // At once: one after another they would be replaced.
        voters.resize(3);
        for (const auto& voter : voters) g.w[voter].kill();
        const auto then = g.round_of("n4");
        g.w.run_for(150s);
        const bool went_on = g.round_of("n4") > then + 1;
        if (went_on != (policy == "continue")) problem += went_on ? "they went on\n" : "they wait\n";
        for (const auto& voter : voters) g.w[voter].restart();
        if (!g.goes_on("n4")) problem += "they did not go on when all were back\n";
        if (!g.meet({"n0", "n1", "n2", "n3", "n4"}, 120s)) problem += "they did not meet\n";
        if (policy != "continue" && g.generation_of("n4") != 1) problem += "in another generation\n";
        problem += g.finish(300, {"n0", "n1", "n2", "n3", "n4"});
        return concluded(g, std::move(problem));
    };
    play_twice(1, [&](std::uint64_t s) { return majority(s, "continue"); });
    play_twice(2, [&](std::uint64_t s) { return majority(s, "auto"); });
}

TEST_CASE("who may not order records, or was told to wait, waits", "[sim]") {
    const auto waits = [](std::uint64_t seed, const std::string& policy, const std::string& admission) {
        generations g(seed, 2, 60, policy, admission);
        std::string problem;
        if (!g.until([&] { return g.round_of("n1") >= 5; })) problem += "the run did not begin\n";
        g.w["n0"].kill();
        g.w.run_for(120s);
        if (g.generation_of("n1") != 1) problem += "it goes on\n";
        g.w["n0"].restart();
        if (!g.goes_on("n1")) problem += "it did not go on when the founder was back\n";
        problem += g.finish(60, {"n0", "n1"});
        return concluded(g, std::move(problem));
    };
    play_twice(1, [&](std::uint64_t s) { return waits(s, "pause", "invite"); });
    play_twice(2, [&](std::uint64_t s) { return waits(s, "auto", "open"); });
}

TEST_CASE("long deaths, pauses and cuts at random among a few: when they cease there is one log, and it goes on",
          "[sim]") {
    const auto storm = [](std::uint64_t seed) {
        core::seeded_entropy random(seed, "storm");
        const auto count = static_cast<std::int64_t>(2 + random.below(3));
        generations g(seed, count, 3000, random.below(2) == 0 ? "auto" : "continue");
        std::string problem;
        std::vector<std::string> names;
        for (std::int64_t i = 0; i < count; ++i) names.push_back(fmt::format("n{}", i));
        if (!g.until([&] { return g.round_of("n1") >= 5; })) problem += "the run did not begin\n";
        const auto begun = g.w.now();
        for (int i = 0; i < 6; ++i) {
            auto& victim = g.w[names[random.below(names.size())]];
            const auto at = begun + core::from_seconds(150 * random.unit());
            const auto lasts = core::from_seconds(5 + 75 * random.unit());
            const auto kind = random.below(4);
            g.w.at(at, [&g, &victim, &names, kind, lasts] {
                std::vector<std::string> one{victim.name()}, others;
                std::ranges::copy_if(names, std::back_inserter(others), [&](const auto& n) { return n != one[0]; });
                if (kind == 0 && victim.running()) {
                    victim.kill();
                } else if (kind == 1 && victim.running()) {
                    victim.vanish();
                } else if (kind == 2 && victim.running() && !victim.paused()) {
                    victim.pause();
                    g.w.after(lasts, [&victim] {
                        if (victim.paused()) victim.resume();
                    });
                } else if (kind == 3) {
                    g.w.cut(one, others);
                }
                g.w.after(lasts, [&g, &victim, kind] {
                    if (kind < 2 && !victim.running()) victim.restart();
                    if (kind == 3) g.w.heal();
                });
            });
        }
        g.w.run_until(begun + 240s);
        g.w.heal();
        for (const auto& n : names) {
            if (g.w[n].paused()) g.w[n].resume();
            if (!g.w[n].running()) g.w[n].restart();
        }
        std::uint64_t newest = 0;
        for (const auto& n : names) newest = std::max(newest, g.round_of(n));
        const auto all_go_on = [&] {
            return std::ranges::all_of(names, [&](const auto& n) {
                return g.round_of(n) >= newest + 3 && g.generation_of(n) == g.generation_of(names[0]);
            });
        };
        // Two may have to wait for a third, and then come over; the lesser log may have had more rounds.
        if (!g.until(all_go_on, 5min)) problem += "they did not become one run again\n";
        for (const auto& sentence : sim::check_invariants(g.w).broken) problem += sentence + "\n";
        return concluded(g, std::move(problem));
    };
    // GENERATION_SEEDS=N plays so many.
    const char* more = std::getenv("GENERATION_SEEDS");
    const std::uint64_t seeds = more == nullptr ? seeds_of(6) : std::strtoull(more, nullptr, 10);
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) play_twice(seed, storm);
}

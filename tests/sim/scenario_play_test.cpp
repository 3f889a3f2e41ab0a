/// The committed scenarios in virtual time; tests/lab runs the same files with real daemons.

#include <set>
#include <span>

#include "sim/play.hpp"
#include "sim/swarm.hpp"
#include "tests/seeds.hpp"
#include "tests/source_dir.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;

namespace {

sim::scenario load(const std::string& name) {
    auto s = sim::load_scenario(tests::source_dir() + "/sim/scenarios/" + name + ".toml");
    if (!s) FAIL(s.error().message);
    return std::move(*s);
}

}  // namespace

TEST_CASE("the committed scenarios hold in virtual time", "[sim]") {
    for (const auto* name : {"pair", "loss", "trace", "unequal", "sites", "homes", "delay"}) {
        const auto s = load(name);
        const auto o = sim::play(s, 1);
        INFO(name << "\n" << sim::describe(o));
        CHECK(o.ok);
        CHECK(o.rounds == static_cast<std::uint64_t>(s.run.stop.rounds));
    }
}

TEST_CASE("kills, a partition, a late joiner and one that leaves, as a scenario has them", "[sim]") {
    const auto s = load("faults");
    const auto o = sim::play(s, 3);
    INFO(sim::describe(o));
    CHECK(o.ok);
    CHECK(o.peers[4].ended == "taken out by the scenario");
    // Whoever came back or came late is at the end with the others.
    for (const std::size_t i : {1, 2, 3}) CHECK(o.peers[i].applied == o.peers[0].applied);
    const auto again = sim::play(s, 3);
    CHECK(o.trace_hash == again.trace_hash);
    CHECK(sim::to_json(o) == sim::to_json(again));
    CHECK(o.trace_hash != sim::play(s, 4).trace_hash);
}

TEST_CASE("a voter whose disk is damaged, gone or an older copy comes back as another node, the founder too", "[sim]") {
    const auto s = load("forgotten");
    for (const std::uint64_t seed : {1, 2, 3}) {
        std::map<std::string, std::vector<std::string>> keys;  // of each start
        std::map<std::string, int> changed;
        const auto o = sim::play(s, seed, sim::simulated_trainer, [&](const auto& peer, core::duration, const auto& e) {
            if (e.name == "started") keys[peer].push_back(*sim::field<std::string>(e, "key"));
            if (e.name == "became_another") ++changed[peer];
        });
        INFO(sim::describe(o));
        CHECK(o.ok);
        CHECK(changed == std::map<std::string, int>{{"p-1", 1}, {"p-2", 1}, {"p-3", 1}});
        // And what they became they are after one more start.
        for (const auto* peer : {"p-1", "p-2", "p-3"}) {
            const auto& of = keys[peer];
            REQUIRE(of.size() >= 3);
            CHECK(std::set(of.begin(), of.end()).size() == 2);
            CHECK(of.front() != of.back());
            CHECK(of[of.size() - 2] == of.back());
        }
        if (seed == 1) CHECK(sim::play(s, seed).trace_hash == o.trace_hash);
    }
}

TEST_CASE("many join at the same time, and all are admitted", "[sim]") {
    const auto o = sim::play(load("crowd"), 1);
    INFO(sim::describe(o));
    CHECK(o.ok);
    CHECK(o.peers.size() == 24);
    for (const auto& p : o.peers) CHECK(p.applied == 2);
}

TEST_CASE("who comes back fetches what it lacks over a fast line, though the coordinator's is thin", "[sim]") {
    // Over 1 Mbit/s a round's sum takes a second, and so does a round: whoever asked there would never catch up.
    for (const std::uint64_t seed : {1, 2}) {
        const auto o = sim::play(load("thin"), seed);
        INFO(sim::describe(o));
        CHECK(o.ok);
    }
}

TEST_CASE("a site's line is shared, and every payload crosses it once", "[sim]") {
    // 400 kB a peer (bf16 of 200,000 parameters): the payloads of both peers of a site leave it by its 10 Mbit/s, once
    // each, 800 kB, 0.64 s and the headers. Within a site they are passed on and cost nothing.
    const auto shared = sim::play(load("sites"), 1);
    auto s = load("sites");
    for (auto& site : s.net.sites) site.line.up = site.line.down = {};
    const auto free = sim::play(s, 1);
    INFO(sim::describe(shared) << sim::describe(free));
    REQUIRE(shared.ok);
    REQUIRE(free.ok);
    const double line = 2 * 400e3 * 8 / 10e6;
    CHECK(shared.round_seconds - free.round_seconds > 0.75 * line);
    CHECK(shared.round_seconds - free.round_seconds < 1.2 * line);
}

TEST_CASE("drawn scenarios recover, and the same seed gives the same trace", "[sim]") {
    // In 179 several come back at a time to one with a thin line; in 305 a donor is of the generation before.
    const std::vector<std::uint64_t> all{179, 305, 1, 2, 3, 4};
    for (const auto seed : std::span(all).first(testing::seeds_of(all.size()))) {
        const auto text = sim::draw_scenario(seed);
        INFO(text);
        const auto s = sim::parse_scenario(text, "drawn", {});
        REQUIRE(s);
        const auto o = sim::play(*s, seed);
        INFO(sim::describe(o));
        CHECK(o.ok);
        CHECK(o.faults == s->faults.size());
        CHECK(o.commits >= 9);
        if (seed == 179) CHECK(sim::play(*s, seed).trace_hash == o.trace_hash);
    }
}

TEST_CASE("who coordinates is found when a fault strikes, and a service manager starts again what failed", "[sim]") {
    auto s = load("chaos");
    sim::fault f;
    f.what = sim::fault_kind::disk;
    f.error = "fsync";
    f.coordinator = true;
    f.at = 40s;
    s.faults.push_back(f);
    std::map<std::string, int> starts;
    std::vector<std::string> coordinators;
    const auto o = sim::play(s, 3, sim::simulated_trainer, [&](const std::string& peer, core::duration, const auto& e) {
        if (e.name == "started") ++starts[peer];
        const bool leads = e.name == "coordinator" && sim::field<bool>(e, "self").value_or(false);
        if (leads && (coordinators.empty() || coordinators.back() != peer)) coordinators.push_back(peer);
    });
    INFO(sim::describe(o));
    CHECK(o.ok);
    CHECK(o.faults == s.faults.size());
    int again = 0;
    for (const auto& [peer, n] : starts) again += n - 1;
    CHECK(again >= 4);                // as many were killed; a failed fsync ends a voter only if its log was written
    CHECK(coordinators.size() >= 5);  // each fault that befell one was followed by another
    for (const auto& p : o.peers) CHECK(p.alive);
    CHECK(sim::play(s, 3).trace_hash == o.trace_hash);
}

TEST_CASE("the controller follows the lines within two rounds, and its predictions hold", "[sim]") {
    struct told_plan {
        core::duration at{};
        std::uint64_t steps = 0;
        std::string codec;
    };
    constexpr core::duration falls = 15s, comes_back = 75s;
    std::vector<told_plan> plans;
    std::vector<core::duration> commits;
    std::vector<double> errors;
    const auto look = [&](const std::string& peer, core::duration at, const core::event& e) {
        if (e.name == "outcome") {
            const double predicted = *sim::field<double>(e, "predicted_seconds");
            errors.push_back(std::abs(*sim::field<double>(e, "seconds") / predicted - 1));
        }
        if (peer != "p-1") return;
        if (e.name == "plan") {
            plans.push_back({at, *sim::field<std::uint64_t>(e, "H"), *sim::field<std::string>(e, "codec")});
        }
        if (e.name == "round_committed") commits.push_back(at);
    };
    const auto o = sim::play(load("controller"), 1, sim::simulated_trainer, look);
    std::string told;
    for (const auto& p : plans) told += fmt::format("{} H {} {}\n", core::format_duration(p.at), p.steps, p.codec);
    INFO(sim::describe(o) << told);
    REQUIRE(o.ok);
    const auto plan_at = [&](core::duration t) {
        return *std::ranges::find_if(plans.rbegin(), plans.rend(), [t](const auto& p) { return p.at <= t; });
    };
    const auto before = plan_at(falls), slow = plan_at(comes_back);
    CHECK(slow.steps > 2 * before.steps);
    CHECK(slow.codec != "bf16");
    // The round in which they fall is planned already, and the next one as it goes: the one after it is another.
    const auto next = std::ranges::upper_bound(commits, falls);
    REQUIRE(commits.end() - next > 2);
    CHECK(plan_at(*(next + 1) + 1s).steps > 2 * before.steps);
    std::ranges::sort(errors);
    INFO("median error of the predictions " << errors[errors.size() / 2]);
    CHECK(errors[errors.size() / 2] < 0.08);
}

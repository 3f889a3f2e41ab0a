#include "sim/swarm.hpp"

#include <set>

#include "sim/scenario.hpp"
#include "tests/test.hpp"

using namespace longhaul;

TEST_CASE("every seed draws a scenario that can be read, whose faults end, and always the same one") {
    std::set<std::string> drawn;
    std::set<sim::fault_kind> kinds;
    std::set<std::string> codecs, modes, errors;
    bool coordinator = false, late = false, site = false;
    for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
        const auto text = sim::draw_scenario(seed);
        INFO("seed " << seed << "\n" << text);
        REQUIRE(sim::draw_scenario(seed) == text);
        CHECK(drawn.insert(text).second);
        const auto s = sim::parse_scenario(text, "drawn", {});
        if (!s) FAIL(s.error().message);
        codecs.insert(s->run.exchange.codec);
        modes.insert(s->run.exchange.mode);
        site |= !s->net.sites.empty();
        REQUIRE(s->peers.size() >= 3);
        CHECK(s->expect.recovers_within > core::duration{});
        for (const auto& f : s->faults) {
            kinds.insert(f.what);
            coordinator |= f.coordinator;
            late |= f.what == sim::fault_kind::join;
            const bool momentary = f.what == sim::fault_kind::restart || f.what == sim::fault_kind::join ||
                                   f.what == sim::fault_kind::reset ||
                                   (f.what == sim::fault_kind::disk && f.error != "full");
            errors.insert(f.error);
            CHECK((momentary || f.lasting > core::duration{}));
            CHECK(f.at + f.lasting < s->expect.within);
        }
    }
    CHECK(kinds.size() == 12);
    CHECK(codecs.size() == 16);
    CHECK(modes.size() == 3);
    CHECK(errors == std::set<std::string>{"", "fsync", "full", "lost", "rot"});
    CHECK((coordinator && late && site));
}

TEST_CASE("a tally names what failed") {
    sim::swarm_tally t;
    sim::outcome good;
    good.seed = 7;
    good.rounds = 20;
    good.commits = 60;
    good.faults = 5;
    good.seconds = 1800;
    good.ok = true;
    t.add(good);
    auto bad = good;
    bad.seed = 8;
    bad.ok = false;
    bad.invariants = {{"I3", "round 4 has two roots"}, {"I1", "ok"}};
    t.add(bad);
    CHECK(sim::describe(t) ==
          "2 seeds: 1.0 virtual hours, 40 rounds, 120 commits on nodes, 10 faults; 1 failed\n"
          "  seed 8: I3: round 4 has two roots\n");
    CHECK(sim::to_json(t) == R"({"seeds":2,"virtual_hours":1.0,"rounds":40,"commits":120,"faults":10,)"
                             R"("failed":[{"seed":8,"broken":["I3: round 4 has two roots"]}],"ok":false})");
}

#include "sim/recovery.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;

namespace {

core::event reached(std::uint64_t round, const char* name = "round_committed", bool merged = true) {
    core::event e(name);
    e.with("round", round).with("own_merged", merged);
    return e;
}

sim::scenario two_peers(core::duration limit) {
    sim::scenario s;
    s.peers.resize(2);
    s.expect.recovers_within = limit;
    return s;
}

}  // namespace

TEST_CASE("a recovery is three more rounds of everybody who lives and whose work they merge, after the last fault") {
    sim::recovery r(two_peers(30s));
    r.saw(0, reached(7));
    r.saw(1, reached(5));
    CHECK(r.wanted() == 0);
    CHECK_FALSE(r.over(1h, {}));
    r.faults_ended(10s);
    r.faults_ended(20s);  // not the first one
    CHECK(r.wanted() == 10);
    r.saw(0, reached(10));
    CHECK_FALSE(r.over(11s, {}));
    CHECK(r.over(11s, {1}));
    r.saw(1, reached(9));
    CHECK_FALSE(r.over(11s, {}));
    CHECK(r.over(41s, {}));  // too late: over, and judged by what was reached
    r.saw(1, reached(10, "round_committed", false));
    CHECK(r.merged_again(0));
    CHECK(r.merged_again(1));  // in round 9
    CHECK(r.over(11s, {}));
}

TEST_CASE("who follows and never takes part again has not recovered") {
    sim::recovery r(two_peers(30s));
    for (const std::uint32_t peer : {0U, 1U}) r.saw(peer, reached(7));
    r.faults_ended(10s);
    for (std::uint64_t round = 8; round < 20; ++round) {
        r.saw(0, reached(round));
        r.saw(1, reached(round, "round_committed", false));
    }
    r.saw(1, reached(20, "catch_up", false));
    CHECK(r.merged_again(0));
    CHECK_FALSE(r.merged_again(1));
    CHECK_FALSE(r.over(39s, {}));
    r.saw(1, reached(21));
    CHECK(r.over(39s, {}));
}

TEST_CASE("nobody has recovered who never committed, and without a limit there is nothing to wait for") {
    sim::recovery r(two_peers(30s));
    r.faults_ended(0s);
    r.saw(0, reached(3));
    CHECK_FALSE(r.over(1s, {}));
    sim::recovery none(two_peers(0s));
    none.saw(0, reached(3));
    none.saw(1, reached(3));
    none.faults_ended(0s);
    CHECK(none.wanted() == 0);
    CHECK_FALSE(none.over(1h, {}));
}

#include "sim/victims.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;

namespace {

sim::seen_event coordinator(core::duration at, bool self) {
    core::event e("coordinator");
    e.with("self", self);
    return {at, e};
}

}  // namespace

TEST_CASE("a fault befalls whoever coordinated last, and ends for the same one") {
    std::deque<sim::seen_event> a, b, c;
    const std::array<const std::deque<sim::seen_event>*, 3> events{&a, &b, &c};
    CHECK_FALSE(sim::who_coordinates(events));

    sim::fault f;
    f.what = sim::fault_kind::partition;
    f.coordinator = true;
    sim::victims victims;
    CHECK(victims.strike(f, events).peers.empty());

    a.push_back(coordinator(1s, true));
    b.push_back(coordinator(2s, false));
    CHECK(sim::who_coordinates(events) == 0);
    // It died without a word, and another one took over.
    b.push_back(coordinator(5s, true));
    c.push_back(coordinator(5s, false));
    c.push_back({6s, core::event("round_committed")});
    CHECK(sim::who_coordinates(events) == 1);
    CHECK(victims.strike(f, events).peers == std::vector<std::uint32_t>{1});
    CHECK(victims.struck(f).others == std::vector<std::uint32_t>{0, 2});
    b.push_back(coordinator(8s, false));
    c.push_back(coordinator(8s, true));
    CHECK(sim::who_coordinates(events) == 2);
    CHECK(victims.struck(f).peers == std::vector<std::uint32_t>{1});

    sim::fault named;
    named.peers = {2};
    CHECK(victims.strike(named, events).peers == named.peers);
    CHECK(victims.struck(named).peers == named.peers);

    // Only while enough order records that one may be spared.
    named.voters = 3;
    CHECK(victims.strike(named, events).peers.empty());
    for (const std::uint64_t count : {1, 3}) {
        core::event e("voters");
        e.with("count", count);
        a.push_back({std::chrono::seconds(9 + count), e});
    }
    CHECK(sim::count_voters(events) == 3);
    CHECK(victims.strike(named, events).peers == named.peers);
}

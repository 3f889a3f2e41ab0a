#include <sys/resource.h>
#include <sys/wait.h>

#include <cerrno>

#include "core/event_file.hpp"
#include "sim/lab/event_reader.hpp"
#include "sim/lab/network.hpp"
#include "sim/lab/relay.hpp"
#include "sim/lab/schedule.hpp"
#include "tests/temp_folder.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;

TEST_CASE("lag is counted to a sixteenth, and a millisecond is the limit") {
    sim::lab::lag_counter lag;
    CHECK(lag.quantile(0.99) == 0s);
    CHECK(lag.late_share() == 0);
    for (int us = 1; us <= 1000; ++us) lag.add(std::chrono::microseconds(us), 1);
    CHECK(lag.late_share() == 0);
    for (const double q : {0.01, 0.1, 0.5, 0.9, 0.99}) {
        const auto exact = core::duration(static_cast<std::int64_t>(q * 1e6));
        CHECK(lag.quantile(q) <= exact);
        CHECK(lag.quantile(q) >= exact - exact / 16 - 1us);
    }
    lag.add(5ms, 1000);
    CHECK(lag.late_share() == 0.5);
    CHECK(lag.worst() == 5ms);
    CHECK(lag.packets() == 2000);
    // Longer than it can tell apart: the last bucket.
    lag.add(10min, 10'000);
    CHECK(lag.quantile(0.99) > 200ms);
}

TEST_CASE("faults begin and end at their times, those at a round when it comes") {
    sim::fault first, second, third;
    first.at = 10s;
    first.lasting = 5s;
    second.at = 12s;
    third.round = 7;
    third.lasting = 1s;
    const std::vector<sim::fault> faults{first, second, third};
    sim::lab::fault_schedule s(faults);
    CHECK(s.next() == 10s);
    CHECK(s.due(9s).empty());
    s.reached(6, 9s);
    CHECK(s.next() == 10s);
    auto steps = s.due(12s);
    REQUIRE(steps.size() == 2);
    CHECK(steps[0].what == &faults[0]);
    CHECK_FALSE(steps[0].undo);
    CHECK(steps[1].what == &faults[1]);
    CHECK(s.next() == 15s);
    s.reached(9, 13s);
    s.reached(10, 13500ms);
    steps = s.due(14s);
    REQUIRE(steps.size() == 2);
    CHECK(steps[0].what == &faults[2]);
    CHECK(steps[1].undo);
    CHECK_FALSE(s.empty());
    REQUIRE(s.due(1min).size() == 1);
    CHECK(s.empty());
    CHECK(s.next() == sim::never);
}

TEST_CASE("a wait for poll is rounded up, and never longer than a second") {
    CHECK(sim::lab::poll_milliseconds(5s, 5s) == 0);
    CHECK(sim::lab::poll_milliseconds(4s, 5s) == 0);
    CHECK(sim::lab::poll_milliseconds(5s + 1us, 5s) == 1);
    CHECK(sim::lab::poll_milliseconds(5s + 500ms, 5s) == 501);
    CHECK(sim::lab::poll_milliseconds(1h, 5s) == 1000);
    CHECK(sim::lab::poll_milliseconds(sim::never, 5s) == 1000);
}

TEST_CASE("events are read as their writers meant them, and nothing else is") {
    const auto e = sim::lab::parse_event_line(
        R"({"v":1,"t":1.5,"node":"a","event":"round_committed","round":7,"loss":0.25,"own_merged":true,)"
        R"("root":"ab","x":null})");
    REQUIRE(e);
    CHECK(e->at == 1500ms);
    CHECK(e->event.name == "round_committed");
    CHECK(std::get<std::uint64_t>(*e->event.find("round")) == 7);
    CHECK(std::get<double>(*e->event.find("loss")) == 0.25);
    CHECK(std::get<bool>(*e->event.find("own_merged")));
    CHECK(std::get<std::string>(*e->event.find("root")) == "ab");
    CHECK(e->event.find("x") == nullptr);
    CHECK(e->event.find("node") == nullptr);
    for (const auto* bad : {"", "{}", "[1]", R"({"t":1})", R"({"event":3,"t":1})", R"({"event":"x","t":"1"})", "{"}) {
        INFO(bad);
        CHECK_FALSE(sim::lab::parse_event_line(bad));
    }
}

TEST_CASE("a daemon's events are followed from one file to the next, and none is lost") {
    const tests::temp_folder folder;
    const auto path = folder.path("events.jsonl");
    sim::lab::event_reader reader(path);
    std::deque<sim::seen_event> seen;
    CHECK_FALSE(reader.poll(seen));  // the daemon has not begun
    auto file = *core::event_file::open(path, [](const core::error& e) { FAIL(e.message); }, 400);
    for (int i = 0; i < 100; ++i) {
        file->write(fmt::format(R"({{"v":1,"t":{},"event":"inner"}})", i));
        // At most one file is filled between two looks.
        if (i % 7 == 0) CHECK(reader.poll(seen));
    }
    reader.poll(seen);
    CHECK_FALSE(reader.poll(seen));
    REQUIRE(seen.size() == 100);
    for (int i = 0; i < 100; ++i) CHECK(seen[static_cast<std::size_t>(i)].at == std::chrono::seconds(i));
}

TEST_CASE("of a lab that could not be built nothing is left") {
    sim::topology t;
    for (int i = 0; i < 16; ++i) t.peers.push_back({fmt::format("p{}", i), -1, {}, true});
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    auto few = before;
    few.rlim_cur = 12;  // each machine takes one
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
    {
        const auto net = sim::lab::network::start(t, 1);
        ::setrlimit(RLIMIT_NOFILE, &before);
        REQUIRE_FALSE(net);
        CHECK((net.error().code == core::errc::limit || net.error().code == core::errc::io));
        CHECK((::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD));
    }
}

#include "sim/scenario.hpp"

#include <fstream>
#include <iterator>

#include "tests/source_dir.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;

namespace {

core::result<sim::scenario> parse(std::string_view text) {
    return sim::parse_scenario(text, "s.toml", [](const std::string& name) -> core::result<std::string> {
        if (name == "drop.csv") return std::string("seconds,factor\n0,1\n10,0.025\n20,1\n");
        return core::fail(core::errc::not_found, "there is no {}", name);
    });
}

sim::scenario good(std::string_view text) {
    auto s = parse(text);
    if (!s) FAIL(s.error().message);
    return std::move(*s);
}

std::string refusal(std::string_view text) {
    const auto s = parse(text);
    return s ? "accepted" : s.error().message;
}

constexpr std::string_view everything = R"(
[run]
name = "wide"
stop.rounds = 12
[run.model]
kind = "quadratic"
width = 1000
[run.data]
kind = "quadratic"
[links]
rtt = "80 ms"
loss = "0.1 %"
jitter = "2 ms"
[[site]]
name = "paris"
up = "100 Mbit/s"
down = "100 Mbit/s"
rtt = "500 us"
[[peer]]
name = "home"
preset = "dsl"
up = "5 Mbit/s"
reachable = false
[[peer]]
name = "node"
site = "paris"
count = 3
step_time = "20 ms"
restart_after = "5 s"
trace = "drop.csv"
[[link]]
between = ["home", "paris"]
rtt = "30 ms"
loss = "1 %"
burst = 4
[[fault]]
at = "10 s"
for = "5 s"
kill = ["node-2"]
[[fault]]
round = 3
one_way = ["paris", "home"]
[[fault]]
at = "1 min"
partition = "paris"
[[fault]]
at = "2 s"
rate = ["home"]
factor = 0.1
[[fault]]
at = "3 s"
join = "node-3"
[[fault]]
at = "3 s"
clock = "home"
offset = "-5 min"
[[fault]]
at = "4 s"
for = "1 s"
power = "coordinator"
[[fault]]
at = "5 s"
partition = ["node-2"]
from = ["home"]
[[fault]]
at = "6 s"
reset = "home"
[[fault]]
at = "7 s"
disk = "home"
error = "rot"
voters = 3
[expect]
rounds = 10
within = "3 min"
recovers_within = "30 s"
)";

}  // namespace

TEST_CASE("a scenario says who is where, on which lines, and what goes wrong") {
    const auto s = good(everything);
    CHECK(s.run.name == "wide");
    CHECK(s.run.stop.rounds == 12);
    CHECK(s.run_values.values().size() == 5);
    REQUIRE(s.net.peers.size() == 4);
    const auto& home = s.net.peers[0];
    CHECK(home.line.up.bits_per_second == 5e6);
    CHECK(home.line.down.bits_per_second == 50e6);  // the preset's
    CHECK_FALSE(home.reachable);
    CHECK(s.net.peers[3].name == "node-3");
    CHECK(s.net.peers[3].line.changes.size() == 3);
    CHECK(s.peers[1].step_time == 20ms);
    CHECK(s.peers[3].joins_later);
    CHECK(s.net.one_way(1, 2) == 250us);
    CHECK(s.net.one_way(0, 1) == 15ms + home.line.delay);
    CHECK(s.net.path(2, 0).loss.rate == 0.01);
    CHECK(s.net.path(2, 0).loss.burst == 4);
    CHECK(s.net.path(2, 0).jitter == 2ms);  // of [links], which [[link]] did not change
    CHECK(s.peers[0].restart_after == 0s);
    CHECK(s.peers[1].restart_after == 5s);
    REQUIRE(s.faults.size() == 10);
    CHECK(s.faults[0].peers == std::vector<std::uint32_t>{2});
    CHECK(s.faults[0].lasting == 5s);
    CHECK(s.faults[1].round == 3);
    CHECK(s.faults[1].peers == std::vector<std::uint32_t>{1, 2, 3});
    CHECK(s.faults[1].others == std::vector<std::uint32_t>{0});
    CHECK(s.faults[2].others == std::vector<std::uint32_t>{0});
    CHECK(s.faults[5].offset == -5min);
    CHECK(s.faults[6].what == sim::fault_kind::power);
    CHECK(s.faults[6].coordinator);
    CHECK(s.faults[6].peers.empty());
    CHECK(s.faults[7].peers == std::vector<std::uint32_t>{2});
    CHECK(s.faults[7].others == std::vector<std::uint32_t>{0});
    CHECK(s.faults[8].what == sim::fault_kind::reset);
    CHECK(s.faults[9].voters == 3);
    CHECK(s.expect.within == 3min);
    CHECK(s.expect.recovers_within == 30s);
}

TEST_CASE("all presets have a rate, a delay and a source") {
    REQUIRE(sim::line_presets().size() >= 8);
    std::ifstream file(longhaul::tests::source_dir() + "/sim/README.md");
    const std::string published((std::istreambuf_iterator<char>(file)), {});
    // Milliseconds, or microseconds where it is less than one.
    const auto delay_in_words = [](core::duration d) {
        return core::to_seconds(d) * (d < std::chrono::milliseconds(1) ? 1e6 : 1e3);
    };
    for (const auto& preset : sim::line_presets()) {
        INFO(preset.name);
        CHECK(preset.line.up.bits_per_second > 0);
        CHECK(preset.line.down.bits_per_second >= preset.line.up.bits_per_second);
        CHECK(preset.line.delay > 0ns);
        CHECK(preset.source.size() > 20);
        const auto row =
            fmt::format("| {} | {:g} / {:g} Mbit/s | {:g} ", preset.name, preset.line.up.bits_per_second / 1e6,
                        preset.line.down.bits_per_second / 1e6, delay_in_words(preset.line.delay));
        CHECK_THAT(published, Catch::Matchers::Contains(row));
        CHECK_THAT(published, Catch::Matchers::Contains(std::string(preset.source)));
        CHECK(good(fmt::format("[[peer]]\nname = \"a\"\npreset = \"{}\"\n", preset.name)).net.peers.size() == 1);
    }
}

TEST_CASE("a refusal names the place, and the nearest thing that exists") {
    using Catch::Matchers::Contains;
    CHECK_THAT(refusal("[[peer]]\nname = \"a\"\nupp = \"1 Mbit/s\"\n"), Contains("s.toml:3") && Contains("\"up\""));
    CHECK_THAT(refusal("[[pear]]\nname = \"a\"\n"), Contains("[[peer]]"));
    CHECK_THAT(refusal("[[peer]]\nname = \"a\"\npreset = \"fiber\"\n"), Contains("\"fibre\""));
    CHECK_THAT(refusal("[[site]]\nname = \"rome\"\n[[peer]]\nname = \"a\"\nsite = \"roma\"\n"), Contains("\"rome\""));
    CHECK_THAT(refusal("[run]\nstop.round = 3\n[[peer]]\nname = \"a\"\n"), Contains("stop.rounds"));
    CHECK_THAT(refusal("[link]\nrtt = \"1 ms\"\n[[peer]]\nname = \"a\"\n"), Contains("links.rtt"));
    CHECK_THAT(refusal("[[peer]]\nname = \"a\"\ntrace = \"no.csv\"\n"), Contains("no.csv"));
    CHECK_THAT(refusal(""), Contains("at least one [[peer]]"));
    const std::string peers = "[[peer]]\nname = \"anna\"\n[[peer]]\nname = \"b\"\n";
    CHECK_THAT(refusal(peers + "[[peer]]\nname = \"b\"\n"), Contains("twice"));
    CHECK_THAT(refusal(peers + "[[link]]\nbetween = [\"anna\"]\n"), Contains("between"));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\nkill = \"ana\"\n"), Contains("\"anna\""));
    CHECK_THAT(refusal(peers + "[[fault]]\nkill = \"anna\"\n"), Contains("`at` or `round`"));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\nkill = \"anna\"\nstop = \"b\"\n"), Contains("exactly one"));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\nkil = \"anna\"\n"), Contains("\"kill\""));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\nrate = \"anna\"\n"), Contains("factor"));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\nkill = \"anna\"\nfactor = 2\n"), Contains("belongs to"));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\nkill = \"anna\"\nfrom = \"b\"\n"), Contains("belongs to"));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\npartition = \"coordinator\"\nfrom = \"b\"\n"),
               Contains("names its peers"));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\ndisk = \"anna\"\nerror = \"rott\"\n"), Contains("\"rot\""));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\njoin = \"anna\"\n"), Contains("founds"));
    CHECK_THAT(refusal(peers + "[[fault]]\nat = \"1 s\"\njoin = \"coordinator\"\n"), Contains("names its peers"));
    CHECK_THAT(refusal(peers + "[[peer]]\nname = \"coordinator\"\n"), Contains("another name"));
    CHECK_THAT(refusal("[[peer]]\nname = \"a\"\nrestart_after = \"2 h\"\n"), Contains("an hour"));
    CHECK_THAT(refusal("[[peer]]\nname = \"a\"\ncount = 10001\n"), Contains("10000"));
    CHECK_THAT(refusal("[[peer]]\nname = \"a\"\ndelay = \"2 min\"\n"), Contains("minute"));
}

TEST_CASE("a trace has growing times and factors that mean something") {
    const auto parse_trace = [](std::string_view text) { return sim::parse_rate_trace(text, "t.csv"); };
    const auto t = parse_trace("0,1\r\n1.5, 0.25\n\n# noon\n3,0");
    REQUIRE(t);
    REQUIRE(t->size() == 3);
    CHECK((*t)[1].at == 1500ms);
    CHECK((*t)[2].factor == 0);
    for (const auto* bad : {"", "seconds,factor\n", "1,1\n1,2\n", "1;2\n", "1,-1\n", "-1,1\n", "nan,1\n", "1,inf\n",
                            "1,1001\n", "1,1,1\n"}) {
        INFO(bad);
        CHECK_FALSE(parse_trace(bad));
    }
}

TEST_CASE("queues are one bandwidth-delay product, or what was said") {
    auto s = good("[links]\nrtt = \"100 ms\"\n[[peer]]\nname = \"a\"\nup = \"80 Mbit/s\"\n[[peer]]\nname = \"b\"\n");
    CHECK(s.net.queue_bytes(0, {80e6}, s.net.longest_rtt(0)) == 1'000'000);
    CHECK(s.net.queue_bytes(5000, {80e6}, 1s) == 5000);
    s.net.queue = 7000;
    CHECK(s.net.queue_bytes(0, {80e6}, 1s) == 7000);
}

// Any text as a scenario, any text as a trace: never more than an error, and what is accepted is a network that can be
// built.
#include "sim/scenario.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

FUZZ_TARGET(scenario) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    // A scenario's trace is the same input, once more.
    const auto read = [&text](const std::string&) -> core::result<std::string> { return std::string(text); };
    if (const auto s = sim::parse_scenario(text, "fuzz.toml", read)) {
        FUZZ_CHECK(!s->net.peers.empty() && s->net.peers.size() <= sim::max_scenario_peers);
        FUZZ_CHECK(s->peers.size() == s->net.peers.size());
        const auto last = static_cast<std::uint32_t>(s->net.peers.size() - 1);
        FUZZ_CHECK(s->net.one_way(0, last) >= core::duration{} && s->net.one_way(0, last) < std::chrono::minutes(10));
        for (const auto& f : s->faults) {
            FUZZ_CHECK(!f.peers.empty());
            for (const auto peer : f.peers) FUZZ_CHECK(peer <= last);
            for (const auto peer : f.others) FUZZ_CHECK(peer <= last);
        }
    }
    if (const auto t = sim::parse_rate_trace(text, "fuzz.csv")) {
        FUZZ_CHECK(!t->empty());
        for (std::size_t i = 0; i < t->size(); ++i) {
            FUZZ_CHECK((*t)[i].factor >= 0 && (*t)[i].factor <= 1000);
            FUZZ_CHECK(i == 0 || (*t)[i].at > (*t)[i - 1].at);
        }
    }
}

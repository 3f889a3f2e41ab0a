#include "peers/suspicion.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using peers::suspicion;
using namespace std::chrono_literals;

namespace {

constexpr core::time_point first_look{std::chrono::hours(1)};

/// Looks every interval for so long; the time after which each silence was told.
struct watched {
    suspicion s;
    core::time_point now = first_look;
    std::vector<core::duration> told;

    void look(core::duration lasting, std::uint64_t received, std::uint64_t more_each = 0) {
        for (const auto until = now + lasting; now < until; now += suspicion::interval) {
            s.look_at(now);
            if (s.falls_silent(7, received += more_each, 2s)) told.push_back(now - first_look);
        }
    }
};

}  // namespace

TEST_CASE("a peer of which nothing comes for its patience is told once, and again after it was heard") {
    watched w;
    w.look(10s, 100);
    CHECK(w.told == std::vector<core::duration>{2s});
    w.look(1s, 101);
    w.look(5s, 101);
    CHECK(w.told == std::vector<core::duration>{2s, 12s});
}

TEST_CASE("a peer of which anything comes is not silent, however slowly") {
    watched w;
    w.look(30s, 0, 1);
    for (std::uint64_t i = 0; i < 10; ++i) w.look(1750ms, 1000 + i);
    CHECK(w.told.empty());
}

TEST_CASE("who was itself held up accuses nobody of what it did not hear meanwhile") {
    watched w;
    w.look(1s, 100);
    w.now += 60s;
    w.look(1750ms, 100);
    CHECK(w.told.empty());
    w.look(1s, 100);
    CHECK(w.told == std::vector<core::duration>{63s});
}

TEST_CASE("the patience with a silent peer grows with its round trip and with the round, up to the silence limit") {
    CHECK(suspicion::patience(10s, 0ms, 0s) == 1500ms);
    CHECK(suspicion::patience(10s, 100ms, 0s) == 1900ms);
    CHECK(suspicion::patience(30s, 0ms, 0s) == 4500ms);
    CHECK(suspicion::patience(10s, 100ms, 10s) == 1900ms);
    CHECK(suspicion::patience(10s, 100ms, 40s) == 4s);
    CHECK(suspicion::patience(10s, 100ms, 1h) == 10s);
}

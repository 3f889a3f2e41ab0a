#include "peers/suspicion.hpp"

#include <algorithm>

#include "tests/test.hpp"

using namespace longhaul;
using peers::suspicion;
using namespace std::chrono_literals;

namespace {

constexpr core::time_point first_look{std::chrono::hours(1)};

/// Looks every interval for so long; the longest silence that was seen.
struct watched {
    suspicion s;
    core::time_point now = first_look;

    core::duration look(core::duration lasting, std::uint64_t received, std::uint64_t more_each = 0) {
        core::duration longest{};
        for (const auto until = now + lasting; now < until; now += suspicion::interval) {
            s.look_at(now);
            longest = std::max(longest, s.silence_of({}, received += more_each));
        }
        return longest;
    }
};

}  // namespace

TEST_CASE("a peer is silent since something came from it, however little") {
    watched w;
    CHECK(w.look(10s, 100) == 9750ms);
    CHECK(w.look(10s, 101) == 9750ms);
    CHECK(w.look(30s, 200, 1) == 0s);
    CHECK(w.look(2s, 230) == 1750ms);
}

TEST_CASE("who was itself held up accuses nobody of what it did not hear meanwhile") {
    watched w;
    w.look(1s, 100);
    w.now += 60s;
    CHECK(w.look(2s, 100) == 1750ms);
}

TEST_CASE("the patience with a silent peer grows with its round trip and with the round, up to the silence limit") {
    CHECK(suspicion::patience(10s, 0ms, 0s) == 1500ms);
    CHECK(suspicion::patience(10s, 100ms, 0s) == 1700ms);
    CHECK(suspicion::patience(30s, 0ms, 0s) == 4500ms);
    CHECK(suspicion::patience(10s, 100ms, 10s) == 1700ms);
    CHECK(suspicion::patience(10s, 100ms, 40s) == 4s);
    CHECK(suspicion::patience(10s, 100ms, 1h) == 10s);
}

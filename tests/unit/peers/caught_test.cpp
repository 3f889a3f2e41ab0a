#include "peers/caught.hpp"

#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

TEST_CASE("who was caught is refused for a moment, then for twice as long each time, until it was good for long") {
    caught_peers caught;
    const auto liar = digest_of(1), other = digest_of(2);
    core::time_point now{1000s};
    CHECK_FALSE(caught.refused(liar, now));
    CHECK(caught.note(liar, now) == 8s);
    CHECK(caught.refused(liar, now) == 8s);
    CHECK_FALSE(caught.refused(other, now));
    now += 3s;
    // What it had sent before is no other time.
    CHECK(caught.note(liar, now) == 5s);
    now += 5s;
    CHECK_FALSE(caught.refused(liar, now));
    for (const core::duration expected : {16s, 32s, 64s, 128s, 256s, 300s, 300s}) {
        CHECK(caught.note(liar, now) == expected);
        now += expected;
        CHECK_FALSE(caught.refused(liar, now));
    }
    now += caught_peers::forgiven + 1s;
    CHECK(caught.note(liar, now) == 8s);
    CHECK(caught.note(other, now) == 8s);
}

TEST_CASE("only so many are remembered, those that are refused the longest") {
    caught_peers caught;
    core::time_point now{1000s};
    caught.note(digest_of(1), now);
    now += 8s;
    caught.note(digest_of(1), now);  // for twice as long
    for (std::uint64_t i = 2; i <= caught_peers::most + 1; ++i) {
        now += 1ms;
        caught.note(digest_of(i), now);
    }
    CHECK(caught.refused(digest_of(1), now));
    CHECK_FALSE(caught.refused(digest_of(2), now));
    CHECK(caught.refused(digest_of(3), now));
}

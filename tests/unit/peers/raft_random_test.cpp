#include <cstdlib>

#include "tests/test.hpp"
#include "tests/unit/peers/raft_world.hpp"

using namespace longhaul::peers::raft::testing;

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr std::uint64_t seeds = 150;
#elif defined(NDEBUG)
constexpr std::uint64_t seeds = 2000;
#else
constexpr std::uint64_t seeds = 400;
#endif

}  // namespace

// RAFT_SEEDS=FIRST:LAST plays others, or a single one again.
TEST_CASE("under random faults one history is committed, by one leader a term, and it goes on when they cease") {
    std::uint64_t first = 1, last = seeds;
    if (const char* wanted = std::getenv("RAFT_SEEDS")) {
        REQUIRE(std::sscanf(wanted, "%lu:%lu", &first, &last) == 2);
    }
    random_world::counts all;
    for (auto seed = first; seed <= last; ++seed) {
        random_world w(seed);
        const auto broken = w.run();
        if (!broken.empty()) FAIL(broken);
        const auto& c = w.counted();
        all.leaders += c.leaders;
        all.commits += c.commits;
        all.crashes += c.crashes;
        all.changes += c.changes;
        all.snapshots += c.snapshots;
        all.transfers += c.transfers;
    }
    UNSCOPED_INFO(all.leaders << " leaders, " << all.commits << " commits, " << all.crashes << " crashes, "
                              << all.changes << " changes, " << all.snapshots << " snapshots, " << all.transfers
                              << " transfers");
    // A world in which nothing happens proves nothing.
    const auto played = last - first + 1;
    CHECK(all.commits > 50 * played);
    if (played > 100) CHECK((all.crashes > played && all.changes > played && all.snapshots > played / 4));
    CHECK(all.leaders >= played);
    if (std::getenv("RAFT_SEEDS"))
        WARN(all.leaders << " leaders, " << all.commits << " commits, " << all.crashes << " crashes, " << all.changes
                         << " changes, " << all.snapshots << " snapshots, " << all.transfers << " transfers");
}

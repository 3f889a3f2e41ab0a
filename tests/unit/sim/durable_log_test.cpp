#include "sim/durable_log.hpp"

#include "core/hash.hpp"
#include "peers/ledger.hpp"
#include "sim/world.hpp"
#include "tests/test.hpp"

using namespace longhaul;
namespace raft = longhaul::peers::raft;

namespace {

raft::voter_id key_of(unsigned n) {
    raft::voter_id id;
    id.bytes[0] = static_cast<std::byte>(n);
    return id;
}

/// Three who order records, and the commit of round 1 on the disks of some of them.
struct three_disks {
    three_disks() {
        for (const auto* name : {"a", "b", "c"}) w.add_node(name);
    }
    void write(unsigned n, bool with_commit) {
        raft::disk_state s{key_of(n), {}, 5, {}};
        s.content.base.members.voters = {key_of(1), key_of(2), key_of(3)};
        s.content.base.data = peers::ledger::founded_by(key_of(1)).snapshot();
        const auto state = raft::serialize(s);
        auto log = raft::frame_of(core::hash(state), 0, {});
        if (with_commit) {
            peers::commit_record commit;
            commit.round = 1;
            commit.attempt = 1;
            raft::disk_write write;
            write.number = 1;
            write.first = 1;
            write.entries = {{1, raft::entry_kind::record, peers::serialize(peers::record(commit)), {}}};
            const auto frame = raft::frame_of(core::hash(state), 1, {write});
            log.insert(log.end(), frame.begin(), frame.end());
        }
        auto& disk = w.nodes()[n - 1]->disk();
        disk.write("raft/state", state);
        disk.write("raft/log-000000000005", log);
    }
    sim::world w{1};
};

}  // namespace

TEST_CASE("I7 is looked for on the disks: a commit that a majority does not hold is found, once") {
    three_disks t;
    t.write(1, true);
    t.write(2, false);
    t.write(3, false);
    sim::durable_logs logs;
    const auto broken = logs.applied(t.w.nodes(), 1, 1);
    REQUIRE(broken);
    CHECK(*broken == "round 1 of generation 1 was applied, and its commit is on the disks of 1 voters");
    CHECK_FALSE(logs.applied(t.w.nodes(), 1, 1));
    CHECK(logs.applied(t.w.nodes(), 1, 2));  // which nobody holds

    t.write(2, true);
    sim::durable_logs others;
    CHECK_FALSE(others.applied(t.w.nodes(), 1, 1));

    // Another log behind the same state: what was read before counts no more.
    t.write(2, false);
    CHECK(others.applied(t.w.nodes(), 2, 1));
}

TEST_CASE("a voter whose disk was lost after it had answered is no proof") {
    three_disks t;
    t.write(1, true);
    t.write(2, false);
    t.write(3, true);
    t.w["c"].disk().lose("raft");
    CHECK_FALSE(sim::durable_logs().applied(t.w.nodes(), 1, 1));
    t.w["c"].disk().write("raft/state", core::byte_vector(100));
    CHECK_FALSE(sim::durable_logs().applied(t.w.nodes(), 1, 1));
}

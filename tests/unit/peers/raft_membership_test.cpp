// Who votes, and how that changes. Names in brackets are the scenarios of etcd/raft's suite that a case restates.
#include "tests/unit/peers/raft_cluster.hpp"

using namespace longhaul;
using namespace longhaul::peers::raft;
using namespace longhaul::peers::raft::testing;

namespace {

using kind = change::kind;

void follow(cluster& c, unsigned leader, unsigned who) {
    if (!c.nodes.contains(who)) c.add(who);
    REQUIRE(c.change(leader, kind::add_learner, who));
    c.run();
}

void grow(cluster& c, unsigned leader, unsigned who) {
    follow(c, leader, who);
    REQUIRE(c.change(leader, kind::promote, who));
    c.run();
}

core::errc refusal(const core::result<actions>& r) {
    REQUIRE_FALSE(r);
    return r.error().code;
}

}  // namespace

TEST_CASE(
    "a run grows from one voter to five, and back to one (TestAddNode, TestAddLearner, TestRemoveNode, "
    "TestRemoveLearner, TestRaftNodes, TestLearnerPromotion, confchange_v1_add_single)") {
    cluster c(1);
    c.elect(1);
    c.propose(1, "a");
    for (unsigned n = 2; n <= 5; ++n) {
        grow(c, 1, n);
        CHECK(c[1].members().voters.size() == n);
        CHECK(c[1].members().learners.empty());
        CHECK(c[n].members() == c[1].members());
    }
    c.propose(1, "b");
    c.run();
    c.beat(1);
    c.run();
    for (unsigned n = 1; n <= 5; ++n) CHECK(c.at(n).applied == c.at(1).applied);
    for (unsigned n = 5; n >= 2; --n) {
        REQUIRE(c.change(1, kind::remove, n));
        c.run();
        CHECK(c[1].members().voters.size() == n - 1);
        // Who was removed knows it, and campaigns no more.
        CHECK_FALSE(c[n].members().votes(id_of(n)));
    }
    c.propose(1, "alone");
    CHECK(c.at(1).applied.back() == "alone");
}

TEST_CASE("a standby has everything and decides nothing (TestLearnerLogReplication, TestAddNodeCheckQuorum)") {
    cluster c(1);
    c.elect(1);
    c.propose(1, "a");
    c.add(2);
    REQUIRE(c.change(1, kind::add_learner, 2));
    c.run();
    CHECK(c.at(2).applied == c.at(1).applied);
    // Its answers are not waited for, and its silence deposes nobody.
    c.isolate(2);
    c.propose(1, "b");
    CHECK(c.at(1).applied.back() == "b");
    c.elapse(5 * election);
    CHECK(c[1].role() == role::leader);
    CHECK(c[2].role() == role::follower);
}

TEST_CASE("a standby votes only when it is caught up and answers") {
    cluster c(1);
    c.elect(1);
    c.add(2);
    c.isolate(2);
    REQUIRE(c.change(1, kind::add_learner, 2));
    c.run();
    CHECK(refusal(c.change(1, kind::promote, 2)) == core::errc::limit);
    c.heal();
    c.beat(1);
    c.run();
    // It was there, and fell silent.
    c.isolate(2);
    c.now += 2 * election;
    CHECK(refusal(c.change(1, kind::promote, 2)) == core::errc::limit);
    c.heal();
    c.beat(1);
    c.run();
    CHECK(c.change(1, kind::promote, 2));
}

TEST_CASE(
    "one change at a time, and only after an entry of the leader's own term (TestStepConfig, "
    "TestStepIgnoreConfig, TestNewLeaderPendingConfig, confchange_disable_validation)") {
    cluster c(3);
    c.elect(1);
    c.isolate(1);
    REQUIRE(c.change(1, kind::add_learner, 4));
    c.run();
    CHECK(refusal(c.change(1, kind::add_learner, 5)) == core::errc::limit);
    c.heal();
    c.beat(1);
    c.run();
    CHECK(c.change(1, kind::add_learner, 5));
    c.run();
    // A new leader first has to commit something.
    c.time_out(2);
    c.lose = [](const packet& p) {
        const auto* a = std::get_if<append_request>(&p.what.body);
        return a && !a->entries.empty();
    };
    c.run();
    REQUIRE(c[2].role() == role::leader);
    CHECK(refusal(c.change(2, kind::remove, 3)) == core::errc::limit);
    c.heal();
    c.beat(2);
    c.run();
    CHECK(c.change(2, kind::remove, 3));
    // And one that finds an uncommitted change waits for it.
    cluster d;
    const configuration three{ids_of({1, 2, 3}), {}};
    entry pending{1, entry_kind::membership, {}, {ids_of({1, 2, 3}), ids_of({4})}};
    d.add(1, three, 1, {barrier_of(1), pending});
    d.add(2, three, 1, {barrier_of(1)});
    d.add(3, three, 1, {barrier_of(1)});
    d.elect(1);
    CHECK(d[1].members().has(id_of(4)));
    CHECK(d.change(1, kind::remove, 4));
}

TEST_CASE("changes that make no sense are refused (confchange_v2 validation)") {
    cluster c(3);
    CHECK(refusal(c.change(1, kind::remove, 2)) == core::errc::quorum_lost);
    c.elect(1);
    CHECK(refusal(c.change(1, kind::add_learner, 2)) == core::errc::usage);
    CHECK(refusal(c.change(1, kind::promote, 2)) == core::errc::usage);
    CHECK(refusal(c.change(1, kind::promote, 7)) == core::errc::usage);
    CHECK(refusal(c.change(1, kind::demote, 7)) == core::errc::usage);
    CHECK(refusal(c.change(1, kind::remove, 7)) == core::errc::usage);
    cluster one(1);
    one.elect(1);
    CHECK(refusal(one.change(1, kind::remove, 1)) == core::errc::usage);
    CHECK(refusal(one.change(1, kind::demote, 1)) == core::errc::usage);
    for (unsigned n = 2; n <= 1 + max_learners; ++n) {
        REQUIRE(one.change(1, kind::add_learner, n));
    }
    CHECK(refusal(one.change(1, kind::add_learner, 100)) == core::errc::usage);
}

TEST_CASE("a change that could never be committed is refused") {
    cluster c(3);
    c.elect(1);
    c.isolate(3);
    for (int i = 0; i < 15; ++i) {
        c.beat(1);
        c.run();
    }
    // Without 2 there would be two voters, and one of them is silent.
    CHECK(refusal(c.change(1, kind::remove, 2)) == core::errc::limit);
    REQUIRE(c.change(1, kind::remove, 3));
    c.run();
    CHECK(c[1].members().voters == ids_of({1, 2}));
    CHECK(c[1].commit() == c[1].log().last_index());
}

TEST_CASE("removing a voter commits what waited for it (TestCommitAfterRemoveNode)") {
    cluster c(2);
    c.elect(1);
    c.isolate(2);
    c.propose(1, "waits");
    c.run();
    CHECK(c.at(1).applied == std::vector<std::string>{"barrier"});
    REQUIRE(c.change(1, kind::remove, 2));
    CHECK(c.at(1).applied == std::vector<std::string>{"barrier", "waits", "members"});
}

TEST_CASE("from one voter to three at once: on the leader's disk before anybody hears of it") {
    cluster c(1);
    c.elect(1);
    for (unsigned n : {2U, 3U}) follow(c, 1, n);
    const auto both = change{kind::promote, ids_of({2, 3})};
    c.at(1).slow_disk = true;
    REQUIRE(c.step(1, both));
    // Neither the change, nor what is logged behind it; heartbeats go on.
    c.propose(1, "behind");
    c.beat(1);
    c.run();
    for (unsigned n : {2U, 3U}) CHECK(c[n].members() == configuration{ids_of({1}), ids_of({2, 3})});
    CHECK(c.at(2).applied.back() == "members");
    // So nothing is lost with the leader: it comes back as the only voter, and nobody else can lead meanwhile.
    c.crash(1);
    c.elapse(5 * election);
    CHECK(c.leader() == 0);
    c.restart(1);
    c.at(1).slow_disk = false;
    c.elect(1);
    c.run();
    CHECK(c[1].term() == 2);
    CHECK(c[1].members() == configuration{ids_of({1}), ids_of({2, 3})});

    // Once it is on the disk, it travels, and counts with a second copy; then any one may die.
    c.propose(1, "before");
    c.run();
    c.at(1).slow_disk = true;
    REQUIRE(c.step(1, both));
    c.isolate(3);
    c.sync(1);
    c.run();
    CHECK(c[2].members().voters == ids_of({1, 2, 3}));
    CHECK(c[1].commit() == c[1].log().last_index());
    c.sync_all(1);
    c.crash(1);
    c.heal();
    // The third does not know yet that it votes.
    CHECK_FALSE(c[3].members().votes(id_of(3)));
    c.elapse(5 * election);
    CHECK(c.leader() == 2);
    c.run();
    CHECK(c[3].members().voters == ids_of({1, 2, 3}));
    CHECK(c.at(3).applied == c.at(2).applied);
}

TEST_CASE("three vote only when all before is on the disk of the one that decided alone") {
    // The standbys hold the record, the leader's disk does not: as voters they could commit it without the leader,
    // which would forget it and decide alone on something else.
    cluster c(1);
    c.elect(1);
    for (unsigned n : {2U, 3U}) follow(c, 1, n);
    c.at(1).slow_disk = true;
    c.propose(1, "early");
    c.run();
    const auto both = change{kind::promote, ids_of({2, 3})};
    CHECK(refusal(c.step(1, both)) == core::errc::limit);
    CHECK(c[1].commit() < c[1].log().last_index());
    c.sync_all(1);
    CHECK(c[1].commit() == c[1].log().last_index());
    CHECK(c.step(1, both));
}

TEST_CASE("several at once only become voters, and only of one who decides alone") {
    cluster one(1);
    one.elect(1);
    CHECK(refusal(one.step(1, change{kind::add_learner, ids_of({2, 3})})) == core::errc::usage);
    CHECK(refusal(one.step(1, change{kind::promote, {}})) == core::errc::usage);
    cluster three(3);
    three.elect(1);
    for (unsigned n : {4U, 5U}) follow(three, 1, n);
    CHECK(refusal(three.step(1, change{kind::promote, ids_of({4, 5})})) == core::errc::usage);
    CHECK(refusal(three.step(1, change{kind::remove, ids_of({2, 3})})) == core::errc::usage);
    CHECK(three[1].members() == configuration{ids_of({1, 2, 3}), ids_of({4, 5})});
}

TEST_CASE("growing from one to two while the leader crashes") {
    // The change reached the leader's disk, and nobody else.
    cluster d(1);
    d.elect(1);
    d.add(2);
    REQUIRE(d.change(1, kind::add_learner, 2));
    d.run();
    d.isolate(2);
    REQUIRE(d.change(1, kind::promote, 2));
    d.wire.clear();
    d.crash(1);
    d.heal();
    d.restart(1);
    // It needs the vote of one that does not know that it has one.
    CHECK(d[1].members().voters == ids_of({1, 2}));
    CHECK_FALSE(d[2].members().votes(id_of(2)));
    d.elapse(5 * election);
    CHECK(d[1].role() == role::leader);
    CHECK(d[2].members().voters == ids_of({1, 2}));
}

TEST_CASE("a configuration is taken back with its entry: in memory, after compaction, and across a restart") {
    // 1 leads, appends the removal of 3, reaches nobody, and 2 leads on.
    cluster c(3);
    c.elect(1);
    c.propose(1, "a");
    c.run();
    c.beat(1);
    c.run();
    c.isolate(1);
    REQUIRE(c.change(1, kind::add_learner, 4));
    CHECK(c[1].members().has(id_of(4)));
    const auto with_4 = c[1].members();
    // The snapshot has the configuration of its own entry, not the one that is not committed.
    REQUIRE(c.step(1, compact{c[1].applied(), text("state")}));
    CHECK(c[1].log().base().members == configuration{ids_of({1, 2, 3}), {}});
    CHECK(c[1].members() == with_4);
    CHECK(c.at(1).disk.base.members == configuration{ids_of({1, 2, 3}), {}});
    // A restart finds both again.
    c.restart(1);
    CHECK(c[1].members() == with_4);
    c.elect(2);
    c.heal();
    c.beat(2);
    c.run();
    CHECK(c[1].members() == configuration{ids_of({1, 2, 3}), {}});
    c.restart(1);
    CHECK(c[1].members() == configuration{ids_of({1, 2, 3}), {}});
    // A compaction behind it keeps what was taken back away.
    REQUIRE(c.step(2, compact{c[2].applied(), text("later")}));
    CHECK(c[2].log().base().members == configuration{ids_of({1, 2, 3}), {}});
}

TEST_CASE(
    "a leader that removes itself leads until that is committed, and hands over "
    "(confchange_v1_remove_leader, confchange_v1_remove_leader_stepdown)") {
    for (const auto what : {kind::remove, kind::demote}) {
        cluster c(3);
        c.elect(1);
        c.isolate(2);
        c.isolate(3);
        REQUIRE(c.change(1, what, 1));
        c.run();
        // Its own copy does not count any more: 2 and 3 are the quorum.
        CHECK(c[1].role() == role::leader);
        CHECK(c[1].commit() == 1);
        CHECK_FALSE(c[1].members().votes(id_of(1)));
        c.propose(1, "in between");
        c.heal();
        c.cut = {{1, 3}};
        c.beat(1);
        c.run();
        CHECK(c[1].commit() == 1);
        c.heal();
        c.beat(1);
        c.run();
        CHECK(c[1].role() == role::follower);
        CHECK(std::ranges::count(c.at(1).applied, "in between") == 1);
        // Not by silence: one of the others was asked to campaign.
        const auto heir = c.leader();
        REQUIRE(heir != 0);
        CHECK(heir != 1);
        CHECK(c[heir].members().voters == ids_of({2, 3}));
        c.time_out(1);
        CHECK(c[1].role() == role::follower);
        c.propose(heir, "after");
        c.run();
        CHECK(c.at(2).applied.size() >= 4);
    }
}

TEST_CASE("a self-removed leader that lost leadership before that was committed brings it to its end") {
    // Only 1 has the change, and 2 needs the vote of 1, whose log is newer: nobody but 1 can lead.
    cluster c(2);
    c.elect(1);
    c.isolate(1);
    REQUIRE(c.change(1, kind::remove, 1));
    c.wire.clear();
    c.crash(1);
    c.restart(1);
    CHECK_FALSE(c[1].members().votes(id_of(1)));
    c.heal();
    c.elapse(8 * election);
    CHECK(c[2].members().voters == ids_of({2}));
    CHECK(c[2].role() == role::leader);
    CHECK(c[1].role() == role::follower);
    CHECK(c[2].commit() == c[2].log().last_index());
    // From now on 2 decides alone.
    c.crash(1);
    c.propose(2, "alone");
    CHECK(c.at(2).applied.back() == "alone");
}

TEST_CASE(
    "a handover ends when the heir is no voter any more (TestLeaderTransferRemoveNode, "
    "TestLeaderTransferDemoteNode)") {
    cluster c(3);
    c.elect(1);
    c.isolate(3);
    REQUIRE(c.change(1, kind::remove, 3));
    const auto late = c.step(1, transfer{id_of(3)});
    REQUIRE_FALSE(late);
    CHECK(late.error().code == core::errc::usage);
    c.run();
    CHECK(c[1].members().voters == ids_of({1, 2}));
    REQUIRE(c.step(1, transfer{id_of(2)}));
    c.run();
    CHECK(c[2].role() == role::leader);
}

TEST_CASE("a voter that was removed while it was away disturbs nobody") {
    cluster c(4);
    c.elect(1);
    c.isolate(4);
    REQUIRE(c.change(1, kind::remove, 4));
    c.run();
    const auto term = c[1].term();
    c.heal();
    for (int i = 0; i < 50; ++i) {
        c.elapse(100ms);
        CHECK(c[1].role() == role::leader);
    }
    CHECK(c[1].term() == term);
    CHECK(c[4].term() == term);
}

TEST_CASE("every founder dies, one after another, and the run goes on") {
    cluster c(3);
    c.elapse(5 * election);
    for (unsigned dead = 1; dead <= 6; ++dead) {
        c.crash(dead);
        c.elapse(5 * election);
        const auto leader = c.leader();
        REQUIRE(leader > dead);
        const unsigned fresh = dead + 3;
        c.add(fresh);
        REQUIRE(c.change(leader, kind::remove, dead));
        c.elapse(200ms);
        REQUIRE(c.change(leader, kind::add_learner, fresh));
        c.elapse(200ms);
        REQUIRE(c.change(leader, kind::promote, fresh));
        c.elapse(200ms);
        CHECK(c[leader].members().voters == ids_of({dead + 1, dead + 2, dead + 3}));
        c.propose(leader, "round " + std::to_string(dead));
        c.elapse(200ms);
    }
    CHECK(c.at(9).applied.back() == "round 6");
    CHECK(std::ranges::count(c.at(9).applied, "round 1") == 1);
}

// Snapshots: taken, sent, taken over. Names in brackets are the scenarios of etcd/raft's suite that a case restates.
#include "tests/unit/peers/raft_cluster.hpp"

using namespace longhaul;
using namespace longhaul::peers::raft;
using namespace longhaul::peers::raft::testing;

namespace {

snapshot state(std::uint64_t index, std::uint64_t term, configuration members) {
    return {index, term, std::move(members), text("state " + std::to_string(index))};
}

/// Three voters; 1 leads and has compacted what 3 lacks.
cluster behind() {
    cluster c(3);
    c.elect(1);
    c.isolate(3);
    for (int i = 0; i < 10; ++i) c.propose(1, std::to_string(i));
    c.run();
    REQUIRE(c.step(1, compact{c[1].applied(), text("ten")}));
    c.heal();
    return c;
}

}  // namespace

TEST_CASE(
    "who lacks what was compacted gets a snapshot, and the entries behind it (TestSlowNodeRestore, "
    "TestRestoreFromSnapMsg, TestProvideSnap, slow_follower_after_compaction, snapshot_succeed_via_app_resp)") {
    auto c = behind();
    c.propose(1, "after");
    c.beat(1);
    c.run();
    CHECK(c.at(3).applied == std::vector<std::string>{"barrier", "snapshot ten", "after"});
    CHECK(c[3].log().base() == c[1].log().base());
    CHECK(c.at(3).disk.base == c[1].log().base());
    CHECK(c[1].followers().at(id_of(3)).state() == flow::replicate);
    c.restart(3);
    CHECK(c[3].applied() == 11);
    CHECK(c[3].log().last_index() == 12);
}

TEST_CASE(
    "while a snapshot is under way nothing else is sent but heartbeats (TestPendingSnapshotPauseReplication, "
    "TestSendingSnapshotSetPendingSnapshot, TestSendAppendForProgressSnapshot)") {
    auto c = behind();
    c.cut = {{1, 3}};
    c.beat(1);
    c.deliver({3, 1, say(1, append_response{false, 11, 1, 1})});
    auto on_its_way = c.waiting<snapshot_request>();
    REQUIRE(on_its_way.size() == 1);
    CHECK(c[1].followers().at(id_of(3)).state() == flow::snapshot);
    c.run();
    for (int i = 0; i < 5; ++i) {
        c.propose(1, "x");
        c.beat(1);
        for (const auto& p : c.waiting<append_request>()) {
            if (p.to == 3) CHECK(body_of<append_request>(p).entries.empty());
        }
        c.run();
    }
    CHECK(c.waiting<snapshot_request>().empty());
    // It arrives in the end.
    c.heal();
    c.deliver(on_its_way[0]);
    c.run();
    c.beat(1);
    c.run();
    CHECK(c.at(3).applied.size() == c[1].applied() - 11 + 2);
}

TEST_CASE("a snapshot that was lost is sent again (TestSnapshotFailure, TestSnapshotSucceed, TestSnapshotAbort)") {
    auto c = behind();
    std::size_t lost = 0;
    c.lose = [&](const packet& p) { return std::holds_alternative<snapshot_request>(p.what.body) && ++lost <= 2; };
    for (int i = 0; i < 5; ++i) {
        c.beat(1);
        c.run();
    }
    CHECK(lost == 3);
    CHECK(c.at(3).applied.back() == "snapshot ten");
    CHECK(c[1].followers().at(id_of(3)).state() == flow::replicate);
    // So is one that was under way when the link broke.
    auto d = behind();
    d.cut = {{1, 3}};
    d.beat(1);
    d.deliver({3, 1, say(1, append_response{false, 11, 1, 1})});
    d.run();
    REQUIRE(d.step(1, link_down{id_of(3), 1ms}));
    d.heal();
    REQUIRE(d.step(1, link_up{id_of(3)}));
    d.run();
    CHECK(d.at(3).applied.back() == "snapshot ten");
}

TEST_CASE("no snapshot goes to whom no link leads (TestIgnoreProvidingSnap)") {
    auto c = behind();
    REQUIRE(c.step(1, link_down{id_of(3), 1ms}));
    for (int i = 0; i < 5; ++i) c.beat(1);
    for (const auto& p : c.wire) CHECK(p.to != 3);
}

TEST_CASE(
    "a snapshot replaces everything that is older (TestRestore, TestRestoreWithLearner, "
    "TestLearnerReceiveSnapshot)") {
    cluster c;
    c.add(1, voters({1, 2, 3}), 1, terms({1, 1, 1}));
    const configuration members{ids_of({2, 3}), ids_of({1})};
    c.deliver({2, 1, say(5, snapshot_request{state(11, 4, members)})});
    CHECK(c[1].log().last_index() == 11);
    CHECK(c[1].log().last_term() == 4);
    CHECK(c[1].members() == members);
    CHECK(c[1].commit() == 11);
    CHECK(c.at(1).applied == std::vector<std::string>{"snapshot state 11"});
    REQUIRE(c.wire.size() == 1);
    CHECK(body_of<append_response>(c.wire[0]).index == 11);
    // The same again changes nothing.
    c.deliver({2, 1, say(5, snapshot_request{state(11, 4, members)})});
    CHECK(c.at(1).applied.size() == 1);
    // Not a voter any more: it does not campaign [TestRestoreVoterToLearner].
    c.time_out(1);
    CHECK(c[1].role() == role::follower);
    // And may be one again [TestRestoreLearnerPromotion].
    c.deliver({2, 1, say(5, snapshot_request{state(20, 5, voters({1, 2, 3}))})});
    c.time_out(1);
    CHECK(c[1].role() == role::pre_candidate);
}

TEST_CASE("a snapshot of what is there already is only news of a commit (TestRestoreIgnoreSnapshot)") {
    cluster c;
    c.add(1, voters({1, 2, 3}), 1, terms({1, 1, 1, 1}));
    c.deliver({2, 1, say(1, snapshot_request{state(3, 1, voters({1, 2, 3}))})});
    CHECK(c[1].log().last_index() == 4);
    CHECK(c[1].commit() == 3);
    CHECK(c.at(1).applied == std::vector<std::string>{"barrier", "barrier", "barrier"});
    c.wire.clear();
    // An older one is old.
    c.deliver({2, 1, say(1, snapshot_request{state(2, 1, voters({1, 2}))})});
    CHECK(c[1].commit() == 3);
    CHECK(c[1].members() == voters({1, 2, 3}));
    REQUIRE(c.wire.size() == 1);
    CHECK(body_of<append_response>(c.wire[0]).index == 2);
}

TEST_CASE("a snapshot is acknowledged and applied when it is on the disk") {
    cluster c;
    c.add(1, voters({1, 2, 3}), 1, terms({1, 1, 1}));
    c.at(1).slow_disk = true;
    c.deliver({2, 1, say(5, snapshot_request{state(11, 4, voters({1, 2, 3}))})});
    c.deliver({2, 1, say(5, append_request{11, 4, 12, {barrier_of(5)}})});
    CHECK(c.wire.empty());
    CHECK(c.at(1).applied.empty());
    c.sync(1);
    CHECK(c.wire.size() == 1);
    CHECK(c.at(1).applied == std::vector<std::string>{"snapshot state 11"});
    c.crash(1);
    c.restart(1);
    CHECK(c[1].log().last_index() == 11);
    CHECK(c[1].term() == 5);
}

TEST_CASE("entries before a snapshot are known to be the leader's") {
    cluster c;
    durable_state d;
    d.ballot.term = 2;
    d.base = state(10, 2, voters({1, 2, 3}));
    c.add(1, d);
    // An old message that reaches from before the snapshot to behind it.
    std::vector<entry> six = terms({1, 1, 2, 2, 2, 2});
    c.deliver({2, 1, say(2, append_request{6, 1, 10, six})});
    CHECK(c[1].log().last_index() == 12);
    REQUIRE(c.wire.size() == 1);
    CHECK(body_of<append_response>(c.wire[0]).accepted);
    CHECK(body_of<append_response>(c.wire[0]).index == 12);
}

TEST_CASE("a snapshot is taken of what was applied, once") {
    cluster c(3);
    c.elect(1);
    c.isolate(1);
    c.propose(1, "not committed");
    CHECK_FALSE(c.step(1, compact{2, text("x")}));
    CHECK_FALSE(c.step(1, compact{0, text("x")}));
    CHECK_FALSE(c.step(1, compact{1, core::byte_vector(max_snapshot_bytes + 1)}));
    REQUIRE(c.step(1, compact{1, text("x")}));
    CHECK_FALSE(c.step(1, compact{1, text("x")}));
    CHECK(c[1].log().last_index() == 2);
    CHECK(c.at(1).disk.entries.size() == 1);
    c.heal();
    c.beat(1);
    c.run();
    CHECK(c[2].commit() == 2);
}

TEST_CASE("a newcomer to a compacted log becomes a voter") {
    auto c = behind();
    c.beat(1);
    c.run();
    c.add(4);
    REQUIRE(c.change(1, change::kind::add_learner, 4));
    c.run();
    CHECK(c.at(4).applied == std::vector<std::string>{"snapshot ten", "members"});
    REQUIRE(c.change(1, change::kind::promote, 4));
    c.run();
    CHECK(c[4].members().votes(id_of(4)));
}

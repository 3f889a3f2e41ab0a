// Entries, commits and flow. Names in brackets are the scenarios of etcd/raft's suite that a case restates.
#include "tests/unit/peers/raft_cluster.hpp"

using namespace longhaul;
using namespace longhaul::peers::raft;
using namespace longhaul::peers::raft::testing;

namespace {

using numbers = std::vector<std::uint64_t>;

/// Node 1 of three, with this log, as a follower in `term`.
cluster follower(std::uint64_t term, std::vector<entry> log) {
    cluster c;
    c.add(1, voters({1, 2, 3}), term, std::move(log));
    return c;
}

append_response answer(cluster& c) {
    REQUIRE(c.wire.size() == 1);
    auto a = body_of<append_response>(c.wire[0]);
    c.wire.clear();
    return a;
}

}  // namespace

TEST_CASE(
    "what is proposed is applied by all, in one order (TestLogReplication, TestProposal, "
    "TestLeaderStartReplication, TestLeaderCommitEntry, TestFollowerCommitEntry)") {
    for (const unsigned n : {1U, 2U, 3U, 5U}) {
        cluster c(n);
        c.elect(1);
        CHECK(c.propose(1, "a") == 2);
        c.run();
        c.propose(1, "b");
        c.propose(1, "c");
        c.run();
        for (unsigned i = 1; i <= n; ++i) {
            CHECK(c.at(i).applied == std::vector<std::string>{"barrier", "a", "b", "c"});
            CHECK(c[i].commit() == 4);
        }
    }
}

TEST_CASE("an entry is committed when a quorum has it (TestLeaderAcknowledgeCommit, TestCommit)") {
    struct row {
        unsigned voters;
        std::set<unsigned> reachable;
        bool committed;
    };
    const row rows[] = {{1, {}, true},   {3, {}, false},    {3, {2}, true},    {3, {2, 3}, true},
                        {5, {}, false},  {5, {2}, false},   {5, {2, 3}, true}, {5, {2, 3, 4}, true},
                        {4, {2}, false}, {4, {2, 3}, true}, {2, {}, false},    {2, {2}, true}};
    for (const auto& r : rows) {
        cluster c(r.voters);
        c.elect(1);
        for (unsigned n = 2; n <= r.voters; ++n) {
            if (!r.reachable.contains(n)) c.isolate(n);
        }
        c.propose(1, "x");
        c.run();
        CHECK((c[1].commit() == 2) == r.committed);
    }
}

TEST_CASE(
    "a leader counts itself only when its own disk has the entry (TestLeaderMsgAppSelfAckAfterTermChange, "
    "async_storage_writes)") {
    cluster c(3);
    c.elect(1);
    c.at(1).slow_disk = true;
    c.isolate(3);
    c.propose(1, "x");
    // It is on its way before it is on the leader's disk.
    CHECK(c.waiting<append_request>().size() == 2);
    c.run();
    CHECK(c[1].commit() == 1);
    c.sync(1);
    CHECK(c[1].commit() == 2);
    // Others' disks commit it as well, but it is not applied here before it is here.
    c.heal();
    c.propose(1, "y");
    c.run();
    c.beat(1);
    c.run();
    CHECK(c[1].commit() == 3);
    CHECK(c[1].applied() == 2);
    CHECK(c[2].applied() == 3);
    c.sync_all(1);
    CHECK(c[1].applied() == 3);
}

TEST_CASE(
    "a write that a later one cuts off does not count (an entry that comes back) "
    "(async_storage_writes_append_aba_race)") {
    // Entry 2 of term 1 is written, cut off by term 2's, and comes back with the leader of term 3.
    cluster c = follower(0, {});
    c.at(1).slow_disk = true;
    c.deliver({2, 1, say(1, append_request{0, 0, 0, {barrier_of(1), record_of(1, "a")}})});
    c.deliver({3, 1, say(2, append_request{1, 1, 0, {barrier_of(2)}})});
    c.deliver({2, 1, say(3, append_request{1, 1, 2, {record_of(1, "a"), barrier_of(3)}})});
    CHECK(c.wire.empty());
    c.sync(1);
    // The disk has entry 2 of term 1, as memory has it; but on the way there is one where it has not.
    CHECK(c[1].applied() == 0);
    c.sync(1);
    CHECK(c[1].applied() == 0);
    c.sync(1);
    CHECK(c[1].applied() == 2);
    CHECK(c.at(1).disk.entries.size() == 3);
}

TEST_CASE("a follower says that it has an entry only when its disk has it") {
    cluster c = follower(1, {});
    c.at(1).slow_disk = true;
    c.deliver({2, 1, say(1, append_request{0, 0, 1, {barrier_of(1)}})});
    CHECK(c.wire.empty());
    CHECK(c[1].applied() == 0);
    c.sync(1);
    CHECK(answer(c).index == 1);
    CHECK(c[1].applied() == 1);
}

TEST_CASE("what replaces a tail is not on the disk because the tail was") {
    cluster c = follower(2, terms({1, 2, 2}));
    c.at(1).slow_disk = true;
    c.deliver({2, 1, say(3, append_request{1, 1, 3, terms({3, 3})})});
    CHECK(c[1].commit() == 3);
    CHECK(c[1].applied() == 1);
    c.sync(1);
    CHECK(c[1].applied() == 3);
}

TEST_CASE("commits do not starve under steady proposals") {
    // Each disk is busy with the next entry whenever one is done.
    cluster c(3);
    c.elect(1);
    for (unsigned n = 1; n <= 3; ++n) c.at(n).slow_disk = true;
    for (int i = 0; i < 50; ++i) {
        c.propose(1, "r" + std::to_string(i));
        c.propose(1, "s" + std::to_string(i));
        c.run();
        for (unsigned n = 1; n <= 3; ++n) {
            if (!c.at(n).unsynced.empty()) c.sync(n);
            if (c.at(n).unsynced.size() > 3) c.sync(n);
        }
        c.run();
        CHECK_FALSE(c.at(1).unsynced.empty());
    }
    CHECK(c[1].applied() > 50);
}

TEST_CASE(
    "an old term's entry never commits by counting copies: the paper's figure 8 "
    "(TestLeaderOnlyCommitsLogFromCurrentTerm, TestCannotCommitWithoutNewTermEntry)") {
    // (a) 1 led in term 2 and has an entry that nobody else has. (b) 5 led in term 3, with another. (c) 1 wins term 4.
    const auto all = voters({1, 2, 3, 4, 5});
    cluster c;
    c.add(1, all, 3, terms({1, 2}));
    for (const unsigned n : {2U, 3U, 4U}) c.add(n, all, 3, terms({1}));
    c.add(5, all, 3, terms({1, 3}));
    c.time_out(1);
    for (const unsigned n : {2U, 3U}) c.deliver({n, 1, say(4, vote_response{true, true})});
    for (const unsigned n : {2U, 3U}) c.deliver({n, 1, say(4, vote_response{false, true})});
    REQUIRE(c[1].role() == role::leader);
    REQUIRE(c[1].term() == 4);
    c.wire.clear();
    // A majority (1, 2, 3) holds entry 2 of term 2, and nothing of term 4.
    c.deliver({2, 1, say(4, append_response{true, 2, 0, 0})});
    c.deliver({3, 1, say(4, append_response{true, 2, 0, 0})});
    CHECK(c[1].commit() == 0);
    // (d) So 5 may still win, and replace it.
    c.crash(1);
    c.wire.clear();
    c.add(2, all, 4, terms({1, 2}));
    c.add(3, all, 4, terms({1, 2}));
    c.time_out(5);
    c.run();
    CHECK(c[5].term() == 4);
    c.elect(5);
    c.restart(1);
    c.beat(5);
    c.run();
    for (unsigned n = 1; n <= 5; ++n) CHECK(c.terms_of(n) == numbers{1, 3, c[5].term()});

    // (e) Had an entry of term 4 been there as well, both would have been committed.
    cluster e;
    e.add(1, all, 3, terms({1, 2}));
    e.time_out(1);
    for (const unsigned n : {2U, 3U}) e.deliver({n, 1, say(4, vote_response{true, true})});
    for (const unsigned n : {2U, 3U}) e.deliver({n, 1, say(4, vote_response{false, true})});
    e.deliver({2, 1, say(4, append_response{true, 3, 0, 0})});
    CHECK(e[1].commit() == 0);
    e.deliver({3, 1, say(4, append_response{true, 3, 0, 0})});
    CHECK(e[1].commit() == 3);
}

TEST_CASE(
    "a new leader commits what went before by an entry of its own (TestCommitWithoutNewTermEntry, "
    "TestLeaderCommitPrecedingEntries)") {
    cluster c(5);
    c.elect(1);
    c.cut = {{1, 3}, {1, 4}, {1, 5}};
    c.propose(1, "a");
    c.propose(1, "b");
    c.run();
    CHECK(c[1].commit() == 1);
    c.heal();
    c.crash(1);
    c.elect(2);
    CHECK(c[2].commit() == 4);
    for (unsigned n = 2; n <= 5; ++n) {
        CHECK(c.at(n).applied == std::vector<std::string>{"barrier", "a", "b", "barrier"});
    }
}

TEST_CASE("a proposal goes to the leader or nowhere (TestProposalByProxy, TestDisableProposalForwarding)") {
    cluster c(3);
    const auto idle = c.step(1, propose{text("x")});
    REQUIRE_FALSE(idle);
    CHECK(idle.error().code == core::errc::quorum_lost);
    c.elect(1);
    const auto other = c.step(2, propose{text("x")});
    REQUIRE_FALSE(other);
    CHECK(other.error().code == core::errc::quorum_lost);
    CHECK(c[2].log().last_index() == 1);
    const auto large = c.step(1, propose{core::byte_vector(max_entry_bytes + 1)});
    REQUIRE_FALSE(large);
    CHECK(large.error().code == core::errc::limit);
}

TEST_CASE("what waits for a quorum is bounded (TestUncommittedEntryLimit)") {
    cluster c(3);
    c.max_uncommitted_bytes = 1000;
    for (unsigned n = 1; n <= 3; ++n) c.restart(n);
    c.elect(1);
    const std::string hundred(100, 'x');
    for (int i = 0; i < 10; ++i) c.propose(1, hundred);
    const auto refused = c.step(1, propose{text(hundred)});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == core::errc::limit);
    const auto last = c[1].log().last_index();
    CHECK(last == 11);
    c.run();
    // Room again; and one that is larger than the limit is taken alone.
    c.propose(1, std::string(2000, 'y'));
    CHECK_FALSE(c.step(1, propose{text("z")}));
    c.run();
    c.propose(1, "z");
    // A new leader counts what it finds.
    c.isolate(1);
    c.wire.clear();
    c.propose(1, std::string(990, 'a'));
    c.wire.clear();
    c.crash(1);
    c.heal();
    c.restart(1);
    c.elect(1);
    CHECK(c.propose(1, hundred) > last);
}

TEST_CASE("a follower checks that the entry before is the leader's (TestFollowerCheckMsgApp, TestHandleMsgApp)") {
    const auto log = terms({1, 2});
    struct row {
        std::uint64_t prev_term, prev_index;
        bool accepted;
    };
    const row rows[] = {{0, 0, true}, {1, 1, true}, {2, 2, true}, {1, 2, false}, {2, 1, false}, {3, 3, false}};
    for (const auto& r : rows) {
        cluster c = follower(2, log);
        c.deliver({2, 1, say(3, append_request{r.prev_index, r.prev_term, 0, {}})});
        const auto a = answer(c);
        CHECK(a.accepted == r.accepted);
        // Only what the message vouches for is acknowledged: the rest may be an earlier leader's.
        CHECK(a.index == r.prev_index);
        CHECK(c.terms_of(1) == numbers{1, 2});
    }
}

TEST_CASE("a follower replaces what conflicts, and nothing else (TestFollowerAppendEntries)") {
    struct row {
        std::uint64_t prev_index, prev_term;
        std::vector<entry> entries;
        numbers after;
    };
    const row rows[] = {
        {2, 2, terms({3}), {1, 2, 3}}, {1, 1, terms({3, 4}), {1, 3, 4}}, {0, 0, terms({1}), {1, 2}},
        {0, 0, terms({3}), {3}},       {1, 1, terms({2}), {1, 2}},       {0, 0, {}, {1, 2}},
    };
    for (const auto& r : rows) {
        cluster c = follower(2, terms({1, 2}));
        c.deliver({2, 1, say(4, append_request{r.prev_index, r.prev_term, 0, r.entries})});
        const auto a = answer(c);
        CHECK(a.accepted);
        CHECK(a.index == r.prev_index + r.entries.size());
        CHECK(c.terms_of(1) == r.after);
        numbers on_disk;
        for (const auto& e : c.at(1).disk.entries) on_disk.push_back(e.term);
        CHECK(on_disk == r.after);
    }
}

TEST_CASE("a follower acknowledges only prev + n, and commits no further, with a divergent tail behind") {
    // Entries 2 and 3 are of a leader of term 2 that reached nobody else.
    cluster c = follower(2, terms({1, 2, 2}));
    c.deliver({2, 1, say(3, append_request{1, 1, 3, {}})});
    const auto a = answer(c);
    CHECK(a.accepted);
    CHECK(a.index == 1);
    CHECK(c[1].commit() == 1);
    CHECK(c[1].applied() == 1);
    // A duplicate of an early message does not shorten the log either.
    c.deliver({2, 1, say(3, append_request{1, 1, 1, {barrier_of(3), barrier_of(3)}})});
    c.wire.clear();
    c.deliver({2, 1, say(3, append_request{1, 1, 1, {barrier_of(3)}})});
    CHECK(answer(c).index == 2);
    CHECK(c.terms_of(1) == numbers{1, 3, 3});
}

TEST_CASE("a heartbeat carries the commit, as far as the logs are known to agree (TestHandleHeartbeat)") {
    cluster c = follower(2, terms({1, 2, 2}));
    c.deliver({2, 1, say(2, append_request{2, 2, 1, {}})});
    CHECK(c[1].commit() == 1);
    c.deliver({2, 1, say(2, append_request{2, 2, 3, {}})});
    CHECK(c[1].commit() == 2);
    // Late ones do not take it back.
    c.deliver({2, 1, say(2, append_request{2, 2, 1, {}})});
    CHECK(c[1].commit() == 2);
}

TEST_CASE(
    "a leader brings every follower to its own log: the paper's figure 7 (TestLeaderSyncFollowerLog, "
    "TestHandleHeartbeatResp)") {
    const auto lead = terms({1, 1, 1, 4, 4, 5, 5, 6, 6, 6});
    const std::vector<entry> followers[] = {
        terms({1, 1, 1, 4, 4, 5, 5, 6, 6}),
        terms({1, 1, 1, 4}),
        terms({1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6}),
        terms({1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7}),
        terms({1, 1, 1, 4, 4, 4, 4}),
        terms({1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}),
    };
    for (const auto& log : followers) {
        cluster c;
        const auto all = voters({1, 2, 3});
        c.add(1, all, 7, lead);
        c.add(2, all, 7, log);
        c.add(3, all, 7);
        // The second may be newer: 3's vote is enough.
        c.isolate(2);
        c.time_out(1);
        c.run();
        REQUIRE(c[1].role() == role::leader);
        c.heal();
        c.beat(1);
        c.run();
        CHECK(c.terms_of(2) == c.terms_of(1));
        CHECK(c.terms_of(3) == c.terms_of(1));
        CHECK(c[2].commit() == 11);
        CHECK(c.at(2).applied == c.at(1).applied);
    }
}

TEST_CASE("one answer a term is enough to find where logs agree (TestFastLogRejection)") {
    // The follower has a long tail of term 2; the leader a long one of term 3 and 4.
    std::vector<entry> mine = terms({1, 1}), theirs = terms({1, 1});
    for (int i = 0; i < 100; ++i) mine.push_back(barrier_of(i < 50 ? 3 : 4));
    for (int i = 0; i < 150; ++i) theirs.push_back(barrier_of(2));
    cluster c;
    c.add(1, voters({1, 2, 3}), 4, mine);
    c.add(2, voters({1, 2, 3}), 4, theirs);
    c.add(3, voters({1, 2, 3}), 4);
    std::size_t messages = 0;
    c.lose = [&](const packet& p) {
        messages += p.from == 1 && p.to == 2 && std::holds_alternative<append_request>(p.what.body);
        return false;
    };
    c.elect(1);
    CHECK(c.terms_of(2) == c.terms_of(1));
    CHECK(messages < 8);
}

TEST_CASE(
    "a lost message is found by the next heartbeat (TestMsgAppRespWaitReset, "
    "heartbeat_resp_recovers_from_probing, TestProgressResumeByHeartbeatResp)") {
    cluster c(3);
    c.elect(1);
    c.cut = {{1, 2}};
    c.propose(1, "a");
    c.propose(1, "b");
    c.run();
    CHECK(c[2].log().last_index() == 1);
    c.heal();
    c.beat(1);
    c.run();
    CHECK(c.at(2).applied == c.at(1).applied);
    // Also the answers.
    c.cut = {{2, 1}, {3, 1}};
    c.propose(1, "c");
    c.run();
    CHECK(c[1].commit() == 3);
    c.heal();
    c.beat(1);
    c.run();
    CHECK(c[1].commit() == 4);
}

TEST_CASE(
    "a follower that does not answer is asked one thing at a time (TestProgressPaused, "
    "TestSendAppendForProgressProbe, TestRecvMsgUnreachable, replicate_pause)") {
    cluster c(3);
    c.elect(1);
    REQUIRE(c.step(1, link_down{id_of(2), 10ms}));
    c.propose(1, "a");
    c.beat(1);
    for (const auto& p : c.wire) CHECK(p.to == 3);
    c.run();
    // When it is back it gets all that it lacks.
    CHECK(c[1].followers().at(id_of(2)).state() == flow::probe);
    REQUIRE(c.step(1, link_up{id_of(2)}));
    c.propose(1, "b");
    std::size_t to_2 = 0;
    for (const auto& p : c.wire) to_2 += p.to == 2;
    CHECK(to_2 == 1);
    c.run();
    CHECK(c.at(2).applied == c.at(1).applied);
    CHECK(c[1].followers().at(id_of(2)).state() == flow::replicate);
}

TEST_CASE(
    "so much and no more is under way (TestMsgAppFlowControlFull, TestMsgAppFlowControlMoveForward, "
    "TestMsgAppFlowControlRecvHeartbeat, TestProgressFlowControl, TestSendAppendForProgressReplicate)") {
    cluster c(2);
    c.elect(1);
    for (std::size_t i = 0; i < 3 * progress::window; ++i) c.propose(1, "x");
    const auto& p = c[1].followers().at(id_of(2));
    CHECK(p.in_flight() == progress::window);
    CHECK(p.paused());
    const auto sent = c.waiting<append_request>();
    CHECK(sent.size() == progress::window);
    // Each answer makes room for as much as it confirms (everything that waits fits into one message here); one that is
    // late for none.
    c.wire.clear();
    c.deliver(sent[0]);
    c.deliver(sent[1]);
    const auto answers = c.waiting<append_response>();
    REQUIRE(answers.size() == 2);
    c.deliver(answers[1]);
    CHECK(c[1].followers().at(id_of(2)).in_flight() == progress::window - 1);
    c.deliver(answers[0]);
    CHECK(c[1].followers().at(id_of(2)).in_flight() == progress::window - 1);
    c.wire.clear();
    // What was lost comes again, all of it.
    c.beat(1);
    c.run();
    CHECK(c[2].log().last_index() == c[1].log().last_index());
    CHECK(c[1].commit() == c[1].log().last_index());
}

TEST_CASE("messages are no larger than a receiver takes") {
    cluster c(2);
    c.elect(1);
    c.isolate(2);
    c.run();
    const std::string large(100 * 1024, 'x');
    c.max_uncommitted_bytes = 100 << 20;
    c.wire.clear();
    for (int i = 0; i < 9; ++i) c.propose(1, large);
    for (std::size_t i = 0; i < 2 * max_append_entries; ++i) c.propose(1, "y");
    c.wire.clear();
    c.heal();
    REQUIRE(c.step(1, link_down{id_of(2), 1ms}));
    REQUIRE(c.step(1, link_up{id_of(2)}));
    std::size_t seen = 0;
    c.lose = [&](const packet& p) {
        CHECK(check(p.what));
        ++seen;
        return false;
    };
    c.run();
    CHECK(seen > 6);
    CHECK(c[2].log().last_index() == c[1].log().last_index());
}

TEST_CASE(
    "a follower behind by a partition catches up when it ends (probe_and_replicate, lagging_commit, "
    "TestCandidateResetTermMsgHeartbeat)") {
    cluster c(5);
    c.elapse(4 * election);
    const auto leader = c.leader();
    const unsigned away = leader == 5 ? 4 : 5;
    c.isolate(away);
    for (int i = 0; i < 40; ++i) {
        c.propose(leader, std::to_string(i));
        c.elapse(50ms);
    }
    c.elapse(3 * election);
    c.heal();
    c.elapse(3 * election);
    CHECK(c.at(away).applied == c.at(leader).applied);
    CHECK(c[away].commit() == c[leader].commit());
}

TEST_CASE("a commit does not go back, whatever a leader says late (commit_index_regression)") {
    cluster c(3);
    c.elect(1);
    c.propose(1, "a");
    c.run();
    c.beat(1);
    c.run();
    REQUIRE(c[2].commit() == 2);
    c.deliver({1, 2, say(1, append_request{2, 1, 0, {}})});
    c.deliver({1, 2, say(1, append_request{0, 0, 1, {}})});
    CHECK(c[2].commit() == 2);
    CHECK(c[2].applied() == 2);
}

TEST_CASE(
    "a handover goes to a voter that has everything (TestLeaderTransferToUpToDateNode, "
    "TestLeaderTransferToSlowFollower, TestLeaderTransferWithCheckQuorum)") {
    cluster c(3);
    c.elect(1);
    REQUIRE(c.step(1, transfer{id_of(2)}));
    c.run();
    CHECK(c[2].role() == role::leader);
    CHECK(c[1].role() == role::follower);
    CHECK(c[1].leader() == id_of(2));
    // And back, to one that has to catch up first.
    c.cut = {{2, 1}, {1, 2}};
    c.propose(2, "x");
    c.run();
    c.heal();
    REQUIRE(c.step(2, transfer{id_of(1)}));
    CHECK(c.waiting<campaign_request>().empty());
    c.beat(2);
    c.run();
    CHECK(c[1].role() == role::leader);
    c.beat(1);
    c.run();
    CHECK(c.at(1).applied == c.at(3).applied);
}

TEST_CASE(
    "a handover that comes to nothing ends (TestLeaderTransferTimeout, TestLeaderTransferIgnoreProposal, "
    "TestLeaderTransferBack, TestLeaderTransferSecondTransferToAnotherNode, "
    "TestLeaderTransferSecondTransferToSameNode, TestLeaderTransferReceiveHigherTermVote)") {
    cluster c(3);
    c.elect(1);
    c.isolate(3);
    REQUIRE(c.step(1, transfer{id_of(3)}));
    CHECK(c[1].transferring() == id_of(3));
    const auto refused = c.step(1, propose{text("x")});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == core::errc::quorum_lost);
    CHECK_FALSE(c.change(1, change::kind::add_learner, 9));
    // Asking again does not prolong it.
    c.elapse(election / 2);
    REQUIRE(c.step(1, transfer{id_of(3)}));
    c.elapse(election / 2 + 20ms);
    CHECK(c[1].role() == role::leader);
    CHECK_FALSE(c[1].transferring());
    c.propose(1, "x");
    c.run();
    CHECK(c.at(2).applied.back() == "x");
    // Another heir instead.
    REQUIRE(c.step(1, transfer{id_of(3)}));
    REQUIRE(c.step(1, transfer{id_of(2)}));
    c.run();
    CHECK(c[2].role() == role::leader);
    CHECK_FALSE(c[1].transferring());
}

TEST_CASE(
    "leadership goes to another voter or nowhere (TestLeaderTransferToSelf, "
    "TestLeaderTransferToNonExistingNode, TestLeaderTransferToLearner, TestTransferNonMember)") {
    cluster c;
    const configuration members{ids_of({1, 2}), ids_of({3})};
    for (unsigned n = 1; n <= 3; ++n) c.add(n, members);
    c.elect(1);
    for (const unsigned to : {1U, 3U, 4U}) {
        const auto r = c.step(1, transfer{id_of(to)});
        REQUIRE_FALSE(r);
        CHECK(r.error().code == core::errc::usage);
    }
    CHECK_FALSE(c[1].transferring());
    CHECK_FALSE(c.step(2, transfer{id_of(1)}));
    // A request to campaign from another than the leader is none.
    c.deliver({3, 2, say(c[2].term(), campaign_request{})});
    CHECK(c[2].role() == role::follower);
}

TEST_CASE("no double vote through a handover, also when the heir crashes in between") {
    cluster c(3);
    c.elect(1);
    c.at(2).slow_disk = true;
    REQUIRE(c.step(1, transfer{id_of(2)}));
    c.run();
    // The heir is a candidate of term 2, and nobody has heard of it: its vote is not on its disk.
    CHECK(c[2].role() == role::candidate);
    CHECK(c[2].term() == 2);
    CHECK(c.waiting<vote_request>().empty());
    c.crash(2);
    c.restart(2);
    c.at(2).slow_disk = false;
    // So in term 2 it may vote for another, and for one only.
    c.deliver({3, 2, say(2, vote_request{1, 1, false, true})});
    REQUIRE(c.waiting<vote_response>().size() == 1);
    CHECK(body_of<vote_response>(c.waiting<vote_response>()[0]).granted);
    c.wire.clear();
    c.deliver({1, 2, say(2, vote_request{1, 1, false, true})});
    CHECK_FALSE(body_of<vote_response>(c.waiting<vote_response>()[0]).granted);
    c.wire.clear();
    // Asked to campaign after it voted, it takes another term.
    c.deliver({3, 2, say(2, append_request{1, 1, 1, {}})});
    c.wire.clear();
    c.deliver({3, 2, say(2, campaign_request{})});
    CHECK(c[2].term() == 3);
    for (const auto& p : c.waiting<vote_request>()) CHECK(p.what.term == 3);
}

// Terms, votes and roles. Names in brackets are the scenarios of etcd/raft's suite that a case restates.
#include "tests/unit/peers/raft_cluster.hpp"

using namespace longhaul;
using namespace longhaul::peers::raft;
using namespace longhaul::peers::raft::testing;

namespace {

/// How many grant and refuse, and who says nothing.
struct ballots {
    unsigned size;
    std::vector<bool> answers;
    role becomes;
};

}  // namespace

TEST_CASE(
    "a voter starts as a follower and campaigns when nobody leads (TestStartAsFollower, "
    "TestFollowerStartElection, TestCandidateStartNewElection)") {
    cluster c(3);
    CHECK(c[1].role() == role::follower);
    c.isolate(1);
    c.time_out(1);
    // First a trial, without a new term.
    CHECK(c[1].role() == role::pre_candidate);
    CHECK(c[1].term() == 0);
    CHECK(c.at(1).disk.ballot.term == 0);
    REQUIRE(c.wire.size() == 2);
    for (const auto& p : c.wire) {
        CHECK(p.what.term == 1);
        CHECK(body_of<vote_request>(p).pre);
    }
    c.wire.clear();
    c.time_out(1);
    CHECK(c.wire.size() == 2);
}

TEST_CASE("one round of votes decides an election (TestLeaderElectionInOneRoundRPC, TestLeaderElection)") {
    const ballots polls[] = {
        {1, {}, role::leader},
        {3, {true, true}, role::leader},
        {3, {true}, role::leader},
        {5, {true, true, true, true}, role::leader},
        {5, {true, true}, role::leader},
        {3, {false, false}, role::follower},
        {5, {false, false, false, false}, role::follower},
        {5, {true, false, false, false}, role::follower},
        {3, {}, role::candidate},
        {5, {true}, role::candidate},
        {5, {false, false}, role::candidate},
    };
    for (const auto& p : polls) {
        cluster c(p.size);
        c.time_out(1);
        if (p.size > 1) {
            // All agree that it may try.
            for (unsigned n = 2; n <= p.size; ++n) c.deliver({n, 1, say(1, vote_response{true, true})});
            REQUIRE(c[1].term() == 1);
            REQUIRE(c[1].vote() == id_of(1));
        }
        unsigned n = 2;
        for (const bool granted : p.answers) c.deliver({n++, 1, say(1, vote_response{false, granted})});
        CHECK(c[1].role() == p.becomes);
        CHECK(c[1].term() == 1);
    }
}

TEST_CASE("a vote is given once a term, to whoever asks first (TestFollowerVote, TestRecvMsgVote)") {
    for (const unsigned voted : {0U, 1U, 2U}) {
        for (const unsigned asks : {1U, 2U}) {
            cluster c;
            durable_state d;
            d.base.members = voters({1, 2, 3});
            d.ballot = {1, std::nullopt};
            if (voted != 0) d.ballot.vote = id_of(voted);
            c.add(3, d);
            c.deliver({asks, 3, say(1, vote_request{0, 0, false, false})});
            REQUIRE(c.wire.size() == 1);
            CHECK(body_of<vote_response>(c.wire[0]).granted == (voted == 0 || voted == asks));
        }
    }
}

TEST_CASE("a vote goes only to a log that is as good (TestVoter)") {
    struct row {
        std::vector<entry> mine;
        std::uint64_t last_term, last_index;
        bool granted;
    };
    const row rows[] = {
        {terms({1}), 1, 1, true},  {terms({1}), 1, 2, true},  {terms({1, 1}), 1, 1, false},
        {terms({1}), 2, 1, true},  {terms({1}), 2, 2, true},  {terms({1, 1}), 2, 1, true},
        {terms({2}), 1, 1, false}, {terms({2}), 1, 2, false}, {terms({2, 1}), 1, 1, false},
    };
    for (const bool pre : {false, true}) {
        for (const auto& r : rows) {
            if (r.mine.size() == 2 && r.mine[0].term > r.mine[1].term) continue;
            cluster c;
            c.add(1, voters({1, 2}), 2, r.mine);
            c.deliver({2, 1, say(3, vote_request{r.last_index, r.last_term, pre, false})});
            REQUIRE(c.wire.size() == 1);
            CHECK(body_of<vote_response>(c.wire[0]).granted == r.granted);
            CHECK(c[1].term() == (pre ? 2U : 3U));
        }
    }
}

TEST_CASE("a vote is on the disk before anybody hears of it") {
    cluster c(3);
    c.at(2).slow_disk = true;
    c.deliver({1, 2, say(1, vote_request{0, 0, false, false})});
    CHECK(c.wire.empty());
    c.sync(2);
    REQUIRE(c.wire.size() == 1);
    CHECK(body_of<vote_response>(c.wire[0]).granted);
    CHECK(c.at(2).disk.ballot == ballot{1, id_of(1)});
    // After a crash it is still given.
    c.restart(2);
    c.wire.clear();
    c.deliver({3, 2, say(1, vote_request{0, 0, false, false})});
    REQUIRE(c.wire.size() == 1);
    CHECK_FALSE(body_of<vote_response>(c.wire[0]).granted);
}

TEST_CASE("a candidate's own vote counts only when it is on its disk") {
    cluster c(1);
    c.at(1).slow_disk = true;
    c.time_out(1);
    CHECK(c[1].role() == role::candidate);
    c.sync(1);
    CHECK(c[1].role() == role::leader);

    // And it asks nobody for a vote before: after a crash it might ask again in that term, for another log.
    cluster three(3);
    three.at(1).slow_disk = true;
    three.time_out(1);
    three.wire.clear();
    three.deliver({2, 1, say(1, vote_response{true, true})});
    CHECK(three.waiting<vote_request>().empty());
    three.sync(1);
    CHECK(three.waiting<vote_request>().size() == 2);
}

TEST_CASE(
    "a late vote of its own changes nothing for a candidate that lost (TestCandidateSelfVoteAfterLostElection, "
    "TestCandidateDeliversPreCandidateSelfVoteAfterBecomingCandidate)") {
    cluster c(3);
    c.at(1).slow_disk = true;
    c.time_out(1);
    c.deliver({3, 1, say(1, vote_response{true, true})});
    REQUIRE(c[1].role() == role::candidate);
    c.deliver({2, 1, say(1, append_request{0, 0, 0, {}})});
    REQUIRE(c[1].role() == role::follower);
    c.sync_all(1);
    CHECK(c[1].role() == role::follower);
    CHECK(c[1].leader() == id_of(2));
    // Nor does one of an earlier term.
    cluster d(3);
    d.at(1).slow_disk = true;
    d.time_out(1);
    d.deliver({3, 1, say(1, vote_response{true, true})});
    d.deliver({2, 1, say(2, vote_response{false, false})});
    REQUIRE(d[1].term() == 2);
    d.sync_all(1);
    CHECK(d[1].role() == role::follower);
}

TEST_CASE("leadership goes round (TestLeaderCycle)") {
    cluster c(3);
    for (unsigned n = 1; n <= 3; ++n) {
        c.elect(n);
        for (unsigned other = 1; other <= 3; ++other) {
            CHECK((c[other].role() == role::leader) == (other == n));
            CHECK(c[other].leader() == id_of(n));
            CHECK(c[other].term() == n);
        }
    }
}

TEST_CASE(
    "an election is won with the votes of those that have older logs, and they are overwritten "
    "(TestLeaderElectionOverwriteNewerLogs)") {
    // 1 led in term 1 and reached 2 only; 3 won term 2 with the votes of 4 and 5, and died at once.
    cluster c;
    const auto all = voters({1, 2, 3, 4, 5});
    c.add(1, all, 1, terms({1}));
    c.add(2, all, 1, terms({1}));
    c.add(3, all, 2, terms({2}));
    c.add(4, all, 2);
    c.add(5, all, 2);
    // The vote of 3 is missing: its log is newer.
    c.isolate(3);
    c.time_out(1);
    c.run();
    // At first it did not know of term 2.
    CHECK(c[1].term() == 2);
    c.elect(1);
    c.heal();
    c.beat(1);
    c.run();
    for (unsigned n = 1; n <= 5; ++n) CHECK(c.terms_of(n) == std::vector<std::uint64_t>{1, c[1].term()});
}

TEST_CASE(
    "two that campaign at once: one wins, and the other follows (TestDuelingCandidates, "
    "TestDuelingPreCandidates)") {
    cluster c(3);
    c.cut = {{1, 3}, {3, 1}};
    c.time_out(1);
    c.time_out(3);
    c.run();
    // 2 voted for 1 and hears it; the trial of 3 was in vain, and disturbed nobody.
    CHECK(c[1].role() == role::leader);
    CHECK(c[3].role() != role::leader);
    c.heal();
    c.elapse(6 * election);
    unsigned leaders = 0;
    for (unsigned n = 1; n <= 3; ++n) leaders += c[n].role() == role::leader;
    CHECK(leaders == 1);
}

TEST_CASE("a split vote is resolved by the next attempt (TestPreVoteWithSplitVote)") {
    cluster c(3);
    c.elect(1);
    c.crash(1);
    c.time_out(2);
    REQUIRE(c.step(3, tick{}));
    c.now += 2 * election;
    c.run();
    c.elapse(10 * election);
    const auto leader = c.leader();
    REQUIRE(leader != 0);
    CHECK(c[leader == 2 ? 3 : 2].leader() == id_of(leader));
}

TEST_CASE(
    "a candidate concedes to a leader of its term, and takes its log (TestCandidateConcede, "
    "TestCandidateFallback, TestCandidateResetTermMsgApp)") {
    cluster c(3);
    c.isolate(1);
    c.time_out(1);
    c.wire.clear();
    c.elect(3);
    c.propose(3, "force follower");
    c.run();
    c.heal();
    c.beat(3);
    c.run();
    CHECK(c[1].role() == role::follower);
    CHECK(c[1].term() == c[3].term());
    CHECK(c.terms_of(1) == c.terms_of(3));
    CHECK(c.at(1).applied == c.at(3).applied);
}

TEST_CASE("a sole voter elects itself, each time in a new term (TestSingleNodeCandidate, TestSingleNodePreCandidate)") {
    cluster c(1);
    c.elect(1);
    CHECK(c[1].term() == 1);
    c.at(1).slow_disk = true;
    c.propose(1, "sent to a standby, perhaps, and never on this disk");
    c.crash(1);
    c.restart(1);
    c.at(1).slow_disk = false;
    c.elect(1);
    // The same term would name two different entries alike.
    CHECK(c[1].term() == 2);
    CHECK(c.terms_of(1) == std::vector<std::uint64_t>{1, 2});
}

TEST_CASE(
    "messages of past terms have no effect (TestOldMessages, TestStepIgnoreOldTermMsg, "
    "TestRejectStaleTermMessage)") {
    cluster c(3);
    c.elect(1);
    c.elect(2);
    c.elect(1);
    const auto before = c[3].log().last_index();
    c.deliver({2, 3, say(2, append_request{2, 2, 2, {barrier_of(2)}})});
    CHECK(c[3].log().last_index() == before);
    CHECK(c[3].leader() == id_of(1));
    // The sender learns that it is out of date.
    REQUIRE(c.wire.size() == 1);
    CHECK(c.wire[0].what.term == 3);
    c.wire.clear();
    c.deliver({2, 3, say(2, vote_request{9, 1, false, false})});
    c.deliver({2, 1, say(2, append_response{true, 1, 0, 0})});
    c.deliver({2, 1, say(2, vote_response{false, true})});
    CHECK(c.wire.empty());
    CHECK(c[1].role() == role::leader);
}

TEST_CASE(
    "whoever hears of a later term follows it (TestFollowerUpdateTermFromMessage, "
    "TestCandidateUpdateTermFromMessage, TestLeaderUpdateTermFromMessage, TestAllServerStepdown)") {
    for (const auto start : {role::follower, role::pre_candidate, role::candidate, role::leader}) {
        for (const bool append : {false, true}) {
            cluster c(3);
            if (start == role::leader) c.elect(1);
            if (start == role::pre_candidate || start == role::candidate) c.time_out(1);
            if (start == role::candidate) c.deliver({2, 1, say(1, vote_response{true, true})});
            REQUIRE(c[1].role() == start);
            c.wire.clear();
            if (append) {
                c.deliver({2, 1, say(7, append_request{0, 0, 0, {}})});
            } else {
                // Also a leader that is heard gives way where the vote was asked for by it.
                c.deliver({2, 1, say(7, vote_request{9, 6, false, true})});
            }
            CHECK(c[1].role() == role::follower);
            CHECK(c[1].term() == 7);
            CHECK(c.at(1).disk.ballot.term == 7);
            CHECK(c[1].leader() == (append ? std::optional(id_of(2)) : std::nullopt));
        }
    }
}

TEST_CASE("votes are asked for from every role (TestVoteFromAnyState, TestPreVoteFromAnyState)") {
    for (const auto start : {role::follower, role::pre_candidate, role::candidate, role::leader}) {
        for (const bool pre : {false, true}) {
            cluster c(3);
            if (start == role::leader) c.elect(1);
            if (start == role::pre_candidate || start == role::candidate) c.time_out(1);
            if (start == role::candidate) c.deliver({2, 1, say(1, vote_response{true, true})});
            c.wire.clear();
            const auto term = c[1].term();
            c.deliver({2, 1, say(term + 1, vote_request{term == 0 ? 0U : 9U, term, pre, false})});
            if (start == role::leader) {
                CHECK(c.wire.empty());
                CHECK(c[1].role() == role::leader);
                continue;
            }
            REQUIRE(c.wire.size() == 1);
            CHECK(body_of<vote_response>(c.wire[0]).granted);
            // A trial changes nothing.
            CHECK(c[1].term() == (pre ? term : term + 1));
            CHECK(c[1].role() == (pre ? start : role::follower));
        }
    }
}

TEST_CASE(
    "waits for an election are drawn from one to two times the silence that means something "
    "(TestFollowerElectionTimeoutRandomized, TestPastElectionTimeout)") {
    std::set<core::duration> seen;
    cluster c(3);
    c.isolate(1);
    for (int i = 0; i < 200; ++i) {
        const auto start = c.now;
        c.now = c[1].wake_at();
        const auto waited = c.now - start;
        CHECK(waited >= election);
        CHECK(waited < 2 * election);
        seen.insert(waited / 100ms * 1ms);
        // Not before it is due.
        c.now -= 1ns;
        REQUIRE(c.step(1, tick{}));
        CHECK(c.wire.empty());
        c.now += 1ns;
        REQUIRE(c.step(1, tick{}));
        CHECK(c.wire.size() == 2);
        c.wire.clear();
    }
    CHECK(seen.size() > 5);
}

TEST_CASE("an idle cluster keeps its leader, one without a leader finds one (TestLeaderBcastBeat, TestBcastBeat)") {
    cluster c(5);
    c.elapse(5 * election);
    const auto first = c.leader();
    REQUIRE(first != 0);
    const auto term = c[first].term();
    c.elapse(60 * election);
    CHECK(c.leader() == first);
    CHECK(c[first].term() == term);
    c.crash(first);
    c.elapse(5 * election);
    const auto second = c.leader();
    REQUIRE(second != 0);
    REQUIRE(second != first);
    c.restart(first);
    c.elapse(5 * election);
    CHECK(c.leader() == second);
    CHECK(c[first].leader() == id_of(second));
}

TEST_CASE(
    "a leader that a quorum answers stays, one that none answers gives up (TestLeaderStepdownWhenQuorumActive, "
    "TestLeaderStepdownWhenQuorumLost)") {
    cluster c(5);
    c.elect(1);
    c.isolate(4);
    c.isolate(5);
    c.elapse(10 * election);
    CHECK(c[1].role() == role::leader);
    c.isolate(3);
    // Nobody else's clock moves: what the leader knows is only that nobody answers.
    c.now += election - 10ms;
    REQUIRE(c.step(1, tick{}));
    CHECK(c[1].role() == role::leader);
    c.wire.clear();
    c.now += 20ms;
    REQUIRE(c.step(1, tick{}));
    CHECK(c[1].role() == role::follower);
    CHECK(c[1].leader() == std::nullopt);
    CHECK(c[1].term() == 1);
}

TEST_CASE(
    "who hears a leader helps nobody to replace it (TestLeaderSupersedingWithCheckQuorum, "
    "TestLeaderElectionWithCheckQuorum, TestDisruptiveFollowerPreVote, TestPreVoteWithCheckQuorum)") {
    cluster c(3);
    c.elect(1);
    const auto term = c[1].term();
    // 3 hears nothing and tries; 2 hears 1.
    c.cut = {{1, 3}};
    for (int i = 0; i < 60; ++i) {
        c.elapse(100ms);
        CHECK(c[1].role() == role::leader);
        CHECK(c[2].leader() == id_of(1));
        CHECK(c[3].term() == term);
    }
    CHECK(c[3].role() == role::pre_candidate);
    // When 2 has not heard of it for long either, 3 wins.
    c.isolate(1);
    c.time_out(3);
    c.run();
    CHECK(c[3].role() == role::leader);
    // The old leader learns of it when it says anything.
    c.heal();
    c.deliver({1, 2, say(term, append_request{1, 1, 1, {}})});
    c.run();
    CHECK(c[1].role() == role::follower);
    c.beat(3);
    c.run();
    CHECK(c[1].leader() == id_of(3));
}

TEST_CASE(
    "a voter that is stuck in a later term comes back by deposing the leader once "
    "(TestFreeStuckCandidateWithCheckQuorum, TestDisruptiveFollower)") {
    cluster c(3);
    c.elect(1);
    // As if it had voted in an election that nobody won.
    durable_state stuck = c.at(3).disk;
    stuck.ballot.term = 9;
    c.add(3, stuck);
    c.heal();
    c.beat(1);
    c.run();
    CHECK(c[1].role() == role::follower);
    CHECK(c[1].term() == 9);
    c.elapse(5 * election);
    const auto leader = c.leader();
    REQUIRE(leader != 0);
    CHECK(c[leader].term() > 9);
    for (unsigned n = 1; n <= 3; ++n) CHECK(c[n].leader() == id_of(leader));
}

TEST_CASE(
    "a node with a smaller term and the better log completes an election "
    "(TestNodeWithSmallerTermCanCompleteElection, TestPreVoteMigrationCanCompleteElection)") {
    cluster c;
    const auto all = voters({1, 2, 3});
    c.add(1, all, 3, terms({1, 3}));
    c.add(2, all, 3, terms({1, 3}));
    c.add(3, all, 9, terms({1}));
    c.isolate(1);
    // 3 cannot win: its log is older. 2 must, although its term is.
    c.time_out(3);
    c.run();
    CHECK(c[3].role() != role::leader);
    c.time_out(2);
    c.run();
    c.elapse(5 * election);
    CHECK(c[2].role() == role::leader);
    CHECK(c[2].term() > 9);
}

TEST_CASE(
    "who does not vote does not campaign (TestLearnerElectionTimeout, TestNonPromotableVoterWithCheckQuorum, "
    "TestPromotable, TestLearnerCampaign)") {
    cluster c;
    const configuration members{ids_of({1}), ids_of({2})};
    c.add(1, members);
    c.add(2, members);
    c.add(3);  // knows nothing yet
    c.isolate(2);
    c.time_out(2);
    c.time_out(3);
    CHECK(c[2].role() == role::follower);
    CHECK(c[3].role() == role::follower);
    CHECK(c.wire.empty());
    // Nor when it is told to by a leader.
    c.heal();
    c.deliver({1, 2, say(1, append_request{0, 0, 0, {}})});
    c.wire.clear();
    c.deliver({1, 2, say(1, campaign_request{})});
    CHECK(c[2].role() == role::follower);
    CHECK(c[2].term() == 1);
}

TEST_CASE(
    "a standby votes when it is asked: it may be a voter already and not know it (TestLearnerCanVote, "
    "campaign_learner_must_vote)") {
    cluster c;
    c.add(2, configuration{ids_of({1}), ids_of({2})});
    c.deliver({1, 2, say(2, vote_request{11, 1, false, false})});
    REQUIRE(c.wire.size() == 1);
    CHECK(body_of<vote_response>(c.wire[0]).granted);
}

TEST_CASE("votes of strangers do not count") {
    cluster c(3);
    c.time_out(1);
    c.deliver({7, 1, say(1, vote_response{true, true})});
    c.deliver({8, 1, say(1, vote_response{true, true})});
    CHECK(c[1].role() == role::pre_candidate);
    c.deliver({2, 1, say(1, vote_response{true, true})});
    REQUIRE(c[1].role() == role::candidate);
    // Nor does anybody's twice, nor a trial's answer in the real one.
    c.deliver({7, 1, say(1, vote_response{false, true})});
    c.deliver({3, 1, say(1, vote_response{true, true})});
    CHECK(c[1].role() == role::candidate);
    c.deliver({3, 1, say(1, vote_response{false, false})});
    c.deliver({3, 1, say(1, vote_response{false, true})});
    CHECK(c[1].role() == role::candidate);
}

TEST_CASE("to campaign while leading has no effect (TestCampaignWhileLeader)") {
    cluster c(3);
    c.elect(1);
    c.deliver({2, 1, say(c[1].term(), campaign_request{})});
    CHECK(c[1].role() == role::leader);
    CHECK(c[1].term() == 1);
}

TEST_CASE("on news of the leader's death the voters campaign in turn, three round trips apart (forget_leader)") {
    cluster c(5);
    c.elect(2);
    c.crash(2);
    const auto died = c.now;
    for (const unsigned n : {1U, 3U, 4U, 5U}) REQUIRE(c.step(n, link_down{id_of(2), 100ms}));
    CHECK(c[1].wake_at() == died + 100ms);
    CHECK(c[3].wake_at() == died + 400ms);
    CHECK(c[4].wake_at() == died + 700ms);
    CHECK(c[5].wake_at() == died + 1000ms);
    c.elapse(150ms);
    CHECK(c[1].role() == role::leader);
    // One that alone lost sight of the leader convinces nobody.
    REQUIRE(c.step(5, link_down{id_of(1), 100ms}));
    c.elapse(2 * election);
    CHECK(c[1].role() == role::leader);
    CHECK(c[5].leader() == id_of(1));
    // Of others' deaths nobody makes anything.
    const auto due = c[3].wake_at();
    REQUIRE(c.step(3, link_down{id_of(4), 1ms}));
    CHECK(c[3].wake_at() == due);
}

TEST_CASE("a leader that was asleep does not commit when it wakes") {
    cluster c(3);
    c.elect(1);
    c.isolate(1);
    c.elect(2);
    c.propose(2, "meanwhile");
    c.run();
    c.heal();
    c.propose(1, "stale");
    c.run();
    CHECK(c[1].role() == role::follower);
    c.beat(2);
    c.run();
    CHECK(c.at(1).applied == c.at(2).applied);
    CHECK(c.at(1).applied.back() == "meanwhile");
}

// What a stranger may say: checked before it is believed, and nothing has changed when it is refused.
#include "tests/unit/peers/raft_cluster.hpp"

using namespace longhaul;
using namespace longhaul::peers::raft;
using namespace longhaul::peers::raft::testing;

namespace {

append_request with(std::vector<entry> entries) { return {3, 2, 1, std::move(entries)}; }

/// Everything of a server that a message could have changed.
auto look(const server& s) {
    return std::tuple(s.role(), s.term(), s.vote(), s.leader(), s.commit(), s.applied(), s.log().last_index(),
                      s.log().last_term(), s.members(), s.wake_at());
}

void refused(cluster& c, unsigned to, unsigned from, const message& m) {
    const auto before = look(c[to]);
    const auto disk = c.at(to).disk;
    const auto r = c.step(to, received{id_of(from), m});
    REQUIRE_FALSE(r);
    CHECK(r.error().code == core::errc::protocol);
    CHECK(look(c[to]) == before);
    CHECK(c.at(to).disk == disk);
    CHECK(c.wire.empty());
}

}  // namespace

TEST_CASE("every number and size of a voter's message is checked") {
    const auto good = with({barrier_of(2), record_of(3, "x"), {3, entry_kind::membership, {}, voters({1, 2})}});
    CHECK(check(say(3, good)));
    CHECK(check(say(max_number, append_request{})));
    const snapshot state{5, 2, voters({1}), text("s")};
    CHECK(check(say(2, snapshot_request{state})));
    CHECK(check(say(3, vote_request{7, 2, true, false})));
    CHECK(check(say(3, append_response{false, 7, 7, 2})));

    std::vector<message> bad = {
        say(0, good),
        say(max_number + 1, append_request{}),
        say(3, append_request{max_number + 1, 2, 0, {}}),
        say(3, append_request{3, 2, max_number + 1, {}}),
        say(3, append_request{0, 2, 0, {}}),
        say(3, append_request{3, 0, 0, {}}),
        say(3, append_request{3, 4, 0, {}}),
        say(3, with({barrier_of(1)})),
        say(3, with({barrier_of(3), barrier_of(2)})),
        say(3, with({barrier_of(4)})),
        say(3, append_request{0, 0, 0, {barrier_of(0)}}),
        say(3, with({record_of(2, std::string(max_entry_bytes + 1, 'x'))})),
        say(3, with(std::vector(max_append_entries + 1, barrier_of(2)))),
        say(3, with(std::vector(3, record_of(2, std::string(max_entry_bytes, 'x'))))),
        say(3, with({{2, entry_kind::barrier, text("x"), {}}})),
        say(3, with({{2, entry_kind::barrier, {}, voters({1})}})),
        say(3, with({{2, entry_kind::record, {}, voters({1})}})),
        say(3, with({{2, entry_kind::membership, text("x"), voters({1})}})),
        say(3, with({{2, entry_kind::membership, {}, {}}})),
        say(3, with({{2, entry_kind::membership, {}, {ids_of({2, 1}), {}}}})),
        say(3, with({{2, entry_kind::membership, {}, {ids_of({1, 1}), {}}}})),
        say(3, with({{2, entry_kind::membership, {}, {ids_of({1}), ids_of({1})}}})),
        say(3, with({{2, entry_kind::membership, {}, {ids_of({1, 2, 3, 4, 5, 6, 7, 8}), {}}}})),
        say(3, with({{2, entry_kind::membership, {}, {ids_of({1}), ids_of({2, 3, 4, 5, 6, 7, 8, 9, 10})}}})),
        say(3, with({{2, static_cast<entry_kind>(3), {}, {}}})),
        say(3, append_response{true, max_number + 1, 0, 0}),
        say(3, append_response{true, 3, 1, 1}),
        say(3, append_response{false, 3, 4, 1}),
        say(3, append_response{false, 3, 0, 1}),
        say(3, append_response{false, 3, 1, 0}),
        say(3, append_response{false, 3, 1, max_number + 1}),
        say(3, vote_request{max_number + 1, 1, false, false}),
        say(3, vote_request{4, 3, false, false}),
        say(3, vote_request{0, 2, false, false}),
        say(3, vote_request{2, 0, false, false}),
        say(3, vote_request{2, 1, true, true}),
    };
    for (auto broken :
         {snapshot{0, 2, voters({1}), {}}, snapshot{5, 0, voters({1}), {}}, snapshot{5, 3, voters({1}), {}},
          snapshot{max_number + 1, 2, voters({1}), {}}, snapshot{5, 2, {}, {}},
          snapshot{5, 2, voters({1}), core::byte_vector(max_snapshot_bytes + 1)}}) {
        bad.push_back(say(2, snapshot_request{broken}));
    }
    for (std::size_t i = 0; i < bad.size(); ++i) {
        INFO("message " << i);
        CHECK_FALSE(check(bad[i]));
        cluster c;
        c.add(1, voters({1, 2, 3}), 2, terms({1, 2, 2}));
        refused(c, 1, 2, bad[i]);
    }
}

TEST_CASE("messages of another generation are not for us") {
    cluster c(3);
    const auto before = look(c[1]);
    auto m = say(5, append_request{0, 0, 0, {barrier_of(5)}});
    m.generation.bytes[7] = std::byte{1};
    const auto r = c.step(1, received{id_of(2), m});
    REQUIRE(r);
    CHECK_FALSE(r->write);
    CHECK(c.wire.empty());
    CHECK(look(c[1]) == before);
}

TEST_CASE("who contradicts what is known breaks the rules") {
    cluster c(3);
    c.elect(1);
    c.propose(1, "a");
    c.run();
    c.beat(1);
    c.run();
    REQUIRE(c[2].commit() == 2);
    // A second leader in the same term.
    refused(c, 2, 3, say(1, append_request{2, 1, 2, {}}));
    refused(c, 2, 3, say(1, snapshot_request{{9, 1, voters({1}), {}}}));
    refused(c, 1, 3, say(1, append_request{2, 1, 2, {}}));
    // A leader without what was committed.
    refused(c, 2, 3, say(5, append_request{2, 4, 2, {}}));
    refused(c, 2, 3, say(5, append_request{0, 0, 2, {barrier_of(5)}}));
    refused(c, 2, 3, say(5, append_request{1, 1, 2, {barrier_of(5)}}));
    refused(c, 2, 3, say(5, snapshot_request{{2, 5, voters({1}), {}}}));
    // An answer about what was never sent.
    refused(c, 1, 3, say(1, append_response{true, 3, 0, 0}));
    refused(c, 1, 3, say(1, append_response{false, 3, 0, 0}));
    // A term that no elections lead to, and a message that this node would have had to send to itself.
    refused(c, 2, 3, say((std::uint64_t{1} << 40), append_request{0, 0, 0, {}}));
    refused(c, 2, 3, say(2, snapshot_request{{std::uint64_t{1} << 40, 1, voters({1}), {}}}));
    refused(c, 2, 2, say(1, vote_response{false, true}));
}

TEST_CASE("an answer from whom the log does not know is no copy") {
    cluster c(3);
    c.elect(1);
    c.isolate(1);
    c.propose(1, "x");
    for (const unsigned n : {7U, 8U, 9U})
        REQUIRE(c.step(1, received{id_of(n), say(1, append_response{true, 2, 0, 0})}));
    CHECK(c[1].commit() == 1);
}

namespace {

/// What `to` makes of the greeting of `from`, and of nothing else.
core::result<actions> greet(cluster& c, unsigned from, unsigned to) {
    REQUIRE(c.step(from, link_up{id_of(to)}));
    const auto greeting_to_it = [&](const packet& p) {
        return p.from == from && p.to == to && std::holds_alternative<greeting>(p.what.body);
    };
    const auto found = std::ranges::find_if(c.wire, greeting_to_it);
    REQUIRE(found != c.wire.end());
    const auto p = *found;
    c.wire.erase(found);
    return c.step(to, received{id_of(from), p.what});
}

}  // namespace

TEST_CASE("a voter whose disk is an older copy learns it from who has heard of its writes") {
    cluster c(3);
    c.elect(1);
    const auto older = c.at(2).disk;
    c.propose(1, "a");
    c.run();
    c.add(2, older);
    const auto before = look(c[2]);
    SECTION("the leader") {
        c.beat(1);
        const auto to_it = std::ranges::find_if(c.wire, [](const packet& p) { return p.to == 2; });
        REQUIRE(to_it != c.wire.end());
        const auto told = c.step(2, received{id_of(1), to_it->what});
        REQUIRE_FALSE(told);
        CHECK(told.error().code == core::errc::forgotten);
        CHECK(c[1].role() == role::leader);
        CHECK(look(c[2]) == before);
        // Nobody but a voter is believed.
        CHECK(c.step(2, received{id_of(8), to_it->what}));
    }
    SECTION("its own words, which are not believed, are answered by it") {
        // It had acknowledged "a"; what it says now would take that back.
        CHECK(greet(c, 2, 1));
        REQUIRE(c.wire.size() == 1);
        CHECK(std::holds_alternative<greeting>(c.wire.front().what.body));
        const auto told = c.step(2, received{id_of(1), c.wire.front().what});
        REQUIRE_FALSE(told);
        CHECK(told.error().code == core::errc::forgotten);
        c.wire.clear();
        const auto match = c[1].followers().at(id_of(2)).match();
        c.deliver({2, 1, {{}, 1, append_response{false, 2, 1, 1}, {older.writes, older.writes, 7}, {}}});
        CHECK(c[1].followers().at(id_of(2)).match() == match);
        CHECK(look(c[2]) == before);
    }
}

TEST_CASE("a leader that was put back to an older disk does not vote for one that lacks what it had committed") {
    cluster c(3);
    c.elect(1);
    c.run();
    const auto older = c.at(1).disk;
    c.isolate(3);
    c.propose(1, "x");
    c.run();
    REQUIRE(c[2].commit() == c[1].commit());
    // 1 is back, without "x"; 2 has it, and is away for a moment; 3 never had it, and asks.
    c.heal();
    c.isolate(2);
    c.add(1, older);
    const auto vote = [&](bool pre) {
        return say(9, vote_request{c[3].log().last_index(), c[3].log().last_term(), pre, false});
    };
    SECTION("until it has heard of all, or for as long as an election takes") {
        c.deliver({3, 1, vote(true)});
        c.deliver({3, 1, vote(false)});
        CHECK(c.wire.empty());
        CHECK(c[1].term() == 1);
        c.heal();
        const auto told = greet(c, 2, 1);
        REQUIRE_FALSE(told);
        CHECK(told.error().code == core::errc::forgotten);
    }
    SECTION("who is silent for longer is not waited for") {
        c.deliver({3, 1, vote(false)});
        CHECK(c[1].wake_at() == c.now + election);
        c.now += election;
        REQUIRE(c.step(1, tick{}));
        CHECK(c[1].vote() == id_of(3));
    }
}

TEST_CASE("a voter that was only restarted votes as soon as it has heard of the others") {
    cluster c(3);
    c.elect(1);
    c.propose(1, "x");
    c.run();
    c.isolate(1);
    c.restart(2);
    const auto asks = say(5, vote_request{c[3].log().last_index(), c[3].log().last_term(), false, false});
    c.deliver({3, 2, asks});
    CHECK(c[2].term() == 1);
    REQUIRE(c.step(2, received{id_of(1), say(1, greeting{})}));
    CHECK(c[2].vote() == id_of(3));
}

TEST_CASE("a voter that has just started does not campaign before it has heard what its disk may have forgotten") {
    cluster c(3);
    c.elect(1);
    c.propose(1, "x");
    c.run();
    c.isolate(3);
    c.restart(2);
    c.beat(1);
    c.run();
    REQUIRE(c[2].leader() == id_of(1));
    const auto started = c.now - heartbeat;
    REQUIRE(c.step(2, link_down{id_of(1), 10ms}));
    CHECK(c[2].wake_at() >= started + election);
    REQUIRE(c.step(2, received{id_of(1), say(1, campaign_request{})}));
    CHECK(c[2].role() == role::follower);
}

TEST_CASE("what comes late from a disk that has gone on since is dropped, and costs nothing") {
    cluster c(3);
    c.elect(1);
    c.propose(1, "x");
    REQUIRE(c.wire.size() == 2);
    const auto late = c.wire.back();
    c.run();
    c.propose(1, "y");
    c.run();
    c.deliver(late);
    REQUIRE(c.wire.size() == 1);
    c.run();  // the answer tells the sender of nothing that it lacks
    CHECK(c[late.to].commit() == c[1].commit());
}

TEST_CASE("a disk takes only writes that follow on what it has") {
    durable_state d;
    d.base = {10, 2, voters({1}), text("ten")};
    d.entries = terms({2, 3});
    const auto fits = [&](const disk_write& w) {
        auto copy = d;
        const auto r = apply(copy, w);
        if (!r) CHECK(copy == d);
        return bool(r);
    };
    const auto at = [](std::uint64_t index) { return snapshot{index, 3, voters({1}), text("later")}; };
    CHECK(fits({1, ballot{4, {}}, {}, 0, {}}));
    CHECK(fits({1, {}, {}, 11, terms({4})}));
    CHECK(fits({1, {}, {}, 13, terms({4})}));
    CHECK_FALSE(fits({1, {}, {}, 14, terms({4})}));
    CHECK_FALSE(fits({1, {}, {}, 10, terms({4})}));
    CHECK(fits({1, {}, at(12), 0, {}}));
    CHECK_FALSE(fits({1, {}, at(13), 0, {}}));
    CHECK_FALSE(fits({1, {}, at(9), 0, {}}));
    CHECK(fits({1, {}, at(40), 41, terms({4})}));
    CHECK_FALSE(fits({1, {}, at(40), 42, terms({4})}));
    CHECK_FALSE(fits({1, {}, at(40), 40, terms({4})}));
    auto replaced = d;
    REQUIRE(apply(replaced, {1, ballot{7, id_of(1)}, {}, 12, terms({5, 6})}));
    CHECK(replaced.entries == terms({2, 5, 6}));
    CHECK(replaced.ballot == ballot{7, id_of(1)});
    REQUIRE(apply(replaced, {2, {}, at(12), 0, {}}));
    CHECK(replaced.entries == terms({6}));
    REQUIRE(apply(replaced, {3, {}, at(40), 41, {}}));
    CHECK(replaced.entries.empty());
}

#include "peers/voters.hpp"

#include <set>

#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using kind = raft::change::kind;

namespace {

/// Peers 1 to `count`, of whom 1 leads; everybody answers.
std::vector<voter_candidate> peers_up_to(unsigned count) {
    std::vector<voter_candidate> out;
    for (unsigned i = 1; i <= count; ++i) out.push_back({digest_of(i), true, false});
    return out;
}

raft::configuration apply(raft::configuration c, const raft::change& change) {
    for (const auto& who : change.who) {
        std::erase(c.voters, who);
        std::erase(c.learners, who);
        const auto put = [&](auto& ids) { ids.insert(std::ranges::upper_bound(ids, who), who); };
        if (change.what == kind::add_learner) put(c.learners);
        if (change.what == kind::promote) put(c.voters);
    }
    return c;
}

/// Carries out changes until there is none: how many voters there were on the way, and the end.
std::pair<std::vector<std::size_t>, raft::configuration> settle(raft::configuration c,
                                                                const std::vector<voter_candidate>& peers) {
    std::vector<std::size_t> sizes;
    for (int steps = 0; steps < 50; ++steps) {
        const auto change = next_voter_change(c, peers, digest_of(1));
        if (!change) return {sizes, c};
        CHECK(std::ranges::count(change->who, digest_of(1)) == 0);
        CHECK((change->who.size() == 1 || c.voters.size() == 1));
        c = apply(c, *change);
        REQUIRE(raft::check(c));
        sizes.push_back(c.voters.size());
    }
    FAIL("the changes do not end");
    return {};
}

raft::configuration of(std::vector<unsigned> voters) {
    raft::configuration c;
    for (const auto v : voters) c.voters.push_back(digest_of(v));
    std::ranges::sort(c.voters);
    return c;
}

}  // namespace

TEST_CASE("one or two peers have one voter, three to choose from have three, five have five") {
    for (unsigned count = 1; count <= 12; ++count) {
        INFO(count);
        const auto [sizes, end] = settle(of({1}), peers_up_to(count));
        CHECK(end.voters.size() == (count >= 5 ? 5 : count >= 3 ? 3 : 1));
        CHECK(end.learners.empty());
        CHECK(end.votes(digest_of(1)));
    }
}

TEST_CASE("there are never two voters on the way up: all standbys follow, and then vote at once") {
    CHECK(settle(of({1}), peers_up_to(3)).first == std::vector<std::size_t>{1, 1, 3});
    CHECK(settle(of({1}), peers_up_to(7)).first == std::vector<std::size_t>{1, 1, 1, 1, 5});
}

TEST_CASE("a dead voter is replaced when somebody can take its place, and its seat kept while nobody can") {
    auto peers = peers_up_to(4);
    peers[2].gone = true;
    peers[2].linked = false;
    const auto [sizes, end] = settle(of({1, 2, 3}), peers);
    CHECK(end == of({1, 2, 4}));
    CHECK(sizes == std::vector<std::size_t>{3, 4, 3});  // the new one votes before the old one goes
    // Another three are there, but the third cannot be reached now: nothing is gained by fewer voters.
    peers[3].linked = false;
    CHECK_FALSE(next_voter_change(of({1, 2, 3}), peers, digest_of(1)));
}

TEST_CASE("fewer than three are left: back to one, the dead first, while a quorum stands") {
    auto peers = peers_up_to(3);
    peers[1] = {digest_of(2), false, true};
    const auto first = next_voter_change(of({1, 2, 3}), peers, digest_of(1));
    REQUIRE(first);
    CHECK(first->what == kind::remove);
    CHECK(first->who == std::vector{digest_of(2)});
    const auto [sizes, end] = settle(of({1, 2, 3}), peers);
    CHECK(end == of({1}));
    CHECK(sizes == std::vector<std::size_t>{2, 1});
}

TEST_CASE("a standby that dies before it votes gives way to another") {
    auto peers = peers_up_to(4);
    auto c = of({1});
    c.learners = of({2, 3}).voters;
    peers[1] = {digest_of(2), false, true};
    const auto [sizes, end] = settle(c, peers);
    CHECK(end == of({1, 3, 4}));
}

TEST_CASE("a voter whom the run does not let vote any more goes") {
    auto peers = peers_up_to(5);
    peers.erase(peers.begin() + 1);
    const auto [sizes, end] = settle(of({1, 2, 3}), peers);
    CHECK(end.voters.size() == 3);
    CHECK_FALSE(end.has(digest_of(2)));
}

TEST_CASE("who is here and cannot vote yet keeps nobody else from voting") {
    // Of five, one still downloads its state: three order records until it is there.
    auto peers = peers_up_to(5);
    peers[3].linked = false;
    const auto [sizes, end] = settle(of({1}), peers);
    CHECK(end.voters.size() == 3);
    CHECK(sizes.back() == 3);
    CHECK(std::ranges::max(sizes) == 3);
    CHECK(end.learners.size() == 1);
    peers[3].linked = true;
    CHECK(settle(end, peers).second.voters.size() == 5);
    // Two of five: as with three.
    peers[3].linked = peers[4].linked = false;
    CHECK(settle(of({1}), peers).second.voters.size() == 3);
    // One alone is not joined by another one: two survive no death.
    peers[2].linked = false;
    CHECK(settle(of({1}), peers).second.voters.size() == 1);
}

TEST_CASE("a standby takes a dead voter's place, also where more voters are wanted than there can be now") {
    auto peers = peers_up_to(6);
    peers[2] = {digest_of(3), false, true};
    peers[5].linked = false;
    const auto [sizes, end] = settle(of({1, 2, 3}), peers);
    CHECK_FALSE(end.votes(digest_of(3)));
    CHECK(end.voters.size() == 3);
    // Of five voters one dies, and the sixth peer cannot follow yet: the seat is kept.
    CHECK_FALSE(next_voter_change(of({1, 2, 3, 4, 5}), peers, digest_of(1)));
}

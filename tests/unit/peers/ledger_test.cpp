#include "peers/ledger.hpp"

#include <set>

#include "net/link.hpp"
#include "peers/messages.hpp"
#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

/// Applies a record that must be ignored: only the index moves.
bool ignored(const ledger& before, const record& r) {
    ledger l = before;
    if (l.apply(r) || l.index() != before.index() + 1) return false;
    ledger same = before;
    // The departure of nobody moves the index alone; then the two must agree in all else.
    depart_record nobody;
    nobody.number = max_members + 1;
    REQUIRE_FALSE(same.apply(nobody));
    return l == same;
}

ledger reloaded(const ledger& l) {
    const auto again = ledger::from_snapshot(l.snapshot());
    if (!again) FAIL(again.error().message);
    return *again;
}

/// What holds of every ledger, however it came to be.
void check_consistent(const ledger& l) {
    REQUIRE(l.members().size() == l.next_number() - 1);
    std::set<core::digest> keys;
    peer_number expected = 0;
    for (const auto& [number, m] : l.members()) {
        REQUIRE(number == ++expected);
        REQUIRE(m.admitted.number == number);
        REQUIRE(keys.insert(m.admitted.key).second);
        REQUIRE(l.find(m.admitted.key) == &m);
        if (m.last_accepted) {
            REQUIRE(m.last_accepted->generation <= l.generation());
            REQUIRE(m.last_accepted->round <= l.committed());
        }
    }
    if (l.open()) {
        REQUIRE(l.open()->round == l.committed() + 1);
        REQUIRE(l.open()->position == l.position());
        REQUIRE_FALSE(l.open()->members.empty());
        for (const auto n : l.open()->members) REQUIRE(l.find(n) != nullptr);
        for (const auto n : l.open()->contributors) REQUIRE(l.find(n) != nullptr);
    }
    if (const auto* last = l.commit_of(l.committed())) REQUIRE(last->commit.round == l.committed());
    REQUIRE(l.commit_of(l.committed() + 1) == nullptr);
    REQUIRE(l.evaluation().first <= l.committed());
}

}  // namespace

TEST_CASE("a round is opened, retried and committed, and the ledger keeps what came of it") {
    auto l = ledger_of(3);
    REQUIRE(l.apply(round_of(l, {1, 2, 3}, {1, 2, 3})));
    auto second = round_of(l, {1, 2}, {1, 2}, 2);
    second.reason = "lost peer 3";
    REQUIRE(l.apply(second));
    REQUIRE(l.open()->attempt == 2);
    REQUIRE(l.apply(commit_of_open(l)));
    CHECK(l.committed() == 1);
    CHECK(l.position() == 10);
    CHECK(l.tokens() == 200);
    CHECK_FALSE(l.open());
    REQUIRE(l.commit_of(1) != nullptr);
    CHECK(l.commit_of(1)->members == 2);
    CHECK(l.find(2)->last_accepted == accepted_payload{1, 1, payload_of(1, 1, 2)});
    CHECK_FALSE(l.find(3)->last_accepted);
}

TEST_CASE("a commit counts only for the latest attempt of the next round") {
    auto l = ledger_of(3);
    CHECK(ignored(l, commit_record{1, 1, {}, {}, {}}));  // nothing is open
    l.apply(round_of(l, {1, 2, 3}, {1, 2, 3}));
    const auto first = commit_of_open(l);
    l.apply(round_of(l, {1, 2}, {1, 2}, 2));
    CHECK(ignored(l, first));
    auto c = commit_of_open(l);
    c.attempt = 3;
    CHECK(ignored(l, c));
    c = commit_of_open(l);
    c.round = 2;
    CHECK(ignored(l, c));
    c = commit_of_open(l);
    REQUIRE(l.apply(c));
    CHECK(ignored(l, c));  // I1: one commit a round
}

TEST_CASE("a commit has exactly the contributors of its attempt, in their order") {
    auto l = ledger_of(3);
    l.apply(round_of(l, {1, 2, 3}, {1, 2, 3}));
    auto c = commit_of_open(l);
    std::swap(c.contributions[0], c.contributions[1]);
    CHECK(ignored(l, c));
    c = commit_of_open(l);
    c.contributions.pop_back();
    CHECK(ignored(l, c));
    c = commit_of_open(l);
    c.contributions.push_back(c.contributions.back());
    CHECK(ignored(l, c));
    c = commit_of_open(l);
    c.contributions[1].number = 9;
    CHECK(ignored(l, c));
    CHECK(l.apply(commit_of_open(l)));
}

TEST_CASE("a commit may have no contributors: it moves the position and nothing else") {
    auto l = ledger_of(2);
    l.apply(round_of(l, {1, 2}, {1, 2}));
    l.apply(round_of(l, {1}, {}, 2));
    REQUIRE(l.apply(commit_of_open(l)));
    CHECK(l.committed() == 1);
    CHECK(l.position() == 10);
    CHECK(l.tokens() == 0);
    CHECK_FALSE(l.find(1)->last_accepted);
}

TEST_CASE("a round that does not follow is ignored") {
    auto l = ledger_of(3);
    const auto good = round_of(l, {1, 2, 3}, {1, 2, 3});
    auto r = good;
    r.round = 2;
    CHECK(ignored(l, r));
    r = good;
    r.attempt = 2;
    CHECK(ignored(l, r));
    r = good;
    r.position = 1;
    CHECK(ignored(l, r));
    r = good;
    r.members = {1, 4};
    CHECK(ignored(l, r));
    r = good;
    r.contributors = {1, 4};
    CHECK(ignored(l, r));
    r = good;
    r.members = {1, 2};  // 3 contributes to a round that it is not a member of
    CHECK(ignored(l, r));
    REQUIRE(l.apply(good));
    CHECK(ignored(l, good));
    r = good;
    r.attempt = 3;
    CHECK(ignored(l, r));
    r = good;
    r.attempt = 2;
    r.plan.inner_steps = 11;  // payloads are immutable until settled
    CHECK(ignored(l, r));
    r = good;
    r.attempt = 2;
    r.own_steps = {{1, 5}};
    CHECK(ignored(l, r));
}

TEST_CASE("an attempt sums nobody whom the one before had left out") {
    auto l = ledger_of(3);
    REQUIRE(l.apply(round_of(l, {1, 2, 3}, {1, 2, 3})));
    REQUIRE(l.apply(round_of(l, {1, 2, 3}, {1, 2}, 2)));
    CHECK(ignored(l, round_of(l, {1, 2, 3}, {1, 2, 3}, 3)));
    CHECK(ignored(l, round_of(l, {1, 2, 3}, {2, 3}, 3)));
    // Contributors may have left the members: they died after full delivery.
    CHECK(l.apply(round_of(l, {3}, {1, 2}, 3)));
}

TEST_CASE("admissions: numbers are given in turn, a key keeps its number, the revoked stay out") {
    ledger l;
    CHECK(ignored(l, admit_of(2)));
    REQUIRE(l.apply(admit_of(1)));
    CHECK(ignored(l, admit_of(1, 7)));  // somebody else under a number that is taken
    CHECK(ignored(l, admit_of(3)));
    REQUIRE(l.apply(admit_of(2)));
    auto again = admit_of(1);
    again.number = 3;
    CHECK(ignored(l, again));  // the same key under another number
    depart_record gone;
    gone.number = 1;
    REQUIRE(l.apply(gone));
    CHECK_FALSE(l.find(1)->present);
    again = admit_of(1);
    again.addresses = {{"example.org", 7401}};
    REQUIRE(l.apply(again));
    CHECK(l.find(1)->present);
    CHECK(l.find(1)->admitted == again);
    gone.revoked = true;
    REQUIRE(l.apply(gone));
    CHECK(ignored(l, again));
    gone.revoked = false;
    REQUIRE(l.apply(gone));
    CHECK(l.find(1)->revoked);  // once revoked, always
    gone.number = 3;
    CHECK(ignored(l, gone));
    CHECK(l.next_number() == 3);
}

TEST_CASE("no more peers than max_members are ever admitted") {
    auto l = ledger_of(max_members);
    CHECK(l.members().size() == max_members);
    CHECK(ignored(l, admit_of(max_members + 1)));
    CHECK(reloaded(l) == l);
}

TEST_CASE("a generation goes back to a round that somebody still has, and takes back what was accepted after it") {
    auto l = ledger_of(3);
    for (int i = 0; i < 3; ++i) {
        l.apply(round_of(l, {1, 2, 3}, i == 2 ? std::vector<peer_number>{1} : std::vector<peer_number>{1, 2, 3}));
        l.apply(commit_of_open(l));
    }
    auto r = round_of(l, {1, 2, 3}, {1});
    r.eval_round = 3;
    r.eval_loss = 1.5;
    l.apply(r);
    generation_record g;
    g.generation = 2;
    g.round = 2;
    g.position = 20;
    g.tokens = 600;
    g.state_root = digest_of(5);
    auto wrong = g;
    wrong.generation = 3;
    CHECK(ignored(l, wrong));
    wrong = g;
    wrong.generation = 1;
    CHECK(ignored(l, wrong));
    wrong = g;
    wrong.round = 4;  // newer than the last commit
    CHECK(ignored(l, wrong));
    REQUIRE(l.apply(g));
    CHECK(l.generation() == 2);
    CHECK(l.committed() == 2);
    CHECK(l.position() == 20);
    CHECK(l.tokens() == 600);
    CHECK(l.generation_root() == g.state_root);
    CHECK_FALSE(l.open());
    CHECK(l.commit_of(2) == nullptr);
    CHECK_FALSE(l.find(1)->last_accepted);  // round 3 is lost
    CHECK(l.find(2)->last_accepted == accepted_payload{1, 2, payload_of(1, 2, 2)});
    CHECK(l.evaluation().first == 0);
    CHECK(reloaded(l) == l);
    // The run goes on, with the round's number again.
    REQUIRE(l.apply(round_of(l, {2, 3}, {2, 3})));
    REQUIRE(l.apply(commit_of_open(l)));
    CHECK(l.committed() == 3);
    CHECK(l.find(2)->last_accepted == accepted_payload{2, 3, payload_of(2, 3, 2)});
}

TEST_CASE("an evaluation of a round that is not committed does not silence the later ones") {
    auto l = ledger_of(1);
    auto r = round_of(l, {1}, {1});
    r.eval_round = ~std::uint64_t{0};
    r.eval_loss = 1;
    REQUIRE(l.apply(r));
    CHECK(l.evaluation().first == 0);
    l.apply(commit_of_open(l));
    r = round_of(l, {1}, {1});
    r.eval_round = 1;
    r.eval_loss = 3.25;
    REQUIRE(l.apply(r));
    CHECK(l.evaluation() == std::pair<std::uint64_t, double>(1, 3.25));
}

TEST_CASE("the run's phase is replicated") {
    ledger l;
    run_state_record r;
    for (const auto phase : {run_phase::paused, run_phase::stopped, run_phase::running}) {
        r.state = phase;
        REQUIRE(l.apply(r));
        CHECK(l.phase() == phase);
        CHECK(reloaded(l) == l);
    }
}

TEST_CASE("recent commits are kept in number and in size") {
    auto l = ledger_of(3);
    for (int i = 0; i < 100; ++i) {
        l.apply(round_of(l, {1, 2, 3}, {1, 2, 3}));
        l.apply(commit_of_open(l));
    }
    CHECK(l.commit_of(100) != nullptr);
    CHECK(l.commit_of(100 - recent_commits + 1) != nullptr);
    CHECK(l.commit_of(100 - recent_commits) == nullptr);
    CHECK(reloaded(l) == l);
}

TEST_CASE("the snapshot of the largest run fits into one control message and loads again") {
    ledger l;
    std::vector<peer_number> all;
    for (peer_number n = 1; n <= max_members; ++n) {
        auto r = admit_of(n);
        r.name = std::string(max_name, 'n');
        r.token_hash = digest_of(n);
        r.addresses.clear();
        for (std::size_t i = 0; i < max_addresses; ++i) {
            r.addresses.push_back({std::string(max_address_bytes / max_addresses, 'a'), 65535});
        }
        REQUIRE(parse_record(serialize(r)));
        REQUIRE(l.apply(r));
        all.push_back(n);
    }
    for (int i = 0; i < 8; ++i) {
        l.apply(round_of(l, all, all));
        auto c = commit_of_open(l, std::uint64_t{1} << 48);
        for (auto& x : c.contributions) x.steps = ~std::uint32_t{0};
        REQUIRE(parse_record(serialize(c)));
        REQUIRE(l.apply(c));
    }
    auto open = round_of(l, all, all);
    open.reason = std::string(max_reason, 'r');
    REQUIRE(l.apply(open));
    CHECK(l.commit_of(8) != nullptr);
    CHECK(l.commit_of(5) != nullptr);
    CHECK(reloaded(l) == l);
    const auto bytes = serialize(message(log_snapshot{l.snapshot()}));
    CHECK(bytes.size() <= net::max_control_message);
    CHECK(parse_message(bytes));
}

TEST_CASE("a replay from any snapshot and the entries after it equals the replay from the start") {
    std::uint64_t all = 0, all_valid = 0, idle = 0;
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        INFO("seed " << seed);
        core::seeded_entropy random(seed, "ledger");
        ledger whole;
        std::vector<record> log;
        std::vector<ledger> at;
        std::uint64_t valid = 0;
        const auto length = 1 + random.below(120);
        for (std::uint64_t i = 0; i < length; ++i) {
            at.push_back(whole);
            auto r = random_record(random, whole);
            // As it travels: what is applied is what was parsed.
            const auto parsed = parse_record(serialize(r));
            if (!parsed) FAIL(parsed.error().message);
            REQUIRE(*parsed == r);
            const auto before = whole;
            if (whole.apply(*parsed)) {
                ++valid;
                // I1, I2: rounds are committed one after another, except where a generation goes back.
                if (whole.generation() == before.generation()) {
                    REQUIRE((whole.committed() == before.committed() || whole.committed() == before.committed() + 1));
                } else {
                    REQUIRE(whole.committed() <= before.committed());
                }
            }
            check_consistent(whole);
            log.push_back(std::move(r));
        }
        all += length;
        all_valid += valid;
        idle += length >= 20 && valid == 0;
        for (int i = 0; i < 4; ++i) {
            const auto from = random.below(length);
            auto l = reloaded(at[from]);
            REQUIRE(l == at[from]);
            for (auto k = from; k < length; ++k) l.apply(log[k]);
            REQUIRE(l == whole);
            REQUIRE(l.snapshot() == whole.snapshot());
        }
    }
    // Most of what is drawn counts, and hardly ever nothing of a longer log.
    CHECK(all_valid > all / 2);
    CHECK(idle <= 1);
}

TEST_CASE("damaged ledger snapshots are refused or give a consistent ledger") {
    core::seeded_entropy random(5, "damage");
    ledger l;
    while (l.index() < 80) l.apply(random_record(random, l));
    if (!l.open()) {
        std::vector<peer_number> all;
        for (const auto& [n, m] : l.members()) all.push_back(n);
        REQUIRE(l.apply(round_of(l, all, all)));
    }
    const auto good = l.snapshot();
    REQUIRE(ledger::from_snapshot(good));
    std::size_t refused = 0;
    const auto damaged = [&](const core::byte_vector& bytes) {
        const auto again = ledger::from_snapshot(bytes);
        if (!again) {
            ++refused;
            return;
        }
        check_consistent(*again);
        REQUIRE(reloaded(*again) == *again);
        // It survives what may come next.
        ledger next = *again;
        for (int i = 0; i < 3; ++i) next.apply(random_record(random, next));
        check_consistent(next);
    };
    for (std::size_t n = 0; n < good.size(); ++n)
        damaged({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)});
    CHECK(refused > good.size() / 2);
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
        auto bytes = good;
        bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        damaged(bytes);
    }
}

TEST_CASE("a ledger snapshot larger than a control message is refused before it is parsed") {
    const core::byte_vector huge((1 << 20) + 1);
    const auto r = ledger::from_snapshot(huge);
    REQUIRE_FALSE(r);
    CHECK(r.error().code == errc::limit);
}

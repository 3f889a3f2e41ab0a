#include "peers/settlement.hpp"

#include <set>

#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

constexpr std::size_t elements = 3;
/// Sums of small whole numbers are exact in f32, so mass can be compared bit by bit.
using exact = std::array<std::int64_t, elements + 1>;  // the last one counts tokens

exact operator+(exact a, const exact& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
}

exact of(const carried_mass& m) {
    exact out{};
    for (std::size_t i = 0; i < m.values.size(); ++i) out[i] = static_cast<std::int64_t>(m.values[i]);
    out[elements] = static_cast<std::int64_t>(m.tokens);
    return out;
}

carried_mass mass_of(std::initializer_list<float> values, std::uint64_t tokens, std::uint32_t steps) {
    return carried_mass{values, tokens, steps};
}

pending_payload pending_of(std::uint64_t generation, std::uint64_t round, peer_number who, carried_mass mass) {
    return pending_payload{generation, round, payload_of(generation, round, who), std::move(mass)};
}

/// Runs a round of peers 1 and 2 with these contributors.
void run_round(ledger& l, std::vector<peer_number> contributors) {
    REQUIRE(l.apply(round_of(l, {1, 2}, {1, 2})));
    if (contributors.size() < 2) REQUIRE(l.apply(round_of(l, {1, 2}, std::move(contributors), 2)));
    REQUIRE(l.apply(commit_of_open(l)));
}

}  // namespace

TEST_CASE("an accepted payload is settled and its mass is everybody's") {
    auto l = ledger_of(2);
    settlement s;
    s.sent(pending_of(1, 1, 1, mass_of({1, 2, 3}, 10, 5)));
    CHECK_FALSE(s.settle(l, 1, l.committed()));  // nothing is decided
    l.apply(round_of(l, {1, 2}, {1, 2}));
    CHECK_FALSE(s.settle(l, 1, l.committed()));
    l.apply(commit_of_open(l));
    CHECK(s.settle(l, 1, l.committed()) == std::optional(true));
    CHECK_FALSE(s.pending());
    CHECK(s.carry().empty());
    CHECK_FALSE(s.settle(l, 1, l.committed()));
}

TEST_CASE("a payload that was passed over is folded back once") {
    auto l = ledger_of(2);
    settlement s;
    s.sent(pending_of(1, 1, 1, mass_of({1, 2, 3}, 10, 5)));
    run_round(l, {2});
    CHECK(s.settle(l, 1, l.committed()) == std::optional(false));
    CHECK_FALSE(s.settle(l, 1, l.committed()));
    CHECK(of(s.carry()) == exact{1, 2, 3, 10});
    CHECK(s.carry().steps == 5);
    // It is part of the next payload, and belongs to whoever took it.
    auto again = s.take_carry();
    CHECK(s.carry().empty());
    CHECK(again.steps == 5);
    s.fold_back(std::move(again));
    s.fold_back(mass_of({10, 0, -3}, 1, 2));
    s.fold_back({});
    CHECK(of(s.carry()) == exact{11, 2, 0, 11});
    CHECK(s.carry().steps == 7);
}

TEST_CASE("a payload is accepted by its hash alone") {
    auto l = ledger_of(2);
    settlement s;
    auto other = pending_of(1, 1, 1, mass_of({1, 0, 0}, 1, 1));
    other.id = digest_of(4);
    s.sent(std::move(other));
    run_round(l, {1, 2});
    CHECK(s.settle(l, 1, l.committed()) == std::optional(false));
    s.take_carry();
    // Nor does another's acceptance count.
    s.sent(pending_of(1, 2, 2, mass_of({1, 0, 0}, 1, 1)));
    run_round(l, {1, 2});
    CHECK(s.settle(l, 1, l.committed()) == std::optional(false));
    CHECK(s.settle(l, 9, l.committed()) == std::nullopt);
}

TEST_CASE("a peer that was away learns long afterwards what became of its payload") {
    auto l = ledger_of(2);
    settlement accepted, passed_over;
    accepted.sent(pending_of(1, 1, 1, mass_of({1, 0, 0}, 1, 1)));
    passed_over.sent(pending_of(1, 2, 1, mass_of({1, 0, 0}, 1, 1)));
    run_round(l, {1, 2});
    for (int i = 0; i < 100; ++i) run_round(l, {2});
    const auto reloaded = ledger::from_snapshot(l.snapshot());
    REQUIRE(reloaded);
    CHECK(accepted.settle(*reloaded, 1, reloaded->committed()) == std::optional(true));
    CHECK(passed_over.settle(*reloaded, 1, reloaded->committed()) == std::optional(false));
}

TEST_CASE("a new generation settles what it kept and gives back what it lost") {
    for (const std::uint64_t back_to : {1, 2}) {
        auto l = ledger_of(2);
        settlement kept, open;
        run_round(l, {1, 2});
        kept.sent(pending_of(1, 2, 1, mass_of({4, 5, 6}, 2, 2)));
        run_round(l, {1, 2});
        open.sent(pending_of(1, 3, 1, mass_of({7, 0, 0}, 1, 1)));
        generation_record g;
        g.generation = 2;
        g.round = back_to;
        REQUIRE(l.apply(g));
        CHECK(kept.settle(l, 1, l.committed()) == std::optional(back_to == 2));
        CHECK(open.settle(l, 1, l.committed()) == std::optional(false));
    }
}

TEST_CASE("a payload is settled when the state has come so far, not when the log has") {
    auto l = ledger_of(2);
    settlement s;
    s.sent(pending_of(1, 1, 1, mass_of({1, 2, 3}, 10, 5)));
    run_round(l, {1, 2});
    CHECK(s.settle(l, 1, 0) == std::nullopt);
    CHECK(s.pending());
    CHECK(s.settle(l, 1, 1) == std::optional(true));
}

TEST_CASE("with feedback an accepted payload leaves what it did not say, and one that was passed over all of it") {
    for (const bool accepted : {true, false}) {
        auto l = ledger_of(2);
        settlement s({true, 0.5F});
        auto p = pending_of(1, 1, 1, mass_of({4, 2, 8}, 10, 5));
        p.left = {0, 2, 1};
        s.sent(std::move(p));
        run_round(l, accepted ? std::vector<peer_number>{1, 2} : std::vector<peer_number>{2});
        CHECK(s.settle(l, 1, 1) == std::optional(accepted));
        CHECK(of(s.carry()) == (accepted ? exact{0, 2, 1, 0} : exact{4, 2, 8, 10}));
        CHECK(s.carry().steps == (accepted ? 0U : 5U));
    }
}

TEST_CASE("the residual decays once a round, however often a round begins anew, and what it loses is counted") {
    settlement s({true, 0.5F});
    compress::mass_sums sums;
    sums.produced = sums.compensated = sums.size = 8;
    CHECK(s.beta_for(1, 1) == 0.5F);
    s.formed(1, 1, sums, 0);
    s.fold_back({{8}, 1, 1, 8});
    CHECK(s.beta_for(1, 1) == 1);
    CHECK(s.beta_for(2, 1) == 0.5F);
    auto carry = s.take_carry();
    sums = {2, 8, 10, 0, 18};
    s.formed(1, 1, sums, carry.sum);
    s.fold_back({{10}, 2, 2, 10});
    CHECK(s.account().lost == 0);
    CHECK(s.account().balances());
    CHECK(s.beta_for(1, 2) == 0.5F);
    carry = s.take_carry();
    sums = {2, 10, 7, 0, 17};
    s.formed(1, 2, sums, carry.sum);
    s.fold_back({{7}, 3, 3, 7});
    CHECK(s.account().lost == 5);
    CHECK(s.account().produced == 12);
    CHECK(s.account().balances());
}

TEST_CASE("what is discarded is counted") {
    settlement s;
    CHECK(s.discard() == 0);
    s.fold_back(mass_of({1, 1, 1}, 30, 3));
    s.sent(pending_of(1, 1, 1, mass_of({1, 1, 1}, 12, 3)));
    CHECK(s.discard() == 42);
    CHECK(s.carry().empty());
    CHECK_FALSE(s.pending());
    CHECK(s.discard() == 0);
}

TEST_CASE("momentum stands still where an accepted payload said something, and goes on where it was passed over") {
    for (const bool accepted : {true, false}) {
        auto l = ledger_of(2);
        settlement s({true, 1, 0.5F});
        auto p = pending_of(1, 1, 1, mass_of({4, 0, -2}, 10, 5));
        p.left = {1, 0, -2};  // of the first it said 3, of the others nothing
        p.mass.velocity = {7, 8, 9};
        p.chunks = {core::byte_vector(5)};
        s.sent(std::move(p));
        run_round(l, accepted ? std::vector<peer_number>{1, 2} : std::vector<peer_number>{2});
        CHECK(s.settle(l, 1, l.committed()) == std::optional(accepted));
        CHECK(s.carry().velocity == (accepted ? core::flat_buffer{0, 8, 9} : core::flat_buffer{7, 8, 9}));
        // What a codec goes on from is what everybody has.
        CHECK(s.last_chunks().size() == (accepted ? 1U : 0U));
        // It goes where the mass goes, and is not doubled.
        auto taken = s.take_carry();
        s.fold_back(mass_of({1, 1, 1}, 1, 1));
        const auto before = taken.velocity;
        s.fold_back(std::move(taken));
        CHECK(s.carry().velocity == before);
    }
}

TEST_CASE("what receivers hold of a payload follows their momentum, whether or not it was accepted") {
    for (const bool forgets : {true, false}) {
        for (const bool accepted : {true, false}) {
            INFO((forgets ? "ef21" : "econtrol") << (accepted ? ", accepted" : ", passed over"));
            auto l = ledger_of(2);
            compress::feedback_rule rule;
            rule.keeps_residual = true;
            rule.repeats = 0.5F;
            rule.forgets = forgets;
            rule.gain = forgets ? 0 : 0.25F;
            settlement s(rule);
            auto p = pending_of(1, 1, 1, mass_of({4, 0, -2}, 10, 5));
            p.mass.sum = 2;
            p.left = {1, 0, -2};  // of the first it said 3, of the others nothing
            p.sent = 3;
            p.mass.velocity = {8, 4, -4};
            p.repeats = s.repeats_of(p.mass);
            CHECK(p.repeats == 0.5F);
            compress::mass_sums sums;
            sums.produced = sums.compensated = 2;
            sums.size = 6;
            s.formed(1, 1, sums, 0);
            s.sent(std::move(p));
            run_round(l, accepted ? std::vector<peer_number>{1, 2} : std::vector<peer_number>{2});
            s.moved();
            CHECK(s.settle(l, 1, 1) == std::optional(accepted));
            // Their momentum: half of what it was, and what they accepted.
            CHECK(s.said() == (accepted ? core::flat_buffer{7, 2, -2} : core::flat_buffer{4, 2, -2}));
            s.moved();  // a round without this peer
            CHECK(s.said() == (accepted ? core::flat_buffer{3.5F, 1, -1} : core::flat_buffer{2, 1, -1}));
            CHECK(s.account().balances());
            CHECK(s.account().sent == (accepted ? 3 : 0));
            auto carry = s.take_carry();
            CHECK(s.repeats_of(carry) == (accepted ? 0.25F : 0.125F));
            // What was not said is carried, or given up.
            const auto kept = accepted ? core::flat_buffer{1, 0, -2} : core::flat_buffer{4, 0, -2};
            CHECK(carry.values == (forgets ? core::flat_buffer{0, 0, 0} : kept));
            CHECK(carry.tokens == (accepted || forgets ? 0U : 10U));
            CHECK(s.account().lost == (!forgets ? 0 : accepted ? -1 : 2));
        }
    }
}

TEST_CASE("a payload that is given up is counted lost, and what is carried beside it stays") {
    settlement s;
    CHECK(s.give_up().empty());
    auto mass = mass_of({2, 3, 4}, 12, 3);
    mass.sum = 9;
    s.fold_back(mass_of({1, 1, 1}, 30, 3));
    s.sent(pending_of(1, 1, 1, std::move(mass)));
    CHECK(of(s.give_up()) == exact{2, 3, 4, 12});
    CHECK_FALSE(s.pending());
    CHECK(s.account().lost == 9);
    CHECK(of(s.carry()) == exact{1, 1, 1, 30});
}

TEST_CASE("mass is conserved exactly through any history") {
    std::uint64_t accepted_count = 0, folded_count = 0, lost_tokens = 0;
    for (std::uint64_t seed = 0; seed < 2000; ++seed) {
        INFO("seed " << seed);
        core::seeded_entropy random(seed, "settlement");
        const auto members = static_cast<peer_number>(1 + random.below(4));
        auto l = ledger_of(members);
        std::vector<peer_number> all;
        for (peer_number n = 1; n <= members; ++n) all.push_back(n);
        std::map<peer_number, settlement> mass;
        exact produced{}, lost{};
        struct applied_payload {
            std::uint64_t generation, round;
            peer_number who;
            exact mass;
        };
        std::vector<applied_payload> applied;

        const auto fresh = [&] {
            carried_mass m;
            for (std::size_t i = 0; i < elements; ++i) {
                m.values.push_back(static_cast<float>(random.below(17)) - 8.0F);
            }
            m.tokens = 1 + random.below(9);
            m.steps = static_cast<std::uint32_t>(1 + random.below(5));
            produced = produced + of(m);
            return m;
        };
        const auto is_accepted = [&](peer_number who) {
            const auto& p = mass[who].pending();
            return p && l.find(who)->last_accepted == accepted_payload{p->generation, p->round, p->id};
        };
        const auto settle = [&](peer_number who) {
            const bool accepted = is_accepted(who);
            const auto carry_before = of(mass[who].carry());
            const auto sent = mass[who].pending() ? of(mass[who].pending()->mass) : exact{};
            if (const auto result = mass[who].settle(l, who, l.committed())) {
                REQUIRE(*result == accepted);  // I5
                (accepted ? accepted_count : folded_count) += 1;
                REQUIRE(of(mass[who].carry()) == (accepted ? carry_before : carry_before + sent));
            }
        };

        for (int i = 0; i < 60; ++i) {
            const auto who = all[random.below(all.size())];
            switch (random.below(8)) {
                case 0:
                    if (!l.open()) l.apply(round_of(l, all, some_of(random, all)));
                    break;
                case 1:
                case 2:  // a contributor sends
                    if (l.open() && std::ranges::binary_search(l.open()->contributors, who)) {
                        settle(who);
                        if (mass[who].pending()) break;
                        auto m = mass[who].take_carry();
                        settlement whole;  // fresh + carry, as the member forms it
                        whole.fold_back(std::move(m));
                        whole.fold_back(fresh());
                        mass[who].sent(pending_of(l.generation(), l.open()->round, who, whole.take_carry()));
                    }
                    break;
                case 3:  // training was interrupted
                    mass[who].fold_back(fresh());
                    break;
                case 4:
                    if (l.open()) {
                        l.apply(round_of(l, all, some_of(random, l.open()->contributors), l.open()->attempt + 1));
                    }
                    break;
                case 5:
                    if (l.open()) {
                        // Whoever has sent nothing leaves; then it is committed.
                        std::vector<peer_number> senders;
                        for (const auto c : l.open()->contributors) {
                            const auto& p = mass[c].pending();
                            if (p && p->generation == l.generation() && p->round == l.open()->round) {
                                senders.push_back(c);
                            }
                        }
                        REQUIRE(l.apply(round_of(l, all, senders, l.open()->attempt + 1)));
                        auto c = commit_of_open(l);
                        for (auto& x : c.contributions) {
                            x.tokens = mass[x.number].pending()->mass.tokens;
                            applied.push_back({l.generation(), c.round, x.number, of(mass[x.number].pending()->mass)});
                        }
                        REQUIRE(l.apply(c));
                    }
                    break;
                case 6: settle(who); break;
                case 7: {
                    if (random.below(4) != 0) break;
                    if (random.below(3) == 0) {  // starts over from a downloaded state
                        settle(who);
                        if (mass[who].pending()) break;  // undecided: it may be accepted yet
                        lost = lost + of(mass[who].carry());
                        const auto tokens = mass[who].carry().tokens;
                        REQUIRE(mass[who].discard() == tokens);
                        break;
                    }
                    generation_record g;
                    g.generation = l.generation() + 1;
                    g.round = l.committed() - std::min(l.committed(), random.below(3));
                    g.position = g.round * 10;
                    exact left{};
                    for (const auto& a : applied) {
                        if (a.round <= g.round) left = left + a.mass;
                    }
                    g.tokens = static_cast<std::uint64_t>(left[elements]);
                    for (const auto& a : applied) {
                        if (a.round <= g.round) continue;
                        // Its author folds it back if it has not settled it yet; otherwise nobody has it any more.
                        const auto& p = mass[a.who].pending();
                        const bool with_author = p && p->generation == a.generation && p->round == a.round;
                        if (!with_author) lost = lost + a.mass;
                    }
                    std::erase_if(applied, [&](const auto& a) { return a.round > g.round; });
                    REQUIRE(l.apply(g));
                    break;
                }
                default: break;
            }
            // I13
            exact sum = lost;
            exact in_anchor{};
            for (const auto& a : applied) in_anchor = in_anchor + a.mass;
            REQUIRE(l.tokens() == static_cast<std::uint64_t>(in_anchor[elements]));
            sum = sum + in_anchor;
            for (const auto n : all) {
                sum = sum + of(mass[n].carry());
                if (mass[n].pending() && !is_accepted(n)) sum = sum + of(mass[n].pending()->mass);
            }
            REQUIRE(sum == produced);
        }
        lost_tokens += static_cast<std::uint64_t>(lost[elements]);
    }
    CHECK(accepted_count > 2000);
    CHECK(folded_count > 1000);
    CHECK(lost_tokens > 1000);
}

TEST_CASE("with feedback, too, mass is conserved exactly through any history") {
    using sums3 = std::array<double, elements>;
    const auto add = [](sums3& to, const core::flat_buffer& v, double factor = 1) {
        for (std::size_t i = 0; i < v.size(); ++i) to[i] += factor * static_cast<double>(v[i]);
    };
    std::uint64_t accepted_count = 0, folded_count = 0, interrupted = 0;
    for (std::uint64_t seed = 0; seed < 1000; ++seed) {
        INFO("seed " << seed);
        core::seeded_entropy random(seed, "feedback");
        auto l = ledger_of(3);
        const std::vector<peer_number> all{1, 2, 3};
        std::map<peer_number, settlement> mass;
        std::map<peer_number, std::uint64_t> state;  // rounds applied
        std::set<std::pair<peer_number, std::uint64_t>> decayed;
        for (const auto who : all) mass.emplace(who, settlement({true, 0.5F}));
        sums3 produced{}, sent{}, lost{};
        std::map<core::digest, core::flat_buffer> payloads;  // decoded

        const auto is_accepted = [&](peer_number who) {
            const auto& p = mass[who].pending();
            return p && l.find(who)->last_accepted == accepted_payload{p->generation, p->round, p->id};
        };
        // p = Δ + β·residual, as the member forms it; values are dyadic, so that nothing is rounded.
        const auto form = [&](peer_number who, std::uint64_t round) {
            auto& s = mass[who];
            auto carry = s.take_carry();
            const float beta = s.beta_for(1, round);
            REQUIRE(beta == (decayed.emplace(who, round).second ? 0.5F : 1.0F));
            carried_mass m;
            compress::mass_sums sums;
            for (std::size_t i = 0; i < elements; ++i) {
                const float delta = static_cast<float>(random.below(17)) - 8.0F;
                const float found = carry.empty() ? 0.0F : carry.values[i];
                m.values.push_back(delta + beta * found);
                produced[i] += static_cast<double>(delta);
                lost[i] += static_cast<double>((1 - beta) * found);
                sums.produced += static_cast<double>(delta);
                sums.residual += static_cast<double>(found);
                sums.compensated += static_cast<double>(m.values[i]);
                sums.size += static_cast<double>(std::abs(m.values[i]) + std::abs(found));
            }
            m.tokens = 1 + carry.tokens;
            m.steps = 1 + carry.steps;
            m.sum = sums.compensated;
            s.formed(1, round, sums, carry.sum);
            return m;
        };
        for (int i = 0; i < 50; ++i) {
            const auto who = all[random.below(all.size())];
            switch (random.below(6)) {
                case 0:
                    if (!l.open()) REQUIRE(l.apply(round_of(l, all, some_of(random, all))));
                    break;
                case 1:
                case 2: {  // who contributes trains from the newest state
                    if (!l.open() || !std::ranges::binary_search(l.open()->contributors, who)) break;
                    state[who] = l.committed();
                    (void)mass[who].settle(l, who, state[who]);
                    if (mass[who].pending()) break;
                    auto m = form(who, l.open()->round);
                    if (random.below(4) == 0) {  // and is not wanted any more
                        mass[who].fold_back(std::move(m));
                        ++interrupted;
                        break;
                    }
                    auto p = pending_of(1, l.open()->round, who, std::move(m));
                    core::flat_buffer said(elements, 0.0F);
                    for (std::size_t k = 0; k < elements; ++k) {
                        if (random.below(2) == 0) said[k] = p.mass.values[k];
                        p.left.push_back(p.mass.values[k] - said[k]);
                        p.sent += static_cast<double>(said[k]);
                    }
                    payloads[p.id] = said;
                    mass[who].sent(std::move(p));
                    break;
                }
                case 3:
                    if (l.open())
                        REQUIRE(
                            l.apply(round_of(l, all, some_of(random, l.open()->contributors), l.open()->attempt + 1)));
                    break;
                case 4: {
                    if (!l.open()) break;
                    std::vector<peer_number> senders;
                    for (const auto c : l.open()->contributors) {
                        const auto& p = mass[c].pending();
                        if (p && p->round == l.open()->round) senders.push_back(c);
                    }
                    REQUIRE(l.apply(round_of(l, all, senders, l.open()->attempt + 1)));
                    REQUIRE(l.apply(commit_of_open(l)));
                    for (const auto c : senders) add(sent, payloads[mass[c].pending()->id]);
                    break;
                }
                default: {  // a state moves on by some rounds
                    state[who] += random.below(l.committed() - state[who] + 1);
                    const bool accepted = is_accepted(who);
                    if (const auto settled = mass[who].settle(l, who, state[who])) {
                        REQUIRE(*settled == accepted);  // I5
                        (accepted ? accepted_count : folded_count) += 1;
                    }
                }
            }
            // I13, of each element; and of the sums that a node tells.
            auto sum = lost;
            for (std::size_t k = 0; k < elements; ++k) sum[k] += sent[k];
            for (const auto n : all) {
                add(sum, mass[n].carry().values);
                if (const auto& p = mass[n].pending()) add(sum, is_accepted(n) ? p->left : p->mass.values);
                REQUIRE(mass[n].account().balances());
            }
            REQUIRE(sum == produced);
        }
    }
    CHECK(accepted_count > 500);
    CHECK(folded_count > 100);
    CHECK(interrupted > 500);
}

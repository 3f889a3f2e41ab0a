#include "peers/generation.hpp"

#include <set>

#include "optim/aggregate.hpp"
#include "peers/left_log.hpp"
#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

std::uint64_t branch(std::uint64_t parent, std::uint64_t founder, std::uint64_t nonce = 1) {
    return *generation_of_branch(digest_of(0), parent, 7, digest_of(founder), nonce);
}

shared_state state_of(std::uint64_t tokens, core::flat_buffer anchor) {
    model_state s;
    s.tokens = tokens;
    s.position = tokens / 100;
    s.anchor = std::move(anchor);
    s.momentum.resize(s.anchor.size());
    return std::make_shared<model_state>(std::move(s));
}

}  // namespace

TEST_CASE("generations of different branches never have the same number, and JSON holds all of them") {
    constexpr std::uint64_t largest_in_json = std::uint64_t{1} << 53;
    std::set<std::uint64_t> branches{branch_of(1)};
    auto parent = std::uint64_t{1};
    for (std::uint64_t i = 1; i <= 8191; ++i) {
        parent = branch(parent, i);
        REQUIRE(branches.insert(branch_of(parent)).second);
        REQUIRE(branch_of(parent + 1) == branch_of(parent));
        REQUIRE(parent < largest_in_json);
    }
    CHECK(generation_of_branch(digest_of(0), parent, 7, digest_of(1), 1).error().code == core::errc::limit);
    // Who opens it, behind what, and when: each draws another one.
    CHECK(branch(1, 1) != branch(1, 2));
    CHECK(branch(1, 1) != branch(1, 1, 2));
    CHECK(branch(1, 1) != branch(2, 1));
    CHECK(branch(1, 1) == branch(1, 1));
}

TEST_CASE("a generation's name counts the branchings and says which one it is") {
    CHECK(generation_name(1) == "1");
    CHECK(generation_name(3) == "3");
    const auto g = (std::uint64_t{1} << 40) | (std::uint64_t{0x03fa9c} << 16) | 1;
    CHECK(generation_name(g) == "2.03fa9c");
    CHECK(generation_name(g + 1) == "2.03fa9c.2");
}

TEST_CASE("the log of branch 0 is the run's, and each other branch has one of its own") {
    const auto run = digest_of(0);
    CHECK(log_id(run, 0) == run);
    CHECK(log_id(run, 5) != log_id(run, 6));
    CHECK(log_id(run, 5) != log_id(digest_of(1), 5));
}

TEST_CASE("two lines have in common what was committed when they parted") {
    const generation_origin a{10, 1, 5, 500}, b{20, 10, 8, 800}, c{30, 1, 6, 600}, d{40, 10, 9, 900};
    CHECK_FALSE(tokens_in_common({}, {}));
    CHECK_FALSE(tokens_in_common({a, b}, {a, b}));
    CHECK(tokens_in_common({}, {a}) == 500);
    CHECK(tokens_in_common({a, b}, {}) == 500);
    CHECK(tokens_in_common({a}, {c}) == 500);
    CHECK(tokens_in_common({a, b}, {a}) == 800);
    CHECK(tokens_in_common({a, b}, {a, d}) == 800);
    // Of a long line only the end is known.
    CHECK(tokens_in_common({b}, {b, d}) == 900);
    // Who forgot its log knows at least from which generation it went on.
    const generation_origin e{50, 20, 9, 950};
    CHECK(tokens_in_common({a, b}, {e}) == 950);
    CHECK(tokens_in_common({e}, {a, b, d}) == 900);
}

TEST_CASE("a branch begins with what its parent had committed, and remembers where it began") {
    auto l = ledger_of(3);
    for (int i = 0; i < 3; ++i) {
        REQUIRE(l.apply(round_of(l, {1, 2, 3}, {1, 2, 3})));
        REQUIRE(l.apply(commit_of_open(l)));
    }
    REQUIRE(l.apply(round_of(l, {1, 2, 3}, {1, 2, 3})));
    state_index s;
    s.generation = 1;
    s.round = 2;
    s.position = 20;
    s.tokens = 600;
    s.root = l.commit_of(3)->commit.state_root;
    REQUIRE(l.descends_from(s));
    const auto generation = branch(1, 2);
    const auto key = l.find(2)->admitted.key;
    const auto b = l.in_branch(generation, key, s);
    CHECK(b.generation() == generation);
    CHECK(b.index() == 0);
    CHECK(b.committed() == 2);
    CHECK(b.position() == 20);
    CHECK(b.tokens() == 600);
    // What it had once it will have again before another line is taken for longer.
    CHECK(b.most_tokens() == 900);
    CHECK(b.generation_root() == s.root);
    CHECK_FALSE(b.open());
    CHECK(b.members().size() == 3);
    CHECK(b.voters().voters == std::vector{key});
    // What was accepted after that state, its authors keep.
    CHECK_FALSE(b.find(1)->last_accepted);
    CHECK(b.origins() == generation_line{{generation, 1, 2, 600}});
    CHECK(ledger::from_snapshot(b.snapshot()) == b);
    CHECK(b.descends_from(s));
    auto later = s;
    later.round = 3;
    CHECK_FALSE(b.descends_from(later));
    later.generation = generation;
    CHECK_FALSE(b.descends_from(later));
}

TEST_CASE("after the record that dissolves it nothing counts in a log") {
    auto l = ledger_of(3);
    REQUIRE(l.apply(round_of(l, {1, 2, 3}, {1, 2, 3})));
    // Not into itself.
    CHECK_FALSE(l.apply(dissolved_record{2, "no", {}}));
    CHECK_FALSE(l.dissolved_into());
    const auto commit = commit_of_open(l);
    const auto into = branch(1, 2);
    REQUIRE(l.apply(dissolved_record{into, "there is more there", digest_of(7)}));
    CHECK(l.dissolved_into() == into);
    CHECK(l.dissolved_by() == digest_of(7));
    CHECK_FALSE(l.open());
    CHECK_FALSE(l.apply(commit));
    CHECK_FALSE(l.apply(run_state_record{run_phase::paused, {}}));
    CHECK(l.committed() == 0);
    CHECK(l.phase() == run_phase::running);
    CHECK(ledger::from_snapshot(l.snapshot()) == l);
    const auto again = parse_record(serialize(dissolved_record{into, "why", digest_of(7)}));
    REQUIRE(again);
    CHECK(std::get<dissolved_record>(*again) == dissolved_record{into, "why", digest_of(7)});
    CHECK(parse_record(serialize(dissolved_record{0, "why", {}})).error().code == core::errc::malformed);
}

TEST_CASE("a log that was left moves the run to the average by tokens, whatever the outer optimizer repeats") {
    const auto manifest =
        *core::tensor_manifest::make({{"w", {2}}, {.name = "mean", .shape = {1}, .role = core::tensor_role::buffer}});
    const generation_line parent, child{{branch(1, 2), 1, 5, 1000}};
    for (const bool nesterov : {true, false}) {
        optim::round_plan plan;
        plan.outer_lr = 0.7F;
        plan.outer_momentum = 0.8F;
        plan.nesterov = nesterov;
        // It has seen 1,000 tokens alone, the run 3,000.
        const left_log left{state_of(2000, {5, -1, 8}), parent};
        const auto now = state_of(4000, {1, 3, 4});
        const auto merged = merge_left_log(manifest, plan, left, *now, child, 3);
        CHECK(merged.share == 0.25);
        CHECK(merged.tokens == 1000);
        CHECK(merged.mass.steps == 0);
        CHECK(merged.mass.tokens == 0);
        // One of three contributors with as much work each sends it.
        const std::vector<optim::contribution_weight> three(3, {160, 10});
        auto mean = *optim::aggregator::begin(manifest, three);
        core::flat_buffer sum(3), nothing(3);
        REQUIRE(mean.add(0, nothing));
        REQUIRE(mean.add(1, merged.mass.values));
        REQUIRE(mean.add(2, nothing));
        mean.finish(sum);
        auto anchor = now->anchor;
        core::flat_buffer momentum(3);
        optim::outer_step(manifest, nesterov, plan.outer_lr, plan.outer_momentum, anchor, momentum, sum);
        CHECK(std::abs(anchor[2] - 5.0F) < 1e-5F);
        for (int round = 0; round < 100; ++round) {
            optim::outer_step(manifest, nesterov, plan.outer_lr, plan.outer_momentum, anchor, momentum, nothing);
        }
        CHECK(std::abs(anchor[0] - 2.0F) < 1e-5F);
        CHECK(std::abs(anchor[1] - 2.0F) < 1e-5F);
    }
}

TEST_CASE("of a log that was left there may be nothing to merge") {
    const auto manifest = *core::tensor_manifest::make({{"w", {1}}});
    const optim::round_plan plan{.inner_steps = 10, .outer_lr = 1};
    const generation_line parent, child{{branch(1, 2), 1, 5, 1000}};
    const auto merge = [&](std::uint64_t left, std::uint64_t now, const generation_line& line) {
        return merge_left_log(manifest, plan, {state_of(left, {1}), parent}, *state_of(now, {2}), line, 2);
    };
    CHECK(merge(1000, 5000, child).mass.empty());   // it did nothing alone
    CHECK(merge(900, 5000, child).mass.empty());    // its state is older than the parting
    CHECK(merge(2000, 5000, parent).mass.empty());  // it is the same line
}

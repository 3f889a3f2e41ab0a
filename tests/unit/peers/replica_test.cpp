#include "peers/replica.hpp"

#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

core::tensor_manifest small_manifest() { return *core::tensor_manifest::make({{"a", {2, 2}}, {"b", {3}}}); }

model_state some_state() {
    model_state s;
    s.generation = 2;
    s.round = 6;
    s.position = 60;
    s.tokens = 1234;
    s.anchor = {1, -2, 3.5F, 0, 1e-20F, -0.0F, 7};
    s.momentum = {0, 0.25F, -1, 2, 3, 4, 5};
    s.root = root_of(s);
    return s;
}

commit_record commit_with(std::vector<contribution> contributions) {
    commit_record c;
    c.round = 7;
    c.attempt = 1;
    c.contributions = std::move(contributions);
    return c;
}

}  // namespace

TEST_CASE("a round moves the anchor by the outer step and counts its steps and tokens") {
    const auto manifest = small_manifest();
    const auto before = some_state();
    round_plan plan = short_plan(10);
    plan.nesterov = false;
    plan.outer_lr = 1;
    plan.outer_momentum = 0;
    const core::flat_buffer aggregate = {1, 1, 1, 1, 0, 0, -1};
    const auto commit = commit_with({{1, 100, 10, 2.0, digest_of(1)}, {2, 50, 10, 2.0, digest_of(2)}});
    const auto after = apply_round(manifest, before, plan, commit, aggregate);
    CHECK(after->anchor == core::flat_buffer{0, -3, 2.5F, -1, 1e-20F, -0.0F, 8});
    CHECK(after->round == 7);
    CHECK(after->position == 70);
    CHECK(after->tokens == 1384);
    CHECK(after->generation == 2);
    CHECK(after->root == root_of(*after));
    CHECK(after->root != before.root);
    CHECK(before.root == root_of(before));  // a state never changes

    // Nesterov as PyTorch has it: m ← βm + Δ, θ ← θ − η(Δ + βm).
    plan.nesterov = true;
    plan.outer_lr = 0.5F;
    plan.outer_momentum = 0.5F;
    const auto nesterov = apply_round(manifest, before, plan, commit, aggregate);
    for (std::size_t i = 0; i < aggregate.size(); ++i) {
        const float m = 0.5F * before.momentum[i] + aggregate[i];
        CHECK(nesterov->momentum[i] == m);
        CHECK(nesterov->anchor[i] == before.anchor[i] - 0.5F * (aggregate[i] + 0.5F * m));
    }
}

TEST_CASE("a round without contributors moves neither anchor nor momentum") {
    const auto before = some_state();
    const core::flat_buffer zero(7, 0.0F);
    const auto after = apply_round(small_manifest(), before, short_plan(10), commit_with({}), zero);
    CHECK(after->anchor == before.anchor);
    CHECK(after->momentum == before.momentum);
    CHECK(after->round == 7);
    CHECK(after->position == 70);
    CHECK(after->tokens == before.tokens);
    CHECK(after->root != before.root);
}

TEST_CASE("equal states have equal roots, and every bit counts but the generation's") {
    const auto s = some_state();
    CHECK(root_of(*in_generation(s, 9)) == s.root);
    CHECK(in_generation(s, 9)->generation == 9);
    for (const auto change : {0, 1, 2}) {
        auto other = s;
        (change == 0 ? other.round : change == 1 ? other.position : other.tokens) += 1;
        CHECK(root_of(other) != s.root);
    }
    // −0 and 0 are the same number and not the same bits.
    auto other = s;
    other.anchor[5] = 0.0F;
    CHECK(other.anchor == s.anchor);
    CHECK(root_of(other) != s.root);
    // What is anchor and what is momentum is told apart.
    other = s;
    std::swap(other.anchor, other.momentum);
    CHECK(root_of(other) != s.root);
}

TEST_CASE("a state survives its journey, and a damaged one is another state") {
    const auto manifest = small_manifest();
    const auto s = some_state();
    const auto bytes = serialize(s);
    CHECK(bytes.size() == state_bytes(manifest));
    const auto again = parse_state(manifest, bytes);
    REQUIRE(again);
    CHECK((*again)->root == s.root);
    CHECK((*again)->generation == s.generation);
    CHECK(serialize(**again) == bytes);
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        auto damaged = bytes;
        damaged[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        const auto parsed = parse_state(manifest, damaged);
        REQUIRE(parsed);
        // The generation is not part of the root: whoever downloads compares it with the log's.
        if (bit < 64) {
            REQUIRE((*parsed)->generation != s.generation);
        } else {
            REQUIRE((*parsed)->root != s.root);
        }
    }
}

TEST_CASE("a state of another size is refused") {
    const auto manifest = small_manifest();
    const auto bytes = serialize(some_state());
    for (std::size_t n = 0; n < bytes.size(); ++n) {
        const auto r = parse_state(manifest, core::const_bytes(bytes).first(n));
        REQUIRE_FALSE(r);
        REQUIRE(r.error().code == errc::malformed);
    }
    auto longer = bytes;
    longer.push_back(std::byte{0});
    CHECK_FALSE(parse_state(manifest, longer));
}

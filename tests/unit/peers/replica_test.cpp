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
    seal(s);
    return s;
}

commit_record commit_with(std::vector<contribution> contributions) {
    commit_record c;
    c.round = 7;
    c.attempt = 1;
    c.contributions = std::move(contributions);
    return c;
}

/// The same values, hashed anew.
model_state sealed(model_state s) {
    seal(s);
    return s;
}

/// Of a model whose buffers take two and a half chunks each.
model_state large_state() {
    model_state s;
    s.round = 3;
    s.anchor.resize(5 * state_chunk_bytes / sizeof(float) / 2);
    s.momentum.resize(s.anchor.size());
    for (std::size_t i = 0; i < s.anchor.size(); ++i) {
        s.anchor[i] = static_cast<float>(i);
        s.momentum[i] = -1.0F / static_cast<float>(i + 1);
    }
    seal(s);
    return s;
}

}  // namespace

TEST_CASE("a round moves the anchor by the outer step and counts its steps and tokens") {
    const fragment whole{0, small_manifest()};
    const auto before = some_state();
    round_plan plan = short_plan(10);
    plan.nesterov = false;
    plan.outer_lr = 1;
    plan.outer_momentum = 0;
    const core::flat_buffer aggregate = {1, 1, 1, 1, 0, 0, -1};
    const auto commit = commit_with({{1, 100, 10, 2.0, digest_of(1)}, {2, 50, 10, 2.0, digest_of(2)}});
    const auto after = apply_round(whole, before, plan, commit, aggregate);
    CHECK(after->anchor == core::flat_buffer{0, -3, 2.5F, -1, 1e-20F, -0.0F, 8});
    CHECK(after->round == 7);
    CHECK(after->position == 70);
    CHECK(after->tokens == 1384);
    CHECK(after->generation == 2);
    CHECK(after->root == sealed(*after).root);
    CHECK(after->root != before.root);
    CHECK(before.root == sealed(before).root);  // a state never changes

    // Nesterov as PyTorch has it: m ← βm + Δ, θ ← θ − η(Δ + βm).
    plan.nesterov = true;
    plan.outer_lr = 0.5F;
    plan.outer_momentum = 0.5F;
    const auto nesterov = apply_round(whole, before, plan, commit, aggregate);
    for (std::size_t i = 0; i < aggregate.size(); ++i) {
        const float m = 0.5F * before.momentum[i] + aggregate[i];
        CHECK(nesterov->momentum[i] == m);
        CHECK(nesterov->anchor[i] == before.anchor[i] - 0.5F * (aggregate[i] + 0.5F * m));
    }
}

TEST_CASE("a round without contributors moves neither anchor nor momentum") {
    const auto before = some_state();
    const core::flat_buffer zero(7, 0.0F);
    const auto after = apply_round(fragment{0, small_manifest()}, before, short_plan(10), commit_with({}), zero);
    CHECK(after->anchor == before.anchor);
    CHECK(after->momentum == before.momentum);
    CHECK(after->round == 7);
    CHECK(after->position == 70);
    CHECK(after->tokens == before.tokens);
    CHECK(after->root != before.root);
}

TEST_CASE("equal states have equal roots, and every bit counts but the generation's") {
    const auto s = some_state();
    CHECK(sealed(*in_generation(s, 9)).root == s.root);
    CHECK(in_generation(s, 9)->root == s.root);
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
    CHECK(sealed(other).root != s.root);
    // What is anchor and what is momentum is told apart.
    other = s;
    std::swap(other.anchor, other.momentum);
    CHECK(sealed(other).root != s.root);
}

TEST_CASE("a state is cut into chunks that fit their leaves, and nothing else does") {
    const auto s = large_state();
    const auto manifest = *core::tensor_manifest::make({{"a", {static_cast<std::int64_t>(s.anchor.size())}}});
    REQUIRE(state_chunks(manifest) == 6);
    REQUIRE(s.leaves.size() == 6);
    std::uint64_t bytes = 0;
    for (std::uint32_t i = 0; i < 6; ++i) {
        const auto chunk = chunk_of(s, i);
        CHECK(chunk.size() == (i % 3 == 2 ? state_chunk_bytes / 2 : state_chunk_bytes));
        CHECK(chunk_fits(s, i, chunk));
        CHECK_FALSE(chunk_fits(s, (i + 1) % 6, chunk));
        CHECK_FALSE(chunk_fits(s, i, chunk.first(chunk.size() - 1)));
        core::byte_vector damaged(chunk.begin(), chunk.end());
        damaged.back() ^= std::byte{1};
        CHECK_FALSE(chunk_fits(s, i, damaged));
        bytes += chunk.size();
    }
    CHECK(bytes == 2 * s.anchor.size() * sizeof(float));
    CHECK_FALSE(chunk_fits(s, 6, chunk_of(s, 0)));
    // From its chunks it can be put together again.
    model_state again;
    static_cast<state_index&>(again) = s;
    again.anchor.resize(s.anchor.size());
    again.momentum.resize(s.momentum.size());
    for (std::uint32_t i = 0; i < 6; ++i) std::ranges::copy(chunk_of(s, i), chunk_of(again, i).begin());
    CHECK(again.anchor == s.anchor);
    CHECK(again.momentum == s.momentum);
}

TEST_CASE("an index survives its journey, and a damaged one is another state's") {
    const auto manifest = small_manifest();
    const auto s = some_state();
    const auto bytes = serialize(s);
    CHECK(bytes.size() == index_bytes(manifest));
    const auto again = parse_state_index(manifest, bytes);
    REQUIRE(again);
    CHECK(again->root == s.root);
    CHECK(again->generation == s.generation);
    CHECK(again->leaves == s.leaves);
    CHECK(serialize(*again) == bytes);
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        auto damaged = bytes;
        damaged[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        const auto parsed = parse_state_index(manifest, damaged);
        REQUIRE(parsed);
        // The generation is not part of the root: whoever downloads compares it with the log's.
        if (bit < 64) {
            REQUIRE(parsed->generation != s.generation);
        } else {
            REQUIRE(parsed->root != s.root);
        }
    }
    for (std::size_t n = 0; n < bytes.size(); ++n) {
        const auto r = parse_state_index(manifest, core::const_bytes(bytes).first(n));
        REQUIRE_FALSE(r);
        REQUIRE(r.error().code == errc::malformed);
    }
    auto longer = bytes;
    longer.push_back(std::byte{0});
    CHECK_FALSE(parse_state_index(manifest, longer));
}

#include "peers/exchange.hpp"

#include "compress/codec.hpp"
#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

core::tensor_manifest small_manifest() { return *core::tensor_manifest::make({{"a", {2}}, {"b", {2}}}); }

net::identity identity_of(peer_number who) {
    core::seeded_entropy random(who, "identity");
    return net::identity::generate(random);
}

payload payload_with(peer_number author, const core::flat_buffer& values, std::uint64_t tokens = 100,
                     std::uint32_t steps = 10, std::uint64_t round = 5) {
    const auto codec = compress::find_codec("f32");
    REQUIRE(codec);
    const auto body = (*codec)->encode(small_manifest(), values);
    REQUIRE(body);
    payload_header h;
    h.run = digest_of(1);
    h.generation = 1;
    h.round = round;
    h.author = author;
    h.codec = "f32";
    h.tokens = tokens;
    h.steps = steps;
    h.loss = 0.5 * author;
    return make_payload(h, *body, identity_of(author));
}

payload sealed(peer_number author, core::byte_vector body, std::string codec = "f32") {
    payload_header h;
    h.generation = 1;
    h.round = 5;
    h.author = author;
    h.codec = std::move(codec);
    h.tokens = 1;
    h.steps = 1;
    return make_payload(h, body, identity_of(author));
}

commit_record commit_of(const aggregate& a) {
    commit_record c;
    c.round = a.round;
    c.attempt = 1;
    c.aggregate_root = a.root;
    c.contributions = a.contributions;
    return c;
}

}  // namespace

TEST_CASE("equal weights give the mean") {
    const auto s = sum(small_manifest(), {payload_with(1, {1, 2, 3, 4}), payload_with(2, {3, 2, 1, 0}),
                                          payload_with(3, {2, 2, 2, 2}), payload_with(4, {-6, 10, 0, 2})});
    REQUIRE(s);
    CHECK((*s)->values == core::flat_buffer{0, 4, 1.5F, 2});
    CHECK((*s)->generation == 1);
    CHECK((*s)->round == 5);
    REQUIRE((*s)->contributions.size() == 4);
    CHECK((*s)->contributions[2] == contribution{3, 100, 10, 1.5, payload_with(3, {2, 2, 2, 2}).id});
}

TEST_CASE("weights are tokens, and steps are taken out of the length of a contribution") {
    // Δ̄ = (Σ w H) · Σ w Δ / H with w = (1/4, 3/4), H = (10, 20): 17.5 · (1/4·Δ₁/10 + 3/4·Δ₂/20)
    const auto s =
        sum(small_manifest(), {payload_with(1, {8, 0, 0, 16}, 100, 10), payload_with(2, {0, 16, 0, 32}, 300, 20)});
    REQUIRE(s);
    const core::flat_buffer expected = {8 * 0.4375F, 16 * 0.65625F, 0, 8 * 0.4375F * 2 + 32 * 0.65625F};
    CHECK((*s)->values == expected);
    // Two peers that walk equally fast along the same line: the mean is that line at the weighted number of steps.
    const auto line =
        sum(small_manifest(), {payload_with(1, {10, 10, 10, 10}, 100, 10), payload_with(2, {20, 20, 20, 20}, 300, 20)});
    REQUIRE(line);
    for (const float v : (*line)->values) CHECK(v == 17.5F);
}

TEST_CASE("the order of the round decides the bits") {
    // (2²⁴ + 1) + 1 loses both ones, (1 + 1) + 2²⁴ none.
    const auto one = payload_with(1, {3, 3, 3, 3}), two = payload_with(2, {3, 3, 3, 3}),
               large = payload_with(3, {50331648, 50331648, 50331648, 50331648});
    const auto first = sum(small_manifest(), {large, one, two}), last = sum(small_manifest(), {one, two, large});
    REQUIRE(first);
    REQUIRE(last);
    const float third = static_cast<float>(1.0 / 3.0);
    float a = 0, b = 0;
    for (const float v : {50331648.0F, 3.0F, 3.0F}) a += third * v;
    for (const float v : {3.0F, 3.0F, 50331648.0F}) b += third * v;
    REQUIRE(a != b);
    CHECK((*first)->values == core::flat_buffer(4, a));
    CHECK((*last)->values == core::flat_buffer(4, b));
    CHECK((*first)->root != (*last)->root);
    const auto again = sum(small_manifest(), {large, one, two});
    REQUIRE(again);
    CHECK((*again)->root == (*first)->root);
}

TEST_CASE("nobody's sum is zero") {
    const auto s = sum(small_manifest(), {});
    REQUIRE(s);
    CHECK((*s)->values == core::flat_buffer(4, 0.0F));
    CHECK((*s)->contributions.empty());
}

TEST_CASE("a payload that does not decode is refused by its author's name") {
    const auto good = payload_with(1, {1, 1, 1, 1});
    for (const auto& bad :
         {sealed(2, core::byte_vector(7)), sealed(2, {}), sealed(2, {good.body().begin(), good.body().end()}, "bf16"),
          sealed(2, {good.body().begin(), good.body().end()}, "no-such-codec")}) {
        const auto s = sum(small_manifest(), {good, bad});
        REQUIRE_FALSE(s);
    }
    const auto s = sum(small_manifest(), {good, sealed(2, core::byte_vector(7))});
    CHECK(s.error().message.find("peer 2") != std::string::npos);
}

TEST_CASE("the root covers who contributed what") {
    const core::flat_buffer values = {1, 2, 3, 4};
    const std::vector<contribution> one = {{1, 10, 5, 2.0, digest_of(1)}, {2, 10, 5, 2.0, digest_of(2)}};
    const auto root = root_of(one, values);
    auto other = one;
    other[0].tokens += 1;
    CHECK(root_of(other, values) != root);
    other = one;
    other[1].steps += 1;
    CHECK(root_of(other, values) != root);
    other = one;
    other[1].number = 3;
    CHECK(root_of(other, values) != root);
    other = one;
    other[0].loss = 2.5;
    CHECK(root_of(other, values) != root);
    other = one;
    other[0].payload = digest_of(3);
    CHECK(root_of(other, values) != root);
    other = one;
    std::swap(other[0], other[1]);
    CHECK(root_of(other, values) != root);
    other.pop_back();
    CHECK(root_of(other, values) != root);
    const core::flat_buffer off = {1, 2, 3, 5};
    CHECK(root_of(one, off) != root);
}

TEST_CASE("a foreign aggregate is what its commit names, in every bit") {
    const auto manifest = small_manifest();
    const auto s = sum(manifest, {payload_with(1, {1, 2, 3, 4}), payload_with(2, {3, 2, 1, 0})});
    REQUIRE(s);
    const auto view = core::bytes_of((*s)->values);
    const core::byte_vector bytes(view.begin(), view.end());
    const auto commit = commit_of(**s);
    const auto parsed = parse_aggregate(manifest, 1, commit, bytes);
    REQUIRE(parsed);
    CHECK((*parsed)->values == (*s)->values);
    CHECK((*parsed)->root == (*s)->root);
    CHECK((*parsed)->round == 5);
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        auto damaged = bytes;
        damaged[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        REQUIRE_FALSE(parse_aggregate(manifest, 1, commit, damaged));
    }
    for (std::size_t n = 0; n < bytes.size(); ++n) {
        REQUIRE_FALSE(parse_aggregate(manifest, 1, commit, core::const_bytes(bytes).first(n)));
    }
    auto other = commit;
    other.contributions[0].tokens = 1;
    CHECK_FALSE(parse_aggregate(manifest, 1, other, bytes));
}

TEST_CASE("payloads of the open round and the one before are kept") {
    exchange e;
    e.open(1, 5);
    const auto p = payload_with(1, {1, 2, 3, 4});
    REQUIRE(e.add(p));
    REQUIRE(e.add(p));  // the same once more
    CHECK(e.authors() == std::vector<peer_number>{1});
    CHECK(e.bytes() == p.bytes->size());
    REQUIRE(e.find(1) != nullptr);
    CHECK(e.find(1)->id == p.id);
    CHECK(e.find(2) == nullptr);
    REQUIRE(e.add(payload_with(2, {1, 1, 1, 1}, 100, 10, 6)));  // of another round: not kept, no error
    CHECK(e.find(2) == nullptr);
    CHECK(e.find(1, 6, 2) == nullptr);

    e.open(1, 5);  // the same again changes nothing
    CHECK(e.find(1) != nullptr);
    e.open(1, 6);
    CHECK(e.find(1) == nullptr);
    CHECK(e.authors().empty());
    CHECK(e.bytes() == 0);
    REQUIRE(e.find(1, 5, 1) != nullptr);
    REQUIRE(e.add(payload_with(2, {1, 1, 1, 1})));  // a late one of the round before
    CHECK(e.find(1, 5, 2) != nullptr);
    e.open(1, 7);
    CHECK(e.find(1, 5, 1) == nullptr);
}

TEST_CASE("a second payload of the same author for the same round is refused") {
    exchange e;
    e.open(1, 5);
    const auto first = payload_with(1, {1, 2, 3, 4});
    REQUIRE(e.add(first));
    const auto r = e.add(payload_with(1, {1, 2, 3, 5}));
    REQUIRE_FALSE(r);
    CHECK(r.error().code == errc::protocol);
    CHECK(r.error().message.find("peer 1") != std::string::npos);
    CHECK(e.find(1)->id == first.id);
    e.open(1, 6);
    CHECK_FALSE(e.add(payload_with(1, {9, 9, 9, 9})));  // nor a moment later
}

TEST_CASE("contributors are complete together, in their order") {
    exchange e;
    e.open(1, 5);
    REQUIRE(e.add(payload_with(3, {3, 3, 3, 3})));
    REQUIRE(e.add(payload_with(1, {1, 1, 1, 1})));
    CHECK(e.complete({1, 2, 3}).empty());
    const auto both = e.complete({1, 3});
    REQUIRE(both.size() == 2);
    CHECK(both[0].header.author == 1);
    CHECK(both[1].header.author == 3);
}

TEST_CASE("the last few aggregates are kept for those who missed one") {
    exchange e;
    for (std::uint64_t round = 1; round <= 10; ++round) {
        auto a = std::make_shared<aggregate>();
        a->generation = 1;
        a->round = round;
        e.retain(std::move(a));
    }
    for (std::uint64_t round = 1; round <= 10; ++round) {
        CHECK((e.find_aggregate(1, round) != nullptr) == (round > 10 - exchange::retained));
        CHECK(e.find_aggregate(2, round) == nullptr);
    }
}

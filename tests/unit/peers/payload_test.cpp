#include "peers/payload.hpp"

#include <limits>

#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

net::identity identity_of(std::uint64_t seed) {
    core::seeded_entropy random(seed, "identity");
    return net::identity::generate(random);
}

payload_header header_of() {
    payload_header h;
    h.run = digest_of(1);
    h.generation = 3;
    h.round = 41;
    h.author = 7;
    h.codec = "bf16";
    h.tokens = 1 << 20;
    h.steps = 30;
    h.loss = 2.25;
    return h;
}

core::byte_vector body_of(std::size_t n) {
    core::seeded_entropy random(n, "body");
    core::byte_vector out(n);
    random.fill(out);
    return out;
}

auto shared(core::byte_vector bytes) { return std::make_shared<const core::byte_vector>(std::move(bytes)); }

}  // namespace

TEST_CASE("a payload opens as it was made") {
    const auto me = identity_of(1);
    for (const std::size_t size : {0, 1, 100, 100'000}) {
        const auto body = body_of(size);
        const auto made = make_payload(header_of(), body, me);
        CHECK(made.body_offset <= max_payload_header);
        const auto opened = open_payload(made.bytes, me.key());
        REQUIRE(opened);
        CHECK(opened->id == made.id);
        CHECK(opened->id == core::hash(*made.bytes));
        CHECK(std::ranges::equal(opened->body(), body));
        const auto& h = opened->header;
        CHECK(h.run == digest_of(1));
        CHECK(h.generation == 3);
        CHECK(h.round == 41);
        CHECK(h.author == 7);
        CHECK(h.codec == "bf16");
        CHECK(h.bytes == size);
        CHECK(h.root == core::hash(body));
        CHECK(h.tokens == 1 << 20);
        CHECK(h.steps == 30);
        CHECK(h.loss == 2.25);
    }
}

TEST_CASE("a payload with any bit changed is refused") {
    const auto me = identity_of(1);
    const auto made = make_payload(header_of(), body_of(40), me);
    for (std::size_t bit = 0; bit < made.bytes->size() * 8; ++bit) {
        auto damaged = *made.bytes;
        damaged[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        INFO("bit " << bit);
        REQUIRE_FALSE(open_payload(shared(std::move(damaged)), me.key()));
    }
}

TEST_CASE("a payload that is cut or continued is refused") {
    const auto me = identity_of(1);
    const auto made = make_payload(header_of(), body_of(40), me);
    for (std::size_t n = 0; n < made.bytes->size(); ++n) {
        REQUIRE_FALSE(open_payload(shared({made.bytes->begin(), made.bytes->begin() + static_cast<std::ptrdiff_t>(n)}),
                                   me.key()));
    }
    auto longer = *made.bytes;
    longer.push_back(std::byte{0});
    CHECK_FALSE(open_payload(shared(std::move(longer)), me.key()));
}

TEST_CASE("a payload is its author's alone") {
    const auto made = make_payload(header_of(), body_of(40), identity_of(1));
    const auto r = open_payload(made.bytes, identity_of(2).key());
    REQUIRE_FALSE(r);
    CHECK(r.error().code == errc::protocol);
    CHECK_FALSE(open_payload(made.bytes, net::peer_key{}));
}

TEST_CASE("the same header and body make the same payload, and any other makes another") {
    const auto me = identity_of(1);
    const auto made = make_payload(header_of(), body_of(40), me);
    CHECK(make_payload(header_of(), body_of(40), me).id == made.id);
    auto h = header_of();
    h.round = 42;
    CHECK(make_payload(h, body_of(40), me).id != made.id);
    CHECK(make_payload(header_of(), body_of(41), me).id != made.id);
}

TEST_CASE("what an author signs may still be impossible") {
    const auto me = identity_of(1);
    const auto refused = [&](auto change) {
        auto h = header_of();
        change(h);
        return !open_payload(make_payload(h, body_of(10), me).bytes, me.key());
    };
    CHECK(refused([](payload_header& h) { h.loss = std::numeric_limits<double>::quiet_NaN(); }));
    CHECK(refused([](payload_header& h) { h.loss = -std::numeric_limits<double>::infinity(); }));
    CHECK(refused([](payload_header& h) { h.tokens = 0; }));
    CHECK(refused([](payload_header& h) { h.tokens = (std::uint64_t{1} << 48) + 1; }));
    CHECK(refused([](payload_header& h) { h.steps = 0; }));
    CHECK(refused([](payload_header& h) { h.codec = std::string(33, 'x'); }));
    CHECK(refused([](payload_header& h) { h.codec = "bf\n16"; }));
    CHECK_FALSE(refused([](payload_header& h) { h.tokens = std::uint64_t{1} << 48; }));
    CHECK_FALSE(refused([](payload_header&) {}));
}

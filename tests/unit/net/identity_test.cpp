#include "net/identity.hpp"

#include "tests/test.hpp"
#include "tests/unit/net/fixtures.hpp"

namespace longhaul::net {
namespace {

using namespace testing;

TEST_CASE("an identity's keys are those of RFC 8032 and RFC 7748") {
    // RFC 8032 §7.1 test 1 (Ed25519 seed and public key); RFC 7748 §6.1, Bob's X25519 keys.
    const auto saved = unhex(
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    const auto parsed = identity::parse(saved);
    REQUIRE(parsed);
    CHECK(parsed->key().hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    CHECK(parsed->noise_public().hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    CHECK(parsed->serialize() == saved);
}

TEST_CASE("an identity parses back, and other lengths are refused") {
    core::seeded_entropy entropy(4);
    const auto id = identity::generate(entropy);
    const auto again = identity::parse(id.serialize());
    REQUIRE(again);
    CHECK(again->key() == id.key());
    CHECK(again->noise_public() == id.noise_public());
    CHECK(again->noise_secret() == id.noise_secret());
    CHECK(identity::generate(entropy).key() != id.key());
    for (const std::size_t n : {0U, 32U, 63U, 65U, 128U}) {
        const auto wrong = identity::parse(core::byte_vector(n, std::byte{1}));
        REQUIRE_FALSE(wrong);
        CHECK(wrong.error().code == core::errc::malformed);
    }
    CHECK_FALSE(identity::parse(core::byte_vector(64)));
    // A file whose end was lost on a crash is no identity either.
    auto torn = id.serialize();
    std::fill(torn.begin() + 32, torn.end(), std::byte{0});
    CHECK_FALSE(identity::parse(torn));
}

TEST_CASE("signatures are bound to key, purpose and message") {
    core::seeded_entropy entropy(5);
    const auto id = identity::generate(entropy);
    const auto other = identity::generate(entropy);
    const auto message = bytes_of("a chunk of round 7");
    const auto s = id.sign("longhaul-chunk-v1", message);
    CHECK(verify(id.key(), "longhaul-chunk-v1", message, s));
    CHECK(s == id.sign("longhaul-chunk-v1", message));
    CHECK_FALSE(verify(other.key(), "longhaul-chunk-v1", message, s));
    CHECK_FALSE(verify(id.key(), "longhaul-static-v1", message, s));
    // Moving bytes between purpose and message does not help.
    CHECK_FALSE(verify(id.key(), "longhaul-chunk-v", bytes_of("1a chunk of round 7"), s));
    for (std::size_t bit = 0; bit < message.size() * 8; ++bit) {
        CHECK_FALSE(verify(id.key(), "longhaul-chunk-v1", flipped(message, bit), s));
    }
    for (std::size_t bit = 0; bit < 512; ++bit) {
        signature wrong = s;
        wrong[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        REQUIRE_FALSE(verify(id.key(), "longhaul-chunk-v1", message, wrong));
    }
    // Keys that any signature of their kind satisfies (small order) are refused.
    for (const auto* text : {"0100000000000000000000000000000000000000000000000000000000000000",
                             "0000000000000000000000000000000000000000000000000000000000000000",
                             "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"}) {
        peer_key weak;
        REQUIRE(core::from_hex(text, weak.bytes));
        signature zero{};
        zero[0] = std::byte{1};
        CHECK_FALSE(verify(weak, "longhaul-chunk-v1", message, zero));
    }
}

TEST_CASE("a signature is Ed25519 of purpose, a zero byte and the message") {
    const auto id = identity::parse(core::byte_vector(64, std::byte{7}));
    REQUIRE(id);
    // Python's `cryptography`: Ed25519PrivateKey.from_private_bytes(b"\x07" * 32).sign(b"purpose\0message").hex()
    CHECK(core::to_hex(id->sign("purpose", core::as_bytes("message"))) ==
          "1f6d11585087c222431da2d3b6479d9e199825450fa880701a95e7500ff8a4566c38c9788bf2192b4772db9eacc39f0d6e64e5a4b864"
          "3fdfb8ea27d429c0490d");
}

}  // namespace
}  // namespace longhaul::net

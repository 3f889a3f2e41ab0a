#include "core/hash.hpp"

#include "tests/test.hpp"

using namespace longhaul::core;

// The expected values are Python's hashlib.blake2b(…, digest_size=32).
TEST_CASE("BLAKE2b-256 of known inputs") {
    CHECK(hash({}).hex() == "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    CHECK(hash(as_bytes("abc")).hex() == "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
}

TEST_CASE("a hash does not depend on how the input was cut") {
    std::string text;
    for (int i = 0; i < 1000; ++i) text.push_back(static_cast<char>(i * 7));
    const auto whole = hash(as_bytes(text));
    for (std::size_t piece : {1U, 63U, 64U, 127U, 128U, 129U, 999U, 1000U}) {
        hasher h;
        for (std::size_t at = 0; at < text.size(); at += piece)
            h.update(as_bytes(std::string_view(text).substr(at, piece)));
        h.update({});
        auto moved = std::move(h);
        CHECK(moved.finish() == whole);
    }
    text[500] = static_cast<char>(text[500] ^ 1);
    CHECK(hash(as_bytes(text)) != whole);
}

#include "core/hash.hpp"

#include "tests/test.hpp"

using namespace longhaul::core;

// The expected values are BLAKE3's published test vectors, whose input is 0, 1, … 250, 0, 1, …; "abc" is of the Python
// package blake3.
TEST_CASE("BLAKE3 of known inputs") {
    CHECK(hash({}).hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    CHECK(hash(as_bytes("abc")).hex() == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
    byte_vector counting(102400);
    for (std::size_t i = 0; i < counting.size(); ++i) counting[i] = static_cast<std::byte>(i % 251);
    const const_bytes input = counting;
    CHECK(hash(input.first(1025)).hex() == "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444");
    CHECK(hash(input).hex() == "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085");
}

TEST_CASE("a hash does not depend on how the input was cut") {
    std::string text;
    for (int i = 0; i < 20000; ++i) text.push_back(static_cast<char>(i * 7));
    const auto whole = hash(as_bytes(text));
    for (std::size_t piece : {1U, 63U, 64U, 65U, 999U, 1023U, 1024U, 1025U, 4096U, 19999U, 20000U}) {
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

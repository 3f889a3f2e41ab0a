#include "core/bytes.hpp"

#include <algorithm>
#include <limits>

#include "tests/test.hpp"

using namespace longhaul::core;

namespace {

byte_vector bytes(std::initializer_list<int> values) {
    byte_vector out;
    for (int v : values) out.push_back(static_cast<std::byte>(v));
    return out;
}

}  // namespace

TEST_CASE("hexadecimal round trip, both cases, and refusals leave the output alone") {
    const auto all = [] {
        byte_vector b;
        for (int i = 0; i < 256; ++i) b.push_back(static_cast<std::byte>(i));
        return b;
    }();
    const auto text = to_hex(all);
    CHECK(text.substr(0, 8) == "00010203");
    CHECK(text.substr(504) == "fcfdfeff");
    byte_vector back(256);
    REQUIRE(from_hex(text, back));
    CHECK(back == all);

    auto two = bytes({1, 2});
    REQUIRE(from_hex("aBCd", two));
    CHECK(two == bytes({0xab, 0xcd}));
    for (const auto* bad : {"", "abc", "abcde", "abcg", " abc", "ab c", "0xab"}) {
        const auto r = from_hex(bad, two);
        REQUIRE_FALSE(r);
        CHECK(r.error().code == errc::malformed);
        CHECK(two == bytes({0xab, 0xcd}));
    }
}

TEST_CASE("base64url: the vectors of RFC 4648 section 10, without padding") {
    const std::vector<std::pair<std::string, std::string>> vectors{
        {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},         {"foo", "Zm9v"},
        {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}};
    for (const auto& [plain, text] : vectors) {
        CHECK(to_base64url(as_bytes(plain)) == text);
        const auto back = from_base64url(text, 100);
        REQUIRE(back);
        CHECK(as_text(*back) == plain);
    }
    // The two digits that differ from plain base64.
    CHECK(to_base64url(bytes({0xfb, 0xff})) == "-_8");
}

TEST_CASE("base64url refuses what no encoder writes, and what is too long") {
    for (const auto* bad : {"A", "AAAAA", "Zg==", "Z g", "Zm+v", "Zm/v", "Zh", "Zm9", "Zm8\n"}) {
        const auto r = from_base64url(bad, 100);
        INFO(bad);
        REQUIRE_FALSE(r);
        CHECK(r.error().code == errc::malformed);
    }
    CHECK(from_base64url("Zm9v", 3));
    const auto r = from_base64url("Zm9v", 2);
    REQUIRE_FALSE(r);
    CHECK(r.error().code == errc::limit);
}

TEST_CASE("a writer's numbers are little-endian and a reader gives them back") {
    byte_writer w;
    w.u8(0xfe).u16(0x1234).u32(0x89abcdef).u64(std::numeric_limits<std::uint64_t>::max() - 1).sized(as_bytes("hey"));
    w.raw(as_bytes("!!"));
    const auto written = w.take();
    REQUIRE(written.size() == 1 + 2 + 4 + 8 + 4 + 3 + 2);
    CHECK(written[1] == std::byte{0x34});
    CHECK(written[2] == std::byte{0x12});
    CHECK(written[3] == std::byte{0xef});
    CHECK(written[7] == std::byte{0xfe});
    CHECK(written[15] == std::byte{3});

    byte_reader r(written);
    CHECK(*r.u8() == 0xfe);
    CHECK(*r.u16() == 0x1234);
    CHECK(*r.u32() == 0x89abcdef);
    CHECK(*r.u64() == std::numeric_limits<std::uint64_t>::max() - 1);
    CHECK(as_text(*r.sized(3)) == "hey");
    CHECK_FALSE(r.end());
    std::array<std::byte, 2> tail{};
    REQUIRE(r.copy_to(tail));
    CHECK(tail[1] == std::byte{'!'});
    CHECK(r.end());
    CHECK(r.remaining() == 0);
    CHECK(r.take(0));
}

TEST_CASE("every truncation of a message fails, and after a failure nothing more is read") {
    byte_writer w;
    w.u32(7).u64(8).sized(as_bytes("abc"));
    const auto whole = w.take();
    for (std::size_t cut = 0; cut < whole.size(); ++cut) {
        byte_reader r(const_bytes(whole).first(cut));
        const bool read_all = r.u32().has_value() && r.u64().has_value() && r.sized(16).has_value();
        INFO(cut);
        CHECK_FALSE(read_all);
        CHECK(r.u8().error().code == errc::malformed);
        CHECK(r.take(0).error().code == errc::malformed);
        CHECK(r.end().error().code == errc::malformed);
        CHECK(r.remaining() == 0);
    }
}

TEST_CASE("an announced length is bounded before anything is read") {
    const auto input = bytes({0xff, 0xff, 0xff, 0xff, 1, 2, 3});
    byte_reader limited(input);
    CHECK(limited.sized(16).error().code == errc::limit);
    CHECK(limited.end().error().code == errc::malformed);
    byte_reader unlimited(input);
    CHECK(unlimited.sized(std::numeric_limits<std::size_t>::max()).error().code == errc::malformed);
}

TEST_CASE("digests are ordered by their bytes and print as hexadecimal") {
    digest a, b;
    CHECK(a.is_zero());
    b.bytes[31] = std::byte{1};
    CHECK(a < b);
    a.bytes[0] = std::byte{0x80};
    CHECK(b < a);
    CHECK(a.hex() == "80" + std::string(62, '0'));
    CHECK(a.brief() == "80000000");
}

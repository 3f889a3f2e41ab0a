#include "net/hello.hpp"

#include "net/printable.hpp"
#include "tests/test.hpp"
#include "tests/unit/net/fixtures.hpp"

namespace longhaul::net {
namespace {

using namespace testing;

core::digest filled_digest(unsigned char fill) {
    core::digest d;
    d.bytes.fill(static_cast<std::byte>(fill));
    return d;
}

session_id session_of_fill(unsigned char fill) {
    session_id s{};
    s.fill(static_cast<std::byte>(fill));
    return s;
}

hello bulk_hello() {
    hello h;
    h.role = hello_role::bulk;
    h.connection = 7;
    h.run = filled_digest(0xAB);
    h.session = session_of_fill(0xCD);
    return h;
}

TEST_CASE("a hello parses back") {
    core::seeded_entropy entropy(1);
    for (unsigned i = 0; i < 300; ++i) {
        hello h;
        h.role = static_cast<hello_role>(1 + i % 3);
        if (i % 5 != 0) h.run = entropy.key();
        if (h.role == hello_role::bulk || (h.role == hello_role::control && i % 2 == 0)) {
            entropy.fill(h.session);
            h.connection = static_cast<std::uint32_t>(1 + entropy.below(0xFFFFFFFF));
        }
        const auto bytes = h.encode();
        const auto parsed = parse_hello(bytes);
        REQUIRE(parsed);
        CHECK(*parsed == h);
        CHECK(parsed->encode() == bytes);
    }
}

TEST_CASE("a hello of another length, magic, role or with reserved bytes is refused") {
    const auto good = copy(bulk_hello().encode());
    for (std::size_t n = 0; n < good.size() + 2; ++n) {
        auto bytes = good;
        bytes.resize(n);
        CHECK(parse_hello(bytes).has_value() == (n == hello_size));
    }
    const auto refused = [&](std::size_t at, unsigned char value) {
        auto bytes = good;
        bytes[at] = static_cast<std::byte>(value);
        const auto parsed = parse_hello(bytes);
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().code == core::errc::protocol);
        return parsed.error().message;
    };
    for (std::size_t i = 0; i < 8; ++i) CHECK(refused(i, 'x').find("does not speak longhaul") != std::string::npos);
    CHECK(refused(12, 0).find("role 0") != std::string::npos);
    CHECK(refused(12, 4).find("role 4") != std::string::npos);
    for (const std::size_t at : {13U, 14U, 15U, 68U, 80U, 95U}) {
        CHECK(refused(at, 1).find("reserved") != std::string::npos);
    }
    CHECK(refused(8, 0).find("wire versions 0 to 1") != std::string::npos);
    CHECK(refused(8, 2).find("wire versions 2 to 1") != std::string::npos);
    const auto http =
        parse_hello(core::as_bytes(std::string("GET / HTTP/1.1\r\n") + std::string(hello_size - 16, ' ')));
    REQUIRE_FALSE(http);
    CHECK(http.error().message.find("474554202f204854") != std::string::npos);
}

TEST_CASE("session and connection number go together") {
    const auto parses = [](hello_role role, std::uint32_t connection, bool session) {
        hello h;
        h.role = role;
        h.connection = connection;
        if (session) h.session = session_of_fill(1);
        return parse_hello(h.encode()).has_value();
    };
    CHECK(parses(hello_role::control, 0, false));
    CHECK(parses(hello_role::control, 1, true));
    CHECK_FALSE(parses(hello_role::control, 1, false));
    CHECK_FALSE(parses(hello_role::control, 0, true));
    CHECK(parses(hello_role::bulk, 1, true));
    CHECK_FALSE(parses(hello_role::bulk, 0, true));
    CHECK_FALSE(parses(hello_role::bulk, 1, false));
    CHECK(parses(hello_role::probe, 0, false));
    CHECK_FALSE(parses(hello_role::probe, 1, false));
    CHECK_FALSE(parses(hello_role::probe, 1, true));
}

TEST_CASE("a hello of unknown versions is read as far as every version agrees, and refused by name") {
    hello future;
    future.wire_min = 2;
    future.wire_max = 3;
    auto bytes = copy(future.encode());
    for (std::size_t i = 12; i < bytes.size(); ++i) bytes[i] = std::byte{0xFF};
    const auto theirs = parse_hello(bytes);
    REQUIRE(theirs);
    const auto compared = compare(hello{}, *theirs, side::initiator);
    REQUIRE_FALSE(compared);
    CHECK(compared.error().code == core::errc::version_mismatch);
    CHECK(compared.error().message ==
          "this node speaks wire version 1, the other side speaks wire versions 2 to 3: update this node");
    const auto seen_there = compare(*theirs, hello{}, side::responder);
    REQUIRE_FALSE(seen_there);
    CHECK(seen_there.error().message ==
          "this node speaks wire versions 2 to 3, the other side speaks wire version 1: update the other side");
}

TEST_CASE("two ends agree on the highest common version") {
    const auto range = [](std::uint16_t low, std::uint16_t high) {
        hello h;
        h.wire_min = low;
        h.wire_max = high;
        return h;
    };
    for (std::uint16_t a = 1; a < 6; ++a) {
        for (std::uint16_t b = a; b < 6; ++b) {
            for (std::uint16_t c = 1; c < 6; ++c) {
                for (std::uint16_t d = c; d < 6; ++d) {
                    unsigned common = 0;
                    for (unsigned v = 1; v < 6; ++v) common = v >= a && v <= b && v >= c && v <= d ? v : common;
                    const auto agreed = compare(range(a, b), range(c, d), side::initiator);
                    REQUIRE(agreed.has_value() == (common != 0));
                    if (agreed) CHECK(*agreed == common);
                }
            }
        }
    }
}

TEST_CASE("runs are compared by whoever named one, and both are named") {
    hello ours;
    hello theirs;
    ours.run = filled_digest(0x11);
    theirs.run = filled_digest(0x22);
    for (const auto s : {side::initiator, side::responder}) {
        const auto compared = compare(ours, theirs, s);
        REQUIRE_FALSE(compared);
        CHECK(compared.error().code == core::errc::run_mismatch);
        CHECK(compared.error().message.find(ours.run.hex()) != std::string::npos);
        CHECK(compared.error().message.find(theirs.run.hex()) != std::string::npos);
    }
    const hello none;
    CHECK(compare(none, theirs, side::initiator));        // a bare address takes the responder's run
    CHECK(compare(theirs, none, side::responder));        // and the responder lets it
    CHECK_FALSE(compare(ours, none, side::initiator));    // a ticket's run is not given up
    CHECK_FALSE(compare(none, theirs, side::responder));  // and one without a run cannot serve another's
    CHECK(compare(none, none, side::initiator));
    CHECK(compare(ours, ours, side::responder));
}

TEST_CASE("the responder's answer passes its dialler's comparison, and an echo of something else does not") {
    const auto mine = bulk_hello();
    const auto answer = mine.answer(mine.run);
    CHECK(compare(mine, answer, side::initiator) == 1);
    auto other = answer;
    other.connection = 8;
    CHECK(compare(mine, other, side::initiator).error().code == core::errc::protocol);
    other = answer;
    other.session = session_of_fill(0xCE);
    CHECK(compare(mine, other, side::initiator).error().code == core::errc::protocol);
    other = answer;
    other.role = hello_role::control;
    CHECK(compare(mine, other, side::initiator).error().code == core::errc::protocol);
}

TEST_CASE("the prologue is both hellos, the initiator's first") {
    const auto a = hello{}.encode();
    const auto b = bulk_hello().encode();
    const auto prologue = prologue_of(a, b);
    REQUIRE(prologue.size() == 2 * hello_size);
    CHECK(std::equal(a.begin(), a.end(), prologue.begin()));
    CHECK(std::equal(b.begin(), b.end(), prologue.begin() + hello_size));
    CHECK(prologue_of(b, a) != prologue);
}

TEST_CASE("the bytes of a hello do not change unnoticed") {
    // magic, versions 1 to 1, bulk, padding, connection 7, run, session, reserved.
    const std::string golden =
        "4c4f4e474841554c"
        "0100"
        "0100"
        "02"
        "000000"
        "07000000" +
        std::string("abababababababababababababababababababababababababababababababab") +
        "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd" + std::string(56, '0');
    CHECK(core::to_hex(bulk_hello().encode()) == golden);
    CHECK(core::to_hex(hello{}.encode()) ==
          "4c4f4e474841554c"
          "01000100"
          "01" +
              std::string(166, '0'));
}

TEST_CASE("printable text") {
    CHECK(is_printable_utf8("", 0));
    CHECK(is_printable_utf8("node-1 (Zürich) 机器 🚆", 64));
    CHECK_FALSE(is_printable_utf8("abcd", 3));
    const std::string bad[] = {"\n",
                               "\x1b[31m",
                               "\x7f",
                               std::string(1, '\0'),
                               "\xc2\x85",
                               "\xff",
                               "\xc0\x80",
                               "\xc1\xbf",
                               "\xe0\x80\xaf",
                               "\xed\xa0\x80",
                               "\xf4\x90\x80\x80",
                               "\xf0\x80\x80\x80",
                               "\xe2\x80\xae",
                               "\xe2\x80\xa8",
                               "\xef\xbb\xbf",
                               "\xc3",
                               "\xe2\x82",
                               "\xf0\x9f\x9a",
                               "\x80"};
    for (const auto& text : bad) {
        INFO(core::to_hex(core::as_bytes(text)));
        CHECK_FALSE(is_printable_utf8("a" + text, 64));
        CHECK_FALSE(is_printable_utf8(text + "a", 64));
        const auto made = to_printable_utf8("a" + text + "b", 64);
        CHECK(is_printable_utf8(made, 64));
        CHECK(made.front() == 'a');
        CHECK(made.back() == 'b');
    }
    CHECK(to_printable_utf8("a\tb", 64) == "a?b");
    CHECK(to_printable_utf8("züü", 4) == "zü");
    CHECK(to_printable_utf8("züü", 3) == "zü");
    CHECK(to_printable_utf8("züü", 2) == "z");
    core::seeded_entropy entropy(3);
    for (int i = 0; i < 2000; ++i) {
        core::byte_vector random(entropy.below(40));
        entropy.fill(random);
        const auto made = to_printable_utf8(core::as_text(random), 20);
        CHECK(is_printable_utf8(made, 20));
        CHECK(to_printable_utf8(made, 20) == made);
    }
}

}  // namespace
}  // namespace longhaul::net

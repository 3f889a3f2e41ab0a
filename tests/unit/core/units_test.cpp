#include "core/units.hpp"

#include <limits>

#include "tests/test.hpp"

using namespace longhaul::core;

TEST_CASE("durations as people write them") {
    CHECK(*parse_duration("80 ms") == 80ms);
    CHECK(*parse_duration("80ms") == 80ms);
    CHECK(*parse_duration("  2 min ") == 2min);
    CHECK(*parse_duration("1.5 s") == 1500ms);
    CHECK(*parse_duration("250us") == 250us);
    CHECK(*parse_duration("250 \xC2\xB5s") == 250us);
    CHECK(*parse_duration("1 h") == 1h);
    CHECK(*parse_duration("2 d") == 48h);
    CHECK(*parse_duration("0 s") == 0s);
    CHECK(*parse_duration("7 ns") == 7ns);
    CHECK(*parse_duration("1e3 ms") == 1s);
}

TEST_CASE("sizes: decimal and binary prefixes mean what they say") {
    CHECK(*parse_bytes("512 B") == 512);
    CHECK(*parse_bytes("10 kB") == 10000);
    CHECK(*parse_bytes("64MiB") == 64U << 20U);
    CHECK(*parse_bytes("64 MB") == 64000000);
    CHECK(*parse_bytes("1.5 GiB") == 1536U << 20U);
    CHECK(*parse_bytes("1 TiB") == std::uint64_t{1} << 40U);
    CHECK(*parse_bytes("18446744073709551615 B") == std::numeric_limits<std::uint64_t>::max());
    CHECK(parse_bytes("18446744073709551616 B").error().code == errc::malformed);
    CHECK(parse_bytes("16777216 TiB").error().code == errc::malformed);
    CHECK(parse_bytes("16777216.5 TiB").error().code == errc::malformed);
}

TEST_CASE("rates in bits and bytes") {
    CHECK(parse_rate("50 Mbit/s")->bits_per_second == 50e6);
    CHECK(parse_rate("1 Gbit/s")->bits_per_second == 1e9);
    CHECK(parse_rate("800 kbit/s")->bits_per_second == 800e3);
    CHECK(parse_rate("12 MB/s")->bits_per_second == 96e6);
    CHECK(parse_rate("1 MiB/s")->bits_per_second == 8.0 * (1 << 20));
    CHECK(parse_rate("100 Mbps")->bits_per_second == 100e6);
    CHECK(parse_rate("100 Mbps")->bytes_per_second() == 12.5e6);
}

TEST_CASE("shares in percent or as a number") {
    CHECK(*parse_share("0.5 %") == 0.005);
    CHECK(*parse_share("0.005") == 0.005);
    CHECK(*parse_share("100%") == 1.0);
    CHECK(*parse_share("0") == 0.0);
    for (const auto* bad : {"", "%", "101 %", "1.1", "-1 %", "half", "5 % x", "nan", "inf"}) {
        INFO(bad);
        const auto r = parse_share(bad);
        REQUIRE_FALSE(r);
        CHECK(r.error().code == errc::malformed);
    }
}

TEST_CASE("what does not parse is named, with an example") {
    CHECK(parse_duration("80").error().message == "\"80\" has no unit; write a time like \"80 ms\" or \"2 min\"");
    CHECK(parse_duration("80 m").error().message ==
          "\"80 m\" has an unknown unit; write a time like \"80 ms\" or \"2 min\"");
    CHECK(parse_duration("-1 s").error().message == "\"-1 s\" is negative; write a time like \"80 ms\" or \"2 min\"");
    CHECK(parse_duration("soon").error().message ==
          "\"soon\" does not start with a number; write a time like \"80 ms\" or \"2 min\"");
    CHECK(parse_rate("50").error().message == "\"50\" has no unit; write a rate like \"50 Mbit/s\" or \"12 MB/s\"");
    CHECK(parse_bytes("").error().message ==
          "\"\" does not start with a number; write a size like \"64 MiB\" or \"10 kB\"");
    for (const auto* bad : {"nan s", "inf s", "1e999 s", "300 y", "107000 d", "0x10 s", "1,5 s", "+1 s", "1 s s"}) {
        INFO(bad);
        CHECK(parse_duration(bad).error().code == errc::malformed);
    }
    const auto long_text = parse_bytes(std::string(100000, 'x'));
    CHECK(long_text.error().message.size() < 200);
}

TEST_CASE("what is printed parses back to within its digits") {
    CHECK(format_duration(80ms) == "80 ms");
    CHECK(format_duration(1500ms) == "1.5 s");
    CHECK(format_duration(10min) == "10 min");
    CHECK(format_duration(0ns) == "0 ns");
    CHECK(format_bytes(512) == "512 B");
    CHECK(format_bytes(64U << 20U) == "64 MiB");
    CHECK(format_bytes(1536U << 20U) == "1.5 GiB");
    CHECK(format_rate({50e6}) == "50 Mbit/s");
    CHECK(format_rate({0}) == "0 bit/s");
    for (std::uint64_t v = 1; v < (std::uint64_t{1} << 62U); v = v * 3 + 1) {
        const auto exact = static_cast<double>(v);
        const auto bytes = static_cast<double>(*parse_bytes(format_bytes(v)));
        CHECK(std::abs(bytes - exact) <= exact * 1e-3);
        const auto time = static_cast<double>(parse_duration(format_duration(duration(v)))->count());
        CHECK(std::abs(time - exact) <= exact * 1e-3);
        CHECK(std::abs(parse_rate(format_rate({exact}))->bits_per_second - exact) <= exact * 1e-3);
    }
}

TEST_CASE("a duration survives the way to seconds and back, to the nanosecond") {
    CHECK(from_seconds(to_seconds(1015963ns)) == 1015963ns);
    for (std::int64_t v = 1; v < (std::int64_t{1} << 50U); v = v * 3 + 1) {
        CHECK(from_seconds(to_seconds(duration(v))) == duration(v));
        CHECK(from_seconds(to_seconds(duration(-v))) == duration(-v));
    }
}

#include "core/json.hpp"

#include <nlohmann/json.hpp>

#include "tests/test.hpp"

using namespace longhaul::core;

TEST_CASE("JSON is parsed within its bounds") {
    const auto v = parse_json(R"({"a": [1, {"b": "c"}], "n": -2, "s": "x"})", 100, 3);
    REQUIRE(v);
    CHECK((*v)["a"][1]["b"] == "c");
    CHECK(parse_json("7", 1, 0));
    CHECK(parse_json("77", 1, 0).error().code == errc::limit);
    CHECK(parse_json("[]", 10, 0).error().code == errc::limit);
    CHECK(parse_json("[[]]", 10, 2));
    CHECK(parse_json("[[[]]]", 10, 2).error().code == errc::limit);
    CHECK(parse_json("[[],{},[]]", 100, 2));
    // Deep nesting is refused at the bound, not by exhausting the stack.
    CHECK(parse_json(std::string(10'000'000, '['), 20'000'000, 64).error().code == errc::limit);
}

TEST_CASE("what is not JSON is refused") {
    for (const std::string bad : {"", " ", "{", "{\"a\":}", "[1,]", "nul", "1e999", "\"\xff\"", "{} x", "NaN", "'a'",
                                  "// c\n1", "{\"a\":1,\"a\":2}", "[{\"a\":{\"b\":1,\"b\":1}}]"}) {
        INFO(bad);
        const auto v = parse_json(bad, 100, 10);
        REQUIRE_FALSE(v);
        CHECK(v.error().code == errc::malformed);
    }
    CHECK(parse_json("{\"a\":{\"a\":1},\"b\":{\"a\":2}}", 100, 10));
    CHECK(parse_json("{\"a\":x}", 100, 10).error().message == "not JSON at byte 6");
}

TEST_CASE("members are fetched by type") {
    const auto v = *parse_json(R"({"n": 18446744073709551615, "m": -1, "f": 1.0, "s": "x"})", 100, 3);
    CHECK(*json_u64(v, "n") == 18446744073709551615U);
    CHECK(*json_string(v, "s") == "x");
    for (const auto* bad : {"m", "f", "s", "absent"}) CHECK(json_u64(v, bad).error().code == errc::malformed);
    CHECK(json_string(v, "n").error().message == "\"n\" is not a text");
    CHECK(json_string(nlohmann::json(3), "n").error().code == errc::malformed);
    CHECK(json_text(nlohmann::json{{"b", "\xff"}, {"a", 1}}) == "{\"a\":1,\"b\":\"\xEF\xBF\xBD\"}");
}

#include "core/config.hpp"

#include <limits>

#include "tests/test.hpp"

using namespace longhaul::core;

namespace {

struct settings {
    std::string name = "demo";
    double lr = 8e-3;
    std::int64_t steps = 30;
    bool autocast = false;
    duration grace = 2s;
    bit_rate up{50e6};
    std::uint64_t memory = 64U << 20U;
    std::vector<std::string> peers;
    std::string codec = "bf16";
};

config_binder bound(settings& s) {
    config_binder b;
    b.bind("name", s.name, "of the run");
    b.bind("inner.lr", s.lr, "learning rate", 0, 10);
    b.bind("inner.steps", s.steps, "H", 1, 100000);
    b.bind("inner.autocast", s.autocast, "bf16 autocast");
    b.bind("peers.grace", s.grace, "deadline");
    b.bind("peers.up", s.up, "uplink");
    b.bind_bytes("peers.memory", s.memory, "budget");
    b.bind("peers.addresses", s.peers, "who to dial");
    b.bind_choice("exchange.codec", s.codec, {"f32", "bf16"}, "codec");
    return b;
}

/// The sentence of the error that `text` causes in a file named run.toml.
std::string sentence(std::string_view text) {
    settings s;
    auto b = bound(s);
    const auto before = b.canonical();
    auto values = config_values::from_toml(text, "run.toml");
    const auto r = values ? b.apply(*values) : result<void>(fail(values.error()));
    if (r) return "no error";
    CHECK(r.error().code == errc::config);
    CHECK(b.canonical() == before);
    return r.error().message;
}

}  // namespace

TEST_CASE("TOML fills the fields and leaves the others at their defaults") {
    settings s;
    auto b = bound(s);
    const auto values = config_values::from_toml(R"(
name = "my run"
inner.steps = 1_000
[peers]
grace = "80 ms"
up = "1 Gbit/s"
memory = "1.5 GiB"
addresses = ["a:1", "b"]   # two
[exchange]
codec = "f32"
[inner]
autocast = true
)",
                                                 "run.toml");
    // TOML forbids to reopen a table that dotted keys made.
    REQUIRE_FALSE(values);
    const auto good = config_values::from_toml(R"(
name = "my run"
[peers]
grace = "80 ms"
up = "1 Gbit/s"
memory = "1.5 GiB"
addresses = ["a:1", "b"]   # two
[exchange]
codec = "f32"
[inner]
steps = 1_000
autocast = true
)",
                                               "run.toml");
    REQUIRE(good);
    REQUIRE(b.apply(*good));
    CHECK(s.name == "my run");
    CHECK(s.steps == 1000);
    CHECK(s.autocast);
    CHECK(s.grace == 80ms);
    CHECK(s.up.bits_per_second == 1e9);
    CHECK(s.memory == 1536U << 20U);
    CHECK(s.peers == std::vector<std::string>{"a:1", "b"});
    CHECK(s.codec == "f32");
    CHECK(s.lr == 8e-3);
    CHECK(good->find("peers.grace")->origin.text == "run.toml:4");
    CHECK(good->find("absent") == nullptr);
}

TEST_CASE("each wrong value has one sentence with its place, itself and what is accepted") {
    CHECK(sentence("[inner]\nlr = \"fast\"") == "run.toml:2: inner.lr is \"fast\"; it takes a number from 0 to 10");
    CHECK(sentence("inner.lr = 11") == "run.toml:1: inner.lr is \"11\"; it takes a number from 0 to 10");
    CHECK(sentence("inner.lr = nan") == "run.toml:1: inner.lr is \"nan\"; it takes a number from 0 to 10");
    CHECK(sentence("inner.lr = inf") == "run.toml:1: inner.lr is \"inf\"; it takes a number from 0 to 10");
    CHECK(sentence("inner.lr = [1]") == "run.toml:1: inner.lr is a list; it takes a number from 0 to 10");
    CHECK(sentence("inner.steps = 0") == "run.toml:1: inner.steps is \"0\"; it takes a whole number from 1 to 100000");
    CHECK(sentence("inner.steps = 1.5") ==
          "run.toml:1: inner.steps is \"1.5\"; it takes a whole number from 1 to 100000");
    CHECK(sentence("inner.autocast = \"maybe\"") == "run.toml:1: inner.autocast is \"maybe\"; it takes true or false");
    CHECK(sentence("peers.grace = 5") ==
          "run.toml:1: peers.grace: \"5\" has no unit; write a time like \"80 ms\" or \"2 min\"");
    CHECK(sentence("peers.up = \"5 furlongs\"") ==
          "run.toml:1: peers.up: \"5 furlongs\" has an unknown unit; write a rate like \"50 Mbit/s\" or \"12 MB/s\"");
    CHECK(sentence("peers.memory = \"-1 B\"") ==
          "run.toml:1: peers.memory: \"-1 B\" is negative; write a size like \"64 MiB\" or \"10 kB\"");
    CHECK(sentence("exchange.codec = \"bf61\"") ==
          "run.toml:1: exchange.codec is \"bf61\"; it takes one of f32, bf16; did you mean \"bf16\"?");
    CHECK(sentence("exchange.codec = \"zstd\"") == "run.toml:1: exchange.codec is \"zstd\"; it takes one of f32, bf16");
    CHECK(sentence("name = \"two\\nlines\"") == "run.toml:1: name is not printable text");
    CHECK(sentence("name = 1979-05-27") == "run.toml:1: name is a date or a time, which nothing here takes");
    CHECK(sentence("peers.addresses = [[1]]") == "run.toml:1: peers.addresses may hold texts and numbers only");
    CHECK(sentence("[[peers]]\ngrace = \"1 s\"") == "run.toml:1: peers may hold texts and numbers only");
}

TEST_CASE("an unknown key names the nearest, or what there is") {
    CHECK(sentence("[inner]\n\nstep = 3") == "run.toml:3: unknown key \"inner.step\"; did you mean \"inner.steps\"?");
    CHECK(sentence("steps = 3") == "run.toml:1: unknown key \"steps\"; did you mean \"inner.steps\"?");
    CHECK(sentence("[peers]\nautocast = true") ==
          "run.toml:2: unknown key \"peers.autocast\"; did you mean \"inner.autocast\"?");
    CHECK(sentence("[iner]\nlr = 3") == "run.toml:2: unknown key \"iner.lr\"; did you mean \"inner.lr\"?");
    CHECK(sentence("inner.learning_rate = 3") ==
          "run.toml:1: unknown key \"inner.learning_rate\"; [inner] takes autocast, lr, steps");
    CHECK(sentence("wholly.different = 3") ==
          "run.toml:1: unknown key \"wholly.different\"; there are [exchange], [inner], [peers], name");
    // A key below a value, and a section where a value belongs.
    CHECK(sentence("[name]\nx = 1").starts_with("run.toml:2: unknown key \"name.x\""));
    CHECK(sentence("inner = 3").starts_with("run.toml:1: unknown key \"inner\""));
}

TEST_CASE("TOML that does not parse is refused with its line") {
    CHECK(sentence("a = 1\n[inner\n").starts_with("run.toml:2: "));
    CHECK(sentence("name = \"a\"\nname = \"b\"").starts_with("run.toml:2: "));
    CHECK(sentence("\n\n= 3").starts_with("run.toml:3: "));
    CHECK(sentence("name = \"\xff\"").starts_with("run.toml:1: "));
    CHECK(sentence("a = 1 # caf\xC3\xA9\ncaf\xC3\xA9 = 1") ==
          "run.toml:2: only strings and comments may hold other than ASCII characters");
    // toml++ asserts on this one.
    CHECK(sentence("\n[\x01]").starts_with("run.toml:2: "));
    CHECK(sentence("\"a b\" = 3") ==
          "run.toml:1: the key \"a b\" has characters other than letters, digits, '_' and '-'");
    CHECK(sentence("\"inner.lr\" = 3").find("has characters other than") != std::string::npos);
}

TEST_CASE("strings and comments of every kind may hold any character") {
    const std::string e = "\xC3\xA9", smile = "\xF0\x9F\x98\x80";
    const std::vector<std::pair<std::string, std::string>> cases{
        {"name = \"caf" + e + smile + "\"", "caf" + e + smile},
        {"name = 'caf" + e + "' # " + e, "caf" + e},
        {"name = \"\"\"caf" + e + "\"\"\"", "caf" + e},
        {"name = '''\ncaf" + e + "'''", "caf" + e},
        {"# \" " + e + "\nname = \"caf" + e + "\"", "caf" + e},
        {"name = \"\\\"" + e + "\\u00e9\\\\\" #'" + e, "\"" + e + e + "\\"},
        {R"(name = '\"\' # )" + e, R"(\"\)"},
        {R"(name = '''\"'"'\''' # )" + e, R"(\"'"'\)"},
        {"name = \"\"\"\"" + e + "\"\"\"\"\" #" + e, "\"" + e + "\"\""},
        {"name = '''''" + e + "''''' #" + e, "''" + e + "''"},
        {"name = \"\"\"a\\\n   b\"\"\"", "ab"},
        {"name = ''", ""},
        {"\xEF\xBB\xBFname = \"\" # '''", ""},
    };
    for (const auto& [text, expected] : cases) {
        INFO(text);
        settings s;
        const auto values = config_values::from_toml(text, "run.toml");
        REQUIRE(values);
        REQUIRE(bound(s).apply(*values));
        CHECK(s.name == expected);
    }
    CHECK(sentence("name = \"\"\"a\\\\\"\"\" " + e).find("other than ASCII") != std::string::npos);
    CHECK(sentence("name = 'open\n" + e).starts_with("run.toml:"));
}

TEST_CASE("hostile TOML is bounded: size, nesting by brackets, nesting by dots") {
    CHECK(sentence(std::string(300'000, '#')).find("too many for a configuration") != std::string::npos);
    CHECK(sentence("a = " + std::string(100'000, '[')) != "no error");
    std::string path = "a";
    for (int i = 0; i < 100'000; ++i) path += ".a";
    CHECK(sentence("[" + path + "]\nb = 1").find("dots are too many") != std::string::npos);
    // What the bound lets through must not exhaust the stack either.
    std::string below = "a";
    for (int i = 0; i < 4096; ++i) below += ".a";
    CHECK(sentence(below + " = 1").find("more than 8 parts") != std::string::npos);
    CHECK(sentence("a.a.a.a.a.a.a.a = 1").find("unknown key") != std::string::npos);
    CHECK(sentence("a.a.a.a.a.a.a.a.a = 1").find("more than 8 parts") != std::string::npos);
}

TEST_CASE("defaults, TOML, environment, flags: later layers win, and origins say which") {
    settings s;
    auto b = bound(s);
    auto values = *config_values::from_toml("[inner]\nlr = 1\nsteps = 2\n[peers]\ngrace = \"3 s\"", "run.toml");
    const std::vector<std::string> environment{"PATH=/bin",
                                               "LONGHAUL_INNER_STEPS=4",
                                               "LONGHAUL_INNER_STEP=5",
                                               "LONGHAUL_PEERS_ADDRESSES= a:1 ,b,,",
                                               "LONGHAUL_PEERS_GRACE=5 s",
                                               "LONGHAUL_INNER_AUTOCAST=on"};
    values.merge(config_values::from_environment(environment, b.keys()));
    config_values flags;
    flags.set("peers.grace", "7 s", "--grace");
    values.merge(flags);
    REQUIRE(b.apply(values));
    CHECK(s.lr == 1);
    CHECK(s.steps == 4);
    CHECK(s.grace == 7s);
    CHECK(s.autocast);
    CHECK(s.peers == std::vector<std::string>{"a:1", "b"});
    CHECK(b.print() == R"(name = "demo"                            # default

[inner]
lr = 1                                   # run.toml:2
steps = 4                                # LONGHAUL_INNER_STEPS
autocast = true                          # LONGHAUL_INNER_AUTOCAST

[peers]
grace = "7 s"                            # --grace
up = "50 Mbit/s"                         # default
memory = "64 MiB"                        # default
addresses = ["a:1", "b"]                 # LONGHAUL_PEERS_ADDRESSES

[exchange]
codec = "bf16"                           # default
)");

    config_values wrong;
    wrong.set("inner.lr", "x", "--set inner.lr");
    CHECK(b.apply(wrong).error().message == "--set inner.lr: inner.lr is \"x\"; it takes a number from 0 to 10");
    const auto bad_environment = config_values::from_environment({"LONGHAUL_INNER_LR=x"}, b.keys());
    CHECK(b.apply(bad_environment).error().message ==
          "LONGHAUL_INNER_LR: inner.lr is \"x\"; it takes a number from 0 to 10");
}

TEST_CASE("a variable that nothing reads is an error that names the nearest") {
    settings s;
    const auto b = bound(s);
    const auto checked = [&](const std::string& entry) {
        return config_values::check_environment({"PATH=/bin", entry}, b.keys(), {"LONGHAUL_STATE_DIR"});
    };
    for (const auto* known : {"LONGHAUL_INNER_LR=", "LONGHAUL_NAME=x", "LONGHAUL_STATE_DIR=/x", "LONGHAULER=1", "X=1"})
        CHECK(checked(known));
    const auto mistyped = checked("LONGHAUL_INNER_LRR=3");
    REQUIRE_FALSE(mistyped);
    CHECK(mistyped.error().code == errc::config);
    CHECK(mistyped.error().message.find("\"LONGHAUL_INNER_LRR\"") != std::string::npos);
    CHECK(mistyped.error().message.find("did you mean LONGHAUL_INNER_LR?") != std::string::npos);
    CHECK(checked("LONGHAUL_STATE_DRI=3").error().message.find("LONGHAUL_STATE_DIR?") != std::string::npos);
    CHECK(checked("LONGHAUL_XYZZY=").error().message.find("did you mean") == std::string::npos);
    CHECK_FALSE(checked("LONGHAUL_=1"));
}

TEST_CASE("the canonical form is sorted, exact, and reads back to itself") {
    settings s;
    s.name = "quo\"te \\ \xC3\xBC";
    s.lr = 0.1 + 0.2;
    s.grace = duration(1234567891);
    s.up.bits_per_second = 1234567.875;
    s.memory = (std::uint64_t{1} << 60U) + 1;
    s.peers = {"a,b", "c"};
    const auto text = bound(s).canonical();
    CHECK(text ==
          "exchange.codec = \"bf16\"\ninner.autocast = false\ninner.lr = 0.30000000000000004\n"
          "inner.steps = 30\nname = \"quo\\\"te \\\\ \xC3\xBC\"\npeers.addresses = "
          "[\"a,b\", \"c\"]\n"
          "peers.grace = \"1234567891 ns\"\npeers.memory = \"1152921504606846977 B\"\n"
          "peers.up = \"1234567.875 bit/s\"\n");
    settings back;
    auto b = bound(back);
    REQUIRE(b.apply(*config_values::from_toml(text, "canonical")));
    CHECK(b.canonical() == text);
    CHECK(back.lr == s.lr);
    CHECK(back.grace == s.grace);
    CHECK(back.up == s.up);
    CHECK(back.memory == s.memory);
    CHECK(back.name == s.name);
    CHECK(back.peers == s.peers);
    settings defaults;
    CHECK(bound(defaults).canonical() != text);
}

TEST_CASE("a number that may be left to others is auto until it is given") {
    std::optional<double> momentum;
    config_binder b;
    b.bind("outer.momentum", momentum, "auto: none", 0, 1);
    CHECK(b.canonical() == "outer.momentum = \"auto\"\n");
    const auto apply = [&b](std::string_view text) { return b.apply(*config_values::from_toml(text, "run.toml")); };
    REQUIRE(apply("outer.momentum = 0.5"));
    CHECK(momentum == 0.5);
    CHECK(b.canonical() == "outer.momentum = 0.5\n");
    for (const char* bad : {"outer.momentum = 2.0", "outer.momentum = \"none\"", "outer.momentum = [0.5]"}) {
        const auto refused = apply(bad);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().message.find("auto, or a number") != std::string::npos);
        CHECK(momentum == 0.5);
    }
    REQUIRE(apply("outer.momentum = \"auto\""));
    CHECK_FALSE(momentum);
}

TEST_CASE("texts that cannot be printed are refused wherever they come from") {
    settings s;
    auto b = bound(s);
    for (const std::string bad : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "a\tb", "\x7f"}) {
        config_values v;
        v.set("name", bad, "--name");
        CHECK_FALSE(b.apply(v));
        config_values list;
        list.set("peers.addresses", "ok," + bad, "--peers");
        CHECK_FALSE(b.apply(list));
    }
    config_values good;
    good.set("name", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "--name");
    CHECK(b.apply(good));
}

TEST_CASE("nearest suggests typing errors and nothing far-fetched") {
    const std::vector<std::string> words{"status", "stop", "run", "join"};
    CHECK(nearest("statsu", words) == "status");
    CHECK(nearest("jion", words) == "join");
    CHECK(nearest("stpo", words) == "stop");
    CHECK(nearest("stop", words) == "stop");
    CHECK(nearest("train", words).empty());
    CHECK(nearest("", words).empty());
    CHECK(nearest("x", {}).empty());
    CHECK(nearest(std::string(100'000, 's'), words).empty());
}

#include "peers/run_config.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using peers::run_config;

namespace {

core::result<run_config> read(std::string_view toml) {
    run_config c;
    core::config_binder binder;
    peers::bind(binder, c);
    LONGHAUL_TRY_ASSIGN(const auto values, core::config_values::from_toml(toml, "run.toml"));
    LONGHAUL_TRY(binder.apply(values));
    LONGHAUL_TRY(peers::validate(c));
    return c;
}

std::string canonical(run_config c) {
    core::config_binder binder;
    peers::bind(binder, c);
    return binder.canonical();
}

/// The error that `toml` gives; it must be one that ends with exit code 78.
std::string refusal(std::string_view toml) {
    const auto c = read(toml);
    REQUIRE_FALSE(c.has_value());
    CHECK(core::exit_code_of(c.error().code) == 78);
    return c.error().message;
}

bool has(const std::string& text, std::string_view part) {
    INFO(text << " lacks " << part);
    CHECK(text.find(part) != std::string::npos);
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("an empty RUN.toml is a whole configuration") {
    const auto c = read("");
    REQUIRE(c.has_value());
    CHECK(canonical(*c) == canonical(run_config{}));
    CHECK(c->total_steps() == 100 * 30);
}

TEST_CASE("every key of RUN.toml reads, and its canonical form reads back to itself") {
    const auto c = read(R"(
        name = "shakespeare-1"
        [model]
        kind = "gpt"
        width = 96
        heads = 6
        [data]
        kind = "text"
        path = "a b.txt"
        [inner]
        lr = 0.0012345678901234567
        steps = 15
        [outer]
        optimizer = "sgd"
        lr = 1.0
        momentum = 0
        [exchange]
        codec = "f32"
        feedback = "ef"
        beta = 0.9
        [peers]
        admission = "open"
        min = 2
        max = 5
        silence_limit = "1500 ms"
        grace = "0.25 s"
        first_deadline = "2 min"
        [checkpoint]
        every = 7
        keep = 2
        [eval]
        every = 0
        [stop]
        rounds = 12
    )");
    REQUIRE(c.has_value());
    CHECK(c->inner.lr == 0.0012345678901234567);
    CHECK(c->exchange.feedback == "ef");
    CHECK(c->exchange.beta == 0.9);
    CHECK(c->peers.silence_limit == std::chrono::milliseconds(1500));
    CHECK(c->peers.grace == std::chrono::milliseconds(250));
    CHECK(c->total_steps() == 12 * 15);
    const auto text = canonical(*c);
    const auto again = read(text);
    REQUIRE(again.has_value());
    CHECK(canonical(*again) == text);
    CHECK(again->inner.lr == c->inner.lr);
    CHECK(again->data.path == "a b.txt");
}

TEST_CASE("errors of RUN.toml name the line, the key and what to do") {
    auto unknown = refusal("[inner]\nlearning = 1\nlr = 1\n[peers]\nadmision = \"open\"\n");
    has(unknown, "run.toml");
    unknown = refusal("[peers]\nadmision = \"open\"\n");
    has(unknown, "peers.admision");
    has(unknown, "peers.admission");
    const auto unit = refusal("[peers]\ngrace = \"3 parsecs\"\n");
    has(unit, "run.toml:2");
    has(unit, "parsecs");
    has(refusal("[exchange]\ncodec = \"bf61\"\n"), "bf16");
    has(refusal("[stop]\nrounds = 0\n"), "stop.rounds");
    has(refusal("name = \n"), "run.toml:1");
}

TEST_CASE("combinations that cannot work are refused") {
    has(refusal("name = \"a/b\""), "a/b");
    has(refusal("name = \"..\""), "..");
    has(refusal("[exchange]\ncodec = \"int5\""), "int4");
    for (const auto* coarse : {"topk-64/4096", "topk-4/64", "sign2", "sign1"}) {
        const auto codec = fmt::format("[exchange]\ncodec = \"{}\"\n", coarse);
        has(refusal(codec), "set exchange.feedback = \"ef\", or take the nearest codec that does without, int4");
        CHECK(read(codec + "feedback = \"ef\"").has_value());
        CHECK(read(codec + "feedback = \"ef\"\nbeta = 1.0").has_value());
        has(refusal(codec + "feedback = \"ef\"\nmode = \"shard\""), "gather");
    }
    has(refusal("[exchange]\ncodec = \"topk-64/409\"\nfeedback = \"ef\""), "topk-64/4096");
    has(refusal("[exchange]\nfeedback = \"eff\""), "ef");
    has(refusal("[exchange]\nfeedback = \"ef\"\nbeta = 1.5"), "the nearest of use is 1");
    has(refusal("[exchange]\nbeta = -0.5"), "exchange.beta = -0.5");
    const std::string heavy = "[outer]\noptimizer = \"sgd\"\nmomentum = 0.875\n[exchange]\ncodec = \"topk-4/64\"\n";
    for (const std::string name : {"ef21", "econtrol"}) {
        const auto line = "feedback = \"" + name + "\"\n";
        has(refusal("[exchange]\n" + line), "outer.momentum = 0.99");
        has(refusal("[outer]\nmomentum = 0.9\n[exchange]\n" + line), "outer.optimizer = \"sgd\"");
        CHECK(peers::feedback_of(*read(heavy + line))->repeats == 0.875F);
    }
    CHECK(peers::feedback_of(*read(heavy + "feedback = \"econtrol\"\ngain = 0.25"))->gain == 0.25F);
    has(refusal(heavy + "feedback = \"econtrol\"\ngain = 2.0"), "the nearest of use is 1");
    CHECK(peers::feedback_of(*read("[exchange]\nfeedback = \"ef\"\nbeta = 0.5"))->beta == 0.5F);
    has(refusal("[exchange]\ncodec = \"e3m0\"\nmode = \"shard\""), "gather");
    has(refusal("[model]\nwidth = 65"), "65");
    has(refusal("[peers]\nmin = 5\nmax = 4"), "never start");
    has(refusal("[peers]\nsilence_limit = \"1 ms\""), "silence_limit");
    has(refusal("[peers]\nfirst_deadline = \"100 d\""), "month");
    has(refusal("[model]\nkind = \"cnn\"\n[data]\nkind = \"text\""), "mnist");
    has(refusal("[model]\nkind = \"gpt\"\n[data]\nkind = \"mnist\""), "tokens");
    has(refusal("[model]\nkind = \"quadratic\"\n[data]\nkind = \"text\""), "quadratic");
    CHECK(read("[model]\nkind = \"quadratic\"").has_value());
}

TEST_CASE("rounds of several exchanges: plain steps by the mean, and a word for what does not fit them") {
    const auto plan_of_run = [](const std::string& text) {
        const auto c = read(text);
        REQUIRE(c.has_value());
        return configured_plan(*c, **compress::find_codec(c->exchange.codec));
    };
    const auto usual = plan_of_run("");
    CHECK(usual.exchanges() == 1);
    CHECK(usual.nesterov);
    const auto each = plan_of_run("exchange = { every = 1, staleness = 4 }");
    CHECK(each.exchanges() == 30);
    CHECK(each.late_steps() == 4);
    CHECK_FALSE(each.nesterov);
    CHECK(each.outer_lr == 1);
    CHECK(each.outer_momentum == 0);
    CHECK(plan_of_run("exchange.every = 7").exchanges() == 5);
    CHECK(plan_of_run("exchange = { every = 1, codec = \"topk-4/64\", feedback = \"ef\" }").staleness == 0);
    has(refusal("exchange.every = 31"), "1 to 30");
    has(refusal("exchange.staleness = 2"), "give exchange.every");
    has(refusal("exchange = { every = 10, staleness = 3 }"), "0 to 2");
    has(refusal("inner.steps = 2001\nexchange.every = 2"), "at least 3");
    has(refusal("exchange.every = 1\nouter.momentum = 0.5"), "without momentum");
    has(refusal("exchange.every = 1\nouter.optimizer = \"nesterov\""), "without momentum");
    has(refusal("exchange = { every = 1, fragments = 2 }"), "fragments = 1");
    has(refusal("exchange = { every = 1, delay = 1 }"), "exchange.staleness");
    has(refusal("exchange = { every = 1, mode = \"shard\" }"), "gather");
    has(refusal("exchange = { every = 1, codec = \"topk-4/64\", feedback = \"dgc\" }"), "feedback = \"ef\"");
    const auto chosen = read("exchange.every = 1\ncontroller.enabled = true\npeers.per_round = 2");
    REQUIRE(chosen);
    CHECK_FALSE(may_have_delay(*chosen));
    CHECK(most_staleness(*chosen) == longhaul::peers::most_staleness_chosen);
    CHECK(most_staleness(*read("exchange = { every = 1, staleness = 4 }")) == 4);
}

TEST_CASE("the controller's choices: codecs that fit the feedback, and room for H") {
    const auto plain = read("[controller]\nenabled = true");
    REQUIRE(plain.has_value());
    CHECK(plain->codecs() == std::vector<std::string>{"bf16", "int8", "int4", "ecsq-3"});
    CHECK(plain->most_steps() == 300);
    CHECK(run_config{}.codecs() == std::vector<std::string>{"bf16"});
    CHECK(run_config{}.most_steps() == 30);
    const auto coarse = read("controller.enabled = true\nexchange = { codec = \"topk-64/4096\", feedback = \"ef\" }");
    REQUIRE(coarse.has_value());
    CHECK(coarse->codecs() == std::vector<std::string>{"topk-64/4096"});
    has(refusal("controller = { enabled = true, least_steps = 50, most_steps = 40 }"), "least_steps = 50");
    has(refusal("controller = { enabled = true, codecs = [\"int9\"] }"), "int9");
    has(refusal("exchange = { fragments = 4, codec = \"topk-64/4096\", feedback = \"ef\" }"), "fragments = 4");
    has(refusal("exchange.fragments = 0"), "from 1 to 64");
    // Late by the whole model this outer step never settles; by a part it does.
    has(refusal("exchange.delay = 1\nouter.lr = 1.2"), "never settles");
    CHECK(read("exchange = { delay = 1, fragments = 2 }\nouter.lr = 1.2"));
    has(refusal("exchange.mode = \"shard\"\n[controller]\nenabled = true"), "int4");
    has(refusal("exchange = { codec = \"sign1\", feedback = \"ef\" }\n"
                "controller = { enabled = true, codecs = [\"lowrank-4\"] }"),
        "lowrank-4");
}

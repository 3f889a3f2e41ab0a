#include "optim/config.hpp"

#include "tests/test.hpp"

using namespace longhaul;

TEST_CASE("every key of the four sections is bound, read and refused out of range") {
    optim::model_config model;
    optim::data_config data;
    optim::inner_config inner;
    optim::outer_config outer;
    core::config_binder binder;
    bind(binder, model);
    bind(binder, data);
    bind(binder, inner);
    bind(binder, outer);
    CHECK(binder.keys().size() == 8 + 6 + 13 + 3);

    const auto apply = [&](std::string_view toml) {
        const auto values = core::config_values::from_toml(toml, "run.toml");
        REQUIRE(values);
        return binder.apply(*values);
    };
    REQUIRE(
        apply("[model]\nkind = \"mlp\"\nwidth = 32\n[inner]\nlr = 0.5\nautocast = true\n[outer]\nmomentum = 0.9\nlr = "
              "\"auto\"\n"));
    CHECK(model.kind == "mlp");
    CHECK(model.width == 32);
    CHECK(inner.lr == 0.5);
    CHECK(inner.autocast);
    CHECK(outer.momentum == 0.9);
    CHECK_FALSE(outer.lr);

    for (const char* bad :
         {"[model]\nkind = \"rnn\"", "[model]\nlayers = 0", "[data]\nvalidation = 1.0", "[inner]\nbatch = 0",
          "[inner]\nbeta1 = 1.0", "[outer]\nmomentum = 1.0", "[inner]\nlearning_rate = 1.0"}) {
        CAPTURE(bad);
        const auto r = apply(bad);
        REQUIRE_FALSE(r);
        CHECK(r.error().code == core::errc::config);
    }
}

#include "optim/config.hpp"

#include <cmath>

#include "tests/test.hpp"

using namespace longhaul;

TEST_CASE("the learning rate warms up, falls along a cosine and ends at its share") {
    optim::inner_config c;
    c.lr = 2;
    c.warmup = 100;
    c.final_share = 0.1;
    CHECK(optim::learning_rate(c, 0, 1100) == Approx(0.02));
    CHECK(optim::learning_rate(c, 49, 1100) == Approx(1));
    CHECK(optim::learning_rate(c, 99, 1100) == 2);
    CHECK(optim::learning_rate(c, 100, 1100) == Approx(2));
    CHECK(optim::learning_rate(c, 600, 1100) == Approx(2 * 0.55));
    CHECK(optim::learning_rate(c, 1100, 1100) == Approx(0.2));
    // A run that goes on after its end stays there.
    CHECK(optim::learning_rate(c, 5000, 1100) == Approx(0.2));
    for (std::uint64_t p = 100; p < 1100; p += 7) {
        const double progress = static_cast<double>(p - 100) / 1000;
        CHECK(optim::learning_rate(c, p, 1100) ==
              Approx(2 * (0.1 + 0.9 * 0.5 * (1 + std::cos(M_PI * progress)))).epsilon(1e-14));
    }
}

TEST_CASE("the learning rate without warm-up, with a constant schedule, and in degenerate runs") {
    optim::inner_config c;
    c.lr = 3;
    c.warmup = 0;
    c.schedule = "constant";
    CHECK(optim::learning_rate(c, 0, 10) == 3);
    CHECK(optim::learning_rate(c, 10'000, 10) == 3);
    c.schedule = "cosine";
    CHECK(optim::learning_rate(c, 0, 0) == 3);
    c.warmup = 50;
    CHECK(optim::learning_rate(c, 60, 20) == Approx(0.3));
}

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
        apply("[model]\nkind = \"mlp\"\nwidth = 32\n[inner]\nlr = 0.5\nautocast = true\n[outer]\nmomentum = 0.9\n"));
    CHECK(model.kind == "mlp");
    CHECK(model.width == 32);
    CHECK(inner.lr == 0.5);
    CHECK(inner.autocast);
    CHECK(outer.momentum == 0.9);

    for (const char* bad :
         {"[model]\nkind = \"rnn\"", "[model]\nlayers = 0", "[data]\nvalidation = 1.0", "[inner]\nbatch = 0",
          "[inner]\nbeta1 = 1.0", "[outer]\nmomentum = 1.0", "[inner]\nlearning_rate = 1.0"}) {
        CAPTURE(bad);
        const auto r = apply(bad);
        REQUIRE_FALSE(r);
        CHECK(r.error().code == core::errc::config);
    }
}

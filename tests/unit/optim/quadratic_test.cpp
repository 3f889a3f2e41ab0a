#include "optim/quadratic.hpp"

#include <cmath>

#include "core/hash.hpp"
#include "optim/aggregate.hpp"
#include "optim/outer.hpp"
#include "optim/schedule.hpp"
#include "optim/trainer.hpp"
#include "tests/test.hpp"

using namespace longhaul;

namespace {

optim::trainer_options quadratic_options() {
    optim::trainer_options o;
    o.model.kind = "quadratic";
    o.model.width = 32;
    o.data.shards = 4;
    o.inner.optimizer = "sgd";
    o.inner.grad_clip = 0;
    o.inner.weight_decay = 0;
    return o;
}

std::unique_ptr<optim::trainer> trainer_for(const optim::trainer_options& o, std::uint64_t shard,
                                            std::uint64_t seed = 1) {
    auto t = optim::make_quadratic_trainer(o);
    REQUIRE(t);
    (*t)->assign(shard, seed, 0);
    return std::move(*t);
}

std::vector<float> parameters(const optim::trainer& t) {
    std::vector<float> x(t.manifest().elements());
    t.read(x);
    return x;
}

}  // namespace

TEST_CASE("the quadratic's loss and optimum are those of its shards") {
    const optim::quadratic_problem p(3, 16, 5);
    std::vector<float> x;
    for (std::uint64_t j = 0; j < 16; ++j) x.push_back(p.start(j));
    double mean = 0;
    for (std::uint64_t i = 0; i < 5; ++i) mean += p.shard_loss(i, x) / 5;
    CHECK(p.loss(x) == Approx(mean).epsilon(1e-12));
    for (std::uint64_t j = 0; j < 16; ++j) {
        // Each coordinate's derivative vanishes at the optimum.
        double slope = 0;
        for (std::uint64_t i = 0; i < 5; ++i)
            slope += static_cast<double>(p.curvature(j)) * (p.optimum(j) - static_cast<double>(p.centre(i, j)));
        CHECK(slope == Approx(0).margin(1e-9));
        CHECK(p.curvature(j) >= 0.1F);
        CHECK(p.curvature(j) <= 1.0F);
    }
}

TEST_CASE("a step of SGD on the quadratic is the analytic one, up to the noise") {
    auto o = quadratic_options();
    o.inner.batch = 1'000'000;  // noise of 1e-3
    auto t = trainer_for(o, 2);
    const optim::quadratic_problem p(static_cast<std::uint64_t>(o.model.seed), 32, 4);
    const auto before = parameters(*t);
    const auto r = t->step({.position = 0, .lr = 0.5});
    REQUIRE(r);
    CHECK(r->tokens == 1'000'000);
    CHECK(r->loss == Approx(p.shard_loss(2, before)));
    const auto after = parameters(*t);
    for (std::uint64_t j = 0; j < 32; ++j) {
        const double want =
            static_cast<double>(before[j]) - 0.5 * static_cast<double>(p.curvature(j)) *
                                                 (static_cast<double>(before[j]) - static_cast<double>(p.centre(2, j)));
        CHECK(static_cast<double>(after[j]) == Approx(want).margin(4e-3));
    }
}

TEST_CASE("the noise has the announced size and depends on seed, shard and position alone") {
    const auto o = quadratic_options();
    auto a = trainer_for(o, 1), b = trainer_for(o, 1), other = trainer_for(o, 1, 2);
    for (int i = 0; i < 5; ++i) {
        REQUIRE(a->step({.position = 0, .lr = 0.1}));
        REQUIRE(b->step({.position = 0, .lr = 0.1}));
        REQUIRE(other->step({.position = 0, .lr = 0.1}));
    }
    CHECK(parameters(*a) == parameters(*b));
    CHECK(parameters(*a) != parameters(*other));
    // A trainer that starts at position 5 continues the same stream.
    auto late = trainer_for(o, 1);
    late->write(parameters(*a));
    late->assign(1, 1, 5);
    REQUIRE(late->step({.position = 5, .lr = 0.1}));
    REQUIRE(a->step({.position = 5, .lr = 0.1}));
    CHECK(parameters(*late) == parameters(*a));
}

TEST_CASE("H = 1 with outer SGD 1.0 and inner SGD is data-parallel SGD within 2 ulp") {
    const auto o = quadratic_options();
    const double lr = 0.25;
    std::vector<std::unique_ptr<optim::trainer>> peers;
    for (std::uint64_t i = 0; i < 4; ++i) peers.push_back(trainer_for(o, i));
    const auto& manifest = peers[0]->manifest();
    auto theta = parameters(*peers[0]);
    std::vector<float> momentum(theta.size(), 0.0F), local(theta.size()), delta(theta.size());
    for (int step = 0; step < 50; ++step) {
        const std::vector<optim::contribution_weight> weights(4, {16, 1});
        auto sum = optim::aggregator::begin(manifest, weights);
        REQUIRE(sum);
        // Gradients, read off a step whose rate is so large that θ vanishes in it; from the same position as the real
        // one.
        std::vector<double> gradient(theta.size(), 0.0), largest(theta.size(), 0.0);
        constexpr double huge = 1 << 24;
        for (std::size_t i = 0; i < 4; ++i) {
            peers[i]->assign(i, 1, static_cast<std::uint64_t>(step));
            peers[i]->write(theta);
            REQUIRE(peers[i]->step({.position = 0, .lr = huge}));
            peers[i]->read(local);
            for (std::size_t j = 0; j < theta.size(); ++j) {
                const double g = (static_cast<double>(theta[j]) - static_cast<double>(local[j])) / huge;
                gradient[j] += g / 4;
                largest[j] = std::max(largest[j], std::abs(g));
            }

            peers[i]->assign(i, 1, static_cast<std::uint64_t>(step));
            peers[i]->write(theta);
            REQUIRE(peers[i]->step({.position = 0, .lr = lr}));
            peers[i]->read(local);
            for (std::size_t j = 0; j < delta.size(); ++j) delta[j] = theta[j] - local[j];
            REQUIRE(sum->add(i, delta));
        }
        sum->finish(delta);
        auto next = theta;
        optim::outer_step(manifest, false, 1.0F, 0.0F, next, momentum, delta);
        for (std::size_t j = 0; j < theta.size(); ++j) {
            const double want = static_cast<double>(theta[j]) - lr * gradient[j];
            const auto scale = static_cast<float>(std::max(std::abs(static_cast<double>(theta[j])), lr * largest[j]));
            const double ulp = static_cast<double>(std::nextafter(scale, INFINITY)) - static_cast<double>(scale);
            CHECK(std::abs(static_cast<double>(next[j]) - want) <= 2 * ulp);
        }
        theta = next;
    }
}

TEST_CASE("DiLoCo on the quadratic reaches the mean's optimum, which no peer's own shard has") {
    auto o = quadratic_options();
    o.inner.batch = 10'000;
    std::vector<std::unique_ptr<optim::trainer>> peers;
    for (std::uint64_t i = 0; i < 4; ++i) peers.push_back(trainer_for(o, i));
    const auto& manifest = peers[0]->manifest();
    const optim::quadratic_problem p(static_cast<std::uint64_t>(o.model.seed), 32, 4);
    auto anchor = parameters(*peers[0]);
    std::vector<float> momentum(anchor.size(), 0.0F), local(anchor.size()), delta(anchor.size());
    for (int round = 0; round < 150; ++round) {
        const std::vector<optim::contribution_weight> weights(4, {10, 10});
        auto sum = optim::aggregator::begin(manifest, weights);
        REQUIRE(sum);
        for (std::size_t i = 0; i < 4; ++i) {
            peers[i]->write(anchor);
            for (int h = 0; h < 10; ++h) REQUIRE(peers[i]->step({.position = 0, .lr = 0.05}));
            peers[i]->read(local);
            for (std::size_t j = 0; j < delta.size(); ++j) delta[j] = anchor[j] - local[j];
            REQUIRE(sum->add(i, delta));
        }
        sum->finish(delta);
        optim::outer_step(manifest, true, 0.7F, 0.8F, anchor, momentum, delta);
    }
    std::vector<float> best;
    for (std::uint64_t j = 0; j < 32; ++j) best.push_back(static_cast<float>(p.optimum(j)));
    CHECK(p.loss(anchor) - p.loss(best) < 0.01);
    std::vector<float> own;
    for (std::uint64_t j = 0; j < 32; ++j) own.push_back(p.centre(0, j));
    CHECK(p.loss(own) - p.loss(best) > 0.5);
}

TEST_CASE("the same bits under every compiler") {
    // One root for a run of both inner optimizers; gcc and clang must print the same.
    for (const char* optimizer : {"sgd", "adamw"}) {
        auto o = quadratic_options();
        o.inner.optimizer = optimizer;
        o.inner.grad_clip = 1.0;
        o.inner.momentum = 0.5;
        auto t = trainer_for(o, 3);
        for (std::uint64_t i = 0; i < 100; ++i)
            REQUIRE(t->step({.position = i, .lr = optim::learning_rate(o.inner, i, 100)}));
        const auto root = core::hash(core::bytes_of(parameters(*t))).brief();
        CHECK(root == (std::string(optimizer) == "sgd" ? "2230045b" : "2b7327bc"));
    }
}

TEST_CASE("inner state survives a save and load, and hostile bytes leave it alone") {
    auto o = quadratic_options();
    o.inner.optimizer = "adamw";
    auto a = trainer_for(o, 0), b = trainer_for(o, 0);
    for (int i = 0; i < 7; ++i) REQUIRE(a->step({.position = 0, .lr = 0.01}));
    const auto saved = a->save_inner_state();
    REQUIRE(saved);
    b->write(parameters(*a));
    REQUIRE(b->load_inner_state(*saved));
    for (int i = 0; i < 3; ++i) {
        REQUIRE(a->step({.position = 0, .lr = 0.01}));
        REQUIRE(b->step({.position = 0, .lr = 0.01}));
    }
    CHECK(parameters(*a) == parameters(*b));

    const auto state = b->save_inner_state().value();
    for (std::size_t n = 0; n < saved->size(); n += 5) {
        const auto r = b->load_inner_state(core::const_bytes(*saved).first(n));
        REQUIRE_FALSE(r);
        CHECK(r.error().code == core::errc::malformed);
    }
    auto longer = *saved;
    longer.push_back(std::byte{0});
    CHECK_FALSE(b->load_inner_state(longer));
    CHECK(b->save_inner_state().value() == state);
    // After a reset the optimizer is as new.
    b->reset_inner_state();
    auto fresh = trainer_for(o, 0);
    fresh->write(parameters(*b));
    fresh->assign(0, 1, 10);
    REQUIRE(b->step({.position = 0, .lr = 0.01}));
    REQUIRE(fresh->step({.position = 0, .lr = 0.01}));
    CHECK(parameters(*b) == parameters(*fresh));
}

TEST_CASE("a model that does not fit is refused before it is allocated") {
    auto o = quadratic_options();
    o.model.width = std::int64_t{1} << 38;  // nobody has a terabyte for each copy
    std::uint64_t asked = 0;
    o.fits = [&asked](const core::tensor_manifest& tensors) -> core::result<void> {
        asked = tensors.elements();
        return core::fail(core::errc::config, "too large");
    };
    const auto made = optim::make_quadratic_trainer(o);
    REQUIRE_FALSE(made);
    CHECK(made.error().message == "too large");
    CHECK(asked == std::uint64_t{1} << 38);
}

TEST_CASE("a loss that is not finite is an error that says what to lower") {
    auto o = quadratic_options();
    auto t = trainer_for(o, 0);
    core::result<optim::step_report> r;
    for (int i = 0; i < 200 && r; ++i) r = t->step({.position = 0, .lr = 1e6});
    REQUIRE_FALSE(r);
    CHECK(r.error().code == core::errc::limit);
    CHECK(r.error().message.find("inner.lr") != std::string::npos);
}

#include "optim/robust.hpp"

#include <cmath>

#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using optim::aggregation;

namespace {

using values = std::vector<std::vector<float>>;

std::vector<float> combined(aggregation how, values v, std::vector<std::uint64_t> steps, bool buffer = false) {
    compress::piece p;
    p.count = v[0].size();
    p.buffer = buffer;
    std::vector<std::span<float>> spans(v.begin(), v.end());
    std::vector<float> out(v[0].size(), 99.0F);
    optim::robust_sum(how, steps).combine(p, spans, out);
    return out;
}

constexpr aggregation kinds[] = {aggregation::clip, aggregation::trimmed_mean, aggregation::centered_clip};

double norm(const std::vector<float>& v) {
    double sum = 0;
    for (const float x : v) sum += static_cast<double>(x * x);
    return std::sqrt(sum);
}

}  // namespace

TEST_CASE("who all say the same is believed") {
    for (const auto how : kinds) {
        for (const std::size_t n : {1U, 2U, 3U, 4U, 7U}) {
            const values same(n, {3, -6, 0.5F});
            const auto sum = combined(how, same, std::vector<std::uint64_t>(n, 30));
            for (std::size_t k = 0; k < 3; ++k) CHECK(sum[k] == Approx(same[0][k]));
        }
    }
}

TEST_CASE("twice the steps with twice the movement is the same word, said louder") {
    for (const auto how : kinds) {
        // u is the same for all: the sum is as long as their steps, weighted by themselves.
        const auto sum = combined(how, {{30, 60}, {30, 60}, {60, 120}}, {30, 30, 60});
        CHECK(sum[0] == Approx((30.0 * 30 + 30 * 30 + 60 * 60) / 120));
        CHECK(sum[1] == Approx(2 * sum[0]));
    }
    // Buffers are averaged as they are.
    CHECK(combined(aggregation::clip, {{4, 0}, {4, 0}, {4, 0}}, {30, 30, 60}, true)[0] == Approx(4));
}

TEST_CASE("a quarter that lies moves the sum by no more than the honest ones differ") {
    core::seeded_entropy random(11);
    const auto noise = [&random] { return static_cast<float>(random.unit() - 0.5); };
    for (const auto how : kinds) {
        for (const std::size_t n : {4U, 8U, 12U}) {
            values honest;
            for (std::size_t i = 0; i < n; ++i) {
                std::vector<float> v;
                for (int k = 0; k < 200; ++k) v.push_back(1.0F + noise());
                honest.push_back(std::move(v));
            }
            const std::vector<std::uint64_t> steps(n, 10);
            const auto truth = combined(how, honest, steps);
            for (const float lie : {1000.0F, -1.0F, -1e6F, 0.0F}) {
                auto lied = honest;
                for (std::size_t i = 0; i < n / 4; ++i) {
                    for (float& x : lied[i]) x *= lie;
                }
                const auto moved = combined(how, lied, steps);
                std::vector<float> by;
                for (std::size_t k = 0; k < truth.size(); ++k) by.push_back(moved[k] - truth[k]);
                INFO("kind " << static_cast<int>(how) << ", " << n << " peers, times " << lie << ": moved by "
                             << norm(by));
                // Clipping keeps the direction of a lie: a quarter of the weight against the rest.
                CHECK(norm(by) <= (how == aggregation::clip ? 0.55 : 0.3) * norm(truth));
                double along = 0;
                for (std::size_t k = 0; k < truth.size(); ++k) along += static_cast<double>(moved[k] * truth[k]);
                CHECK(along > 0);
            }
        }
    }
}

TEST_CASE(
    "whoever claims more steps than the others is believed up to twice as many, and one that claims few is clipped") {
    const values v{{10, 0}, {10, 0}, {10, 0}, {0, 10}};
    for (const auto how : kinds) {
        const auto much = combined(how, v, {10, 10, 10, 1'000'000});
        CHECK(std::abs(much[1]) <= 0.01 * much[0]);
        // u = (0, 10) where the others have (1, 0).
        const auto little = combined(how, v, {10, 10, 10, 1});
        CHECK(std::abs(little[1]) <= 0.5 * little[0]);
    }
}

TEST_CASE("of two contributors nobody is judged") {
    for (const auto how : kinds) {
        const auto sum = combined(how, {{10}, {1000}}, {10, 10});
        CHECK(sum[0] == Approx(505));
    }
}

TEST_CASE("an aggregation is found by its name") {
    CHECK(optim::find_aggregation("centered_clip").value() == aggregation::centered_clip);
    const auto unknown = optim::find_aggregation("median");
    REQUIRE_FALSE(unknown);
    CHECK(unknown.error().message.find("trimmed_mean") != std::string::npos);
}

#include "optim/outer.hpp"

#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/source_dir.hpp"
#include "tests/test.hpp"

using namespace longhaul;

namespace {

core::tensor_manifest one_tensor(std::uint64_t elements, core::tensor_role role = core::tensor_role::parameter) {
    core::tensor_spec spec;
    spec.name = "w";
    spec.shape = {static_cast<std::int64_t>(elements)};
    spec.role = role;
    return core::tensor_manifest::make({spec}).value();
}

std::vector<float> from_bits(const nlohmann::json& list) {
    std::vector<float> out;
    for (const auto& v : list) out.push_back(std::bit_cast<float>(v.get<std::uint32_t>()));
    return out;
}

double ulp(double magnitude) {
    const auto f = static_cast<float>(magnitude);
    return static_cast<double>(std::nextafter(f, INFINITY)) - static_cast<double>(f);
}

}  // namespace

TEST_CASE("the outer step follows torch.optim.SGD within 2 ulp") {
    std::ifstream file(longhaul::tests::source_dir() + "/tests/golden/outer.json");
    const auto golden = nlohmann::json::parse(file);
    REQUIRE(golden["cases"].size() == 6);
    for (const auto& c : golden["cases"]) {
        const auto name = c["name"].get<std::string>();
        CAPTURE(name);
        const float lr = c["lr"].get<float>();
        const float beta = c["momentum"].get<float>();
        const bool nesterov = c["nesterov"].get<bool>();
        auto theta = from_bits(c["start"]);
        std::vector<float> momentum(theta.size(), 0.0F);
        const auto manifest = one_tensor(theta.size());
        for (const auto& s : c["steps"]) {
            const auto delta = from_bits(s["delta"]);
            const auto want_theta = from_bits(s["theta"]);
            const auto want_momentum = from_bits(s["momentum"]);
            const auto before = theta;
            const auto momentum_before = momentum;
            optim::outer_step(manifest, nesterov, lr, beta, theta, momentum, delta);
            for (std::size_t i = 0; i < theta.size(); ++i) {
                CAPTURE(i);
                if (beta == 0) {
                    // Plain SGD of PyTorch keeps no buffer.
                    CHECK(momentum[i] == delta[i]);
                } else {
                    // PyTorch may fuse multiply and add; longhaul never does: a rounding apart, and the result may lie
                    // in the next binade.
                    const double scale = std::abs(static_cast<double>(beta * momentum_before[i])) +
                                         std::abs(static_cast<double>(delta[i]));
                    CHECK(std::abs(static_cast<double>(momentum[i]) - static_cast<double>(want_momentum[i])) <=
                          2 * ulp(scale));
                }
                const double step = static_cast<double>(lr) * (std::abs(static_cast<double>(delta[i])) +
                                                               std::abs(static_cast<double>(beta * momentum[i])));
                const double scale = std::max(std::abs(static_cast<double>(before[i])), step);
                CHECK(std::abs(static_cast<double>(theta[i]) - static_cast<double>(want_theta[i])) <= 2 * ulp(scale));
            }
            // Each step is judged from PyTorch's own state: roundings do not add up.
            theta = want_theta;
            if (beta != 0) momentum = want_momentum;
        }
    }
}

TEST_CASE("Nesterov's sum over rounds has its closed form") {
    // With Δ = 1 in every round, m_n = (1 − βⁿ)/(1 − β) and θ falls by η(1 + β m_n).
    const auto manifest = one_tensor(1);
    std::vector<float> theta{0}, momentum{0};
    const std::vector<float> delta{1};
    double want = 0;
    for (int n = 1; n <= 30; ++n) {
        optim::outer_step(manifest, true, 0.7F, 0.8F, theta, momentum, delta);
        const double m = (1 - std::pow(0.8, n)) / 0.2;
        want -= 0.7 * (1 + 0.8 * m);
        CHECK(static_cast<double>(momentum[0]) == Approx(m).epsilon(1e-5));
        CHECK(static_cast<double>(theta[0]) == Approx(want).epsilon(1e-5));
    }
}

TEST_CASE("buffers move by the average alone, and their momentum is not touched") {
    const auto manifest = one_tensor(2, core::tensor_role::buffer);
    std::vector<float> theta{5, -1}, momentum{3, 3};
    const std::vector<float> delta{1, 0.25F};
    optim::outer_step(manifest, true, 0.7F, 0.9F, theta, momentum, delta);
    CHECK(theta == std::vector<float>{4, -1.25F});
    CHECK(momentum == std::vector<float>{3, 3});
}

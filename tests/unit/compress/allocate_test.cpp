#include "compress/allocate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::compress;

namespace {

using tensors = std::vector<std::vector<tensor_option>>;

struct totals {
    std::uint64_t bytes = 0;
    double error = 0;
};

totals of(const tensors& t, const std::vector<std::size_t>& chosen) {
    totals sum;
    for (std::size_t i = 0; i < t.size(); ++i) {
        sum.bytes += t[i][chosen[i]].bytes;
        sum.error += t[i][chosen[i]].error;
    }
    return sum;
}

/// The least error of all ways within the budget; infinity if there is none.
double brute_force(const tensors& t, std::uint64_t budget) {
    double least = std::numeric_limits<double>::infinity();
    std::vector<std::size_t> chosen(t.size(), 0);
    for (;;) {
        if (const auto sum = of(t, chosen); sum.bytes <= budget) least = std::min(least, sum.error);
        std::size_t i = 0;
        while (i < t.size() && ++chosen[i] == t[i].size()) chosen[i++] = 0;
        if (i == t.size()) return least;
    }
}

tensors some_tensors(core::seeded_entropy& random) {
    tensors t(1 + random.below(5));
    for (auto& options : t) {
        options.resize(1 + random.below(4));
        // Whole numbers: sums are exact in any order.
        for (auto& o : options) o = {random.below(200), static_cast<double>(random.below(1000))};
    }
    return t;
}

double loss_of(const std::vector<peer_price>& peers, const std::vector<double>& shares) {
    double s = 0;
    for (std::size_t i = 0; i < peers.size(); ++i) s += peers[i].data * peers[i].data / shares[i];
    return s;
}

double cost_of(const std::vector<peer_price>& peers, const std::vector<double>& shares) {
    double s = 0;
    for (std::size_t i = 0; i < peers.size(); ++i) s += peers[i].price * shares[i];
    return s;
}

}  // namespace

TEST_CASE("tensors share a budget as brute force would, when no byte is rounded") {
    core::seeded_entropy random(1);
    std::size_t refused = 0;
    for (int round = 0; round < 500; ++round) {
        const auto t = some_tensors(random);
        const auto budget = random.below(600);
        const double best = brute_force(t, budget);
        const auto chosen = allocate_tensors(t, budget);
        if (std::isinf(best)) {
            REQUIRE_FALSE(chosen);
            CHECK(chosen.error().code == core::errc::limit);
            ++refused;
            continue;
        }
        REQUIRE(chosen);
        REQUIRE(of(t, *chosen).bytes <= budget);
        REQUIRE(of(t, *chosen).error == best);
    }
    CHECK(refused > 10);
    CHECK(allocate_tensors({}, 0)->empty());
}

TEST_CASE("with coarse cells the budget holds, and what is found is as good as with a cell less for each tensor") {
    core::seeded_entropy random(2);
    for (int round = 0; round < 500; ++round) {
        const auto t = some_tensors(random);
        const auto budget = 200 + random.below(600);
        const std::size_t cells = 8 + random.below(60);
        const auto chosen = allocate_tensors(t, budget, cells);
        if (!chosen) continue;
        REQUIRE(of(t, *chosen).bytes <= budget);
        const auto cell = (budget + cells - 1) / cells;
        const auto spare = cell * (t.size() + 1);
        REQUIRE(of(t, *chosen).error <= brute_force(t, budget > spare ? budget - spare : 0));
    }
}

TEST_CASE("peers share a budget: more data and cheaper lines send more, and nothing that costs the same is better") {
    const std::vector<peer_price> peers{{0.6, 1}, {0.3, 1}, {0.1, 4}};
    const auto shares = allocate_peers(peers, 0.5);
    CHECK(cost_of(peers, shares) == Approx(0.5));
    CHECK(shares[0] == Approx(2 * shares[1]));
    CHECK(shares[1] == Approx(6 * shares[2]));
    // Everybody may send everything.
    CHECK(allocate_peers(peers, 6) == std::vector<double>{1, 1, 1});
    CHECK(allocate_peers(peers, 100) == std::vector<double>{1, 1, 1});
    CHECK(allocate_peers({}, 1).empty());

    core::seeded_entropy random(3);
    const auto some = [&random] { return 0.01 + static_cast<double>(random.below(1000)) / 1000; };
    for (int round = 0; round < 200; ++round) {
        const std::vector<peer_price> p{{some(), some()}, {some(), some()}, {some(), some()}};
        const double all = p[0].price + p[1].price + p[2].price;
        const double budget = all * (0.01 + 0.98 * static_cast<double>(random.below(1000)) / 1000);
        const auto found = allocate_peers(p, budget);
        REQUIRE(cost_of(p, found) == Approx(budget));
        for (const double s : found) REQUIRE((s > 0 && s <= 1));
        // A grid over two of them; the third gets what is left.
        for (int i = 1; i <= 60; ++i)
            for (int j = 1; j <= 60; ++j) {
                std::vector<double> other{i / 60.0, j / 60.0, 0};
                other[2] = std::min(1.0, (budget - cost_of(p, other)) / p[2].price);
                if (other[2] > 0) REQUIRE(loss_of(p, found) <= loss_of(p, other) * (1 + 1e-9));
            }
    }
}

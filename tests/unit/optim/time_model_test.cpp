#include "optim/time_model.hpp"

#include <algorithm>
#include <numeric>

#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::optim;

namespace {

constexpr double mib = 1024.0 * 1024.0;
/// Payload bytes per second of a line of so many Mbit/s at MTU 1500: what TCP, IP and framing leave of it.
double capacity(double mbit) { return mbit * 1e6 / 8 * 1448 / 1500; }

struct access {
    double up, down, delay_ms;
};

exchange_network star(const std::vector<access>& lines) {
    exchange_network net;
    const auto n = lines.size();
    net.rtt.assign(n, std::vector<double>(n, 0.0));
    for (std::size_t i = 0; i < n; ++i) {
        net.peers.push_back({capacity(lines[i].up), capacity(lines[i].down), 0});
        for (std::size_t j = 0; j < n; ++j) {
            if (i != j) net.rtt[i][j] = 2e-3 * (lines[i].delay_ms + lines[j].delay_ms);
        }
    }
    return net;
}

/// The eight peers of the issue.
exchange_network eight() {
    return star({{1000, 1000, 5},
                 {500, 500, 10},
                 {500, 500, 20},
                 {200, 200, 10},
                 {200, 200, 30},
                 {100, 100, 20},
                 {100, 100, 40},
                 {50, 100, 15}});
}

exchange_work dense(double bytes, std::uint32_t chunks = 64) {
    exchange_work w;
    w.bytes = bytes;
    w.chunks = chunks;
    return w;
}

exchange_network random_network(core::entropy& random) {
    std::vector<access> lines(2 + random.below(9));
    for (auto& l : lines) {
        l = {1 + random.unit() * 1000, 1 + random.unit() * 1000, random.unit() * 100};
    }
    return star(lines);
}

}  // namespace

TEST_CASE("eight unequal peers: owners with room, the thinnest uplink sends its own once, near the floor") {
    const auto net = eight();
    const auto w = dense(16 * mib);
    const double floor = exchange_floor(net, w);
    CHECK(floor == Approx(2.85).epsilon(0.02));
    // By hand: b = 1000, 500, 500 own all of it at T = 9·S/2000 Mbit/s, where 200 Mbit/s would still own nothing.
    const auto shares = shard_shares(net);
    CHECK(shares[0] == Approx(3.5 / 6));
    CHECK(shares[1] == Approx(1.25 / 6));
    CHECK(shares[2] == Approx(1.25 / 6));
    for (std::size_t i = 3; i < 8; ++i) CHECK(shares[i] == 0);
    const auto f = plan_exchange(net, w);
    CHECK(f.mode == exchange_mode::shard);
    CHECK(f.seconds >= floor);
    CHECK(f.seconds < 3.05);
    CHECK(std::accumulate(f.chunks.begin(), f.chunks.end(), 0U) == 64);
    CHECK(f.cut_off.empty());
    // And if all payloads must go to all: helpers, or the thin uplink would send seven times.
    const auto g = forecast_gather(net, w);
    CHECK(g.seconds > f.seconds);
    CHECK(g.seconds < 1.05 * 7 * 16 * mib / capacity(100));
    CHECK_FALSE(g.hops.empty());
}

TEST_CASE("two peers gather: one hop, half a round trip") {
    const auto net = star({{1000, 1000, 25}, {1000, 1000, 25}});
    const auto f = plan_exchange(net, dense(64 * mib));
    CHECK(f.mode == exchange_mode::gather);
    CHECK(f.seconds == Approx(64 * mib / capacity(1000) + 0.05));
    CHECK(f.seconds == Approx(exchange_floor(net, dense(64 * mib))));
    CHECK(f.hops.empty());
    CHECK(shard_shares(net) == std::vector<double>{0.5, 0.5});
}

TEST_CASE("an exchange is no shorter than its codec's work, and a longer line hides that") {
    auto work = dense(16 * mib);
    const auto net = star({{1000, 1000, 5}, {1000, 1000, 5}, {1000, 1000, 5}});
    const double lines = forecast_gather(net, work).seconds, latency = 0.01;
    work.encode_seconds = 3;
    work.add_seconds = 0.5;
    CHECK(forecast_gather(net, work).seconds == Approx(3 + 3 * 0.5 + latency));
    CHECK(forecast_shard(net, work).seconds == Approx(3 + 2 * 0.5 + 2 * latency));
    work.encode_seconds = work.add_seconds = lines / 10;
    CHECK(forecast_gather(net, work).seconds == Approx(lines));
}

TEST_CASE("shares: the formula's T is the smallest at which they sum to one") {
    core::seeded_entropy random(1);
    for (int i = 0; i < 500; ++i) {
        auto net = random_network(random);
        if (net.size() < 3) continue;
        const auto shares = shard_shares(net);
        CHECK(std::accumulate(shares.begin(), shares.end(), 0.0) == Approx(1.0));
        // Every owner is busy for the same time, and nobody who owns nothing would be done sooner with a part.
        const double n2 = static_cast<double>(net.size()) - 2;
        double t = 0;
        for (std::size_t p = 0; p < net.size(); ++p) {
            const double b = std::min(net.peers[p].up, net.peers[p].down);
            if (shares[p] > 1e-9) {
                const double mine = (1 + n2 * shares[p]) / b;
                if (t == 0) t = mine;
                CHECK(mine == Approx(t));
            }
        }
        for (std::size_t p = 0; p < net.size(); ++p) {
            if (shares[p] <= 1e-9) CHECK(1 / std::min(net.peers[p].up, net.peers[p].down) >= t * (1 - 1e-9));
        }
    }
}

TEST_CASE(
    "what nobody has measured owns nothing, and if nothing is measured, shares are equal and nothing is foretold") {
    auto net = eight();
    net.peers[0] = {};
    CHECK(shard_shares(net)[0] == 0);
    for (auto& p : net.peers) p = {};
    CHECK(shard_shares(net) == std::vector<double>(8, 0.125));
    const auto f = plan_exchange(net, dense(mib));
    CHECK(f.mode == exchange_mode::gather);
    CHECK(f.seconds == 0);
    CHECK(f.hops.empty());
}

TEST_CASE("no forecast is below the floor, and every plan reaches everybody") {
    core::seeded_entropy random(2);
    for (int i = 0; i < 400; ++i) {
        INFO(i);
        const auto net = random_network(random);
        const auto w = dense(mib * (0.1 + 50 * random.unit()), 1 + static_cast<std::uint32_t>(random.below(64)));
        const double floor = exchange_floor(net, w);
        for (const auto& f : {forecast_gather(net, w), forecast_shard(net, w), plan_exchange(net, w)}) {
            CHECK(f.seconds >= floor * (1 - 1e-9));
            CHECK(f.cut_off.empty());
            for (const auto& h : f.hops) CHECK((h.via != h.source && h.via != h.to && h.source != h.to));
        }
    }
}

TEST_CASE("two sites that share an uplink: every payload crosses once and is forwarded inside") {
    exchange_network net;
    net.peers.assign(8, {capacity(1000), capacity(1000), 0});
    net.sites = {{capacity(100), capacity(100), 0}, {capacity(100), capacity(100), 0}};
    net.rtt.assign(8, std::vector<double>(8, 0.05));
    for (std::size_t i = 0; i < 8; ++i) {
        net.peers[i].site = i / 4;
        for (std::size_t j = 0; j < 8; ++j) {
            if (i / 4 == j / 4) net.rtt[i][j] = 0.001;
        }
    }
    const auto f = forecast_gather(net, dense(4 * mib));
    std::vector<std::size_t> crossings(8);
    const auto via = [&f](std::size_t source, std::size_t to) {
        for (const auto& h : f.hops) {
            if (h.source == source && h.to == to) return h.via;
        }
        return source;
    };
    for (std::size_t s = 0; s < 8; ++s) {
        for (std::size_t to = 0; to < 8; ++to) {
            if (to != s && via(s, to) / 4 != to / 4) ++crossings[s];
        }
    }
    CHECK(crossings == std::vector<std::size_t>(8, 1));
    const double four = 4 * 4 * mib / capacity(100);
    CHECK(f.seconds >= four);
    CHECK(f.seconds < 1.1 * four);
    // The same sites are found by their round trips.
    auto found = net;
    found.sites.clear();
    for (auto& p : found.peers) p.site = 0;
    infer_sites(found);
    for (std::size_t i = 0; i < 8; ++i) CHECK(found.same_site(i, i < 4 ? 0 : 4));
    CHECK_FALSE(found.same_site(0, 4));
    // What a member reports of its line is its share of the site's.
    for (auto& p : found.peers) p.up = p.down = capacity(25);
    infer_sites(found);
    CHECK(found.sites[found.peers[0].site].up == capacity(100));
    const auto inferred = forecast_gather(found, dense(4 * mib));
    CHECK(inferred.seconds >= four);
    CHECK(inferred.seconds < 1.1 * four);
    auto apart = eight();
    infer_sites(apart);
    for (std::size_t i = 1; i < 8; ++i) CHECK_FALSE(apart.same_site(0, i));
}

TEST_CASE("a member sees by its round trips with whom it shares its line, in a cluster with nobody") {
    using flags = std::vector<bool>;
    CHECK(inside_site({0.001, 0.05, 0.002, 0.06}) == flags{true, false, true, false});
    CHECK(inside_site({0.001, 0.0, 0.05}) == flags{true, false, false});      // not measured: not known
    CHECK(inside_site({0.001, 0.002, 0.003}) == flags{false, false, false});  // all are near
    CHECK(inside_site({0.004, 0.012, 0.05}) == flags{false, false, false});   // not clearly apart
    CHECK(inside_site({}).empty());
}

TEST_CASE("peers that cannot reach each other go through one that both reach, and whoever nobody reaches is named") {
    auto net = eight();
    net.rtt[5][6] = net.rtt[6][5] = -1;
    for (const auto& f : {forecast_gather(net, dense(mib)), forecast_shard(net, dense(mib))}) {
        CHECK(f.cut_off.empty());
        const auto helped = [&f](std::size_t source, std::size_t to) {
            return std::ranges::any_of(f.hops, [&](const auto& h) { return h.source == source && h.to == to; });
        };
        if (f.mode == exchange_mode::gather) CHECK((helped(5, 6) && helped(6, 5)));
    }
    for (std::size_t j = 0; j < 8; ++j) {
        if (j != 3) net.rtt[3][j] = net.rtt[j][3] = -1;
    }
    for (const auto& f : {forecast_gather(net, dense(mib)), forecast_shard(net, dense(mib))}) {
        CHECK(std::ranges::find(f.cut_off, std::size_t{3}) != f.cut_off.end());
    }
}

TEST_CASE("exchanges in turn: as long as their recurrence says, which is the formula where they are many") {
    CHECK(seconds_of_exchanges(0, 1, 1, 1, 0) == 0);
    CHECK(seconds_of_exchanges(1, 2, 3, 4, 0) == 9);
    // Steps, line and latency of each, one after another.
    CHECK(seconds_of_exchanges(5, 2, 3, 4, 0) == 45);
    // One late: the steps after the next exchange wait for it.
    CHECK(seconds_of_exchanges(3, 2, 1, 4, 1) == 14);
    core::seeded_entropy random(7);
    for (int i = 0; i < 2'000; ++i) {
        const double steps = random.unit(), line = random.unit(), latency = 3 * random.unit();
        const auto staleness = static_cast<std::uint32_t>(random.below(12));
        constexpr std::uint64_t many = 2'000;
        const double each = std::max({steps, line, (steps + line + latency) / (staleness + 1)});
        const double predicted = seconds_of_exchanges(many, steps, line, latency, staleness) / many;
        INFO(steps << " " << line << " " << latency << " " << staleness);
        CHECK(std::abs(predicted - each) <= 0.01 * each);
    }
}

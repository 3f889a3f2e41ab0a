#include "compress/allocate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace longhaul::compress {

core::result<std::vector<std::size_t>> allocate_tensors(std::span<const std::vector<tensor_option>> tensors,
                                                        std::uint64_t budget, std::size_t cells) {
    LONGHAUL_ENSURE(cells > 0, "a budget has parts");
    std::vector<std::size_t> chosen;
    std::uint64_t least = 0;
    for (const auto& options : tensors) {
        LONGHAUL_ENSURE(!options.empty(), "a tensor can be sent in some way");
        const auto it = std::ranges::min_element(options, {}, &tensor_option::bytes);
        chosen.push_back(static_cast<std::size_t>(it - options.begin()));
        least += it->bytes;
    }
    if (least > budget) {
        return core::fail(core::errc::limit, "the tensors take {} bytes at least, and the budget is {}: raise it",
                          least, budget);
    }
    const auto cell = std::max<std::uint64_t>(1, (budget + cells - 1) / cells);
    const auto room = budget / cell;
    constexpr double never = std::numeric_limits<double>::infinity();
    // error[b]: the least sum of the tensors so far in at most b cells; pick[t][b]: what tensor t takes then.
    std::vector<double> error(room + 1, 0.0), next(room + 1);
    std::vector<std::vector<std::uint32_t>> pick(tensors.size(), std::vector<std::uint32_t>(room + 1));
    const auto cells_of = [cell](const tensor_option& o) { return (o.bytes + cell - 1) / cell; };
    for (std::size_t t = 0; t < tensors.size(); ++t) {
        std::ranges::fill(next, never);
        for (std::uint32_t o = 0; o < tensors[t].size(); ++o) {
            const auto& option = tensors[t][o];
            for (auto b = cells_of(option); b <= room; ++b) {
                const double sum = error[b - cells_of(option)] + option.error;
                if (sum >= next[b]) continue;
                next[b] = sum;
                pick[t][b] = o;
            }
        }
        std::swap(error, next);
    }
    // Too tight for whole cells: the least of each fits all the same.
    if (error[room] == never) return chosen;
    auto left = room;
    for (auto t = tensors.size(); t-- > 0;) {
        chosen[t] = pick[t][left];
        left -= cells_of(tensors[t][chosen[t]]);
    }
    return chosen;
}

std::vector<double> allocate_peers(std::span<const peer_price> peers, double budget) {
    LONGHAUL_ENSURE(budget > 0, "a budget is above zero");
    std::vector<double> shares(peers.size(), 1.0);
    std::vector<std::size_t> order(peers.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        LONGHAUL_ENSURE(peers[i].data > 0 && peers[i].price > 0, "data and prices are above zero");
        order[i] = i;
    }
    // Those who are full first: from some place on nobody is, and they share what is left.
    const auto wish = [&](std::size_t i) { return peers[i].data / std::sqrt(peers[i].price); };
    std::ranges::stable_sort(order, std::ranges::greater{}, wish);
    double cost = 0;  // Σ price · wish of those who are not full
    for (const auto i : order) cost += peers[i].price * wish(i);
    for (std::size_t at = 0; at < order.size(); ++at) {
        const double scale = budget / cost;
        if (wish(order[at]) * scale < 1) {
            for (; at < order.size(); ++at) shares[order[at]] = wish(order[at]) * scale;
            break;
        }
        cost -= peers[order[at]].price * wish(order[at]);
        budget -= peers[order[at]].price;
        if (budget <= 0) budget = std::numeric_limits<double>::min();
    }
    return shares;
}

}  // namespace longhaul::compress

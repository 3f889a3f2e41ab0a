#include "sim/topology.hpp"

#include <algorithm>

namespace longhaul::sim {

namespace {

bool holds(const std::vector<std::uint32_t>& peers, std::uint32_t peer) {
    return std::binary_search(peers.begin(), peers.end(), peer);
}

}  // namespace

path_between topology::path(std::uint32_t from, std::uint32_t to) const {
    for (auto rule = rules.rbegin(); rule != rules.rend(); ++rule) {
        if ((holds(rule->a, from) && holds(rule->b, to)) || (holds(rule->a, to) && holds(rule->b, from))) {
            return rule->path;
        }
    }
    if (same_site(from, to)) return {.rtt = sites[static_cast<std::size_t>(peers[from].site)].rtt};
    return default_path;
}

core::duration topology::one_way(std::uint32_t from, std::uint32_t to) const {
    auto total = path(from, to).rtt / 2 + peers[from].line.delay + peers[to].line.delay;
    if (same_site(from, to)) return total;
    for (const auto peer : {from, to}) {
        if (peers[peer].site >= 0) total += sites[static_cast<std::size_t>(peers[peer].site)].line.delay;
    }
    return total;
}

core::duration topology::longest_rtt(std::uint32_t peer) const {
    core::duration longest{};
    for (std::uint32_t other = 0; other < peers.size(); ++other) {
        if (other != peer) longest = std::max(longest, one_way(peer, other) + one_way(other, peer));
    }
    return longest;
}

std::uint64_t topology::queue_bytes(std::uint64_t said, core::bit_rate rate, core::duration rtt) const {
    if (said > 0) return said;
    if (queue > 0) return queue;
    constexpr std::uint64_t least = 64 * 1024;
    return std::max(least, static_cast<std::uint64_t>(rate.bytes_per_second() * core::to_seconds(rtt)));
}

}  // namespace longhaul::sim

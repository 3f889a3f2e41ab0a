#include "net/doorkeeper.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>

#include "core/result.hpp"

namespace longhaul::net {

namespace {

constexpr std::size_t max_sightings = 1024;

}  // namespace

std::string address_block(const std::string& host) {
    std::array<unsigned char, sizeof(in6_addr)> bytes{};
    if (inet_pton(AF_INET, host.c_str(), bytes.data()) == 1) {
        return fmt::format("{}.{}.{}.0/24", bytes[0], bytes[1], bytes[2]);
    }
    // A zone (fe80::1%eth0) says through which interface, not who.
    if (inet_pton(AF_INET6, host.substr(0, host.find('%')).c_str(), bytes.data()) == 1) {
        const auto group = [&bytes](std::size_t i) { return bytes[2 * i] << 8 | bytes[2 * i + 1]; };
        return fmt::format("{:x}:{:x}:{:x}::/48", group(0), group(1), group(2));
    }
    return host;
}

std::optional<doorkeeper::visitor> doorkeeper::room::enter(visitor who, std::string block) {
    std::optional<visitor> gives_way;
    const auto own = blocks_.find(block);
    if (own != blocks_.end() && own->second.size() >= per_block_) {
        gives_way = own->second.front();
    } else if (block_of_.size() >= capacity_ && !blocks_.empty()) {
        const auto fullest = std::ranges::max_element(blocks_, [](const auto& a, const auto& b) {
            if (a.second.size() != b.second.size()) return a.second.size() < b.second.size();
            return a.second.front() > b.second.front();
        });
        gives_way = fullest->second.front();
    }
    if (gives_way) leave(*gives_way);
    blocks_[block].push_back(who);
    block_of_.emplace(who, std::move(block));
    return gives_way;
}

std::optional<std::string> doorkeeper::room::leave(visitor who) {
    const auto found = block_of_.find(who);
    if (found == block_of_.end()) return std::nullopt;
    auto block = std::move(found->second);
    block_of_.erase(found);
    const auto others = blocks_.find(block);
    std::erase(others->second, who);
    if (others->second.empty()) blocks_.erase(others);
    return block;
}

doorkeeper::doorkeeper(door_limits limits)
    : strangers_(limits.strangers, limits.strangers_per_block),
      acquaintances_(limits.acquaintances, limits.acquaintances_per_block) {}

doorkeeper::arrival doorkeeper::arrives(const std::string& host) {
    arrival a;
    a.who = ++last_;
    auto& where = seen_.contains(host) ? acquaintances_ : strangers_;
    a.gives_way = where.enter(a.who, address_block(host));
    if (a.gives_way) ++turned_away_;
    return a;
}

std::optional<doorkeeper::visitor> doorkeeper::vouched_for(visitor who) {
    auto block = strangers_.leave(who);
    if (!block) return std::nullopt;
    auto gives_way = acquaintances_.enter(who, std::move(*block));
    if (gives_way) ++turned_away_;
    return gives_way;
}

void doorkeeper::leaves(visitor who) {
    if (!strangers_.leave(who)) acquaintances_.leave(who);
}

void doorkeeper::member_seen(const std::string& host) {
    seen_[host] = ++sightings_;
    if (seen_.size() <= max_sightings) return;
    seen_.erase(std::ranges::min_element(seen_, {}, [](const auto& entry) { return entry.second; }));
}

}  // namespace longhaul::net

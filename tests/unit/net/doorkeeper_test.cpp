#include "net/doorkeeper.hpp"

#include <fmt/format.h>

#include <set>

#include "tests/test.hpp"

using namespace longhaul;
using net::address_block;
using net::door_limits;
using net::doorkeeper;

namespace {

constexpr door_limits small{.strangers = 6, .strangers_per_block = 3, .acquaintances = 4, .acquaintances_per_block = 3};

std::string ipv4(int block, int host) { return fmt::format("198.51.{}.{}", block, host); }

}  // namespace

TEST_CASE("addresses count for a /24 of IPv4 and a /48 of IPv6") {
    CHECK(address_block("192.0.2.1") == "192.0.2.0/24");
    CHECK(address_block("192.0.2.255") == address_block("192.0.2.1"));
    CHECK(address_block("192.0.3.1") != address_block("192.0.2.1"));
    CHECK(address_block("2001:db8:7:1::1") == "2001:db8:7::/48");
    CHECK(address_block("2001:db8:7:ffff::9") == address_block("2001:db8:7::"));
    CHECK(address_block("2001:db8:8::1") != address_block("2001:db8:7::1"));
    CHECK(address_block("fe80::1%eth0") == address_block("fe80::2%eth1"));
    CHECK(address_block("attic") == "attic");
    CHECK(address_block("") == "");
}

TEST_CASE("one block of strangers has its part of the room, and its oldest goes for its next") {
    doorkeeper door(small);
    for (int i = 1; i <= 3; ++i) CHECK_FALSE(door.arrives(ipv4(1, i)).gives_way);
    CHECK(door.arrives(ipv4(1, 4)).gives_way == 1);
    CHECK(door.arrives(ipv4(1, 1)).gives_way == 2);
    CHECK(door.waiting() == 3);
    CHECK(door.turned_away() == 2);
    // Who has left gives its place back, and nobody leaves twice.
    door.leaves(3);
    door.leaves(3);
    door.leaves(2);
    CHECK(door.waiting() == 2);
    CHECK_FALSE(door.arrives(ipv4(1, 9)).gives_way);
}

TEST_CASE("when the room is full the fullest block makes way, so that a lone visitor stays") {
    doorkeeper door(small);
    const auto lone = door.arrives(ipv4(9, 1)).who;
    for (int i = 1; i <= 3; ++i) door.arrives(ipv4(1, i));
    for (int i = 1; i <= 2; ++i) door.arrives(ipv4(2, i));
    std::set<doorkeeper::visitor> gone;
    for (int i = 0; i < 100; ++i) {
        const auto gives_way = door.arrives(ipv4(1 + i % 2, 10 + i)).gives_way;
        REQUIRE(gives_way);
        CHECK(gone.insert(*gives_way).second);
        CHECK(door.waiting() == 6);
    }
    CHECK_FALSE(gone.contains(lone));
    // Where all blocks hold as many as its own, it goes when its turn comes.
    for (int i = 0; i < 100; ++i) gone.insert(door.arrives(ipv4(100 + i, 1)).gives_way.value());
    CHECK(gone.contains(lone));
}

TEST_CASE("strangers never take the place of an acquaintance") {
    doorkeeper door(small);
    door.member_seen("203.0.113.7");
    const auto known = door.arrives("203.0.113.7").who;
    const auto proven = door.arrives(ipv4(1, 1)).who;
    CHECK_FALSE(door.vouched_for(proven));
    std::set<doorkeeper::visitor> gone;
    for (int i = 0; i < 1000; ++i) {
        if (const auto gives_way = door.arrives(ipv4(i % 7, i % 250)).gives_way) gone.insert(*gives_way);
        // Also not from its own block.
        if (const auto gives_way = door.arrives("203.0.113.8").gives_way) gone.insert(*gives_way);
    }
    CHECK_FALSE(gone.contains(known));
    CHECK_FALSE(gone.contains(proven));
    CHECK(door.waiting() == 6 + 2);
    door.leaves(known);
    door.leaves(proven);
    CHECK(door.waiting() == 6);
    // Vouching for somebody who had to go already changes nothing.
    CHECK_FALSE(door.vouched_for(*gone.begin()));
    CHECK(door.waiting() == 6);
}

TEST_CASE("acquaintances are bounded, too, by all and by block") {
    doorkeeper door(small);
    door.member_seen("203.0.113.7");
    for (int i = 0; i < 3; ++i) CHECK_FALSE(door.arrives("203.0.113.7").gives_way);
    CHECK(door.arrives("203.0.113.7").gives_way == 1);
    const auto other = door.arrives(ipv4(1, 1)).who;
    CHECK_FALSE(door.vouched_for(other));
    const auto third = door.arrives(ipv4(2, 1)).who;
    CHECK(door.vouched_for(third) == 2);
}

TEST_CASE("a thousand addresses of members are remembered, the latest ones") {
    doorkeeper door({.strangers = 2, .strangers_per_block = 2, .acquaintances = 2000, .acquaintances_per_block = 2000});
    const auto address = [](int i) { return fmt::format("10.{}.{}.1", i / 256, i % 256); };
    for (int i = 0; i < 1500; ++i) door.member_seen(address(i));
    for (int i = 0; i < 1500; ++i) door.arrives(address(i));
    CHECK(door.waiting() == 1024 + 2);
}

#include "sim/lab/trains.hpp"

#include <numeric>

#include "tests/test.hpp"

using namespace longhaul;
using sim::lab::offload_header;

namespace {

/// An IPv4 TCP segment as the kernel hands it to a device that segments: `payload` bytes, flags FIN PSH ACK CWR.
core::byte_vector segment(std::uint32_t payload) {
    core::byte_vector b(40 + payload);
    const auto put = [&](std::size_t at, std::initializer_list<int> bytes) {
        for (const int v : bytes) b[at++] = static_cast<std::byte>(v);
    };
    const auto total = static_cast<int>(b.size());
    put(0, {0x45, 0, total >> 8, total & 255, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2});
    put(20, {0x1c, 0xe8, 0x1c, 0xe8, 0xff, 0xff, 0xff, 0x00, 0, 0, 0, 9, 0x50, 0x99, 1, 0, 0, 0, 0, 0});
    for (std::uint32_t i = 0; i < payload; ++i) b[40 + i] = static_cast<std::byte>(i * 31 >> 3);
    return b;
}

std::uint32_t number(core::const_bytes b, std::size_t at, std::size_t bytes) {
    std::uint32_t v = 0;
    for (std::size_t i = 0; i < bytes; ++i) v = v << 8 | std::to_integer<std::uint32_t>(b[at + i]);
    return v;
}

constexpr offload_header gso{.flags = 1, .gso_type = 1, .header_bytes = 40, .segment_bytes = 1000};

/// The internet checksum over whole words comes out as all ones.
bool header_sum_valid(core::const_bytes header) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < header.size(); i += 2) sum += number(header, i, 2);
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return sum == 0xffff;
}

}  // namespace

TEST_CASE("a train's packets carry its payload once, with growing sequence numbers") {
    const auto ip = segment(4500);
    const auto t = sim::lab::inspect(gso, ip);
    REQUIRE(t);
    CHECK(t->packets == 5);
    std::uint32_t total = 0;
    for (std::uint32_t i = 0; i < t->packets; ++i) total += t->packet_bytes(i);
    CHECK(total == 4500 + 5 * 40);
    CHECK(t->packet_bytes(4) == 540);

    std::array<std::byte, 128> headers;
    std::uint32_t expected_offset = 40;
    for (const auto& [first, count] : {std::pair(0U, 2U), std::pair(2U, 1U), std::pair(3U, 2U)}) {
        const auto p = sim::lab::cut_out(*t, gso, ip, first, count, headers);
        INFO(first);
        CHECK(p.header_bytes == 40);
        CHECK(p.payload_offset == expected_offset);
        expected_offset += p.payload_bytes;
        CHECK(number(headers, 2, 2) == 40 + p.payload_bytes);
        CHECK(number(headers, 4, 2) == 0x1234 + first);
        CHECK(number(headers, 24, 4) == 0xffffff00U + first * 1000);
        CHECK(header_sum_valid(core::const_bytes(headers).first(20)));
        const auto flags = number(headers, 33, 1);
        CHECK((flags & 0x80) == (first == 0 ? 0x80 : 0));
        CHECK((flags & 0x09) == (first == 3 ? 0x09 : 0));
        CHECK(p.offload.gso_type == (count == 1 ? 0 : 1));
        CHECK(p.offload.segment_bytes == (count == 1 ? 0 : 1000));
    }
    CHECK(expected_offset == ip.size());
}

TEST_CASE("a single packet passes as it came") {
    const auto ip = segment(300);
    const offload_header plain{.flags = 1, .checksum_start = 20, .checksum_offset = 16};
    const auto t = sim::lab::inspect(plain, ip);
    REQUIRE(t);
    CHECK(t->packets == 1);
    CHECK(t->packet_bytes(0) == 340);
    std::array<std::byte, 128> headers;
    const auto p = sim::lab::cut_out(*t, plain, ip, 0, 1, headers);
    CHECK(p.header_bytes == 0);
    CHECK(p.payload_offset == 0);
    CHECK(p.payload_bytes == 340);
    CHECK(p.offload.flags == 1);
}

TEST_CASE("what is no IP packet is refused, also when its lengths lie") {
    core::byte_vector short_one(19, std::byte{0x45});
    CHECK_FALSE(sim::lab::inspect({}, short_one));
    auto ip = segment(3000);
    ip[0] = std::byte{0x35};
    CHECK_FALSE(sim::lab::inspect({}, ip));
    ip = segment(3000);
    ip[32] = std::byte{0x10};  // a TCP header of four bytes
    CHECK_FALSE(sim::lab::inspect(gso, ip));
    ip = segment(3000);
    ip[9] = std::byte{17};
    CHECK_FALSE(sim::lab::inspect(gso, ip));
    CHECK_FALSE(sim::lab::inspect({.gso_type = 1, .segment_bytes = 0}, segment(3000)));
    ip = segment(0);
    CHECK_FALSE(sim::lab::inspect(gso, ip));
}

TEST_CASE("a firewall knows who opens a connection") {
    auto ip = segment(0);
    ip[33] = std::byte{2};
    CHECK(sim::lab::opens_connection(ip));
    ip[33] = std::byte{0x12};
    CHECK_FALSE(sim::lab::opens_connection(ip));
    ip[33] = std::byte{2};
    ip[9] = std::byte{17};
    CHECK_FALSE(sim::lab::opens_connection(ip));
    CHECK_FALSE(sim::lab::opens_connection(core::const_bytes(ip).first(30)));
    CHECK(sim::lab::addresses_of(ip).to == 0x0a4d0002);
}

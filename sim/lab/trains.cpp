#include "sim/lab/trains.hpp"

#include <algorithm>
#include <cstring>

namespace longhaul::sim::lab {

namespace {

// Of <linux/virtio_net.h>.
constexpr std::uint8_t needs_checksum = 1;
constexpr std::uint8_t gso_none = 0, gso_tcp4 = 1, gso_tcp6 = 4, gso_ecn = 0x80;
constexpr std::uint8_t tcp = 6;
constexpr std::uint32_t longest_headers = 128;

std::uint8_t u8(core::const_bytes b, std::size_t at) { return std::to_integer<std::uint8_t>(b[at]); }
std::uint32_t u16(core::const_bytes b, std::size_t at) { return std::uint32_t{u8(b, at)} << 8 | u8(b, at + 1); }
std::uint32_t u32(core::const_bytes b, std::size_t at) { return u16(b, at) << 16 | u16(b, at + 2); }
void put16(core::mutable_bytes b, std::size_t at, std::uint32_t v) {
    b[at] = static_cast<std::byte>(v >> 8);
    b[at + 1] = static_cast<std::byte>(v);
}
void put32(core::mutable_bytes b, std::size_t at, std::uint32_t v) {
    put16(b, at, v >> 16);
    put16(b, at + 2, v);
}

/// The internet checksum's sum (RFC 1071), folded to 16 bits.
std::uint32_t folded(std::uint32_t sum) {
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}
std::uint32_t sum_of(core::const_bytes b) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i + 1 < b.size(); i += 2) sum += u16(b, i);
    return sum;
}

std::uint32_t ip_header_bytes(core::const_bytes ip) {
    return u8(ip, 0) >> 4 == 6 ? 40 : static_cast<std::uint32_t>((u8(ip, 0) & 15) * 4);
}

}  // namespace

std::uint32_t train::packet_bytes(std::uint32_t index) const {
    if (packets == 1) return bytes;
    if (index + 1 < packets) return header_bytes + segment_bytes;
    return bytes - (packets - 1) * segment_bytes;
}

std::optional<train> inspect(const offload_header& offload, core::const_bytes ip) {
    if (ip.size() < 20) return std::nullopt;
    const auto version = u8(ip, 0) >> 4;
    if (version != 4 && version != 6) return std::nullopt;
    if (version == 6 && ip.size() < 40) return std::nullopt;
    train t;
    t.bytes = static_cast<std::uint32_t>(ip.size());
    t.version6 = version == 6;
    const auto type = static_cast<std::uint8_t>(offload.gso_type & ~gso_ecn);
    if (type == gso_none) return t;
    const auto ip_header = ip_header_bytes(ip);
    const auto protocol = version == 6 ? u8(ip, 6) : u8(ip, 9);
    if (ip_header < 20 || ip.size() < ip_header + 20 || protocol != tcp || offload.segment_bytes == 0) {
        return std::nullopt;
    }
    t.header_bytes = ip_header + static_cast<std::uint32_t>((u8(ip, ip_header + 12) >> 4) * 4);
    if (t.header_bytes < ip_header + 20 || t.header_bytes > longest_headers || t.header_bytes >= t.bytes) {
        return std::nullopt;
    }
    t.segment_bytes = offload.segment_bytes;
    t.packets = (t.bytes - t.header_bytes + t.segment_bytes - 1) / t.segment_bytes;
    return t;
}

packet_addresses addresses_of(core::const_bytes ip) {
    if (u8(ip, 0) >> 4 == 6) return {u32(ip, 20), u32(ip, 36), u8(ip, 24) != 0xff};
    return {u32(ip, 12), u32(ip, 16), u8(ip, 16) < 224};
}

bool opens_connection(core::const_bytes ip) {
    const auto header = ip_header_bytes(ip);
    const auto protocol = u8(ip, 0) >> 4 == 6 ? u8(ip, 6) : u8(ip, 9);
    if (protocol != tcp || ip.size() < header + 14) return false;
    constexpr std::uint8_t syn = 2, ack = 16;
    return (u8(ip, header + 13) & (syn | ack)) == syn;
}

partial_train cut_out(const train& t, const offload_header& offload, core::const_bytes ip, std::uint32_t first,
                      std::uint32_t count, core::mutable_bytes headers) {
    partial_train out;
    out.offload = offload;
    if (t.packets == 1) {
        // As it came, headers and all.
        out.payload_bytes = t.bytes;
        return out;
    }
    out.header_bytes = t.header_bytes;
    out.payload_offset = t.header_bytes + first * t.segment_bytes;
    out.payload_bytes = std::min(count * t.segment_bytes, t.bytes - out.payload_offset);
    std::memcpy(headers.data(), ip.data(), t.header_bytes);
    const auto ip_header = ip_header_bytes(ip);
    const auto length = t.header_bytes + out.payload_bytes;
    std::uint32_t pseudo = tcp + (length - ip_header);
    if (t.version6) {
        put16(headers, 4, length - ip_header);
        pseudo += sum_of(ip.subspan(8, 32));
    } else {
        put16(headers, 2, length);
        put16(headers, 4, u16(ip, 4) + first);
        put16(headers, 10, 0);
        put16(headers, 10, ~folded(sum_of(core::const_bytes(headers.first(ip_header)))) & 0xffff);
        pseudo += sum_of(ip.subspan(12, 8));
    }
    put32(headers, ip_header + 4, u32(ip, ip_header + 4) + first * t.segment_bytes);
    // Of the flags, FIN and PSH belong to the last packet alone, CWR to the first.
    constexpr std::uint8_t fin = 1, psh = 8, cwr = 128;
    auto flags = u8(ip, ip_header + 13);
    if (first + count < t.packets) flags &= static_cast<std::uint8_t>(~(fin | psh));
    if (first > 0) flags &= static_cast<std::uint8_t>(~cwr);
    headers[ip_header + 13] = std::byte{flags};
    // The kernel completes the checksum from the sum of the pseudo header, or trusts it where the packet stays here.
    put16(headers, ip_header + 16, folded(pseudo));
    out.offload.flags = needs_checksum;
    out.offload.checksum_start = static_cast<std::uint16_t>(ip_header);
    out.offload.checksum_offset = 16;
    out.offload.header_bytes = static_cast<std::uint16_t>(t.header_bytes);
    const bool single = out.payload_bytes <= t.segment_bytes;
    out.offload.gso_type = single ? gso_none : t.version6 ? gso_tcp6 : gso_tcp4;
    out.offload.segment_bytes = single ? std::uint16_t{0} : static_cast<std::uint16_t>(t.segment_bytes);
    return out;
}

}  // namespace longhaul::sim::lab

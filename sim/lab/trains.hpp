#pragma once
/// IP packets as TUN devices give and take them: a large TCP segment stands for a train of packets (segmentation
/// offload), which spares most of the system calls and most of the kernel's work. The emulator still treats each packet
/// of the train alone; those that arrive together are handed over together, as a network card coalesces them.

#include <cstdint>
#include <optional>

#include "core/bytes.hpp"

namespace longhaul::sim::lab {

/// struct virtio_net_hdr of <linux/virtio_net.h>, which precedes every packet.
struct offload_header {
    std::uint8_t flags = 0, gso_type = 0;
    std::uint16_t header_bytes = 0, segment_bytes = 0, checksum_start = 0, checksum_offset = 0;
};
static_assert(sizeof(offload_header) == 10);

/// What was read from a device.
struct train {
    std::uint32_t bytes = 0;          ///< of the whole, from the IP header on
    std::uint32_t header_bytes = 0;   ///< IP and TCP headers, which each packet repeats; 0: a single packet
    std::uint32_t segment_bytes = 0;  ///< TCP payload of each packet but the last
    std::uint32_t packets = 1;
    bool version6 = false;

    /// From the IP header on.
    std::uint32_t packet_bytes(std::uint32_t index) const;
};

/// Looks at what a device gave: `ip` begins with the IP header. Nothing where it is no IP packet or its lengths do not
/// fit.
std::optional<train> inspect(const offload_header& offload, core::const_bytes ip);

/// The last 32 bits of the addresses in an IP header of either version.
struct packet_addresses {
    std::uint32_t from = 0, to = 0;
    bool unicast = true;
};
packet_addresses addresses_of(core::const_bytes ip);

/// Whether it is TCP's first packet to a listener: a stateless firewall drops it.
bool opens_connection(core::const_bytes ip);

/// Writes the packets [first, first + count) of `t` as one device write: `offload` and headers are adjusted, and the
/// payload follows from `ip` at the returned offset, for the returned number of bytes. `headers` has room for 128
/// bytes.
struct partial_train {
    offload_header offload;
    std::uint32_t header_bytes = 0, payload_offset = 0, payload_bytes = 0;
};
partial_train cut_out(const train& t, const offload_header& offload, core::const_bytes ip, std::uint32_t first,
                      std::uint32_t count, core::mutable_bytes headers);

}  // namespace longhaul::sim::lab

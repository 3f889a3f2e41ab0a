#pragma once
/// What Linux knows of a TCP connection and may be told about it, by the descriptor. Without Asio: <linux/tcp.h>, which
/// has the newer fields, and the <netinet/tcp.h> that Asio includes exclude each other.

#include <cstdint>
#include <optional>
#include <string>

namespace longhaul::net {

/// As in stream_info.
struct tcp_facts {
    std::uint64_t rtt_microseconds = 0;
    std::uint64_t segments_sent = 0, retransmits = 0;
    std::uint64_t congestion_window_bytes = 0, window_limit_bytes = 0;
    std::uint64_t delivered_bytes = 0, queued_bytes = 0, unsent_bytes = 0;
};
/// From TCP_INFO; nothing if the descriptor is no TCP socket.
std::optional<tcp_facts> facts_of(int descriptor);
/// Chooses congestion control by name ("bbr"). False: this kernel does not have it, or does not offer it to this user.
bool set_congestion_control(int descriptor, const std::string& name);
/// Sends no faster, in bytes per second; 0: as fast as it goes. Needs no privilege and no queueing discipline.
void set_pacing_rate(int descriptor, double bytes_per_second);
/// Unsent bytes in the kernel beyond which the socket wants no more data.
void set_unsent_low_water(int descriptor, int bytes);

}  // namespace longhaul::net

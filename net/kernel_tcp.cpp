#include "net/kernel_tcp.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <fstream>

namespace longhaul::net {

namespace {

/// Of the send buffer's limit, what can be in flight: the rest is bookkeeping and what waits. Measured on Linux 6.18,
/// where a connection with the limit of 4 MiB never had more than 2.7 MiB in flight.
constexpr double usable_share = 0.65;
/// Where the limit cannot be read: Linux's default.
constexpr std::uint64_t usual_send_buffer = 4 << 20;

/// The threshold of slow start before anything has ended it: Linux's TCP_INFINITE_SSTHRESH.
constexpr std::uint32_t never_reached = 0x7fffffff;

/// The most that the kernel lets a send buffer grow to.
std::uint64_t largest_send_buffer() {
    std::ifstream file("/proc/sys/net/ipv4/tcp_wmem");
    std::uint64_t least = 0, usual = 0, most = 0;
    if (!(file >> least >> usual >> most) || most == 0) return usual_send_buffer;
    return most;
}

bool follows_losses(int descriptor) {
    std::array<char, 32> name{};
    socklen_t size = name.size() - 1;
    if (::getsockopt(descriptor, IPPROTO_TCP, TCP_CONGESTION, name.data(), &size) != 0) return true;
    return std::string(name.data()) != "bbr";
}

}  // namespace

std::optional<tcp_facts> facts_of(int descriptor) {
    tcp_info raw{};
    socklen_t size = sizeof raw;
    if (::getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &raw, &size) != 0) return std::nullopt;
    static const std::uint64_t buffer = largest_send_buffer();
    tcp_facts info;
    info.rtt_microseconds = raw.tcpi_rtt;
    info.retransmits = raw.tcpi_total_retrans;
    info.congestion_window_bytes = std::uint64_t{raw.tcpi_snd_cwnd} * raw.tcpi_snd_mss;
    info.window_limit_bytes = static_cast<std::uint64_t>(usable_share * static_cast<double>(buffer));
    // A kernel that is older than a field leaves it zero.
    info.segments_sent = raw.tcpi_data_segs_out;
    // Counts what arrived behind a gap, too: acknowledged bytes would stand still until a loss is repaired, then leap.
    info.delivered_bytes = std::uint64_t{raw.tcpi_delivered} * raw.tcpi_snd_mss;
    info.queued_bytes = raw.tcpi_notsent_bytes + std::uint64_t{raw.tcpi_unacked} * raw.tcpi_snd_mss;
    info.unsent_bytes = raw.tcpi_notsent_bytes;
    if (raw.tcpi_snd_ssthresh < never_reached && follows_losses(descriptor)) {
        info.window_limit_bytes = std::min(info.window_limit_bytes, info.congestion_window_bytes);
    }
    return info;
}

bool set_congestion_control(int descriptor, const std::string& name) {
    return ::setsockopt(descriptor, IPPROTO_TCP, TCP_CONGESTION, name.data(), static_cast<socklen_t>(name.size())) == 0;
}

void set_pacing_rate(int descriptor, double bytes_per_second) {
    std::uint64_t rate = ~std::uint64_t{0};
    if (bytes_per_second > 0) rate = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(bytes_per_second));
    (void)::setsockopt(descriptor, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate);
}

void set_unsent_low_water(int descriptor, int bytes) {
    (void)::setsockopt(descriptor, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
}

}  // namespace longhaul::net

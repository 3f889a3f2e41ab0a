#pragma once
/// Quantities as people write them: "50 Mbit/s", "80 ms", "64 MiB", "0.5 %". Every parser names the value that it
/// refused and an example of what it takes; every printer's output parses back.

#include <cstdint>
#include <string>
#include <string_view>

#include "core/clock.hpp"
#include "core/result.hpp"

namespace longhaul::core {

/// A link rate in bits per second.
struct bit_rate {
    double bits_per_second = 0;
    auto operator<=>(const bit_rate&) const = default;
    double bytes_per_second() const { return bits_per_second / 8; }
};

/// "80 ms", "2 min", "1.5 s", "250us", "1 h", "2 d". A bare number is refused: the unit is required. Not negative.
result<duration> parse_duration(std::string_view text);
/// "64 MiB", "10 kB", "512 B", "1 GiB". Decimal and binary prefixes mean what they say. Not negative.
result<std::uint64_t> parse_bytes(std::string_view text);
/// "50 Mbit/s", "1 Gbit/s", "800 kbit/s", "12 MB/s" (bytes), "100 Mbps".
result<bit_rate> parse_rate(std::string_view text);
/// "0.5 %" or "0.005": a share in [0, 1].
result<double> parse_share(std::string_view text);

std::string format_duration(duration d);
std::string format_bytes(std::uint64_t bytes);
std::string format_rate(bit_rate rate);

}  // namespace longhaul::core

#pragma once
/// A rate that is honoured: bytes in, the moment in which they may pass. Pure.

#include <algorithm>
#include <cstdint>

#include "core/clock.hpp"

namespace longhaul::net {

/// Bytes on the wire that n bytes of a stream become: headers of IPv4 and TCP with timestamps, in packets of 1500.
inline std::uint64_t with_headers(std::uint64_t n) {
    constexpr std::uint64_t payload = 1448, headers = 52;
    return n + headers * ((n + payload - 1) / payload);
}
/// Bytes of the acknowledgements that n received bytes provoke: one a second packet.
inline std::uint64_t acknowledgements(std::uint64_t n) { return 52 * n / (2 * std::uint64_t{1448}); }

/// A token bucket, kept as the time at which all that passed so far is through (the virtual scheduling of GCRA). Over
/// any period no more passes than the rate allows, and one burst.
class pacer {
public:
    /// Saved up while nothing passes.
    static constexpr core::duration burst = std::chrono::milliseconds(10);

    /// 0 bytes per second: no limit.
    explicit pacer(double bytes_per_second = 0) : rate_(bytes_per_second) {}
    bool limits() const { return rate_ > 0; }

    /// Takes the turn for n bytes: they may pass at the returned moment, or at once if it is over. Whoever does not
    /// wait makes the next ones wait longer.
    core::time_point take(core::time_point now, std::uint64_t n) {
        if (!limits()) return now;
        const auto start = std::max(free_, now - burst);
        free_ = start + time_for(n);
        return start;
    }
    /// The same for bytes that have passed already: from the returned moment on their place is free again.
    core::time_point took(core::time_point now, std::uint64_t n) { return take(now, n) + time_for(n); }
    /// Of the bytes taken, n did not pass.
    void give_back(std::uint64_t n) { free_ -= time_for(n); }
    core::duration time_for(std::uint64_t n) const {
        return limits() ? core::from_seconds(static_cast<double>(n) / rate_) : core::duration{};
    }
    /// How many bytes should pass at a time: what the rate carries in 10 ms, between a packet and 64 KiB.
    std::size_t portion() const {
        if (!limits()) return ~std::size_t{0};
        return static_cast<std::size_t>(std::clamp(rate_ * core::to_seconds(burst), 1448.0, 65536.0));
    }

private:
    double rate_ = 0;
    core::time_point free_{};
};

}  // namespace longhaul::net

#pragma once
/// Time as the program sees it: real in production, virtual in simulation.

#include <asio/awaitable.hpp>
#include <chrono>
#include <cstdint>

#include "core/result.hpp"

namespace longhaul::core {

/// A coroutine that yields T. Protocol functions return `task<result<T>>`.
template <typename T>
using task = asio::awaitable<T>;

using duration = std::chrono::nanoseconds;
/// Nanoseconds since an arbitrary, per-process origin. Monotonic; comparable only with the same clock's.
using time_point = std::chrono::time_point<std::chrono::steady_clock, duration>;

using namespace std::chrono_literals;  // NOLINT: 3s, 200ms: units in the source are worth the import

inline double to_seconds(duration d) { return std::chrono::duration<double>(d).count(); }
/// To the nearest nanosecond, so that a duration below 2^52 ns survives the way to seconds and back.
inline duration from_seconds(double s) { return std::chrono::round<duration>(std::chrono::duration<double>(s)); }

/// The injected clock. Nothing else in longhaul reads time.
class clock {
public:
    virtual ~clock() = default;
    /// Monotonic time.
    virtual time_point now() const = 0;
    /// Seconds since the Unix epoch (virtual in simulation). For logs and events only: it may jump.
    virtual double wall_seconds() const = 0;
    /// Returns at `until` (at once when it is past); errc::cancelled when the waiting task is cancelled.
    virtual task<result<void>> sleep_until(time_point until) = 0;

    task<result<void>> sleep_for(duration d) { return sleep_until(now() + d); }
};

}  // namespace longhaul::core

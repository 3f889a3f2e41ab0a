#include "sim/clock_model.hpp"

#include "core/result.hpp"

namespace longhaul::sim {

namespace {
constexpr std::int64_t million = 1'000'000;
}

core::duration clock_model::stretched(core::duration d) const {
    // Whole and broken millions of nanoseconds apart: exact, and no overflow within centuries.
    const auto n = d.count();
    return d + core::duration(n / million * drift_ + n % million * drift_ / million);
}

virtual_time clock_model::virtual_at(core::time_point local) const {
    const core::duration ahead = local - origin_;
    if (ahead > std::chrono::hours(24 * 365 * 100)) return never;
    if (ahead <= core::duration::zero()) return started_;
    const auto n = ahead.count();
    const auto rate = million + drift_;
    // A first guess that is never too late, then to the exact nanosecond.
    core::duration d(n / rate * million + n % rate * million / rate);
    while (d > core::duration::zero() && stretched(d - core::duration(1)) >= ahead) d -= core::duration(1);
    while (stretched(d) < ahead) d += core::duration(1);
    return started_ + d;
}

void clock_model::set_drift(virtual_time now, std::int64_t parts_per_million) {
    LONGHAUL_ENSURE(parts_per_million > -million / 2 && parts_per_million < million / 2, "a drift beyond one half");
    origin_ = local(now);
    started_ = now;
    drift_ = parts_per_million;
}

}  // namespace longhaul::sim

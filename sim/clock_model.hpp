#pragma once
/// A node's own clock: where it started, how wrong it is, how fast it drifts.

#include "sim/event_queue.hpp"

namespace longhaul::sim {

/// Maps virtual time to a node's monotonic clock and back. Monotonic through every change of the drift.
class clock_model {
public:
    /// The clock shows `origin` at virtual time `started`.
    clock_model(virtual_time started, core::time_point origin) : started_(started), origin_(origin) {}

    core::time_point local(virtual_time t) const { return origin_ + stretched(t - started_); }
    /// The earliest virtual time at which the clock shows `local` or later; `never` beyond a century.
    virtual_time virtual_at(core::time_point local) const;
    /// From `now` on the clock gains `parts_per_million` (loses, if negative); between ±500,000.
    void set_drift(virtual_time now, std::int64_t parts_per_million);

private:
    core::duration stretched(core::duration d) const;
    virtual_time started_;
    core::time_point origin_;
    std::int64_t drift_ = 0;
};

}  // namespace longhaul::sim

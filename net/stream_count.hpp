#pragma once
/// How many bulk connections a link needs, found by measuring (DESIGN §4). Pure: samples in, a number out.
///
/// A connection carries at most window / RTT, and under loss less; so the first number comes from the round trip and
/// the window of the kernel's buffers. From then on it climbs: half as many more, kept if goodput grew by a twentieth,
/// given up otherwise, and not tried again for a while that doubles. When a queue stands in the path, the wire is full:
/// then nothing is tried, and what exceeds three times the window's demand is let go.

#include <cstdint>

#include "core/clock.hpp"

namespace longhaul::net {

/// What a sender sees of its bulk connections.
struct stream_sample {
    core::time_point now;
    std::uint64_t delivered = 0;  ///< bytes that have arrived at the other end, a running total
    bool saturated = false;       ///< since the sample before there was always more to send
    unsigned open = 0;            ///< connections that carry what this end sends
    core::duration rtt{};         ///< the least round trip; 0: not known yet
    bool queueing = false;        ///< round trips exceed the least one so much that a queue stands in the path
    std::uint64_t window = 0;     ///< bytes that one connection can have in flight; 0: not known
};

class stream_count {
public:
    static constexpr unsigned most = 64;
    /// Of the first guess, before anything is measured.
    static constexpr unsigned most_unmeasured = 8;

    /// `fixed`: always so many; 0: found.
    explicit stream_count(unsigned fixed = 0) : fixed_(fixed), wanted_(fixed != 0 ? fixed : 1) {}

    void step(const stream_sample& s);
    unsigned wanted() const { return wanted_; }
    /// Goodput at this number, bytes per second; 0: not measured yet.
    double goodput() const { return base_; }

private:
    enum class phase : std::uint8_t { steady, climbing, reducing };
    void set(unsigned count, phase next, const stream_sample& s);
    void judge(double goodput, bool crowded, const stream_sample& s);
    void hold(const stream_sample& s);

    unsigned fixed_ = 0;
    unsigned wanted_ = 1;
    unsigned before_ = 1;  ///< the change that is being tried
    phase phase_ = phase::steady;
    bool guessed_ = false;
    stream_sample last_{};
    double ramp_ = 0;                                        ///< busy seconds that do not count yet
    double missing_ = 0;                                     ///< busy seconds with fewer connections than wanted
    double seconds_ = 0, queueing_seconds_ = 0, bytes_ = 0;  ///< of the measurement under way
    double base_ = 0;
    double hold_ = 0;  ///< seconds without trying
    core::time_point next_try_{};
};

}  // namespace longhaul::net

#pragma once
/// How many bulk connections a link needs, found by measuring (DESIGN §4). Pure: samples in, a number out.
///
/// A connection carries at most window / RTT, and under loss less; so the first number comes from the round trip and
/// the window of the kernel's buffers. Until the wire has been full, only so many of them carry as there is to send:
/// several that start at once on a thin line overflow its queue, and a small payload gains little from them. When
/// goodput grows no more, the wire is full, and what exceeds three times the window's demand is let go. From then on
/// the number climbs: half as many more, kept if goodput grew by a twentieth, given up otherwise, and not tried again
/// for a while that doubles; beyond what the window asks for it is tried rarely, and a tenth must be gained. When a
/// queue stands in the path nothing is tried.

#include <cstdint>

#include "core/clock.hpp"

namespace longhaul::net {

/// What a sender sees of its bulk connections.
struct stream_sample {
    core::time_point now;
    std::uint64_t delivered = 0;  ///< bytes that have arrived at the other end, a running total
    bool saturated = false;       ///< every connection has more to send than it can
    bool flowing = false;         ///< some connection has
    unsigned open = 0;            ///< connections that carry what this end sends
    std::uint64_t offered = 0;    ///< bytes of the transfers under way, whole
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
    /// Connections to have open.
    unsigned wanted() const { return wanted_; }
    /// Of them, those that carry while transfers of so many bytes are under way.
    unsigned carrying(std::uint64_t offered) const;
    /// Whether the wire has been full once, so that it is known what it carries.
    bool filled() const { return filled_; }
    /// Goodput at this number, bytes per second; 0: not measured yet.
    double goodput() const { return base_; }

private:
    enum class phase : std::uint8_t { steady, climbing, reducing };
    /// Wants so many from now on, and judges by the next measurement whether goodput is as `needed`.
    void set(unsigned count, phase next, double needed, const stream_sample& s);
    void fill(std::uint64_t offered);
    void watch_startup(double elapsed, double delivered, const stream_sample& s);
    void judge(double goodput, bool crowded, const stream_sample& s);
    void climb(const stream_sample& s);
    void hold(const stream_sample& s);

    unsigned fixed_ = 0;
    unsigned wanted_ = 1;
    unsigned before_ = 1;  ///< the change that is being tried
    phase phase_ = phase::steady;
    double needed_ = 0;  ///< goodput that keeps it
    bool guessed_ = false;
    bool filled_ = false;                           ///< the wire has been full once, or was measured
    double window_seconds_ = 0, window_bytes_ = 0;  ///< until then: of the window under way
    double fastest_ = 0;                            ///< of these windows
    unsigned flat_ = 0;                             ///< windows since it grew
    stream_sample last_{};
    double ramp_ = 0;                                        ///< busy seconds that do not count yet
    double missing_ = 0;                                     ///< busy seconds with fewer connections than wanted
    double seconds_ = 0, queueing_seconds_ = 0, bytes_ = 0;  ///< of the measurement under way
    double base_ = 0;
    double hold_ = 0;     ///< seconds without trying
    bool doubt_ = false;  ///< the next venture is to want fewer
    core::time_point next_try_{}, next_venture_{};
};

}  // namespace longhaul::net

#pragma once
/// Keeps bulk from delaying control (DESIGN §4). Bulk and control share the queue of the bottleneck; when control waits
/// in it for 40 ms, bulk is paced below what the path delivers until the queue has gone, and then let go again. It is
/// the queue of this direction that counts: the other direction's is the other end's to drain. Pure: measurements in, a
/// rate out.

#include <array>
#include <cstdint>

#include "core/clock.hpp"

namespace longhaul::net {

class delay_guard {
public:
    /// Of control, on the way out.
    static constexpr core::duration most_queueing = std::chrono::milliseconds(40);

    /// Bytes that bulk had delivered in all at `now`. Called more often than once a round trip while bulk flows.
    void delivered(core::time_point now, std::uint64_t total);
    /// A control round trip was measured, of which the queue on the way there took `queueing`.
    void round_trip(core::time_point now, core::duration last, core::duration queueing);
    /// No bulk flows any more; what was learnt of the path ages from here.
    void idle();

    /// Bytes per second that bulk may send; 0: as it likes.
    double limit() const { return limit_; }
    /// A queue stands in the path.
    bool queueing() const { return queueing_; }

private:
    double capacity() const;

    double limit_ = 0;
    double full_ = 0;  ///< what the path delivered when a queue stood in it last
    bool queueing_ = false;
    core::duration excess_before_{};
    core::time_point changed_{}, crowded_since_{};
    core::time_point window_began_{};
    std::uint64_t window_total_ = 0;
    bool flowing_ = false;
    /// Of the latest windows, bytes per second. A second of them: while the reverse direction's data delays the
    /// acknowledgements, single ones show much less than the path delivers.
    std::array<double, 10> rates_{};
    std::size_t next_rate_ = 0;
};

}  // namespace longhaul::net

#pragma once
/// What a line carries, learnt from exchanges: for the next plan. Pure.

#include <cstdint>
#include <deque>
#include <optional>

#include "core/clock.hpp"

namespace longhaul::peers {

/// How fast bytes went one way in one exchange: the best average over half a second, or over as long as it took. So a
/// peer that holds up the rest of the exchange, or a connection that begins slowly, does not make a line slow.
class rate_of_exchange {
public:
    /// With fewer bytes latency is measured, not a rate.
    static constexpr std::uint64_t least_bytes = 128 * 1024;
    static constexpr core::duration window = std::chrono::milliseconds(500);
    /// Looks that come closer together are not remembered: best look so often.
    static constexpr core::duration interval = window / 5;

    rate_of_exchange() = default;
    /// `in_bursts`: of an exchange that pauses again and again, so that little need not mean a slow line.
    explicit rate_of_exchange(bool in_bursts) : in_bursts_(in_bursts) {}
    bool in_bursts() const { return in_bursts_; }
    /// Bytes flow from now on; `already` of the running total do not count. Only the first call does anything.
    void begin(core::time_point now, std::uint64_t already);
    /// The running total now. A total that has shrunk is another one: the average begins anew.
    void look(core::time_point now, std::uint64_t total);
    /// Beside it, of whoever looks each interval: whether a queue stands before the line itself, so that this is all
    /// that it carries.
    void look_at_queue(core::time_point now, std::uint64_t total, bool stands);
    bool begun() const { return !marks_.empty(); }
    /// 0: too little went.
    double bytes_per_second() const { return best_ > 0 ? best_ : short_; }
    double seconds() const { return seconds_; }  ///< from the beginning to the last look that counted
    /// What the line carried in the latest `strained_window` through which a queue stood, unless it carried twice that
    /// later; 0: there was none. A line that collapses in the middle of an exchange shows only here.
    double strained() const { return strained_; }
    static constexpr core::duration strained_window = std::chrono::seconds(2);

private:
    struct mark {
        core::time_point at;
        std::uint64_t total = 0;
    };
    bool in_bursts_ = false;
    std::deque<mark> marks_;  ///< of the latest window; the first one is older, or the beginning
    core::time_point since_{};
    double best_ = 0;   ///< over an interval at least: bytes come in clumps
    double short_ = 0;  ///< of an exchange that took less
    double seconds_ = 0;
    std::optional<mark> queue_;  ///< since then one has stood, or none
    bool queue_stands_ = false;
    double strained_ = 0;
};

/// What a line is believed to carry, from exchange to exchange: as much as it was seen to carry. An exchange that
/// needed less says little, so old measurements fade slowly; but one that went on for a while at less than half shows
/// that the line has become slow. Of what it sends that is believed at once: every exchange begins with as much to send
/// as a line can carry. Receiving slowly may be any sender's fault, so that is believed by halves; unless a queue
/// stands before the line itself.
class line_rate {
public:
    enum class way { sends, receives };
    static constexpr double fade = 0.9, fallen = 0.5, a_while = 1;  ///< the last in seconds

    explicit line_rate(way w) : way_(w) {}
    /// Bytes per second after an exchange that went so, or has gone so far; 0: not measured yet.
    double with(const rate_of_exchange& latest) const;
    /// That exchange is over.
    void take(const rate_of_exchange& latest) { believed_ = with(latest); }

private:
    way way_;
    double believed_ = 0;
};

}  // namespace longhaul::peers

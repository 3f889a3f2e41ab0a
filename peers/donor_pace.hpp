#pragma once
/// How much of a donor's line goes to joiners while a round's payloads are on it: a tenth, so that rounds become no
/// more than a tenth longer by them; and a half when somebody has waited for long, because a newcomer that never
/// arrives helps nobody. Pure.

#include <algorithm>
#include <cstdint>

#include "core/clock.hpp"

namespace longhaul::peers {

class donor_pace {
public:
    static constexpr double share = 0.1, share_later = 0.5;
    static constexpr core::duration long_wait = std::chrono::minutes(1);

    /// Whether `bytes` may go now beside payloads, on a line of that rate (bytes per second; 0: not known yet, nothing
    /// is held back), when somebody has downloaded for so long. False: ask again in a moment.
    bool take(std::uint64_t bytes, double line, core::duration waited, core::time_point now) {
        if (line <= 0) return true;
        const double rate = (waited < long_wait ? share : share_later) * line;
        const auto wanted = static_cast<double>(bytes);
        allowance_ = std::min(allowance_ + rate * core::to_seconds(now - last_), std::max(wanted, rate));
        last_ = now;
        if (allowance_ < wanted) return false;
        allowance_ -= wanted;
        return true;
    }

private:
    double allowance_ = 0;  ///< bytes
    core::time_point last_{};
};

}  // namespace longhaul::peers

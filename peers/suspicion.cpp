#include "peers/suspicion.hpp"

#include <algorithm>

namespace longhaul::peers {

void suspicion::look_at(core::time_point now) {
    if (now - now_ > 2 * interval) {
        for (auto& [who, h] : heard_) h.at = now;
    }
    now_ = now;
}

core::duration suspicion::silence_of(const net::peer_key& who, std::uint64_t received) {
    const auto [it, fresh] = heard_.try_emplace(who, heard{received, now_});
    if (received != it->second.received) it->second = {received, now_};
    return now_ - it->second.at;
}

core::duration suspicion::patience(core::duration silence_limit, core::duration rtt_worst,
                                   core::duration round_so_far) {
    return std::min(silence_limit, std::max(silence_limit * 3 / 20 + 2 * rtt_worst, round_so_far / 10));
}

}  // namespace longhaul::peers

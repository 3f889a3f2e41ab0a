#include "sim/victims.hpp"

#include <algorithm>
#include <ranges>

#include "sim/checkers.hpp"

namespace longhaul::sim {

std::optional<std::uint32_t> who_coordinates(std::span<const std::deque<seen_event>* const> events) {
    std::optional<std::uint32_t> who;
    virtual_time since{};
    for (std::uint32_t i = 0; i < events.size(); ++i) {
        const auto said = std::ranges::find_if(*events[i] | std::views::reverse,
                                               [](const seen_event& s) { return s.event.name == "coordinator"; });
        if (said == events[i]->rend() || !field<bool>(said->event, "self").value_or(false)) continue;
        if (who && said->at <= since) continue;
        who = i;
        since = said->at;
    }
    return who;
}

fault victims::strike(const fault& f, std::span<const std::deque<seen_event>* const> events) {
    if (!f.coordinator) return f;
    auto& now = at_the_time_[&f] = f;
    const auto who = who_coordinates(events);
    if (!who) return now;
    now.peers = {*who};
    if (f.what == fault_kind::partition) now.others = all_but(now.peers, static_cast<std::uint32_t>(events.size()));
    return now;
}

fault victims::struck(const fault& f) const {
    const auto found = at_the_time_.find(&f);
    return found == at_the_time_.end() ? f : found->second;
}

}  // namespace longhaul::sim

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

std::int64_t count_voters(std::span<const std::deque<seen_event>* const> events) {
    std::uint64_t count = 1;
    virtual_time since{};
    for (const auto* of_one : events) {
        const auto said = std::ranges::find_if(*of_one | std::views::reverse,
                                               [](const seen_event& s) { return s.event.name == "voters"; });
        if (said == of_one->rend() || said->at < since) continue;
        count = field<std::uint64_t>(said->event, "count").value_or(count);
        since = said->at;
    }
    return static_cast<std::int64_t>(count);
}

fault victims::strike(const fault& f, std::span<const std::deque<seen_event>* const> events) {
    const bool too_few = f.voters > 0 && count_voters(events) < f.voters;
    if (!f.coordinator && !too_few) return f;
    auto& now = at_the_time_[&f] = f;
    now.peers.clear();
    const auto who = too_few ? std::nullopt : who_coordinates(events);
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

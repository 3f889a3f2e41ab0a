#pragma once
/// Whom a fault befalls: the peers that it names, or whoever coordinates when it begins.

#include <map>
#include <optional>
#include <span>

#include "sim/node.hpp"
#include "sim/scenario.hpp"

namespace longhaul::sim {

/// The peer that last said that it coordinates, by the events of all, as the scenario's peers. Nothing before the
/// first.
std::optional<std::uint32_t> who_coordinates(std::span<const std::deque<seen_event>* const> events);

/// How many order records, by who heard of it last.
std::int64_t count_voters(std::span<const std::deque<seen_event>* const> events);

class victims {
public:
    /// The fault, with its victims, that begins now. Nobody, while fewer order records than it says.
    fault strike(const fault& f, std::span<const std::deque<seen_event>* const> events);
    /// The same one, when it ends.
    fault struck(const fault& f) const;

private:
    std::map<const fault*, fault> at_the_time_;  ///< of those whose victims the file does not name
};

}  // namespace longhaul::sim

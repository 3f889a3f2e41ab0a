#pragma once
/// Liveness after faults (DESIGN §5, I12): whether everybody who lives commits again, and its work is merged again,
/// when the last fault has ended.

#include <map>
#include <optional>
#include <set>

#include "core/events.hpp"
#include "sim/scenario.hpp"

namespace longhaul::sim {

class recovery {
public:
    explicit recovery(const scenario& s);
    void saw(std::uint32_t peer, const core::event& e);
    /// The last fault has ended. Only the first call counts.
    void faults_ended(core::duration now);
    /// The scenario ends here: it asks for a recovery, and everybody but those who were taken out has recovered, or the
    /// time for it has passed.
    bool over(core::duration now, const std::set<std::uint32_t>& taken_out) const;
    /// The round that everybody has to reach for that; zero: the scenario does not ask, or faults have not ended.
    std::uint64_t wanted() const;
    /// Whether a round has merged that peer's work since the last fault ended.
    bool merged_again(std::uint32_t peer) const;

private:
    std::uint32_t peers_;
    core::duration limit_;
    std::map<std::uint32_t, std::uint64_t> applied_, merged_;  ///< a peer's newest round
    std::uint64_t newest_ = 0;
    std::optional<core::duration> ended_at_;
    std::uint64_t round_then_ = 0;
};

}  // namespace longhaul::sim

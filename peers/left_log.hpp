#pragma once
/// What a log that was dissolved has learnt goes into the run once. Seen from the run, all its rounds together are one
/// peer's long absence: its model is averaged with the run's by the tokens that each has seen since they parted, as
/// FedAvg would have done (McMahan et al., arXiv 1602.05629). So a side that learnt little moves little, and the longer
/// the other has gone on, the less (staleness).

#include "optim/schedule.hpp"
#include "peers/generation.hpp"
#include "peers/replica.hpp"
#include "peers/settlement.hpp"

namespace longhaul::peers {

/// The last state of a log that this node coordinated, and where its generations began.
struct left_log {
    shared_state state;
    generation_line origins;
};

struct merged_log {
    carried_mass mass;         ///< goes into this node's next payload; empty: there is nothing to merge
    std::uint64_t tokens = 0;  ///< that the log has seen alone
    double share = 0;          ///< λ of the average
};

/// The mass that moves a run which stands at `now` to (1 − λ)·now + λ·left, λ = t_left / (t_left + t_now) with the
/// tokens t since they parted: λ·(now − left), divided by what becomes of a payload, its share of the mean among so
/// many `contributors` and what the outer optimizer makes of a pseudo-gradient over all rounds to come, η / (1 − β),
/// which buffers do not have. It claims neither steps nor tokens: those weigh the payloads of a round, and this one
/// would outweigh all others. CPU work.
merged_log merge_left_log(const core::tensor_manifest& manifest, const optim::round_plan& plan, const left_log& left,
                          const model_state& now, const generation_line& origins, std::size_t contributors);

}  // namespace longhaul::peers

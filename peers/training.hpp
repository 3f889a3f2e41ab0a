#pragma once
/// A contributor's part in a round: its inner steps, and the payload that it makes of them.

#include "peers/inner_steps.hpp"
#include "peers/settlement.hpp"

namespace longhaul::peers {

/// Makes this node's steps of the open round and sends what they have learnt, or keeps it for the next payload when
/// the round goes on without it.
core::task<core::result<void>> train(node& n);

/// The same in a round of several exchanges: after each few steps everybody goes on from what all have learnt
/// (peers/step_wise.cpp).
core::task<core::result<void>> train_by_exchanges(node& n, shared_state start, std::uint64_t generation,
                                                  round_record open);

/// A contributor may have carried a few rounds' work; whoever claims more would scale everybody's step.
std::uint64_t max_steps_claimed(const node& n);
/// What others and this node's own plans are told of the steps of a round.
void steps_made(node& n, const inner_steps& s);
/// Takes what is carried for a payload of so many steps of its own, or none of it when nobody would believe it.
carried_mass take_carry(node& n, std::uint64_t steps);

}  // namespace longhaul::peers

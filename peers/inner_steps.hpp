#pragma once
/// What a node trains on its own. By a plan with delay the steps of the next round begin while the payload of the open
/// one is under way: in a task of their own, to which the trainer belongs until they are over, stopped or held.

#include <memory>
#include <optional>

#include "core/clock.hpp"
#include "core/result.hpp"
#include "core/task.hpp"
#include "core/tensor.hpp"
#include "peers/ledger.hpp"
#include "peers/replica.hpp"

namespace longhaul::peers {

struct node;

/// The steps of one round, as far as they are made.
struct inner_steps {
    std::uint64_t generation = 0, round = 0;
    std::uint64_t position = 0;  ///< of the run, where the round begins
    std::uint64_t H = 0;         ///< of the round
    std::uint64_t own = 0;       ///< of this node
    std::uint64_t until = 0;     ///< made next, of its own; 0: all of them
    core::flat_buffer start;     ///< parameters before the first; empty: the anchor, or what the trainer has
    core::time_point begun{};

    std::uint32_t steps = 0;
    std::uint64_t tokens = 0;
    double loss_sum = 0;
    core::duration took{};    ///< the steps alone
    core::time_point told{};  ///< when others last heard of them

    bool ahead = false;    ///< their round is not open yet
    bool running = false;  ///< in a task of their own
    bool stop = false;
    bool held = false, rests = false;  ///< asked to leave the trainer alone for a moment, and so it is
    std::optional<core::error> failed;
};
using shared_steps = std::shared_ptr<inner_steps>;

/// What the trainer's parameters are with fragments: they go on from round to round.
struct local_parameters {
    std::uint64_t generation = 0, round = 0;  ///< of the state whose parts they have taken
    std::uint64_t told = 0;                   ///< the last round for which a payload was made of them
};

/// Whether this node's training for `round` can still be summed.
bool still_wanted(const node& n, std::uint64_t generation, std::uint64_t round);
/// Makes steps until `own` (or `until`) are made or nobody wants them any more. The trainer holds the parameters to go
/// on from.
core::task<core::result<void>> make_steps(node& n, shared_steps s);

/// Whether the round after the open one may begin here now, and has not.
bool may_begin_ahead(const node& n);
/// Begins it from `start`, or with fragments from what the trainer has, in a task of its own. The trainer must be idle.
void begin_ahead(node& n, core::flat_buffer start);
/// Whether the trainer's parameters are those that this node's next steps begin from, as with fragments.
bool trainer_goes_on(const node& n);
/// With fragments: takes what a commit has made of its part, `before` being the state before it. If the trainer's
/// parameters have told what they had learnt of it, that is taken, and what they have learnt since is mixed in by
/// exchange.mix; otherwise they keep all that they have learnt of the part, which is in the next payload of it.
core::task<core::result<void>> take_fragment(node& n, shared_state before, committed_round done, bool accepted);
/// The steps for that round, which is open, that were begun ahead, when they are over; null: there are none. Others are
/// stopped.
core::task<core::result<shared_steps>> take_ahead(node& n, std::uint64_t generation, round_record open);
/// Ends them: what they learnt is lost, which an event tells. The trainer is idle when this returns.
core::task<core::result<void>> stop_ahead(node& n);
/// The trainer is idle when this returns, until `go_on_ahead`; its parameters belong to the steps.
core::task<core::result<void>> hold_ahead(node& n);
void go_on_ahead(node& n);

}  // namespace longhaul::peers

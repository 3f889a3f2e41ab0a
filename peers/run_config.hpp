#pragma once
/// RUN.toml: what every peer of a run agrees on. It is hashed into the run id, so it never changes during a run.

#include <cstdint>
#include <string>

#include "compress/feedback.hpp"
#include "core/config.hpp"
#include "optim/config.hpp"
#include "optim/robust.hpp"
#include "optim/schedule.hpp"

namespace longhaul::peers {

/// [exchange]: how pseudo-gradients travel.
struct exchange_config {
    std::string codec = "bf16";
    std::string feedback = "none";  ///< none | ef | dgc | ef21 | econtrol
    double beta = 0.95;             ///< of ef's residual, each round
    double momentum = 0.9;          ///< of dgc
    double gain = 0.001;            ///< of econtrol's residual in a payload
    std::string mode = "auto";      ///< auto | gather (every member gets every payload) | shard (owners sum and return)
    std::string aggregate = "auto";  ///< mean, or one that a few liars cannot move far; auto: clip in open runs
    std::int64_t delay = 0;          ///< rounds that a payload may be under way during the next steps: 0 or 1
    std::int64_t fragments = 1;      ///< parts of the model, of which each round exchanges one, in turn
    double mix = 0.5;            ///< of a member's own parameters, in what it goes on with when a late fragment comes
    std::int64_t every = 0;      ///< inner steps between the exchanges of a round; 0: one, at its end
    std::int64_t staleness = 0;  ///< exchanges that the result of one of those may be late by
};

/// [controller]: who chooses H, the codec and the delay, from round to round.
struct controller_config {
    bool enabled = false;      ///< false: inner.steps, exchange.codec and exchange.delay, always
    bool choose_delay = true;  ///< false: exchange.delay, always
    std::int64_t least_steps = 30, most_steps = 300;
    std::vector<std::string>
        codecs;  ///< to choose from; empty: bf16, int8, int4, ecsq-3, or with feedback exchange.codec
};

/// [peers]: who may take part and how long others wait for them.
struct peers_config {
    std::string admission = "invite";                         ///< invite | open
    std::int64_t min = 1;                                     ///< members before the first round starts
    std::int64_t max = 64;                                    ///< admitted and present at the same time
    std::int64_t per_round = 0;                               ///< contributors of a round, drawn; 0: all members
    std::string pace = "own";                                 ///< own: H_i follows a peer's speed | equal: all do H
    core::duration silence_limit = std::chrono::seconds(10);  ///< nothing heard for so long: the peer is down
    std::string on_quorum_loss = "auto";                      ///< auto: continue below 3 voters | continue | pause
    core::duration grace = std::chrono::seconds(2);           ///< added to every deadline that history predicts
    core::duration first_deadline = std::chrono::minutes(5);  ///< of a round without history
};

/// [checkpoint]
struct checkpoint_config {
    std::int64_t every = 10;  ///< rounds; also at the end and when asked to stop
    std::int64_t keep = 3;
};

/// [stop] and [eval]
struct stop_config {
    std::int64_t rounds = 100;
};
struct eval_config {
    std::int64_t every = 1;  ///< rounds; the members take turns; 0: never
};

/// The whole of RUN.toml; everything has a default.
struct run_config {
    std::string name = "run";  ///< [A-Za-z0-9._-]{1,64}
    optim::model_config model;
    optim::data_config data;
    optim::inner_config inner;
    optim::outer_config outer;
    exchange_config exchange;
    controller_config controller;
    peers_config peers;
    checkpoint_config checkpoint;
    eval_config eval;
    stop_config stop;

    /// Inner steps of the whole run: the length of the learning rate's schedule, and the run's end.
    std::uint64_t total_steps() const { return static_cast<std::uint64_t>(stop.rounds * inner.steps); }
    /// The most that a round may have: inner.steps, or what the controller may choose.
    std::uint64_t most_steps() const;
    /// Codecs of its rounds: exchange.codec, which is the first, and what the controller may choose.
    std::vector<std::string> codecs() const;
};

/// The plan of every round when nobody chooses another, with that codec.
optim::round_plan configured_plan(const run_config& c, const compress::codec& codec);

/// What [exchange] says of feedback; errc::config for what cannot work together.
core::result<compress::feedback_rule> feedback_of(const run_config& c);

/// How the contributions of a round become one.
optim::aggregation aggregation_of(const run_config& c);

/// The most that a controller tries.
inline constexpr std::uint32_t most_staleness_chosen = 28;
/// The most that rounds of that run may have.
std::uint64_t most_staleness(const run_config& c);

/// Whether rounds of that run may have delay.
bool may_have_delay(const run_config& c);
/// Whether that plan's outer step settles although what it steps by is a round old.
bool may_be_late(const optim::round_plan& plan);

/// Binds every key of RUN.toml.
void bind(core::config_binder& binder, run_config& c);
/// What no single key can check: combinations and names. errc::config.
core::result<void> validate(const run_config& c);

}  // namespace longhaul::peers

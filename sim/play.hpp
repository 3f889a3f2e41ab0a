#pragma once
/// `longhaul sim S.toml`: a scenario in virtual time, with the peers' real code in a simulated world.

#include "net/environment.hpp"
#include "net/identity.hpp"
#include "optim/trainer.hpp"
#include "sim/outcome.hpp"

namespace longhaul::sim {

/// Makes a peer's trainer; `step_time` is what an inner step takes in virtual time.
using timed_trainer_factory = std::function<core::result<std::unique_ptr<optim::trainer>>(const optim::trainer_options&,
                                                                                          core::duration step_time)>;

/// The analytic quadratic, whatever the model: what is simulated is time and agreement.
core::result<std::unique_ptr<optim::trainer>> simulated_trainer(const optim::trainer_options& o,
                                                                core::duration step_time);

/// The identity that this node's disk holds; a first one is drawn and kept there.
core::task<core::result<net::identity>> kept_identity(net::environment& env);

/// The network of a world as the scenario has it, traces included. Nodes are the scenario's peers.
void build_network(world& w, const topology& t);

/// Hears every event, at its virtual time.
using event_listener = std::function<void(const std::string& peer, core::duration at, const core::event& e)>;

/// Plays the scenario to its end: everybody's run is over, or `expect.within` has passed. Deterministic: the same seed
/// gives the same trace hash.
outcome play(const scenario& s, std::uint64_t seed, timed_trainer_factory make_trainer = simulated_trainer,
             event_listener listener = {});

}  // namespace longhaul::sim

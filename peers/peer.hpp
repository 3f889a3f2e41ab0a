#pragma once
/// One node of a run: composes links, consensus, rounds, exchange, catch-up and checkpoints, and trains.
/// The same code runs in production and in simulation; the environment makes the difference.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/task.hpp"
#include "net/environment.hpp"
#include "net/mesh.hpp"
#include "net/ticket.hpp"
#include "optim/trainer.hpp"
#include "peers/run_manifest.hpp"

namespace longhaul::peers {

/// Founding a run, or going on with one that this node founded.
struct founding {
    run_config config;
};

/// Joining a run by ticket (or bare address). `expected`, when given, must agree with the run's manifest in every key
/// of [model]: the first difference is named.
struct joining {
    net::ticket ticket;
    std::optional<run_config> expected;
};

/// Where a node's storage keeps its identity: whoever starts a peer reads it there, and a peer that becomes another one
/// writes it.
inline constexpr const char* identity_file = "identity";

struct peer_options {
    net::identity self;
    std::string name;                       ///< of this node, for people
    net::endpoint listen;                   ///< port 0: any free port
    std::vector<net::endpoint> advertised;  ///< how others reach us; empty: the listening address
    std::optional<founding> found;          ///< exactly one of found and join
    std::optional<joining> join;
    optim::trainer_factory make_trainer;
    std::string data_path;  ///< this node's copy of the data; empty: RUN.toml's, or the embedded default
    std::string device = "auto";
    int trainer_threads = 1;
    core::duration step_time{};  ///< an inner step takes at least so long: for experiments about time
    std::uint64_t memory_limit =
        0;  ///< bytes of declared buffers; 0: three quarters of the machine's, given by the caller
    core::duration quorum_patience = std::chrono::minutes(10);  ///< without a coordinator for so long: exit 75
    /// Each link goes through it (empty: as it is): for a node that watches what it says, or in tests lies.
    std::function<std::shared_ptr<net::link>(std::shared_ptr<net::link>)> links_through;
    /// Called once when this node is listening and (joiners) admitted.
    std::function<void(const struct ready_report&)> on_ready;
};

/// What a launcher or a person needs when a node is ready.
struct ready_report {
    std::string ticket;    ///< for others to join by this node
    net::endpoint listen;  ///< as bound
    net::peer_key key;
    core::digest run;
    bool resumed = false;
    bool trust_on_first_use = false;  ///< the run id came from the hello of a bare address: print it
};

/// One row of `longhaul peers`.
struct peer_row {
    net::peer_key key;
    std::string name;
    std::string address;
    bool alive = false;          ///< a link is up (or it is this node)
    bool participating = false;  ///< member of the open round, or between two of the one before
    bool merged = false;         ///< its payload is in the last commit
    std::uint64_t applied = 0;   ///< as last reported
    double rtt_seconds = 0;
    std::uint64_t wire_sent = 0, wire_received = 0;
    std::optional<net::link_stats> link;  ///< while a link is up
};

/// What `longhaul status` shows. Alive, participating and merged are three different numbers.
struct peer_status {
    std::string run_name;
    core::digest run;
    net::peer_key key;
    std::string name;
    std::string waiting_for;   ///< coordinator: why no round begins or goes on; empty: it does
    bool may_recover = false;  ///< whether `recover` makes sense here
    std::string recovery;      ///< what it would do and cost, or why it makes none
    std::string plan_reason;   ///< why the present plan was chosen; empty: there is none yet
    std::string state;         ///< joining | catching up | training | exchanging | waiting | paused | stopped
    std::uint64_t generation = 0, round = 0, attempt = 0, applied = 0, rounds_total = 0;
    std::size_t alive = 0, participating = 0, merged = 0;
    core::digest root;  ///< of the anchor at `applied`
    std::optional<double> train_loss, eval_loss;
    std::uint64_t tokens = 0, wire_sent = 0, wire_received = 0;
    net::peer_key coordinator;
    bool coordinator_reachable = false;
    bool run_stopped = false;  ///< by a person, for everybody
    std::string ticket;
    net::endpoint listen;
    std::optional<bool> reachable;  ///< whether others can connect to this node; empty: nobody has tried
    std::string reach;              ///< the same as a sentence
    std::string reach_advice;       ///< what to do about it; empty: nothing
    net::door_report strangers;     ///< at the door
    std::vector<peer_row> peers;
};

class peer {
public:
    /// `env` must outlive the peer.
    peer(net::environment& env, peer_options options);
    ~peer();
    /// Takes part until the run is complete, stopped or left, or until an error. Success means exit 0. A node whose
    /// voter's disk is refused goes on as another one, with a new identity (peers/forgotten.cpp).
    core::task<core::result<void>> run();
    /// Asks this node to stop: it checkpoints, says goodbye, and `run` returns. May be called from the I/O thread at
    /// any time.
    void leave(std::string reason);
    /// Asks the whole run to stop (every member checkpoints and ends). errc::usage where this node does not coordinate.
    core::result<void> stop_run(std::string reason);
    /// Holds the run after the round in flight, or lets it go on. errc::usage where this node does not coordinate.
    core::result<void> pause_run(bool paused);
    /// Has this node open a generation of its own now, whatever peers.on_quorum_loss says: a majority of those who
    /// order records is gone for good. errc::usage where that makes no sense, with the reason; status().recovery tells
    /// the cost.
    core::result<void> recover();
    peer_status status() const;

private:
    struct impl;
    std::shared_ptr<impl> impl_;
};

/// The status of a remote peer, asked over an authenticated link with a fresh identity (observers take no part).
core::task<core::result<std::string>> query_status(net::environment& env, net::ticket to, core::duration deadline);

/// Status as the JSON of `--json` (and of `query_status`).
std::string to_json(const peer_status& s);

}  // namespace longhaul::peers

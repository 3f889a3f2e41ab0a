#pragma once
/// What the coroutines of one peer share. One I/O thread owns all of it; nothing here is locked. The coroutines are:
/// links.cpp (one a link, and the dialler), member.cpp (train, exchange, apply), catch_up.cpp (states and aggregates
/// that were missed), download.cpp (from several donors), donor.cpp (serving them), coordinate.cpp (the
/// coordinator's), inner_steps.cpp (what is trained), admission.cpp, keep_voters.cpp, watch_for_silence.cpp, peer.cpp
/// (start, stop, status).

#include <deque>
#include <map>
#include <set>

#include "net/mesh.hpp"
#include "peers/caught.hpp"
#include "peers/consensus.hpp"
#include "peers/donor_pace.hpp"
#include "peers/exchange.hpp"
#include "peers/inner_steps.hpp"
#include "peers/left_log.hpp"
#include "peers/peer.hpp"
#include "peers/reach.hpp"
#include "peers/replica.hpp"
#include "peers/round.hpp"
#include "peers/settlement.hpp"

namespace longhaul::peers {

/// One linked peer.
struct linked_peer {
    explicit linked_peer(std::shared_ptr<net::link> l, asio::any_io_executor executor)
        : link(std::move(l)), outbox_changed(std::move(executor)) {}
    std::shared_ptr<net::link> link;
    std::deque<core::byte_vector> outbox;
    core::wakeup outbox_changed;
    bool greeted = false;
    bool observer = false;
    bool caught_up = false;  ///< holds a state: may be a donor
    std::uint64_t generation = 0;
    std::uint64_t applied = 0;
    std::string said_leaving;                     ///< why it leaves, if it said so
    std::map<std::string, std::uint64_t> offers;  ///< tag → size of what is offered to us and not answered yet
    std::set<std::string> expected;               ///< tags that a fetch of ours waits for
    std::map<std::string, std::string> refusals;  ///< tag → why our fetch was refused
    std::set<std::string> serving;                ///< tags of their fetches in progress
    bool packing = false;                         ///< one of them is being packed: one at a time
    std::uint64_t log_generation = 0;             ///< of its log; 0: it knows none
    std::uint64_t log_tokens = 0;                 ///< committed there
    net::peer_key coordinator;                    ///< that it hears; zero: none
    double brought_per_second = 0;                ///< bytes that we fetched from it, latest mean; 0: none
    std::size_t outbox_bytes = 0;
    std::optional<join_request> wants_to_join;  ///< asked before we knew the log
    bool admitting = false;                     ///< its admission is being logged
    bool reaching = false;                      ///< a connection back to it is being tried
    std::optional<core::time_point> reach_answered;
};
using shared_linked = std::shared_ptr<linked_peer>;

/// Where the time of a round went, for its event.
struct round_timing {
    core::time_point started{}, encoded_at{}, ready_at{};
    core::duration compute{}, encode{}, send{}, wait{};
};

/// A state that a joiner downloads, until then.
struct kept_state {
    shared_state state;
    core::time_point since{}, until{};
};

struct node;
/// What the exchange sees of a node.
std::unique_ptr<exchange_host> make_exchange_host(node& n);

enum class member_state { joining, catching_up, training, exchanging, waiting, stopped };

struct node {
    node(net::environment& environment, peer_options o)
        : env(environment),
          options(std::move(o)),
          exchange_seams(make_exchange_host(*this)),
          held(*exchange_seams),
          changed(env.executor),
          to_dial(env.executor),
          flushed(env.executor),
          tasks(env.executor) {}

    net::environment& env;
    peer_options options;
    std::uint64_t incarnation = 1;
    std::uint64_t memory = 0;  ///< bytes of all declared buffers
    std::uint64_t room = 0;    ///< of them, for what others send in exchanges, and the sums; 0: as much as it takes
    std::optional<signed_manifest> run;
    run_secrets secrets;
    std::unique_ptr<optim::trainer> trainer;
    peer_number trainer_number = 0;  ///< whose part of the data it reads
    bool trainer_is_cold = false;    ///< the inner optimizer's state was set to zero by a state from elsewhere: ramp up
    std::uint64_t steps_since_reset = 0;
    std::unique_ptr<net::mesh> mesh;
    net::endpoint listen;
    std::unique_ptr<consensus> log;
    bool log_known = false;        ///< the ledger is the run's (a follower: a snapshot has arrived)
    bool admission_wanted = true;  ///< false: only the manifest is asked for
    bool admitted = false;
    bool moving = false;                         ///< from one log to another: what it carries is its own
    std::optional<left_log> left;                ///< that this node coordinated to its end, until the run has it
    std::optional<ledger> came_from;             ///< the log that `state` is of, where that is not this one yet
    std::optional<net::peer_key> admitted_by;    ///< its log has this node
    std::optional<net::peer_key> asked_to_join;  ///< whose answer to our join request is awaited
    std::vector<net::endpoint> redirects;        ///< where the coordinator is said to be
    net::peer_key named;                         ///< who that is
    std::optional<core::error> fatal;            ///< ends this node
    peer_number number = 0;
    shared_state state;  ///< null: nothing yet
    settlement mass;
    std::unique_ptr<exchange_host> exchange_seams;
    exchange held;
    std::map<net::peer_key, shared_linked> links;
    std::set<net::peer_key> dialling;
    std::set<net::peer_key> dead;                     ///< not linked, and one redial failed
    caught_peers caught;                              ///< not linked on purpose
    bool numbering = false;                           ///< a newcomer's record is being written
    std::map<net::peer_key, std::string> departed;    ///< said goodbye, and why; until that is logged or they are back
    std::map<net::peer_key, kept_state> kept_states;  ///< for joiners that download them
    peers::donor_pace donor_pace;                     ///< of what they get beside payloads
    std::string waiting_for;                       ///< coordinator: why no round is opened or committed now, for people
    bool recovering = false;                       ///< a restarted coordinator looks for the newest state
    std::uint64_t office = 0;                      ///< for which the coordinator below is
    std::optional<round_coordinator> coordinator;  ///< while this node leads
    reach_knowledge reach;
    line_rate line_up{line_rate::way::sends};  ///< by the exchanges before the open one
    line_rate line_down{line_rate::way::receives};
    core::wakeup changed;  ///< anything above changed: decide again
    core::wakeup to_dial;  ///< a member, a link or a dial came or went
    core::wakeup flushed;  ///< some link took all of its outbox, or is gone
    core::scope tasks;     ///< everything that runs
    bool leaving = false;
    std::string leave_reason;
    std::optional<run_state_record> wanted_phase;  ///< asked for here; proposed when no round is open
    bool wanted_recovery = false;                  ///< a person wants this node to go on without a quorum
    bool finished = false;                         ///< the run is complete or was stopped for everybody
    member_state doing = member_state::joining;
    std::uint32_t steps_done = 0;  ///< of the open round
    std::tuple<std::uint64_t, std::uint64_t, std::uint32_t>
        ready_for{};                                         ///< (generation, round, attempt) of our last READY
    std::pair<std::uint64_t, std::uint64_t> produced_for{};  ///< (generation, round) of our last payload
    std::pair<std::uint64_t, std::uint64_t> missed{};        ///< the round that was open when this node started
    shared_aggregate candidate;                              ///< what we last reported as READY
    std::pair<std::uint64_t, core::time_point> lacking{};    ///< the round whose aggregate is looked for, since when
    round_timing timing;
    core::time_point applied_at{};                 ///< the last commit
    std::optional<local_parameters> local;         ///< with fragments
    shared_steps ahead;                            ///< of a round that is not open yet, or was not taken
    std::optional<round_plan> last_plan;           ///< as last told in an event
    exchange_plan last_way;                        ///< likewise
    std::uint64_t last_own_steps = 0;              ///< likewise
    std::vector<peer_number> last_members;         ///< of the open round, or between two of the one before
    std::optional<std::uint64_t> last_checkpoint;  ///< its round
    bool checkpointing = false;
    std::deque<double> step_times;  ///< of the last rounds
    double step_seconds = 0;        ///< of an inner step, their median; 0: not yet
    std::optional<double> train_loss, eval_loss;
    std::uint64_t eval_seen = 0;
    std::uint64_t wire_sent_closed = 0, wire_received_closed = 0;  ///< of links that are gone
    std::pair<std::uint64_t, std::uint64_t> wire_bytes_told{};     ///< sent and received, in events so far
    std::uint64_t messages_sent = 0;                               ///< on control, since the last event of a round
    core::time_point coordinator_seen{};
    std::function<std::string()> status_json;
    std::vector<net::endpoint> known_addresses;  ///< of members, from an earlier start
    bool found_stopped = false;         ///< somebody had stopped the run before this start: whoever leads goes on
    bool resumed = false;               ///< started from a checkpoint or a log of its own
    bool trusted_on_first_use = false;  ///< the run id came from the hello of a bare address
    std::optional<core::result<void>> outcome;  ///< of this node's part in the run

    const run_config& config() const { return run->manifest.config; }
    const core::tensor_manifest& tensors() const { return run->manifest.tensors; }
    const fragments& parts() const { return run->manifest.parts; }
    /// What a round exchanges.
    const fragment& part_of(std::uint64_t round) const { return parts().of_round(round); }
    const ledger& led() const { return log->state(); }
    const net::peer_key& self() const { return options.self.key(); }
    /// Where others reach this node: as configured, else where it listens.
    std::vector<net::endpoint> advertised() const;
    shared_linked find(const net::peer_key& key) const {
        const auto it = links.find(key);
        return it == links.end() ? nullptr : it->second;
    }
    shared_linked find(peer_number who) const {
        const auto* m = led().find(who);
        return m == nullptr ? nullptr : find(m->admitted.key);
    }
    /// Queues a control message; lost with the link.
    void send(const net::peer_key& to, const message& m);
    void send_all(const message& m);
    /// What a person or a launcher needs to know now; the run must be known.
    ready_report ready() const;
    /// Says so, once.
    void tell_ready();
    std::pair<std::uint64_t, std::uint64_t> wire_bytes() const;
    /// Bytes sent and received since the last call: so each is told in one round's event, also what came between two.
    std::pair<std::uint64_t, std::uint64_t> untold_wire_bytes();
    void emit(core::event e) { env.events.emit(std::move(e)); }
    void report(const core::error& e, std::string_view doing_what);
};

// forgotten.cpp
/// Whether this node has somebody to get the log and the state from.
bool knows_others(const node& n);
/// The identity with which this machine goes on: kept, and all that the one before alone was for set aside. `why` its
/// disk was refused. errc::config when it knows nobody with whom to go on.
core::task<core::result<net::identity>> become_another(node& n, const core::error& why);
/// Whether this node founded its run as the one that it was before. Then it joins that run.
core::task<core::result<bool>> was_founder(node& n);
void rejoin_own_run(node& n);

// startup.cpp
/// From nothing to a listening, admitted node with a trainer and, if it can be had, a state.
core::task<core::result<void>> start(node& n);
/// A node that has left its log: admitted and with a log again, or an error when nobody admits it for so long.
core::task<core::result<void>> learn_another_log(node& n, core::duration patience);
/// How this node admits itself where it orders the records.
admit_record own_admission(const node& n, peer_number number);
/// A node's part of the data is its number's. The trainer must be idle.
void assign_data(node& n, peer_number number, std::uint64_t position);
/// What a run begins with: the parameters that this node's trainer was made with.
shared_state first_state(const node& n);
/// The ledger changed: everything that follows from it at once. nullptr: it was replaced by a snapshot.
void log_advanced(node& n, const record* r);
/// Another node coordinates, or none, or this one.
void leader_changed(node& n);

// status.cpp
peer_status status_of(const node& n);

// links.cpp
/// Serves one link from greeting to end. Runs in node.tasks.
core::task<core::result<void>> serve_link(node& n, std::shared_ptr<net::link> link);
/// Tells the coordinator what this node knows of its line and with whom it is linked.
void tell_lines(node& n);
/// Dials every present peer that is not linked, with backoff; and who is linked with nobody the addresses that it
/// remembers. Runs until cancelled.
core::task<core::result<void>> keep_connected(node& n);
/// Whether that key is a member's, as far as this node knows.
bool is_member(const node& n, const net::peer_key& key);
/// Whether an authenticated stranger may have a link.
core::result<void> admit_link(const node& n, const net::remote_peer& who, bool they_dialled);
/// It sent what cannot be true: that goes into an event, its link is closed, and it gets no other one for a while; but
/// for the one that orders the run's records alone.
void cut_off(node& n, const net::peer_key& who, const core::error& lie, std::string_view doing_what);
/// Joins: asks members, beginning with the ticket's addresses, until the coordinator has admitted this node.
core::task<core::result<void>> become_admitted(node& n);
/// Whether one of those who are linked, and may coordinate, hears a coordinator of a run log.
bool somebody_hears_a_coordinator(const node& n);

// reach.cpp
/// Asks members whether they can connect to this node, as they come. Runs until cancelled.
core::task<core::result<void>> learn_reach(node& n);
void answer_reach_request(node& n, const shared_linked& from, const reach_request& m);
void hear_reach_reply(node& n, const net::peer_key& from, const reach_reply& m);

// member.cpp
/// Trains, exchanges and applies until the run ends for this node.
core::task<core::result<void>> take_part(node& n);
/// Tells the coordinator, once a second while payloads arrive, that they do.
core::task<core::result<void>> report_progress(node& n);
/// Tells the coordinator how far this node is in the open round.
void send_progress(node& n);
/// Tells a coordinator that we are linked with anew what we did and hold of the open round.
void repeat_standing(node& n);
/// After a commit was applied to the state, which was `before`: its event, the news to the others, evaluation and
/// checkpoint when they are due.
core::task<core::result<void>> after_apply(node& n, committed_round done, bool own_merged, shared_state before);
/// Tells everybody which state this node holds now.
void tell_applied(node& n);
/// After a commit that this node was part of: only to who may coordinate, and to those in another log. The others can
/// tell from the commit (`note_committed`), or each would hear of each in each round.
void tell_committed(node& n);
/// Those who took part in the round that was committed just now hold its state, or will in a moment. A node that may
/// coordinate goes by what it is told.
void note_committed(node& n);
/// Gives up what is carried, if anything is, and says why in an event.
void discard_mass(node& n, std::string reason);
/// The same for a payload that nobody here will see settled.
void give_up_payload(node& n);
/// What the log and the state say of this node's last payload is done to its mass.
void settle_mass(node& n);
/// The log has opened an attempt: its exchange begins.
void open_exchange(node& n);
/// The offers of a link: accepted, held or refused.
void consider_offers(node& n, const shared_linked& from);

// catch_up.cpp
/// Brings the state to the ledger's last commit: the next aggregate if it can be had, else a whole state.
core::task<core::result<void>> catch_up(node& n);
/// Asks one peer for something and receives it. errc::not_found when refused.
core::task<core::result<core::byte_vector>> fetch(node& n, shared_linked from, fetch_message what,
                                                  std::uint64_t max_bytes);
/// Receives an offered transfer; fails when nothing arrives for the run's silence limit.
core::task<core::result<void>> receive_steadily(node& n, shared_linked from, std::string tag,
                                                core::mutable_bytes destination);

// donor.cpp
void serve_fetch(node& n, const shared_linked& to, const fetch_message& what);
/// Whether so many bytes of a state may go out now: beside payloads, little may.
bool may_give_state(node& n, std::uint64_t bytes);
/// Lets go of states whose joiners ask for nothing any more.
void forget_kept_states(node& n);

// coordinate.cpp
/// Makes the coordinator of an office that this node holds, of what it knows, or ends the one of an office it lost.
void take_office(node& n);
/// Coordinates the run's rounds whenever this node leads the log. Runs until the run is over for this node.
core::task<core::result<void>> coordinate_when_leading(node& n);

// keep_generation.cpp
/// Goes on in another log when who orders this one is gone, or when the run goes on elsewhere. Runs until cancelled.
core::task<core::result<void>> keep_generation(node& n);
/// Whether what a linked peer says is of another log than this node's, or than the one that it was admitted to.
bool is_elsewhere(const node& n, const linked_peer& peer);
/// A linked peer with whose log the run goes on, rather than with this node's, and why; or null.
std::pair<shared_linked, std::string> better_log(const node& n);
/// Whether a person may have this node go on without those who order records now; errc::usage with the reason.
core::result<void> may_recover(const node& n);
/// What that would do, and cost, where it may: a sentence.
std::string cost_of_recovery(const node& n);
/// Does it, also where this node knows no log. The log is known when it returns.
core::task<core::result<void>> recover(node& n);
/// Where this node stands, for a greeting.
greeting greeting_of(const node& n);

// watch_for_silence.cpp
/// Rounds and the log go on without members that have fallen silent.
core::task<core::result<void>> watch_for_silence(node& n);

// keep_voters.cpp
/// While this node leads the log: chooses who orders its records. Runs until cancelled.
core::task<core::result<void>> keep_voters(node& n);
/// Whether the run lets that key order records: founders invite by a token, and in an open run nobody else may.
bool may_vote(const node& n, const net::peer_key& key);
/// Whether the log may be learnt from that key: who knows nothing yet believes only those who may order records.
bool may_bring_log(const node& n, const net::peer_key& key);

// admission.cpp
/// Admits a peer that asked to join, as coordinator.
core::task<core::result<void>> admit(node& n, net::peer_key who, join_request request);
void ask_for_admission(node& n, const net::peer_key& whom);
/// A member that is here and that the log takes for gone asks to be admitted again: who coordinates now may have heard
/// its goodbye and not that it came back. Runs until cancelled.
core::task<core::result<void>> stay_admitted(node& n);
/// Peers that asked to join before this node knew the log.
void answer_early_joiners(node& n);

// checkpointing.cpp
/// Starts an asynchronous checkpoint of the present state, unless one is running.
void start_checkpoint(node& n);
core::task<core::result<void>> checkpoint_now(node& n);
/// Loads the newest checkpoint of this run into the node, if there is one.
core::task<core::result<void>> restore(node& n);

}  // namespace longhaul::peers

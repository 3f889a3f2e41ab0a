#pragma once
/// Control messages between peers as plain structs. `parse_message` checks every field of what a stranger sent.

#include <variant>

#include "peers/records.hpp"

namespace longhaul::peers {

/// First message on every link: where each side stands.
struct greeting {
    std::uint64_t generation = 0;
    std::uint64_t applied = 0;
    bool caught_up = false;            ///< holds the state of `applied`: may be a donor
    net::peer_key coordinator;         ///< zero: not known
    bool observer = false;             ///< asks for status only
    std::uint64_t log_generation = 0;  ///< of its log; 0: it knows none
    std::uint64_t tokens = 0;          ///< committed there
};
struct manifest_request {};
struct manifest_reply {
    core::byte_vector manifest;
};
struct join_request {
    std::string name;
    std::vector<net::endpoint> addresses;
    std::optional<core::digest> token;  ///< of a run by invitation: whoever dialled, who asks shows it
};
/// Not admitted with a coordinator's address: ask there.
struct join_reply {
    bool admitted = false;
    std::string reason;
    std::vector<net::endpoint> coordinator;
    net::peer_key coordinator_key;
};
/// Follow the log from after this index (0: from a snapshot).
struct log_request {
    std::uint64_t after = 0;
};
struct log_entries {
    std::uint64_t first = 0;
    std::vector<core::byte_vector> records;
};
struct log_snapshot {
    core::byte_vector ledger;
};
/// Who coordinates, as a voter tells those who follow the log by it. Zero: nobody at the moment.
struct leader_message {
    std::uint64_t term = 0;
    net::peer_key leader;
};
/// This member holds the whole aggregate of (round, attempt).
struct ready_message {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    std::uint32_t attempt = 0;
    core::digest aggregate_root;
    core::digest state_root;
    std::vector<contribution> contributions;
};
/// What this member did and holds of the open round.
struct progress_message {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    std::uint32_t steps = 0;            ///< own inner steps done
    std::uint64_t verified_bytes = 0;   ///< of payloads of this round, arrived so far
    std::vector<peer_number> payloads;  ///< complete ones, sorted
    std::uint32_t attempt = 0;          ///< in which it holds them
    bool restarted = false;             ///< in this round: what it had is gone, and it signs nothing more for it
    std::vector<peer_number> behind;    ///< whose exchange it waits for, in a round of several; sorted
};
struct applied_message {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    std::uint64_t eval_round = 0;  ///< 0: nothing evaluated
    double eval_loss = 0;
    std::uint64_t tokens = 0;  ///< committed up to `round`
};
enum class fetch_kind : std::uint8_t {
    state_index = 1,       ///< of the donor's present state, whose chunks it keeps for a while
    state_chunks = 3,      ///< of the state of `round`: `count` chunks from `first` on
    aggregate_index = 4,   ///< the leaves of the aggregate of `round`
    aggregate_chunks = 5,  ///< of its values, likewise
};
/// Chunks that one fetch may ask for.
inline constexpr std::uint32_t max_fetched_chunks = 16;
/// Asks for a transfer; the answer is an offer under `tag_of` or a refusal.
struct fetch_message {
    fetch_kind kind = fetch_kind::state_index;
    std::uint64_t generation = 0;
    std::uint64_t round = 0;             ///< 0 for a state's index
    std::uint32_t first = 0, count = 0;  ///< 0 but for chunks
};
struct fetch_refused {
    fetch_message what;
    std::string reason;
};
struct leaving_message {
    std::string reason;
};
/// What a member has measured of its line (bytes per second; 0: nothing yet), and with whom it is linked.
struct line_report {
    peer_number peer = 0;
    std::uint32_t rtt_us = 0;  ///< 0: not measured
    bool operator==(const line_report&) const = default;
};
struct lines_message {
    double up = 0;
    double down = 0;
    std::vector<line_report> links;  ///< sorted
    std::uint64_t room = 0;          ///< bytes that it has for the streams of exchanges; 0: it does not count them
    double step_seconds = 0;         ///< of an inner step; 0: it has not trained yet
};
struct status_request {};
struct status_reply {
    std::string json;
};
/// Asks for a connection back to this port: can others connect to this node?
struct reach_request {
    std::uint16_t port = 0;
};
struct reach_reply {
    std::optional<net::endpoint> reached;  ///< the address that led there
    std::string reason;                    ///< why none did
};

using message = std::variant<greeting, manifest_request, manifest_reply, join_request, join_reply, log_request,
                             log_entries, log_snapshot, ready_message, progress_message, applied_message, fetch_message,
                             fetch_refused, leaving_message, status_request, status_reply, lines_message, reach_request,
                             reach_reply, raft::message, leader_message>;

core::byte_vector serialize(const message& m);
/// errc::malformed or errc::limit.
core::result<message> parse_message(core::const_bytes bytes);

/// Tag of the transfer that answers a fetch.
std::string tag_of(const fetch_message& what);

}  // namespace longhaul::peers

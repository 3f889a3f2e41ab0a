#pragma once
/// Records of the replicated log as plain structs. They arrive from other peers, so `parse_record` checks every field.
/// Peers are named by their admission number: small, never reused, the same on every replica.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "net/identity.hpp"
#include "net/stream.hpp"
#include "optim/schedule.hpp"
#include "peers/raft_message.hpp"

namespace longhaul::peers {

using peer_number = std::uint32_t;

/// Whether `who` is among them.
inline bool has(std::span<const peer_number> sorted, peer_number who) {
    return std::ranges::binary_search(sorted, who);
}
inline constexpr std::size_t max_members = 1024;       ///< admitted peers in one run
inline constexpr std::size_t max_reason = 400;         ///< bytes of a sentence
inline constexpr std::size_t max_name = 64;            ///< bytes of a peer's name
inline constexpr std::size_t max_addresses = 8;        ///< of one peer
inline constexpr std::size_t max_address_bytes = 400;  ///< of their hosts together
inline constexpr std::size_t max_record_bytes = 256 * 1024;

/// A key joins, or comes back with other addresses.
struct admit_record {
    net::peer_key key;
    peer_number number = 0;
    std::string name;
    std::vector<net::endpoint> addresses;
    core::digest token_hash;  ///< zero in open runs
    bool operator==(const admit_record&) const = default;
};
/// A peer left or was revoked; it may come back unless revoked.
struct depart_record {
    peer_number number = 0;
    std::string reason;
    bool revoked = false;
    bool operator==(const depart_record&) const = default;
};
/// What every member does in a round; fixed by ROUND so that all switch together.
using optim::round_plan;
/// `owner` sums the next `chunks` chunks of the model and returns the result.
struct shard_share {
    peer_number owner = 0;
    std::uint32_t chunks = 0;
    /// Chunks of each contribution that the owner holds at a time (*stream*); 0: all, until the round is over (*keep*).
    std::uint32_t window = 0;
    bool operator==(const shard_share&) const = default;
};
/// What `source` has for `to` goes through `via`.
struct relay {
    peer_number source = 0, to = 0, via = 0;
    bool operator==(const relay&) const = default;
};
/// How payloads travel in one attempt.
struct exchange_plan {
    std::vector<shard_share> shards;  ///< mode "shard": they cover the model in this order; empty in "gather"
    std::vector<relay> relays;        ///< everything else goes directly
    double predicted_seconds = 0;     ///< 0: nothing was measured yet
    std::string reason;               ///< why this plan, for people
    bool operator==(const exchange_plan&) const = default;
    /// Some owner forgets what it has summed: another attempt needs all contributions again.
    bool streams() const {
        return std::ranges::any_of(shards, [](const auto& s) { return s.window > 0; });
    }
};
inline constexpr std::size_t max_relays = 16 * 1024;
/// H_i of a contributor whose speed is another than most members'.
struct peer_steps {
    peer_number peer = 0;
    std::uint32_t steps = 0;
    bool operator==(const peer_steps&) const = default;
};
/// Opens round `round`, or its next attempt. Sorted numbers; payloads are summed in the order of `contributors`.
struct round_record {
    std::uint64_t round = 0;
    std::uint32_t attempt = 0;
    std::uint64_t position = 0;  ///< inner steps of the run before this round
    std::vector<peer_number> members;
    std::vector<peer_number> contributors;
    round_plan plan;
    exchange_plan exchange;
    std::vector<peer_steps> own_steps;  ///< sorted; everybody else does plan.inner_steps
    std::uint64_t eval_round = 0;       ///< latest evaluated round (0: none) and its held-out loss
    double eval_loss = 0;
    std::string reason;  ///< why this attempt, for people
    bool operator==(const round_record&) const = default;
    /// H_i: the inner steps of that peer in this round.
    std::uint64_t steps_of(peer_number who) const;
};
/// One payload of a commit.
struct contribution {
    peer_number number = 0;
    std::uint64_t tokens = 0;
    std::uint32_t steps = 0;
    double loss = 0;
    core::digest payload;  ///< hash of the signed payload
    bool operator==(const contribution&) const = default;
};
/// Ends round `round`: one aggregate for everybody.
struct commit_record {
    std::uint64_t round = 0;
    std::uint32_t attempt = 0;
    core::digest aggregate_root;  ///< hash of the aggregate and of its contributions
    core::digest state_root;      ///< of the state that the round started from
    std::vector<contribution> contributions;
    bool operator==(const commit_record&) const = default;
};
/// Training loss of a round, by tokens; not a number without any.
double mean_loss(const commit_record& commit);
/// The run goes on from `round` (not newer than the last commit), because nobody has a newer state any more.
struct generation_record {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    std::uint64_t position = 0;
    std::uint64_t tokens = 0;
    core::digest state_root;
    std::string reason;
    bool operator==(const generation_record&) const = default;
};
/// The run goes on in another log, as that generation: nothing counts in this one any more.
struct dissolved_record {
    std::uint64_t into = 0;
    std::string reason;
    net::peer_key by;  ///< who coordinates this log, and brings its model over
    bool operator==(const dissolved_record&) const = default;
};
enum class run_phase : std::uint8_t { running = 0, paused = 1, stopped = 2 };
struct run_state_record {
    run_phase state = run_phase::running;
    std::string reason;
    bool operator==(const run_state_record&) const = default;
};
/// Who orders records from here on. It is made of the log's own membership entries (peers/raft_consensus); nobody
/// proposes it.
struct voters_record {
    raft::configuration who;
    bool operator==(const voters_record&) const = default;
};

using record = std::variant<admit_record, depart_record, round_record, commit_record, generation_record,
                            run_state_record, voters_record, dissolved_record>;

/// Of the addresses that a node would like others to reach it by, as many as an admission may name: port 0 becomes the
/// bound port; none wanted: where it listens.
std::vector<net::endpoint> admissible_addresses(std::vector<net::endpoint> wanted, const net::endpoint& bound);

core::byte_vector serialize(const record& r);
/// errc::malformed or errc::limit.
core::result<record> parse_record(core::const_bytes bytes);

}  // namespace longhaul::peers

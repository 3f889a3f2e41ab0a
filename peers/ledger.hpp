#pragma once
/// The replicated state: a pure function of the log. Every replica that applied the same entries holds the same ledger.
/// Validity is decided here, by log order (DESIGN §5): COMMIT(r, a) counts exactly when r = committed + 1 and a is the
/// latest logged attempt of r; everything else is ignored, the same way on every replica.

#include <deque>
#include <map>
#include <optional>

#include "peers/generation.hpp"
#include "peers/records.hpp"
#include "peers/replica.hpp"

namespace longhaul::peers {

/// Commits that a replica can still look up (roots of the last rounds, for catch-up).
inline constexpr std::size_t recent_commits = 64;

struct accepted_payload {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    core::digest payload;
    bool operator==(const accepted_payload&) const = default;
};

/// A commit and the plan that its round followed: what a replica needs to apply it.
struct committed_round {
    commit_record commit;
    round_plan plan;
    std::uint32_t members = 0;
    bool operator==(const committed_round&) const = default;
};

struct ledger_member {
    admit_record admitted;
    bool present = true;  ///< not departed
    bool revoked = false;
    std::optional<accepted_payload> last_accepted;
    bool operator==(const ledger_member&) const = default;
};

class ledger {
public:
    ledger() = default;
    /// Of a run that was founded: one peer orders its records.
    static ledger founded_by(const net::peer_key& founder, std::uint64_t generation = 1);
    /// The beginning of a branch: this run goes on from `state`, which this log has committed, as `generation`;
    /// `orderer` alone orders its records.
    ledger in_branch(std::uint64_t generation, const net::peer_key& orderer, const state_index& state) const;
    /// What applying a record did: true if it was valid, false if it was ignored.
    bool apply(const record& r);

    std::uint64_t index() const { return index_; }
    std::uint64_t generation() const { return generation_; }
    std::uint64_t committed() const { return committed_; }
    /// Inner steps and tokens committed so far.
    std::uint64_t position() const { return position_; }
    std::uint64_t tokens() const { return tokens_; }
    /// The most tokens that this line ever had committed: `tokens` may go back with a generation, this does not.
    std::uint64_t most_tokens() const { return most_tokens_; }
    run_phase phase() const { return phase_; }
    /// Latest attempt of round committed + 1, if it was opened.
    const std::optional<round_record>& open() const { return open_; }
    const std::map<peer_number, ledger_member>& members() const { return members_; }
    const ledger_member* find(const net::peer_key& key) const;
    const ledger_member* find(peer_number number) const;
    peer_number next_number() const { return next_number_; }
    /// Who orders records, and who follows to do so later.
    const raft::configuration& voters() const { return voters_; }
    /// The commit of a recent round of this generation, or nullptr.
    const committed_round* commit_of(std::uint64_t round) const;
    /// Root of the state that the generation started from (zero in the first).
    const core::digest& generation_root() const { return generation_root_; }
    /// Where the generations of this line began, the latest ones.
    const generation_line& origins() const { return origins_; }
    /// Whether this log goes on from a state, as far as it remembers.
    bool descends_from(const state_index& s) const;
    /// The generation as which the run goes on in another log; none: it goes on in this one. Nothing counts after that.
    std::optional<std::uint64_t> dissolved_into() const { return dissolved_into_; }
    /// Who ended it.
    const net::peer_key& dissolved_by() const { return dissolved_by_; }
    /// Round and loss of the latest evaluation that a ROUND carried.
    std::pair<std::uint64_t, double> evaluation() const { return {eval_round_, eval_loss_}; }

    core::byte_vector snapshot() const;
    static core::result<ledger> from_snapshot(core::const_bytes bytes);
    bool operator==(const ledger&) const = default;

private:
    bool apply_one(const admit_record& r);
    bool apply_one(const depart_record& r);
    bool apply_one(const round_record& r);
    bool apply_one(const commit_record& r);
    bool apply_one(const generation_record& r);
    bool apply_one(const run_state_record& r);
    bool apply_one(const voters_record& r);
    bool apply_one(const dissolved_record& r);
    /// The run goes on from a state that is not newer than the last commit.
    void go_on_from(const generation_record& g);

    std::uint64_t index_ = 0;
    std::uint64_t generation_ = 1;
    std::uint64_t committed_ = 0;
    std::uint64_t position_ = 0;
    std::uint64_t tokens_ = 0;
    core::digest generation_root_;
    run_phase phase_ = run_phase::running;
    peer_number next_number_ = 1;
    std::map<peer_number, ledger_member> members_;
    raft::configuration voters_;
    std::optional<round_record> open_;
    std::deque<committed_round> recent_;
    std::uint64_t eval_round_ = 0;
    double eval_loss_ = 0;
    generation_line origins_;
    std::optional<std::uint64_t> dissolved_into_;
    net::peer_key dissolved_by_;
    std::uint64_t most_tokens_ = 0;
};

}  // namespace longhaul::peers

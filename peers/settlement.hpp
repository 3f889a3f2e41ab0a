#pragma once
/// What became of a payload, and where its mass goes (DESIGN §5, "Settlement"). Accepted: what it says is in
/// everybody's anchor, and what it does not say is the new residual. Otherwise: its author, and nobody else, keeps the
/// whole of it, once, for the next payload. All of this moves when the state does, as one unit with anchor and
/// momentum.

#include <optional>

#include "compress/feedback.hpp"
#include "peers/ledger.hpp"

namespace longhaul::peers {

/// Mass that is still its peer's: the residual of error feedback, and what no commit has taken. It is part of the next
/// payload. Empty buffer: none.
struct carried_mass {
    core::flat_buffer values;
    std::uint64_t tokens = 0;  ///< trained for and not yet counted by a commit; a residual's are
    std::uint32_t steps = 0;
    double sum = 0;  ///< of the values, as they were made
    /// No mass of its own. With momentum: what the next pseudo-gradient is added to; with "ef21" and "econtrol": what
    /// receivers' momentum held of this peer's payloads when `moves` commits had moved it.
    core::flat_buffer velocity;
    std::uint64_t moves = 0;
    bool empty() const { return values.empty(); }
};

/// A payload that was sent and is not settled.
struct pending_payload {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    core::digest id;
    carried_mass mass;       ///< what it was made from, in full precision
    core::flat_buffer left;  ///< with feedback: mass minus what was sent
    double sent = 0;         ///< sum of what was sent
    float repeats = 0;       ///< settlement::repeats_of(mass), when it was made
    /// Of each chunk, the encoding, where the codec goes on from it.
    std::vector<core::byte_vector> chunks;
};

/// Σ of values, in double, since this node started: produced = sent + held + lost, up to `rounding` (I13).
struct mass_account {
    double produced = 0;  ///< pseudo-gradients, and what a checkpoint brought
    double sent = 0;      ///< in accepted payloads
    double lost = 0;      ///< by β, or given up
    double held = 0;      ///< residual, carry and what is pending
    double rounding = 0;  ///< that f32 can have added or taken
    bool balances() const;
};

/// A peer's unsettled and carried mass. All changes happen on the I/O thread between awaits.
class settlement {
public:
    /// `in_parts`: rounds exchange fragments, and what is not accepted stays in its author's parameters instead.
    explicit settlement(compress::feedback_rule rule = {}, bool in_parts = false) : rule_(rule), in_parts_(in_parts) {}
    const compress::feedback_rule& rule() const { return rule_; }

    /// Takes what is carried for inclusion in the next payload: it is empty afterwards, its mass belongs to the caller,
    /// who hands it back by `sent` or `fold_back`, or gives it up by `lose`.
    carried_mass take_carry() { return std::exchange(carry_, {}); }
    /// What is left of a residual that is compensated for this round, or for one of its exchanges: β the first time,
    /// all of it after that.
    float beta_for(std::uint64_t generation, std::uint64_t round, std::uint32_t step = 0) const;
    /// "ef21" and "econtrol": what is left of `mass.velocity` in the receivers' momentum once they apply one more
    /// commit.
    float repeats_of(const carried_mass& mass) const;
    /// A commit with contributors was applied: the outer momentum has moved.
    void moved() { ++moves_; }
    /// A pseudo-gradient was compensated with what was carried, for this round.
    void formed(std::uint64_t generation, std::uint64_t round, const compress::mass_sums& sums, double carried,
                std::uint32_t step = 0);
    /// Adds mass that could not be sent (training was interrupted).
    void fold_back(carried_mass mass);
    /// Adds mass that an earlier life of this node has left.
    void restore(carried_mass mass);
    /// Gives mass up.
    void lose(const carried_mass& mass) { lost_ += mass.sum; }
    /// A payload goes out. There is none pending.
    void sent(pending_payload p);
    /// Settles the pending payload if the ledger has decided and the state has come so far (`applied` rounds of the
    /// ledger's generation): accepted (what it did not say is carried, true) or passed over (all of it is, false).
    std::optional<bool> settle(const ledger& l, peer_number self, std::uint64_t applied);
    /// Counts the pending payload lost: whether a commit takes it will not be heard here. What it was made of.
    carried_mass give_up();
    /// The state was replaced by another one, in which carried mass may already be. Returns the tokens counted lost.
    std::uint64_t discard();

    /// The chunks of the last payload that was accepted, or none.
    const std::vector<core::byte_vector>& last_chunks() const { return last_chunks_; }
    const std::optional<pending_payload>& pending() const { return pending_; }
    const carried_mass& carry() const { return carry_; }
    /// "ef21" and "econtrol": what receivers hold now of the payloads behind what is carried, for a checkpoint; or
    /// none.
    core::flat_buffer said() const;
    mass_account account() const;

private:
    /// What the commits since then have left of `mass.velocity` in the receivers' momentum.
    float left_of(const carried_mass& mass) const;
    compress::feedback_rule rule_;
    bool in_parts_;
    carried_mass carry_;
    std::optional<pending_payload> pending_;
    std::vector<core::byte_vector> last_chunks_;
    std::tuple<std::uint64_t, std::uint64_t, std::uint32_t> decayed_for_{};  ///< (generation, round, exchange)
    std::uint64_t moves_ = 0;
    double produced_ = 0, sent_ = 0, lost_ = 0, rounding_ = 0;
};

}  // namespace longhaul::peers

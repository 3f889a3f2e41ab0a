#pragma once
/// What became of a payload, and where its mass goes (DESIGN §5, "Settlement"). Accepted: it is in everybody's anchor.
/// Otherwise its author, and nobody else, folds it back once into the carry, which the next payload includes.

#include <optional>

#include "core/tensor.hpp"
#include "peers/ledger.hpp"

namespace longhaul::peers {

/// Mass that no commit has taken yet: added to the next pseudo-gradient. Empty buffer: none.
struct carried_mass {
    core::flat_buffer values;
    std::uint64_t tokens = 0;
    std::uint32_t steps = 0;
    bool empty() const { return values.empty(); }
};

/// A payload that was sent and is not settled: what it was made from, in full precision.
struct pending_payload {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    core::digest id;
    carried_mass mass;
};

/// A peer's unsettled and carried mass. All changes happen on the I/O thread between awaits: one unit with the state.
class settlement {
public:
    /// Takes the carry for inclusion in the next payload: it is empty afterwards, its mass belongs to the caller.
    carried_mass take_carry() { return std::exchange(carry_, {}); }
    /// Adds mass that could not be sent (training was interrupted).
    void fold_back(carried_mass mass);
    /// A payload goes out. There is none pending.
    void sent(pending_payload p);
    /// Settles the pending payload if the ledger has decided: accepted (its mass is dropped, true) or passed over
    /// (folded back, false).
    std::optional<bool> settle(const ledger& l, peer_number self);
    /// The state was replaced by a downloaded one: carried mass may already be in it. Returns the tokens counted lost.
    std::uint64_t discard();

    const std::optional<pending_payload>& pending() const { return pending_; }
    const carried_mass& carry() const { return carry_; }

private:
    carried_mass carry_;
    std::optional<pending_payload> pending_;
};

}  // namespace longhaul::peers

#include "peers/settlement.hpp"

namespace longhaul::peers {

void settlement::fold_back(carried_mass mass) {
    if (mass.empty()) return;
    if (carry_.empty()) {
        carry_ = std::move(mass);
        return;
    }
    for (std::size_t i = 0; i < carry_.values.size(); ++i) carry_.values[i] += mass.values[i];
    carry_.tokens += mass.tokens;
    carry_.steps += mass.steps;
}

void settlement::sent(pending_payload p) {
    LONGHAUL_ENSURE(!pending_, "a payload was sent before the last one was settled");
    pending_ = std::move(p);
}

std::optional<bool> settlement::settle(const ledger& l, peer_number self) {
    if (!pending_) return std::nullopt;
    const bool decided = l.generation() != pending_->generation || l.committed() >= pending_->round;
    if (!decided) return std::nullopt;
    const auto* me = l.find(self);
    const accepted_payload mine{pending_->generation, pending_->round, pending_->id};
    const bool accepted = me != nullptr && me->last_accepted == mine;
    if (!accepted) fold_back(std::move(pending_->mass));
    pending_.reset();
    return accepted;
}

std::uint64_t settlement::discard() {
    std::uint64_t lost = carry_.tokens + (pending_ ? pending_->mass.tokens : 0);
    carry_ = {};
    pending_.reset();
    return lost;
}

}  // namespace longhaul::peers

#include "peers/settlement.hpp"

#include <algorithm>
#include <cmath>

namespace longhaul::peers {

namespace {
/// β·residual, p and what is left of it are rounded, each by 2⁻²⁴ of a magnitude that the sums have counted, by the
/// next round at the latest; so are sums of eight terms (compress/kernels) seven times. Sixteen times that leaves room
/// for sums in double.
constexpr double rounding_share = 0x1p-20;
}  // namespace

bool mass_account::balances() const { return std::abs(produced - sent - held - lost) <= rounding; }

float settlement::beta_for(std::uint64_t generation, std::uint64_t round, std::uint32_t step) const {
    return decayed_for_ == std::tuple(generation, round, step) ? 1.0F : rule_.beta;
}

float settlement::left_of(const carried_mass& mass) const {
    float left = 1;
    for (auto i = mass.moves; i < moves_ && left > 0; ++i) left *= rule_.repeats;
    return left;
}

float settlement::repeats_of(const carried_mass& mass) const { return rule_.repeats * left_of(mass); }

core::flat_buffer settlement::said() const {
    if (!(rule_.repeats > 0)) return {};
    auto now = carry_.velocity;
    const float left = left_of(carry_);
    for (float& v : now) v *= left;
    return now;
}

void settlement::formed(std::uint64_t generation, std::uint64_t round, const compress::mass_sums& sums, double carried,
                        std::uint32_t step) {
    rounding_ += rounding_share * sums.size;
    LONGHAUL_ENSURE(std::abs(sums.residual - carried) <= rounding_, "the residual is what the last payload left (I13)");
    produced_ += sums.produced;
    lost_ += (1.0 - static_cast<double>(beta_for(generation, round, step))) * carried;
    decayed_for_ = {generation, round, step};
}

void settlement::fold_back(carried_mass mass) {
    if (mass.empty()) return;
    if (in_parts_) return lose(mass);
    if (rule_.forgets) {
        // What was not said is in the next pseudo-gradient's difference anyway, and its tokens are nobody's.
        lose(mass);
        std::ranges::fill(mass.values, 0.0F);
        mass.tokens = 0;
        mass.steps = 0;
        mass.sum = 0;
    }
    if (carry_.empty()) {
        carry_ = std::move(mass);
        return;
    }
    for (std::size_t i = 0; i < carry_.values.size(); ++i) carry_.values[i] += mass.values[i];
    carry_.tokens += mass.tokens;
    carry_.steps += mass.steps;
    carry_.sum += mass.sum;
    // It goes where the mass goes that it is made of: only one of the two has it.
    if (carry_.velocity.empty()) {
        carry_.velocity = std::move(mass.velocity);
        carry_.moves = mass.moves;
    }
}

void settlement::restore(carried_mass mass) {
    mass.sum = 0;
    for (const float v : mass.values) {
        mass.sum += static_cast<double>(v);
        rounding_ += rounding_share * static_cast<double>(std::abs(v));
    }
    produced_ += mass.sum;
    fold_back(std::move(mass));
}

void settlement::sent(pending_payload p) {
    LONGHAUL_ENSURE(!pending_, "a payload was sent before the last one was settled");
    LONGHAUL_ENSURE(p.left.empty() != rule_.keeps_residual, "feedback knows what a payload leaves");
    pending_ = std::move(p);
}

std::optional<bool> settlement::settle(const ledger& l, peer_number self, std::uint64_t applied) {
    if (!pending_) return std::nullopt;
    const bool decided = l.generation() != pending_->generation || applied >= pending_->round;
    if (!decided) return std::nullopt;
    const auto* me = l.find(self);
    const accepted_payload mine{pending_->generation, pending_->round, pending_->id};
    const bool accepted = me != nullptr && me->last_accepted == mine;
    auto mass = std::move(pending_->mass);
    if (accepted) {
        // Without feedback nobody asks what the codec made of it: it was sent.
        if (rule_.repeats > 0) {
            compress::follow_sent(mass.velocity, pending_->repeats, mass.values, pending_->left);
            mass.moves = moves_;
        } else {
            compress::mask_sent(mass.velocity, mass.values, pending_->left);
        }
        const double sent = rule_.keeps_residual ? pending_->sent : mass.sum;
        sent_ += sent;
        mass.values = std::move(pending_->left);
        last_chunks_ = std::move(pending_->chunks);
        mass.tokens = 0;
        mass.steps = 0;
        mass.sum -= sent;
    }
    fold_back(std::move(mass));
    pending_.reset();
    return accepted;
}

carried_mass settlement::give_up() {
    if (!pending_) return {};
    auto mass = std::move(pending_->mass);
    pending_.reset();
    lose(mass);
    return mass;
}

std::uint64_t settlement::discard() {
    const auto a = account();
    const std::uint64_t tokens = carry_.tokens + (pending_ ? pending_->mass.tokens : 0);
    lost_ += a.held;
    carry_ = {};
    pending_.reset();
    return tokens;
}

mass_account settlement::account() const {
    return {produced_, sent_, lost_, carry_.sum + (pending_ ? pending_->mass.sum : 0), rounding_};
}

}  // namespace longhaul::peers

#include "peers/download_plan.hpp"

#include <algorithm>

namespace longhaul::peers {

namespace {

/// A piece that takes so many times as long as others, and this on top, is worth the bytes of a second one.
constexpr double slow_factor = 3;
constexpr double slow_seconds = 1;
/// Until a piece has arrived, nobody knows how long they take.
constexpr double first_seconds = 10;

}  // namespace

download_plan::download_plan(std::uint32_t chunks, std::uint32_t per_piece) : per_piece_(per_piece) {
    for (std::uint32_t at = 0; at < chunks; at += per_piece) {
        part p;
        p.piece = {at, std::min(per_piece, chunks - at)};
        parts_.push_back(std::move(p));
    }
    left_ = parts_.size();
}

core::duration download_plan::patience() const {
    return core::from_seconds(mean_seconds_ > 0 ? slow_factor * mean_seconds_ + slow_seconds : first_seconds);
}

std::optional<state_piece> download_plan::next(std::uint32_t donor, core::time_point now) {
    part* found = nullptr;
    for (auto& p : parts_) {
        if (p.here || p.donors.contains(donor)) continue;
        if (p.donors.empty()) {
            found = &p;
            break;
        }
        const bool overdue = p.donors.size() == 1 && now - p.asked > patience();
        if (overdue && (found == nullptr || p.asked < found->asked)) found = &p;
    }
    if (found == nullptr) return std::nullopt;
    if (found->donors.empty()) found->asked = now;
    found->donors.insert(donor);
    return found->piece;
}

void download_plan::arrived(const state_piece& p, core::time_point now) {
    auto& known = parts_[p.first / per_piece_];
    if (std::exchange(known.here, true)) return;
    known.donors.clear();
    --left_;
    here_ += p.count;
    const double seconds = core::to_seconds(now - known.asked);
    mean_seconds_ += (seconds - mean_seconds_) / (mean_seconds_ > 0 ? 4 : 1);
}

void download_plan::given_up(std::uint32_t donor, const state_piece& p) {
    parts_[p.first / per_piece_].donors.erase(donor);
}

}  // namespace longhaul::peers

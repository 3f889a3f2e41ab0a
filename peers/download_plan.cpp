#include "peers/download_plan.hpp"

#include <algorithm>

namespace longhaul::peers {

namespace {

/// A piece that takes so many times as long as another donor's, and this on top, is worth the bytes of a second one.
constexpr double slow_factor = 2, slow_seconds = 0.05;
/// For a donor that has brought nothing yet.
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

core::duration download_plan::patience(std::uint32_t donor) const {
    const auto known = seconds_.find(donor);
    return core::from_seconds(known == seconds_.end() ? first_seconds : slow_factor * known->second + slow_seconds);
}

std::optional<chunk_span> download_plan::next(std::uint32_t donor, core::time_point now) {
    part* found = nullptr;
    for (auto& p : parts_) {
        if (p.here || p.asked.contains(donor)) continue;
        if (p.asked.empty()) {
            found = &p;
            break;
        }
        const auto since = p.asked.begin()->second;
        const bool overdue = p.asked.size() == 1 && now - since > patience(donor);
        if (overdue && (found == nullptr || since < found->asked.begin()->second)) found = &p;
    }
    if (found == nullptr) return std::nullopt;
    found->asked.emplace(donor, now);
    return found->piece;
}

void download_plan::arrived(std::uint32_t donor, const chunk_span& p, core::time_point now) {
    auto& known = parts_[p.first / per_piece_];
    if (std::exchange(known.here, true)) return;
    if (const auto asked = known.asked.find(donor); asked != known.asked.end()) {
        auto& mean = seconds_[donor];
        mean += (core::to_seconds(now - asked->second) - mean) / (mean > 0 ? 4 : 1);
    }
    known.asked.clear();
    --left_;
}

void download_plan::given_up(std::uint32_t donor, const chunk_span& p) {
    parts_[p.first / per_piece_].asked.erase(donor);
}

}  // namespace longhaul::peers

#include "optim/plan_guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "optim/controller.hpp"

namespace longhaul::optim {

namespace {

struct moments {
    double mean = 0, error2 = 0;  ///< and the square of the mean's standard error
};

moments moments_of(const std::deque<double>& losses) {
    moments m;
    const auto n = static_cast<double>(losses.size());
    for (const double l : losses) m.mean += l / n;
    for (const double l : losses) m.error2 += (l - m.mean) * (l - m.mean) / (n - 1) / n;
    return m;
}

}  // namespace

void plan_guard::committed(const round_plan& plan, double loss) {
    if (!std::isfinite(loss)) return;
    ++rounds_;
    std::erase_if(banned_, [this](const auto& b) { return rounds_ > b.until; });
    if (!now_ || !same_setting(now_->plan, plan)) {
        // A plan that had no time to show anything is not what the next one is compared with.
        if (now_ && now_->losses.size() == window) before_ = std::move(now_);
        now_ = tried{plan, {}};
        verdict_.reset();
    }
    now_->losses.push_back(loss);
    if (now_->losses.size() > window) now_->losses.pop_front();
    const bool can_tell = before_ && now_->losses.size() == window && !same_setting(before_->plan, plan);
    if (verdict_ || !can_tell || !allows(before_->plan)) return;
    const auto was = moments_of(before_->losses), is = moments_of(now_->losses);
    const double rise = is.mean - was.mean;
    if (rise < least_errors * std::sqrt(was.error2 + is.error2) || rise < least_share * std::abs(was.mean)) return;
    verdict_ = verdict{before_->plan, fmt::format("back to {}: with {} the loss rose from {:.4g} to {:.4g}",
                                                  name_of(before_->plan), name_of(plan), was.mean, is.mean)};
    banned_.push_back({plan, rounds_ + banned_for});
}

bool plan_guard::allows(const round_plan& plan) const {
    return std::ranges::none_of(banned_, [&plan](const auto& b) { return same_setting(b.plan, plan); });
}

}  // namespace longhaul::optim

#include "net/cipher_load.hpp"

#include <algorithm>

namespace longhaul::net {

void cipher_load::spent(core::time_point now, core::duration time) {
    sum_ += time;
    const auto passed = now - since_;
    if (passed < window) return;
    // After a pause nothing is known.
    const double share = passed < 2 * window ? core::to_seconds(sum_) / core::to_seconds(passed) : 0;
    heavy_ = share >= (heavy_ ? std::min(light_share, heavy_from_) : heavy_from_);
    since_ = now;
    sum_ = {};
}

}  // namespace longhaul::net

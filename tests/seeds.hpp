#pragma once
/// Long tests play many seeds; with sanitizers, where all takes ten times as long, a third of them, and the release
/// build plays all.

#include <cstdint>

namespace longhaul::testing {

/// Of so many seeds those that this build plays.
constexpr std::uint64_t seeds_of(std::uint64_t all) {
#ifdef __SANITIZE_ADDRESS__
    return (all + 2) / 3;
#else
    return all;
#endif
}

}  // namespace longhaul::testing

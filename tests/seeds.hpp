#pragma once
/// Long tests play many seeds; with sanitizers, where all takes ten times as long, a third of them. What scripts/test
/// plays without sanitizers are the drawn scenarios; `ctest --preset release` plays all of these.

#include <cstdint>

namespace longhaul::testing {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
inline constexpr bool sanitized = __has_feature(address_sanitizer);
#else
inline constexpr bool sanitized = false;
#endif

/// Of so many seeds those that this build plays.
constexpr std::uint64_t seeds_of(std::uint64_t all) { return sanitized ? (all + 2) / 3 : all; }

}  // namespace longhaul::testing

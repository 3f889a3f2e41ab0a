#pragma once
/// Names of generations (DESIGN §5). A generation is one unbroken line of rounds: (generation, round) names one state
/// of the model in the whole world, or none. There are two ways to a new one:
///
///   - in the same log, when nobody holds the last commit any more: the number grows by one;
///   - in a log of its own, a *branch*, when who orders records is gone: then two logs may go on, and their numbers
///     never meet. Bits 40 to 52 count branchings, bits 16 to 39 are drawn, and the low 16 count within the branch. The
///     first generation of a run is 1, in branch 0. All of it fits into a number of JSON.

#include <optional>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "net/identity.hpp"

namespace longhaul::peers {

/// Which log a generation belongs to.
constexpr std::uint64_t branch_of(std::uint64_t generation) { return generation >> 16; }

/// The first generation of a branch that `founder` opens behind `round` of `parent`. errc::limit after 8,191 branchings
/// one after another.
core::result<std::uint64_t> generation_of_branch(const core::digest& run, std::uint64_t parent, std::uint64_t round,
                                                 const net::peer_key& founder, std::uint64_t nonce);

/// The id of a branch's log, by which its voters know their messages: the run's own in branch 0.
core::digest log_id(const core::digest& run, std::uint64_t branch);

/// Where a generation began: behind `round` of `parent`, when so many tokens were committed.
struct generation_origin {
    std::uint64_t generation = 0, parent = 0, round = 0, tokens = 0;
    bool operator==(const generation_origin&) const = default;
};
/// Of a line of generations, the latest ones, in order.
using generation_line = std::vector<generation_origin>;
inline constexpr std::size_t max_origins = 64;

/// Tokens that were committed when two lines of one run parted; nothing if one and the same generation ends both.
std::optional<std::uint64_t> tokens_in_common(const generation_line& a, const generation_line& b);

/// For people: "1", "2", or "2.03fa9c" for the first generation of a branch, "2.03fa9c.2" for one after it.
std::string generation_name(std::uint64_t generation);

}  // namespace longhaul::peers

#pragma once
/// I7, no commit without a quorum: looked for on the disks of the simulation, whatever the nodes say of them.

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "peers/raft_storage.hpp"
#include "sim/node.hpp"

namespace longhaul::sim {

class durable_logs {
public:
    /// Somebody has just applied a round. A sentence when it is the first who did, and the round's COMMIT is not on the
    /// disks of a majority of the voters. A voter whose disk cannot be read counts as if it had it: it did, or nobody
    /// would have waited for its answer. (A bit that rots in the last frame makes it look torn: such a disk can be
    /// read.)
    std::optional<std::string> applied(std::span<const std::unique_ptr<node>> nodes, std::uint64_t generation,
                                       std::uint64_t round);

private:
    /// One voter's disk, as far as it was read.
    struct reading {
        core::digest state;
        std::uint64_t number = 0, frames = 0;
        std::size_t log_bytes = 0;
        core::byte_vector last_bytes;  ///< of the log so far: another log may have begun behind the same state
        peers::raft::voter_id self;
        peers::raft::durable_state content;
        std::map<std::uint64_t, std::uint64_t> begins;  ///< index of a record that begins a generation -> which
    };
    static void note_generations(reading& r, std::uint64_t first);
    static std::optional<std::uint64_t> find_commit(const reading& r, std::uint64_t generation, std::uint64_t round);
    const reading* read(const node& n, const std::string& folder);

    std::map<std::pair<std::string, std::string>, reading> readings_;  ///< by node and folder
    std::set<std::pair<std::uint64_t, std::uint64_t>> seen_;           ///< generation, round
};

}  // namespace longhaul::sim

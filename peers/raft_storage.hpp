#pragma once
/// A voter's disk: the file `state` and the log of what changed since, `log-NUMBER`, in a folder of its own. What was
/// acknowledged survives a power cut at any instant; what a cut tore was not, and is dropped. A disk that lost what it
/// acknowledged, or is an older copy, is refused where it can be seen: a voter that forgets its vote would vote twice.

#include "core/storage.hpp"
#include "peers/raft_record.hpp"

namespace longhaul::peers::raft {

/// Nothing is written that would not be read back.
struct disk_limits {
    std::uint64_t file_bytes = std::uint64_t{1} << 30;
    std::uint64_t log_bytes = max_frame_bytes;  ///< then the state is written anew, with an empty log behind it
};

/// The folder of a branch's log: each has its own, so that who leaves one keeps the vote that it has there.
std::string folder_of(std::uint64_t branch);

class disk_log {
public:
    explicit disk_log(core::storage& storage, std::string folder, disk_limits limits = {})
        : storage_(storage), folder_(std::move(folder)), limits_(limits) {}

    /// A new voter's disk. errc::io when there is one already.
    core::task<core::result<void>> create(voter_id self, core::digest generation, durable_state content);
    /// What the disk holds; it is written anew, so that later frames follow on something whole. errc::not_found when
    /// there is none; errc::malformed when it is damaged, incomplete or older than its log; errc::run_mismatch when it
    /// is another peer's or generation's. A voter whose disk is refused comes back as a new identity.
    core::task<core::result<durable_state>> open(voter_id self, core::digest generation);
    /// Makes writes durable, in this order and all or none of them where none has a snapshot. After an error nothing is
    /// written any more until the disk was opened again: what failed to be synced cannot be synced later. errc::limit
    /// when all entries together are too much: they should have been compacted.
    core::task<core::result<void>> write(std::vector<disk_write> writes);

private:
    core::task<core::result<void>> renew();
    core::task<core::result<void>> replay(core::digest hash);
    core::task<core::result<void>> check_other_logs();

    std::string state_path() const { return folder_ + "/state"; }
    std::string log_path(std::uint64_t number) const;

    core::storage& storage_;
    std::string folder_;
    disk_limits limits_;
    disk_state state_;
    core::digest hash_;                         ///< of the state file
    std::uint64_t frames_ = 0, log_bytes_ = 0;  ///< of the log
    bool usable_ = false;
};

}  // namespace longhaul::peers::raft

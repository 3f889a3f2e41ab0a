#pragma once
/// Voters in virtual time under random faults, without coroutines: messages are dropped, doubled and reordered, nodes
/// crash and lose what their disks had not synced, partitions come and go, voters are added and removed. Everything is
/// drawn from one seed. What Raft promises is checked after every step against what this world remembers, not against
/// what the servers say of each other.

#include <queue>
#include <set>
#include <string>

#include "peers/raft.hpp"

namespace longhaul::peers::raft::testing {

/// splitmix64: cheap, and the same everywhere.
class dice {
public:
    explicit dice(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        auto z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }
    std::uint64_t below(std::uint64_t n) { return next() % n; }
    bool chance(double p) { return static_cast<double>(next() >> 11) * 0x1p-53 < p; }

private:
    std::uint64_t state_;
};

class random_world {
public:
    explicit random_world(std::uint64_t seed);
    /// Empty when all held; otherwise what broke, and when.
    std::string run();

    struct counts {
        std::size_t leaders = 0, commits = 0, crashes = 0, changes = 0, snapshots = 0, transfers = 0;
    };
    const counts& counted() const { return counts_; }

private:
    struct happening {
        core::duration at{};
        std::uint64_t order = 0;
        std::function<void()> what;
        bool operator>(const happening& o) const { return std::pair(at, order) > std::pair(o.at, o.order); }
    };
    struct machine {
        voter_id id;
        std::optional<server> runs;
        std::uint64_t life = 0;
        durable_state disk;
        std::deque<disk_write> unsynced;
        bool syncing = false;
        std::uint64_t applied = 0;
        std::uint64_t state = 0;                        ///< hash of all that was applied
        std::map<std::uint64_t, std::uint64_t> prefix;  ///< of the log in memory: index -> hash of all up to it
        std::optional<core::duration> waking;
    };

    void at(core::duration when, std::function<void()> what) { agenda_.push({when, ++order_, std::move(what)}); }
    core::duration ms(std::uint64_t low, std::uint64_t high) {
        return std::chrono::milliseconds(low + dice_.below(high - low + 1));
    }
    core::time_point now() const { return core::time_point(now_); }
    void broke(std::string what) {
        if (broken_.empty()) broken_ = fmt::format("at {:.3f} s: {}", core::to_seconds(now_), what);
    }

    void start(std::size_t i);
    void crash(std::size_t i);
    core::result<std::uint64_t> step(std::size_t i, event e);
    void perform(std::size_t i, actions a);
    void carry(std::size_t from, outgoing o);
    void sync(std::size_t i, disk_write w);
    void write_out(std::size_t i);
    void arrange_wake(std::size_t i);
    void remember_log(machine& m, const disk_write& w);
    void apply(machine& m, const committed& c);
    void check(std::size_t i, raft::role before, std::uint64_t term_before, std::uint64_t commit_before);
    void fault();
    void client();
    void heal();
    std::size_t index_of(const voter_id& id) const;
    static std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return dice(a ^ (b * 0x9e3779b97f4a7c15)).next(); }
    static std::uint64_t hash_of(const entry& e);

    dice dice_;
    std::uint64_t seed_;
    std::string broken_;
    core::duration now_{}, faults_until_ = std::chrono::seconds(4);
    std::uint64_t order_ = 0;
    std::priority_queue<happening, std::vector<happening>, std::greater<>> agenda_;
    std::vector<machine> nodes_;
    std::set<std::pair<std::size_t, std::size_t>> cut_;  ///< one-way
    std::map<std::pair<std::size_t, std::size_t>, core::duration> last_arrival_;
    bool healed_ = false;
    bool ordered_ = false;
    bool trusting_ = false;
    double drop_ = 0, twice_ = 0, crash_ = 0, change_ = 0, partition_ = 0;
    std::uint64_t slow_disk_ = 5;

    // What was ever true.
    std::map<std::uint64_t, std::pair<std::size_t, std::uint64_t>> leaders_;      ///< term -> node, life
    std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint64_t> prefixes_;   ///< (index, term) -> hash
    std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> committed_;  ///< index -> term, prefix
    std::map<std::uint64_t, std::uint64_t> states_;                               ///< index -> state
    std::uint64_t proposals_ = 0;
    counts counts_;
};

}  // namespace longhaul::peers::raft::testing

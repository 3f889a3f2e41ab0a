#pragma once
/// A simulated machine: a disk and a clock that outlive restarts, and at most one process at a time.

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/events.hpp"
#include "core/task.hpp"
#include "core/units.hpp"
#include "net/environment.hpp"
#include "sim/sim_storage.hpp"

namespace longhaul::sim {

class process;
class world;

struct node_options {
    core::bit_rate up{}, down{};  ///< access line, shared by all streams; zero: unlimited
    unsigned cores = 1;           ///< jobs of core::workers that run at the same time
    bool reachable = true;        ///< false: behind a firewall, nobody can connect to it
    disk_options disk{};
};

/// An event that a node emitted.
struct seen_event {
    virtual_time at{};
    core::event event;
};

class node {
public:
    using main_function = std::function<core::task<core::result<void>>(net::environment&)>;
    /// Made by world::add_node.
    node(world& w, std::uint32_t index, std::string name, node_options options);
    ~node();

    const std::string& name() const { return name_; }
    std::uint32_t index() const { return index_; }
    const node_options& options() const { return options_; }

    // One life.

    /// Starts a process; none may be running. `main` is kept until that process has ended, so that it may be a
    /// coroutine lambda with captures.
    void start(main_function main);
    /// kill -9: from this instant the process changes nothing: not the network, not the disk, not the trace. Its
    /// kernel closes its streams: the others see their end after the path's delay. Its tasks are then cancelled and
    /// unwound, invisible to all but the test's own variables. May be called from within the process.
    void kill();
    /// Power loss: as `kill`, but the others hear nothing, and writes to the disk under way end as drawn from the seed.
    void vanish();
    /// Starts the last main again, after `kill` if it runs.
    void restart();
    /// SIGSTOP: nothing of the process runs. Its kernel still accepts connections and bytes, up to the buffers.
    void pause();
    void resume();
    bool running() const { return process_ != nullptr; }
    bool paused() const { return paused_; }
    /// How many processes were started.
    std::uint64_t lives() const { return lives_; }
    /// What the last main returned; errc::cancelled after a kill; nothing while it runs.
    const std::optional<core::result<void>>& outcome() const { return outcome_; }
    /// Of the running process.
    net::environment& environment();

    // Faults and knobs.

    /// The access line from now on; zero: unlimited.
    void set_rates(core::bit_rate up, core::bit_rate down);
    /// How wrong the wall clock is.
    void set_wall_offset(core::duration d) { wall_offset_ = d; }
    core::duration wall_offset() const { return wall_offset_; }
    /// How many parts per million the monotonic clock gains from now on, also after restarts. Sleeps under way keep
    /// their time unless that would be early.
    void set_drift(std::int64_t parts_per_million);
    std::int64_t drift() const { return drift_; }
    class disk& disk() { return disk_; }
    const class disk& disk() const { return disk_; }

    // Seeing.

    /// All events of all lives, the newest `max_events` of them.
    const std::deque<seen_event>& events() const { return events_; }
    static constexpr std::size_t max_events = 1'000'000;
    std::size_t count_events(std::string_view name) const;
    /// Called at each event, inside the emitting process; may kill nodes, its own included.
    void on_event(std::function<void(const core::event&)> f) { listeners_.push_back(std::move(f)); }

    // For the world.

    void poll();
    void record(const core::event& e);
    /// Ends the process without a word to anybody, when the world ends.
    void end_silently();

private:
    enum class ending { returned, killed, vanished };
    void finish(ending how, core::result<void> outcome);

    world& world_;
    std::uint32_t index_;
    std::string name_;
    node_options options_;
    class disk disk_;
    main_function main_;
    std::unique_ptr<process> process_;
    std::optional<core::result<void>> outcome_;
    std::deque<seen_event> events_;
    std::vector<std::function<void(const core::event&)>> listeners_;
    std::uint64_t lives_ = 0;
    core::duration wall_offset_{};
    std::int64_t drift_ = 0;
    bool paused_ = false;
};

}  // namespace longhaul::sim

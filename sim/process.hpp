#pragma once
/// One life of a node: its own io_context, its environment, its tasks. Internal to the world.
///
/// A kill has two halves. `die` makes every seam dead at once: nothing that the code still does is seen by anybody.
/// `unwind` then cancels the tasks and runs the context until they have ended, parents after children, as in a Ctrl-C.
/// (Destroying suspended frames instead would run no code at all, but in an order that no destructor is written for:
/// parents before the children that refer to them.)

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "core/task.hpp"
#include "sim/clock_model.hpp"
#include "sim/node.hpp"

namespace longhaul::sim {

/// What a seam answers once its process has died.
inline core::error dying() { return {core::errc::cancelled, "the process is being killed"}; }

class process {
public:
    /// Starts at the next poll.
    process(world& w, node& n, node::main_function main, std::uint64_t life);
    ~process();
    process(const process&) = delete;
    process& operator=(const process&) = delete;

    /// Runs all that is ready, until nothing is or the process died meanwhile.
    void poll();
    /// What main returned, when it has.
    std::optional<core::result<void>>& outcome() { return outcome_; }
    void die();
    void unwind();

    // For the seams.

    world& in() { return world_; }
    node& on() { return node_; }
    asio::any_io_executor executor() { return io_.get_executor(); }
    net::environment& environment() { return *environment_; }
    clock_model& time() { return clock_; }
    /// Whether the process has died: then a seam answers errc::cancelled and does nothing. Stops the test when somebody
    /// asks for ever without noticing.
    bool dead();
    /// Returns at that time, for what cannot be stopped half-way; errc::cancelled only when the process died.
    core::task<core::result<void>> finish(virtual_time until);
    /// A job of that length, on the first core that is free: when it ends.
    virtual_time occupy_core(core::duration d);

private:
    core::task<core::result<void>> run_main();

    world& world_;
    node& node_;
    node::main_function main_;
    clock_model clock_;
    asio::io_context io_;
    asio::executor_work_guard<asio::io_context::executor_type> open_;
    std::optional<core::result<void>> outcome_;
    bool dead_ = false;
    std::uint64_t asked_dead_ = 0;
    std::vector<virtual_time> cores_;
    // Everything below holds the executor and is destroyed before the context.
    std::unique_ptr<core::wakeup> finished_;
    std::unique_ptr<core::scope> root_;
    std::unique_ptr<core::clock> clock_seam_;
    std::unique_ptr<core::entropy> entropy_;
    std::unique_ptr<net::network> network_;
    std::unique_ptr<core::storage> storage_;
    std::unique_ptr<core::workers> workers_;
    std::unique_ptr<core::event_sink> events_;
    std::unique_ptr<net::environment> environment_;
};

}  // namespace longhaul::sim

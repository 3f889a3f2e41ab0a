#pragma once
/// When faults begin and end, in real time, and the little of the system that both uses of the lab need.

#include <csignal>
#include <functional>
#include <span>
#include <vector>

#include "core/posix_file.hpp"
#include "sim/event_queue.hpp"
#include "sim/lab/network.hpp"

namespace longhaul::sim::lab {

/// One thing to do: a fault begins, or what it did is undone.
struct fault_step {
    const fault* what = nullptr;
    bool undo = false;
};

/// Faults in the order of their times. Faults at a round begin when `reached` says so.
class fault_schedule {
public:
    /// Refers to `faults`.
    explicit fault_schedule(std::span<const fault> faults);
    /// Takes out what is due by `now`.
    std::vector<fault_step> due(core::duration now);
    /// A round was committed at `now`.
    void reached(std::uint64_t round, core::duration now);
    /// When the next one is due; `never`.
    core::duration next() const;
    bool empty() const { return steps_.empty() && at_rounds_.empty(); }

private:
    struct entry {
        core::duration at{};
        fault_step step;
    };
    void add(const fault& f, core::duration at);
    std::vector<entry> steps_;  // sorted
    std::vector<const fault*> at_rounds_;
};

/// partition, one_way and rate; others are the caller's.
void apply_to_network(network& net, const fault_step& step);

/// SIGINT and SIGTERM become readable instead of ending the process, until it is destroyed.
class deferred_signals {
public:
    deferred_signals();
    ~deferred_signals();
    deferred_signals(const deferred_signals&) = delete;
    deferred_signals& operator=(const deferred_signals&) = delete;
    int fd() const { return fd_.get(); }
    /// For a child, before exec.
    static void restore();

private:
    sigset_t before_{};
    core::file_descriptor fd_;
};

/// The lab's clock: real time is its subject. Nanoseconds since some beginning.
core::duration real_time();
/// For poll(2): until `next`, never longer than a second, rounded up.
int poll_milliseconds(core::duration next, core::duration now);

}  // namespace longhaul::sim::lab

#pragma once
/// A world of its own: nodes, the network between them, their disks and their clocks, in virtual time, in one thread.
/// The code of the nodes is the production code; only the seams of net::environment are the world's.
///
///     sim::world w(seed);
///     auto& a = w.add_node("a", {.up = {50e6}, .down = {100e6}});
///     auto& b = w.add_node("b");
///     w.set_delay("a", "b", 40ms);
///     a.start([](net::environment& env) -> core::task<core::result<void>> { … });
///     w.at(30s, [&] { a.kill(); });
///     w.run_until(2min);
///
/// The same seed gives the same `trace_hash()`, under every compiler. sim/README.md shows the parts.
///
/// The end of the world cancels the tasks of all nodes and lets them unwind: what they refer to must outlive it, so
/// declare that before the world. What tasks leave in such variables must not hold their executor (links, streams,
/// wake-ups): let go of it before main returns. If the world ends by an exception (a failed REQUIRE), it prints its
/// seed and the last actions.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/entropy.hpp"
#include "sim/event_queue.hpp"
#include "sim/node.hpp"
#include "sim/sim_network.hpp"
#include "sim/trace.hpp"

namespace longhaul::sim {

struct world_options {
    network_options network;
    std::size_t trace_lines = 100;  ///< kept for reading
};

class world {
public:
    explicit world(std::uint64_t seed, world_options options = {});
    ~world();
    world(const world&) = delete;
    world& operator=(const world&) = delete;

    std::uint64_t seed() const { return seed_; }
    /// Since the world began.
    virtual_time now() const { return now_; }
    /// The world's own randomness, for scenarios to draw from; nothing inside the world uses it.
    core::entropy& entropy() { return entropy_; }

    /// Names are unique; they are the hosts of endpoints.
    node& add_node(std::string name, node_options options = {});
    /// The node of that name; it must exist.
    node& operator[](std::string_view name);
    const std::vector<std::unique_ptr<node>>& nodes() const { return nodes_; }

    // Time. What happens at the same time happens in the order in which it was scheduled.

    /// Does something from outside the nodes: injects a fault, starts a node, looks. At once if the time is past.
    void at(virtual_time when, std::function<void()> what);
    void after(core::duration d, std::function<void()> what) { at(now_ + d, std::move(what)); }
    /// Runs everything up to and including `until`; then that is the time.
    void run_until(virtual_time until);
    void run_for(core::duration d) { run_until(now_ + d); }
    /// Runs while `condition()` holds, looking again after each event, at most for `limit`. Whether it has ceased to
    /// hold; the time is then that of the event which ended it.
    bool run_while(const std::function<bool()>& condition, core::duration limit);

    // Addresses. A node's name is its first one.

    /// A further address of a node, of IPv6 if it has a colon.
    void add_address(std::string_view node, std::string address) {
        network_.add_name(std::move(address), index_of(node));
    }
    /// From now on whoever dials that address hears nothing.
    void set_dark(std::string address) { network_.set_dark(std::move(address)); }
    /// What the name server answers for a name.
    void add_record(std::string name, std::vector<std::string> addresses) {
        network_.add_record(std::move(name), std::move(addresses));
    }

    // Paths. Delays are one way. Every pair is joined; an unset pair has the default path.

    void set_default_path(path_options options) { network_.set_default_path(options); }
    /// From a to b only.
    void set_path(std::string_view from, std::string_view to, path_options options);
    /// Both directions.
    void set_paths(std::string_view a, std::string_view b, path_options options);
    void set_delay(std::string_view a, std::string_view b, core::duration one_way);
    /// Nothing passes from any of `from` to any of `to` any more. Streams do not break by this: they wait.
    void cut_one_way(const std::vector<std::string>& from, const std::vector<std::string>& to);
    /// Both directions.
    void cut(const std::vector<std::string>& a, const std::vector<std::string>& b);
    /// Every path works again; what TCP held back is repeated when its retransmission timer says so.
    void heal();

    // Seeing.

    core::digest trace_hash() const { return trace_.hash(); }
    /// Folds a test's own observation into the trace.
    void note(std::string_view text);
    /// Seed, time, hash and the last actions.
    std::string report() const;

    // For the parts of the world (nodes, network, disks); scenarios have no use for them.

    event_queue::ticket schedule(virtual_time at, event_queue::action what);
    void cancel(event_queue::ticket t) { queue_.cancel(t); }
    /// That node has something to run.
    void mark(std::uint32_t n) {
        if (!marked_[n]) ++marks_;
        marked_[n] = true;
    }
    void fold(action what, std::uint32_t n, std::uint64_t x = 0, std::uint64_t y = 0, core::const_bytes content = {}) {
        trace_.add(now_, what, n, x, y, content);
    }
    sim_network& network() { return network_; }
    /// Takes a process that has ended, to be unwound as soon as no node runs.
    void bury(std::unique_ptr<process> p);

private:
    void settle();
    bool fire(virtual_time limit);
    void reap();
    void mark_all();
    std::uint32_t index_of(std::string_view name) const;

    std::uint64_t seed_;
    int exceptions_at_start_;
    virtual_time now_{};
    event_queue queue_;
    trace trace_;
    core::seeded_entropy entropy_;
    sim_network network_;
    std::vector<std::unique_ptr<node>> nodes_;
    std::map<std::string, std::uint32_t, std::less<>> names_;
    std::vector<bool> marked_;
    std::size_t marks_ = 0;
    std::vector<std::unique_ptr<process>> graveyard_;
};

}  // namespace longhaul::sim

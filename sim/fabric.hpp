#pragma once
/// The inside of sim_network: hosts, connections, and what their kernels do. See sim/README.md for the life of a byte.

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/connection.hpp"
#include "sim/sim_network.hpp"
#include "sim/world.hpp"

namespace longhaul::sim {

/// A port on which a process listens.
struct port {
    process* owner = nullptr;
    core::wakeup arrived;
    std::deque<std::shared_ptr<connection>> backlog;
    bool closed = false;
    explicit port(process& p);
};

/// A connection attempt.
struct dial {
    process* owner = nullptr;
    std::uint32_t from = 0, to = 0;
    std::uint16_t port = 0;
    std::unique_ptr<core::wakeup> answered;  // gone with the coroutine that waits for it
    std::shared_ptr<connection> conn;        // since the SYN arrived
    std::optional<core::result<void>> outcome;
    bool abandoned = false;
    bool unheard = false;  ///< the address leads nowhere: nothing that is sent to it arrives
    event_queue::ticket retry;
    dial(process& p, std::uint32_t to_host, std::uint16_t to_port);
};

struct host {
    std::string name;
    rate_line up, down;
    core::bit_rate base_up, base_down;  ///< before `factor`
    double trace_factor = 1, fault_factor = 1;
    core::duration down_queue = never;  ///< of its downlink's time that others' bytes may wait for it
    int site = -1;
    bool on = true;        ///< has power
    bool stopped = false;  ///< its line carries nothing
    bool reachable = true;
    std::deque<std::pair<std::shared_ptr<connection>, int>> round;  ///< streams with something to send, in turn
    bool pump_scheduled = false;
    std::map<std::uint16_t, std::shared_ptr<port>> ports;
    std::uint16_t next_port = 49152;
    std::uint64_t sent = 0, received = 0;
};

/// The line that the hosts of a site share.
struct site_line {
    core::bit_rate base_up, base_down;
    rate_line up, down;
    core::duration queue = never;
};

struct sim_network::fabric {
    fabric(world& w, network_options o) : world_(w), options(o), entropy(w.seed(), "network") {}

    world& world_;
    network_options options;
    core::seeded_entropy entropy;
    std::vector<host> hosts;
    std::vector<site_line> sites;
    std::function<path_options(std::uint32_t, std::uint32_t)> path_source;  // instead of the default path
    std::map<std::string, std::uint32_t, std::less<>> names;
    std::set<std::string, std::less<>> dark;                               ///< of them, those that lead nowhere
    std::map<std::string, std::vector<std::string>, std::less<>> records;  ///< name → addresses, as a name server has
    path_options default_path;
    std::map<std::pair<std::uint32_t, std::uint32_t>, path> paths;  // nodes of a map stay where they are
    std::map<std::uint64_t, std::shared_ptr<connection>> connections;
    std::vector<std::weak_ptr<dial>> dials;
    std::uint64_t next_id = 1;

    virtual_time now() const { return world_.now(); }
    path& between(std::uint32_t from, std::uint32_t to);
    std::uint16_t free_port(host& h);

    // Connecting (sim/fabric_connect.cpp).
    void send_syn(const std::shared_ptr<dial>& d, unsigned attempt);
    void syn_arrives(const std::shared_ptr<dial>& d);
    void syn_ack_arrives(const std::shared_ptr<dial>& d);
    void answer(dial& d, core::result<void> outcome);
    /// Nobody waits for the answer any more.
    void give_up(dial& d);
    /// `side` opened or accepted the connection: its application holds it from now on.
    void hand_over(connection& c, int side, process& p);
    void listener_closed(port& p);

    // Carrying (sim/fabric.cpp).
    void enqueue(const std::shared_ptr<connection>& c, int side);
    void activate(const std::shared_ptr<connection>& c, int side);
    void pump(std::uint32_t h);
    /// When the lines behind its uplink have room for that stream's bytes.
    virtual_time room_at(const connection& c, int side) const;
    bool crosses_sites(const connection& c) const { return hosts[c.ends[0].node].site != hosts[c.ends[1].node].site; }
    /// Whether anything passes from that side to the other.
    bool carries(const connection& c, int side) const;
    void apply_factor(std::uint32_t h);
    void transmit(const std::shared_ptr<connection>& c, int side);
    void dispatch(const std::shared_ptr<connection>& c, int side, segment s, virtual_time sent);
    void arrive(const std::shared_ptr<connection>& c, int side, segment s);
    void deliver(const std::shared_ptr<connection>& c, int side, segment s);
    void hold(const std::shared_ptr<connection>& c, int side, segment s);
    void retry_held(const std::shared_ptr<connection>& c, int side);
    void resend_held(const std::shared_ptr<connection>& c, int side);
    void took(const std::shared_ptr<connection>& c, int side, std::uint64_t bytes);
    void take_credits(direction& way);
    std::uint64_t least_credit() const;
    void await_credit(const std::shared_ptr<connection>& c, int side);
    void release_credits(const std::shared_ptr<connection>& c, int side);

    // Ending.
    void close_end(const std::shared_ptr<connection>& c, int side);
    void send_reset(const std::shared_ptr<connection>& c, int side);
    void reset_end(const std::shared_ptr<connection>& c, int side, std::string why);
    void detach(end& e);
    void forget_if_over(const std::shared_ptr<connection>& c);
    void wake_reader(end& e);
    void wake_writer(end& e);
};

/// The application's handle of one end (sim/sim_stream.cpp).
std::unique_ptr<net::stream> make_stream(sim_network::fabric& f, std::shared_ptr<connection> c, int side);

}  // namespace longhaul::sim

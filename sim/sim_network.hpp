#pragma once
/// The network between the nodes of a world: ordered byte streams over access lines and paths, with the kernels' part
/// of TCP that an application can notice: handshake of one round trip, refusal, backlog, bounded buffers, orderly
/// ends, resets, silence. sim/README.md says what is modelled and what is not.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/entropy.hpp"
#include "net/stream.hpp"
#include "sim/link_model.hpp"

namespace longhaul::sim {

class process;
class world;
struct connection;

struct network_options {
    std::uint64_t send_buffer = 128 * 1024;          ///< bytes that a stream takes before they are on their way
    std::uint64_t receive_window = 4 * 1024 * 1024;  ///< bytes on their way or unread: a stream's limit
    std::size_t backlog = 128;                       ///< connections that wait for `accept`
    /// Reads and writes take a random part of what they could, as small as one byte: for testing framing.
    bool fragment = false;
};

/// The fabric; one per world. Nodes are numbered in the order of add_host.
class sim_network {
public:
    sim_network(world& w, network_options options);
    ~sim_network();

    void add_host(const std::string& name, core::bit_rate up, core::bit_rate down, bool reachable);
    /// A further name by which every node finds `host`.
    void add_name(std::string name, std::uint32_t host);
    /// That name leads nowhere: whoever dials it hears nothing, as behind a firewall that drops packets.
    void set_dark(std::string address);
    /// What a name server answers for `name`; addresses are names of hosts.
    void add_record(std::string name, std::vector<std::string> addresses);
    void set_rates(std::uint32_t host, core::bit_rate up, core::bit_rate down);
    void set_default_path(path_options options);
    void set_path(std::uint32_t from, std::uint32_t to, path_options options);
    path_options path_of(std::uint32_t from, std::uint32_t to);
    void set_cut(std::uint32_t from, std::uint32_t to);
    /// That way works again; or all do.
    void heal(std::uint32_t from, std::uint32_t to);
    void heal();

    // For whole scenarios.

    /// What a pair of hosts has between them that no set_path named.
    void set_path_source(std::function<path_options(std::uint32_t from, std::uint32_t to)> source);
    /// A line that hosts share for what leaves or enters their site; at most `queue` of its time may wait for it.
    int add_site(core::bit_rate up, core::bit_rate down, core::duration queue);
    void set_site(std::uint32_t host, int site);
    /// At most so much of a host's downlink's time may wait for it: senders slow down instead.
    void set_down_queue(std::uint32_t host, core::duration queue);
    /// Multiplies a host's rates, or a site's, over what else multiplies them: a trace's factor and a fault's are two.
    /// Zero: nothing passes until it changes (hosts only; a site keeps a thousandth).
    void set_trace_factor(std::uint32_t host, double factor);
    void set_factor(std::uint32_t host, double factor);
    void set_site_factor(int site, double factor);

    /// The network seam of a process.
    std::unique_ptr<net::network> attach(process& p);
    /// The kernel closes what the process held.
    void process_ended(std::uint32_t host, process* p);
    /// All its connections with others end, at both ends, as when a box on the way has forgotten them.
    void reset_connections(std::uint32_t host);
    /// Power: off, the host forgets its connections and is silent.
    void host_down(std::uint32_t host);
    void host_up(std::uint32_t host);

    /// Connections that some end still holds.
    std::size_t open_connections() const;
    /// Bytes that streams of that node accepted for sending, and that reached its readers' buffers.
    std::uint64_t bytes_sent(std::uint32_t host) const;
    std::uint64_t bytes_received(std::uint32_t host) const;

    /// Internal.
    struct fabric;

private:
    std::unique_ptr<fabric> fabric_;
};

}  // namespace longhaul::sim

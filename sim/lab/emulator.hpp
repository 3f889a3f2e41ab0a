#pragma once
/// The links of the lab as arithmetic: packets go in at a time, and come out at a later one or never. Nothing here
/// waits, reads a clock or holds a packet's bytes, so that it is tested in virtual time.
///
///     uplink ─► site's uplink ─► loss, delay, jitter (in order) ─► site's downlink ─► downlink ─► out
///     [drop-tail queue, one packet at a time at the line's rate]
///
/// Work for a packet is constant: each queue has at most one entry in the heap of events.

#include <cstdint>
#include <deque>
#include <vector>

#include "core/entropy.hpp"
#include "sim/link_model.hpp"
#include "sim/topology.hpp"

namespace longhaul::sim::lab {

/// One IP packet on its way. `tag` is the caller's.
struct packet {
    std::uint32_t from = 0, to = 0;
    std::uint32_t bytes = 0;
    std::uint64_t tag = 0;
};

enum class drop_reason : std::uint8_t { queue, loss, cut };

/// Who takes what comes out. Calls come in order of time.
class packet_sink {
public:
    virtual ~packet_sink() = default;
    virtual void deliver(const packet& p, virtual_time due) = 0;
    virtual void drop(const packet& p, drop_reason why) = 0;
};

/// Of one peer.
struct peer_counters {
    std::uint64_t sent_packets = 0, sent_bytes = 0;                      ///< given to its uplink
    std::uint64_t received_packets = 0, received_bytes = 0;              ///< that reached it
    std::uint64_t dropped_queue = 0, dropped_loss = 0, dropped_cut = 0;  ///< of what it sent
};

class emulator {
public:
    /// `out` outlives it. Times begin at zero, which is also where traces begin.
    emulator(const topology& t, std::uint64_t seed, packet_sink& out);

    /// A packet leaves its sender. Calls come in order of time, mixed with `advance`.
    void submit(virtual_time now, const packet& p);
    /// Lets everything happen that is due.
    void advance(virtual_time now);
    /// When something is due next; `never`.
    virtual_time next() const { return heap_.empty() ? never : heap_.front().at; }

    /// Nothing passes from `from` to `to` any more, or again. What is on its way still arrives.
    void set_cut(std::uint32_t from, std::uint32_t to, bool cut);
    /// Multiplies both rates of a peer's access line, beside its trace; zero: nothing passes until it changes.
    void set_factor(virtual_time now, std::uint32_t peer, double factor);

    const peer_counters& counters(std::uint32_t peer) const { return counters_[peer]; }
    /// Packets inside.
    std::uint64_t inside() const { return inside_; }

private:
    struct line {
        double base = 0;  ///< bits per second; zero: unlimited
        double trace_factor = 1, fault_factor = 1;
        bool stopped = false;
        rate_line rate;
        std::uint64_t limit = 0, queued = 0;
        bool busy = false;
        std::deque<packet> packets;
    };
    struct gilbert {
        loss_model model;
        bool bad = false;
    };
    struct path_state {
        core::duration delay{}, jitter{};
        gilbert loss;
        bool cut = false;
        virtual_time last{};
        std::deque<std::pair<virtual_time, packet>> packets;
    };
    struct event {
        virtual_time at{};
        std::uint64_t order = 0;
        std::uint32_t what = 0;  ///< a line, a path behind the lines, or a change of rate behind those
        bool operator<(const event& other) const {
            return at != other.at ? at > other.at : order > other.order;  // std's heaps have the largest in front
        }
    };
    struct change {
        virtual_time at{};
        std::uint32_t first_line = 0;  ///< and the one behind it
        double factor = 1;
    };

    std::uint32_t lines_of_peer(std::uint32_t peer) const { return 2 * peer; }
    std::uint32_t lines_of_site(int site) const { return 2 * (peers_ + static_cast<std::uint32_t>(site)); }
    path_state& path_of(const packet& p) { return paths_[std::size_t{p.from} * peers_ + p.to]; }
    void add_line(const access_line& spec, bool up, std::uint64_t queue);
    void schedule(virtual_time at, std::uint32_t what);
    void enter(virtual_time now, std::uint32_t line_index, const packet& p);
    void begin(virtual_time now, std::uint32_t line_index);
    void left_line(virtual_time now, std::uint32_t line_index);
    void enter_path(virtual_time now, const packet& p);
    void set_rate(virtual_time now, std::uint32_t line_index);
    bool lost(gilbert& chain);
    void drop(const packet& p, drop_reason why);
    void pass_on(virtual_time now, std::uint32_t line_index, const packet& p);

    std::uint32_t peers_;
    std::vector<int> site_of_;
    packet_sink& out_;
    core::seeded_entropy entropy_;
    std::vector<line> lines_;           ///< up and down of each peer, then of each site
    std::vector<path_state> paths_;     ///< from × to
    std::vector<gilbert> access_loss_;  ///< as lines_
    std::vector<change> changes_;
    std::vector<event> heap_;
    std::uint64_t order_ = 0, inside_ = 0;
    std::vector<peer_counters> counters_;
};

}  // namespace longhaul::sim::lab

#pragma once
/// What the simulated kernels know of one connection. Internal to sim_network; the application holds a sim_stream.
///
/// The bytes of one direction live in one queue from the sender's write to the receiver's read and are never moved:
///
///     chunks:  [ readable at the receiver | in flight | unsent in the sender's buffer ]
///
/// so a segment in flight is only a count.

#include <array>
#include <deque>
#include <memory>
#include <string>

#include "core/task.hpp"
#include "net/stream.hpp"
#include "sim/link_model.hpp"

namespace longhaul::sim {

class process;

/// One direction between two nodes, shared by all connections between them.
struct path {
    path_options options;
    bool cut = false;
    bool chosen = false;  ///< set by somebody, not the default
};

/// Something that travels in order with the bytes.
struct segment {
    enum class kind : std::uint8_t { data, established, fin };
    kind what = kind::data;
    std::uint64_t bytes = 0;
    core::duration span{};     ///< between its first and its last byte on the sender's uplink
    core::duration penalty{};  ///< of lost packets
};

/// Bytes that the receiver's application took: the sender hears of it at `at`.
struct credit {
    virtual_time at{};
    std::uint64_t bytes = 0;
};

/// The bytes from one end to the other.
struct direction {
    std::deque<core::byte_vector> chunks;
    std::size_t head = 0;  ///< bytes of chunks.front() that were read
    std::uint64_t readable = 0, in_flight = 0, unsent = 0;
    std::uint64_t delivered = 0;  ///< all that has arrived

    std::uint64_t outstanding = 0;  ///< sent and not credited: at most the window
    std::deque<credit> credits;
    bool in_round = false;        ///< waits for its turn on the uplink
    bool window_blocked = false;  ///< waits for credit
    bool credit_scheduled = false;
    bool fin_wanted = false, fin_sent = false;

    virtual_time last_arrival{}, last_delivery{};  ///< the order is kept
    std::deque<segment> held;                      ///< arrived at a cut path or a dead host: repeated when it heals
    virtual_time held_since{};
    bool retry_scheduled = false;
    std::uint64_t retransmits = 0;
};

/// One end.
struct end {
    std::uint32_t node = 0;
    net::endpoint address;
    process* owner = nullptr;  ///< whose application holds the stream; null before accept and after the process ended
    std::unique_ptr<core::wakeup> readable, writable;
    bool reading = false, writing = false;  ///< somebody waits on them
    bool closed = false;                    ///< the application closed it, or its process ended
    bool finished = false;                  ///< the other end's orderly end has arrived
    bool reset = false;                     ///< the other end's reset has arrived, or retransmission gave up
    bool gone = false;                      ///< its host lost power: knows nothing of the connection
    bool reset_sent = false;
    std::string why;  ///< of the reset
};

struct connection {
    std::uint64_t id = 0;
    std::array<end, 2> ends;        ///< 0 connected, 1 accepted
    std::array<direction, 2> ways;  ///< ways[i]: from end i to the other
    std::array<path*, 2> paths{};   ///< ways[i] goes over paths[i]
    std::uint16_t listening_port = 0;
    bool half_open = true;  ///< the dialler has not heard of it yet

    core::duration rtt() const { return paths[0]->options.delay + paths[1]->options.delay; }
};

}  // namespace longhaul::sim

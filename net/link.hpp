#pragma once
/// An authenticated pair of peers: one control connection for small messages, and k bulk connections for large ones,
/// over which every transfer is striped; k is found by the link itself.
///
/// Control messages are opaque bytes of the layer above, delivered in order. Transfers are credit-based: the sender
/// offers a tag and a size, the receiver accepts with a destination when it is ready (or refuses), and only then bytes
/// flow, decrypted straight into the destination. So a slow receiver blocks nothing but its own transfer.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/task.hpp"
#include "net/environment.hpp"
#include "net/identity.hpp"

namespace longhaul::net {

/// A control message may not be larger; larger things are transfers.
inline constexpr std::size_t max_control_message = 1 << 20;
/// Largest tag of a transfer: names it to the layer above (kind, round, author…). Unique among open transfers of a
/// link.
inline constexpr std::size_t max_transfer_tag = 128;
/// Largest transfer.
inline constexpr std::uint64_t max_transfer_bytes = std::uint64_t{1} << 40;

/// Which transfers go first when several have bytes to send; within a class they take turns.
enum class transfer_priority : std::uint8_t {
    payload,  ///< a round waits for it
    state,    ///< catch-up: takes what payloads leave
};

/// What the other end said of itself inside the handshake, authenticated.
struct remote_peer {
    peer_key key;
    std::uint64_t incarnation = 0;  ///< grows with each start of that node
    std::uint64_t features = 0;
    std::optional<core::digest> token;  ///< initiator only
    std::string name;                   ///< for people: bounded, printable
    std::vector<endpoint> advertised;   ///< where it says it listens (may be empty); port 0 host "" never occur
    endpoint observed;                  ///< the address its control connection has
};

/// Passive measurements of a link. Bytes are all bytes given to sockets: framing and handshakes included. Goodput is
/// payload bytes per second while transfers were under way; 0: not measured yet.
struct link_stats {
    core::duration rtt_min{};  ///< of control; zero: not measured yet
    core::duration rtt_last{};
    core::duration rtt_median{}, rtt_p99{};  ///< of the latest 128
    std::uint64_t wire_sent = 0;
    std::uint64_t wire_received = 0;
    std::uint64_t padding_sent = 0;                             ///< of wire_sent: what warmed new connections
    double goodput_up = 0, goodput_down = 0;                    ///< medians of the latest windows, for people
    double goodput_up_cautious = 0, goodput_down_cautious = 0;  ///< 25th percentiles, for plans
    double loss = 0;              ///< share of our bulk's TCP segments that were sent again
    std::uint64_t window = 0;     ///< bytes: the largest congestion window of our bulk connections
    unsigned streams = 0;         ///< bulk connections that are open
    unsigned streams_used = 0;    ///< of them, those that carry what this end sends
    unsigned streams_wanted = 0;  ///< that this end found to pay
    double pace = 0;              ///< bytes per second that bulk is held to, for control's sake; 0: not held
    std::uint64_t resent = 0;     ///< segments that a second connection carried, too
    core::time_point last_heard;  ///< any authenticated byte on control
};

/// How a link ended.
struct link_end {
    core::error why;       ///< closed (also reset, hung up), timeout (silence), protocol, limit, cancelled
    bool orderly = false;  ///< one of the ends said goodbye; `why.message` holds its reason
};

class link {
public:
    virtual ~link() = default;
    virtual const remote_peer& remote() const = 0;
    /// Whether this end dialled the control connection.
    virtual bool dialled_here() const = 0;
    virtual bool up() const = 0;
    /// Empty while the link is up.
    virtual const std::optional<link_end>& ended() const = 0;

    /// Queues a control message; returns when it was queued, waits while too much is queued. errc::closed when down.
    virtual core::task<core::result<void>> send(core::byte_vector message) = 0;
    /// The next control message; what arrived before the end is still delivered, then errc::closed with the reason.
    /// One reader at a time. A link on which more than 4,096 messages or 16 MiB wait to be received is closed.
    virtual core::task<core::result<core::byte_vector>> receive() = 0;

    /// Offers `data` under `tag` and returns when the receiver has verified and confirmed the last byte.
    /// errc::not_admitted when refused or abandoned by the receiver, errc::closed when the link went down, errc::limit
    /// and errc::usage when it cannot be offered. `data` is kept alive by the shared pointer. Cancelling withdraws.
    /// `ready` (optional) says how many bytes from the front are final and may go: the rest is still being made.
    /// Whoever makes them raises it and then calls `data_ready`; so an offer can be answered before its bytes exist.
    virtual core::task<core::result<void>> send_transfer(std::string tag, std::shared_ptr<const core::byte_vector> data,
                                                         std::shared_ptr<const std::uint64_t> ready = nullptr,
                                                         transfer_priority priority = transfer_priority::payload) = 0;
    /// Asked before each segment of a transfer of class `state` goes: whether so many bytes may, or have to wait for a
    /// moment. So a donor's line is left to payloads, also to those on its other links. One question.
    using state_question = std::function<bool(std::uint64_t bytes)>;
    virtual void hold_back_state(state_question may_go) = 0;
    /// Bytes of bulk that have arrived at the other end since the link came up, as its kernel acknowledged them.
    virtual std::uint64_t delivered_bytes() const = 0;
    /// A queue stands on the way: control's round trip, that of the oldest heartbeat under way included, takes twice
    /// the least one and 20 ms more.
    virtual bool queueing() const = 0;
    /// More bytes of a transfer that is still being made may go.
    virtual void data_ready() = 0;
    /// Called on the I/O thread for each offer; it may accept or refuse later. One handler.
    using offer_handler = std::function<void(const std::string& tag, std::uint64_t bytes)>;
    virtual void on_offer(offer_handler handler) = 0;
    /// Accepts the offered transfer `tag` into `destination` (of its size, or a window; must live until this returns)
    /// and returns when it is complete. errc::not_found when nothing is offered under that tag. Cancelling abandons the
    /// transfer. `on_arrival` (optional) is called on the I/O thread for every part of `destination` that has arrived
    /// and verified, each byte once, in any order, and never after this returned.
    using arrival_handler = std::function<void(std::uint64_t offset, std::uint64_t bytes)>;
    /// `held` (optional) is asked, before any of it moves, for each part of the transfer that can be left out: true
    /// when those bytes of `destination` are there already, from an earlier link. They are not told to `on_arrival`.
    using held_question = std::function<bool(std::uint64_t offset, std::uint64_t bytes)>;
    virtual core::task<core::result<void>> receive_transfer(std::string tag, core::mutable_bytes destination,
                                                            arrival_handler on_arrival = {}, held_question held = {},
                                                            std::uint64_t used = 0) = 0;
    /// A `destination` smaller than the transfer is a window, a multiple of 256 KiB: byte `at` lies there at `at`
    /// modulo its size, and only so much is in flight or unused at a time. This says that all bytes before `used` are
    /// used: others may take their place. `used` above: those that are already, from an earlier link.
    virtual void make_room(const std::string& tag, std::uint64_t used) = 0;
    /// Bytes of an accepted transfer that have arrived and verified so far.
    virtual std::uint64_t received_of(const std::string& tag) const = 0;
    /// An offer that was not accepted yet; unknown tags are ignored.
    virtual void refuse_transfer(const std::string& tag, std::string why) = 0;
    /// Ends a transfer that this end offered, or accepted, as if who waits for it had been cancelled: `send_transfer`,
    /// or `receive_transfer`, returns errc::cancelled. Unknown tags are ignored.
    virtual void withdraw_transfer(const std::string& tag) = 0;
    virtual void abandon_transfer(const std::string& tag) = 0;

    /// Heartbeats of this end go as often as it takes to notice a short silence, or as seldom as the link allows: where
    /// nobody would do anything about it.
    virtual void beat_often(bool often) = 0;
    virtual link_stats stats() const = 0;
    /// Called on the I/O thread with each round trip of control that is measured. One handler.
    using round_trip_handler = std::function<void(core::duration)>;
    virtual void on_round_trip(round_trip_handler handler) = 0;
    /// Of them, the bytes given to sockets and taken from them: a node asks for these often.
    virtual wire_count wire() const = 0;
    /// Says goodbye (an authenticated end) and closes. The other side sees an orderly end with `reason`.
    virtual void close(std::string reason) = 0;
};

}  // namespace longhaul::net

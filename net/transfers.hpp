#pragma once
/// The open transfers of one link, sans I/O: what may be sent next, what has arrived, what is illegal. Both tables
/// know nothing of connections but their numbers, so that several can pull segments of one transfer.

#include <array>
#include <map>
#include <memory>
#include <optional>

#include "core/task.hpp"
#include "net/link.hpp"
#include "net/wire.hpp"

namespace longhaul::net {

/// A transfer is cut into segments of this size; the last one may be shorter.
inline constexpr std::uint32_t segment_bytes = 256 * 1024;
/// Open transfers of a link in one direction.
inline constexpr std::size_t max_open_transfers = 4096;

/// The payload of a SEGMENT record: u64 transfer, u64 offset, u32 length.
struct segment {
    std::uint64_t transfer = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    std::uint64_t index() const { return offset / segment_bytes; }
    core::byte_vector encode() const;
    /// errc::protocol unless it is one segment of the grid.
    static core::result<segment> parse(core::const_bytes payload);
};

/// How many segments a transfer of this size has.
inline std::uint64_t segments_of(std::uint64_t bytes) { return (bytes + segment_bytes - 1) / segment_bytes; }

/// A transfer that this end offered.
struct outgoing_transfer {
    outgoing_transfer(std::uint64_t number, std::string name, std::shared_ptr<const core::byte_vector> bytes,
                      std::shared_ptr<const std::uint64_t> ready_bytes, transfer_priority class_,
                      asio::any_io_executor executor)
        : id(number),
          tag(std::move(name)),
          data(std::move(bytes)),
          ready(std::move(ready_bytes)),
          priority(class_),
          changed(std::move(executor)) {}
    std::uint64_t id;
    std::string tag;
    std::shared_ptr<const core::byte_vector> data;
    std::shared_ptr<const std::uint64_t> ready;  ///< null: all of `data` is
    transfer_priority priority;
    bool accepted = false;
    std::uint64_t credit = 0;
    std::optional<core::result<void>> outcome;
    core::wakeup changed;  ///< notified when there is an outcome

    enum class place : std::uint8_t { to_send, in_flight, confirmed };
    std::vector<place> where;                          ///< of each segment
    std::vector<bool> given;                           ///< of each segment: to some connection, at some time
    std::map<std::uint64_t, std::uint64_t> in_flight;  ///< segment to its flight
    std::uint64_t next_index = 0;                      ///< no segment before it is to be sent
    std::uint64_t resent = 0;                          ///< segments that were given to a second connection
    std::uint64_t confirmed_bytes = 0;
    std::uint64_t skipped = 0;              ///< of them, those that did not have to be sent
    std::optional<core::time_point> begun;  ///< when the first segment was given to a connection

    segment piece(std::uint64_t index) const;
    /// Bytes from the front that may go: against credit, and made already.
    std::uint64_t sendable() const { return std::min(credit, ready ? *ready : data->size()); }
};

/// How long segments take from their connection to the confirmation, as RFC 6298 estimates round trips.
class segment_time {
public:
    void add(core::duration taken);
    bool known() const { return mean_ > 0; }
    /// A segment without confirmation for longer is overdue.
    core::duration patience() const;

private:
    double mean_ = 0, deviation_ = 0;
};

/// The sending half.
class outgoing_transfers {
public:
    explicit outgoing_transfers(asio::any_io_executor executor) : executor_(std::move(executor)) {}

    /// errc::limit (tag, size, too many open), errc::usage (the tag is open already).
    core::result<std::shared_ptr<outgoing_transfer>> offer(std::string tag,
                                                           std::shared_ptr<const core::byte_vector> data,
                                                           std::shared_ptr<const std::uint64_t> ready = nullptr,
                                                           transfer_priority priority = transfer_priority::payload);
    /// nullptr if nothing is open under that tag.
    std::shared_ptr<outgoing_transfer> find(const std::string& tag) const;
    /// Forgets a transfer without an outcome.
    void withdraw(std::uint64_t id);
    /// Ends all of them.
    void fail_all(const core::error& why);

    /// The receiver's words. errc::protocol; words about a transfer that is over are late, not wrong.
    core::result<void> on(const wire::transfer_accept& m);
    core::result<void> on(const wire::transfer_refuse& m);
    core::result<void> on(const wire::transfer_progress& m, core::time_point now);
    core::result<void> on(const wire::transfer_done& m, core::time_point now);
    core::result<void> on(const wire::transfer_abandon& m);

    /// The next segment to send on connection `number` (not 0): payloads first, the open transfers of a class in turn.
    ///
    /// A segment that a connection holds up is given to a second one, once: by a connection that has nothing else to
    /// do, when it is overdue; by a busy one, when that has overtaken it by more than the patience (as RFC 8985 finds
    /// lost packets: what was sent later has arrived).
    struct work {
        std::shared_ptr<outgoing_transfer> transfer;
        segment what;
        core::const_bytes bytes;
    };
    std::optional<work> next(std::uint32_t number, core::time_point now);
    /// For a connection that carries nothing: a segment that another one holds up, if it is overdue.
    std::optional<work> overdue(std::uint32_t number, core::time_point now);
    /// After that moment `overdue` may have something for a connection that carries nothing, although nothing else
    /// happened.
    std::optional<core::time_point> next_overdue(std::uint32_t number) const;
    /// A connection died: what it alone carried and nobody confirmed is to be sent again.
    void connection_lost(std::uint32_t number);
    /// Accepted transfers with bytes that may go and are not confirmed: while there is one, the link limits us.
    std::size_t active() const;
    /// Nothing is offered.
    bool empty() const { return open_.empty(); }
    /// Asked before a segment of class `state` is given to a connection. When it said no, such transfers count as no
    /// backlog until `look_again`.
    void hold_back_state(link::state_question may_go) { may_send_state_ = std::move(may_go); }
    bool holding_back() const { return holding_back_; }
    void look_again() { holding_back_ = false; }
    /// Whether some transfer has a segment that no connection carries yet, and that may go.
    bool backlog() const;
    /// The sizes of all accepted transfers that are not over.
    std::uint64_t offered_bytes() const;
    /// The sizes of the accepted transfers of which nothing may go yet: their bytes are still being made.
    std::uint64_t awaited_bytes() const;
    /// Bytes of all transfers, past ones included, that receivers confirmed.
    std::uint64_t confirmed_bytes() const { return confirmed_bytes_; }

private:
    /// A segment on its way.
    struct flight {
        std::shared_ptr<outgoing_transfer> transfer;
        std::uint64_t index = 0;
        std::uint32_t carrier = 0, second = 0;  ///< connections; 0: none
        core::time_point given;
        bool resent = false;
    };
    /// What is known of a connection.
    struct carrier {
        std::size_t carries = 0;      ///< segments without confirmation
        core::time_point overtook{};  ///< of the segments that it delivered, when the latest was given to it
    };
    core::result<std::shared_ptr<outgoing_transfer>> find(std::uint64_t id) const;
    core::result<void> refuse(std::uint64_t id, std::string why);
    void end(outgoing_transfer& t, core::result<void> outcome);
    work give(const std::shared_ptr<outgoing_transfer>& t, std::uint64_t index, std::uint32_t number,
              core::time_point now);
    std::optional<work> fresh(std::uint32_t number, transfer_priority priority, core::time_point now);
    std::optional<work> held_up(std::uint32_t number, core::time_point given_before);
    void confirm(outgoing_transfer& t, std::uint64_t index, core::time_point now);
    void leave(const flight& f);

    asio::any_io_executor executor_;
    std::map<std::uint64_t, std::shared_ptr<outgoing_transfer>> open_;
    std::map<std::uint64_t, flight> flights_;  ///< in the order in which they were given
    std::map<std::uint32_t, carrier> carriers_;
    segment_time segment_time_;
    link::state_question may_send_state_;
    bool holding_back_ = false;
    std::uint64_t last_id_ = 0;
    std::uint64_t last_flight_ = 0;
    std::array<std::uint64_t, 2> last_served_{};  ///< of each class
    std::uint64_t confirmed_bytes_ = 0;
};

/// A segment under way on a connection.
struct segment_part {
    std::uint64_t index = 0;
    std::uint64_t bytes = 0;  ///< verified
};

/// A transfer that the other end offered.
struct incoming_transfer {
    incoming_transfer(std::uint64_t number, std::string name, std::uint64_t size, asio::any_io_executor executor)
        : id(number), tag(std::move(name)), bytes(size), changed(std::move(executor)) {}
    std::uint64_t id;
    std::string tag;
    std::uint64_t bytes;
    bool accepted = false;
    core::mutable_bytes destination;                ///< all of it, or a window: byte `at` lies at `at` modulo its size
    std::uint64_t credit = 0;                       ///< bytes before it may come
    std::uint64_t used = 0;                         ///< segments in front that are not wanted any more
    std::vector<bool> have;                         ///< of each segment
    std::uint64_t received = 0;                     ///< bytes of whole segments
    std::map<std::uint32_t, segment_part> partial;  ///< of each connection, the segment under way
    std::uint64_t arrived = 0;                      ///< segments
    std::uint64_t skipped = 0;                      ///< bytes of segments that did not have to come
    std::optional<core::time_point> begun_at;       ///< when the first bytes had come
    std::vector<std::pair<std::uint64_t, std::uint64_t>> unreported;  ///< first, count
    link::arrival_handler on_arrival;
    std::optional<core::result<void>> outcome;
    core::wakeup changed;  ///< notified when there is an outcome

    /// Bytes that have arrived and verified, each place counted once.
    std::uint64_t verified() const;
    bool begun() const { return received > 0 || !partial.empty(); }
};

/// The receiving half. Two connections may carry the same segment: the first to finish it counts, and until then both
/// write the same bytes to the same place.
class incoming_transfers {
public:
    explicit incoming_transfers(asio::any_io_executor executor) : executor_(std::move(executor)) {}

    /// The sender's words. errc::protocol.
    core::result<std::shared_ptr<incoming_transfer>> on(const wire::transfer_offer& m);
    core::result<void> on(const wire::transfer_withdraw& m);

    /// nullptr if nothing is open under that tag.
    std::shared_ptr<incoming_transfer> find(const std::string& tag) const;
    /// Opens the transfer for segments; those that are held or used already count as arrived. errc::not_found,
    /// errc::usage (accepted already, or neither its size nor a window).
    core::result<std::shared_ptr<incoming_transfer>> accept(const std::string& tag, core::mutable_bytes destination,
                                                            link::arrival_handler on_arrival = {},
                                                            const link::held_question& held = {},
                                                            std::uint64_t used = 0);
    /// Bytes before `used` of an accepted transfer are not wanted any more, and in a window others may take their
    /// place. What to tell the sender, if more may come now.
    std::optional<wire::transfer_accept> make_room(const std::string& tag, std::uint64_t used);
    /// Forgets a transfer: whatever still arrives for it is dropped.
    void forget(std::uint64_t id);
    void fail_all(const core::error& why);
    const std::map<std::uint64_t, std::shared_ptr<incoming_transfer>>& open() const { return open_; }

    /// Whether this segment is wanted; otherwise its data is a duplicate or late, and is dropped. errc::protocol.
    core::result<bool> begin(const segment& s) const;
    /// Where `n` bytes at `at` inside a segment go; empty if it is not wanted any more: the transfer ended, or another
    /// connection was first.
    core::mutable_bytes place(const segment& s, std::uint32_t at, std::size_t n) const;
    /// These bytes have verified on connection `number`.
    void verified(std::uint32_t number, const segment& s, std::size_t n, core::time_point now);
    /// All of the segment has. Returns the transfer if this completed it.
    std::shared_ptr<incoming_transfer> finish(const segment& s);
    /// A connection died: the segment under way on it begins again.
    void connection_lost(std::uint32_t number);
    /// The next report to send, if some segment is unreported.
    std::optional<wire::transfer_progress> report();
    bool has_report() const { return unreported_ > 0; }
    /// The sizes of all transfers that were ever accepted.
    std::uint64_t accepted_bytes() const { return accepted_bytes_; }
    /// Transfers of which something has arrived and that are not over.
    std::size_t active() const { return active_; }

private:
    std::shared_ptr<incoming_transfer> find_id(std::uint64_t id) const;
    void take(incoming_transfer& t, std::uint64_t index, std::uint64_t length);
    void use_up(incoming_transfer& t, std::uint64_t used);
    void end(incoming_transfer& t, core::result<void> outcome);

    asio::any_io_executor executor_;
    std::map<std::uint64_t, std::shared_ptr<incoming_transfer>> open_;
    std::map<std::string, std::uint64_t> by_tag_;
    std::uint64_t last_id_ = 0;
    std::size_t unreported_ = 0;  ///< transfers with unreported segments
    std::size_t active_ = 0;      ///< kept, because each data record asks
    std::uint64_t accepted_bytes_ = 0;
};

}  // namespace longhaul::net

#pragma once
/// The bulk connections of one link: as many as both ends want, each pulling segments when its socket wants data, so
/// that a slow, lossy or dead one holds up nothing but itself.
///
/// New connections are warmed: while the bytes of an accepted transfer are still being made, and until the path has
/// been full once, padding opens their congestion windows, so that the first payload needs no slow start. It may cost
/// an eighth of what waits to be sent.

#include <functional>
#include <map>
#include <memory>
#include <set>

#include "net/channel.hpp"
#include "net/cipher_load.hpp"
#include "net/delay_guard.hpp"
#include "net/environment.hpp"
#include "net/stream_count.hpp"
#include "net/transfers.hpp"

namespace longhaul::net {

/// Bulk connections of a link, both ends' wishes together.
inline constexpr unsigned max_streams = wire::max_streams;

struct stripe_options {
    core::duration silence_limit = std::chrono::seconds(10);
    unsigned streams = 0;  ///< 0: found by measurement
    bool warm = true;      ///< pads new connections while a transfer waits for its bytes
    std::shared_ptr<cipher_load> ciphers = std::make_shared<cipher_load>();  ///< of all links of this node
    /// The end that dialled the control connection dials these too: opens number n. Empty at the other end. Called only
    /// while `run` runs.
    std::function<core::task<core::result<std::unique_ptr<channel>>>(std::uint32_t number)> dial;
    /// The end that does not dial asks for so many.
    std::function<void(unsigned count)> ask;
    /// Bytes of a wanted segment have arrived and verified.
    std::function<void(std::uint64_t bytes)> on_bytes;
    /// A segment is complete; with it the transfer, unless that is null.
    std::function<void(std::shared_ptr<incoming_transfer>)> on_segment;
    /// Padding has ended, so many bytes in so many seconds: the path is full, or it has cost as much as it may, or
    /// there is something else to send.
    std::function<void(std::uint64_t bytes, double seconds)> on_warmed;
    /// The other end broke the protocol.
    std::function<void(core::error)> on_crime;
};

/// Sums over all bulk connections of a link, past ones included.
struct stripe_totals {
    wire_count wire;
    std::uint64_t delivered = 0;      ///< bytes that the other end's kernel has acknowledged; 0: no kernel tells
    std::uint64_t segments_sent = 0;  ///< TCP segments
    std::uint64_t retransmits = 0;    ///< TCP segments
    std::uint64_t window = 0;         ///< bytes: the largest congestion window of a living connection
    std::uint64_t window_limit = 0;   ///< bytes: the most that one of them can have in flight
};

class stripes {
public:
    /// All must outlive `run`.
    stripes(environment& env, outgoing_transfers& outgoing, incoming_transfers& incoming, stripe_options options);

    /// Keeps and serves the connections until `close`, or cancelled.
    core::task<core::result<void>> run();
    /// Ends all of them; `run` returns soon.
    void close();
    void set_silence_limit(core::duration limit) { options_.silence_limit = limit; }

    /// The end that does not dial: whether connection `number` may come. errc::protocol when it was here before,
    /// errc::limit when there are too many. It changes nothing: anybody may say a number.
    core::result<void> expect(std::uint32_t number) const;
    /// The same end: uses a connection whose first record has opened, and no other one of its number ever again.
    core::result<void> adopt(std::uint32_t number, std::unique_ptr<channel> connection);
    /// The other end asks for so many.
    void asked(unsigned count);
    /// There may be a segment to send, or a transfer began or ended.
    void changed();
    /// A control round trip was measured, and for how much of it the queue on the way there accounts.
    void round_trip(core::duration last, core::duration least, core::duration queueing);

    /// Bulk is under way from here, padding included.
    bool sending() const { return outgoing_.active() > 0 || warming(); }
    /// Connections that carry what this end sends: the wanted ones that are open.
    unsigned in_use() const;
    unsigned wanted() const { return count_.wanted(); }
    /// Bytes per second to which bulk is held for control's sake; 0: not held.
    double pace_limit() const { return guard_.limit(); }
    unsigned open() const { return static_cast<unsigned>(open_.size()); }
    stripe_totals totals() const;
    /// Bytes that have arrived at the other end, as of the last look (25 ms, while something is sent).
    std::uint64_t delivered_bytes() const { return delivered_bytes(totals()); }
    /// Of them, the bytes alone.
    wire_count wire() const;
    /// Of the bytes sent, what warmed new connections (contents of records).
    std::uint64_t padding_sent() const { return padding_sent_; }

private:
    struct stripe {
        std::uint32_t number = 0;
        std::unique_ptr<channel> connection;
        core::time_point opened;
        bool useful = false;  ///< carried a segment, either way
        double pace = 0;
        stream_info last;
        core::time_point moved;  ///< when the other end last acknowledged something, or nothing was under way
    };
    using shared_stripe = std::shared_ptr<stripe>;

    core::task<core::result<void>> keep_open();
    core::task<core::result<void>> dial_one();
    core::task<core::result<void>> measure();
    core::task<core::result<void>> serve(shared_stripe s);
    core::task<core::result<void>> serve_until_end(stripe& s);
    core::task<core::result<void>> read(stripe& s);
    core::task<core::result<void>> read_segment(stripe& s, segment what);
    core::task<core::result<void>> write(stripe& s);
    core::task<core::result<void>> write_segment(stripe& s, outgoing_transfers::work work);
    core::task<core::result<void>> write_idle(stripe& s, core::const_bytes padding = {});
    core::task<core::result<void>> write_padding(stripe& s);
    core::task<core::result<void>> watch(stripe& s);
    template <typename Work>
    core::result<void> cipher(Work work);
    template <typename Work>
    core::task<core::result<void>> cipher_by_worker(Work work);
    bool needs_worker() const { return options_.ciphers->heavy() && !env_.workers.full(); }
    bool early() const;
    bool warming() const;
    void notice_warmth();
    unsigned target() const;
    bool may_send(const stripe& s) const;
    bool some_stalled() const;
    std::uint64_t delivered_bytes(const stripe_totals& sums) const;
    void begin(std::uint32_t number, std::unique_ptr<channel> connection);
    void put_off();
    void look();
    void pace();
    static void add(stripe_totals& sums, const stripe& s);

    environment& env_;
    outgoing_transfers& outgoing_;
    incoming_transfers& incoming_;
    stripe_options options_;
    core::scope children_;
    core::wakeup to_send_;     ///< there may be a segment to send
    core::wakeup to_dial_;     ///< a connection may be missing
    core::wakeup to_measure_;  ///< something is sent
    core::time_point since_;
    bool closed_ = false;

    std::map<std::uint32_t, shared_stripe> open_;
    std::set<std::uint32_t> seen_;  ///< the latest numbers, at the end that does not dial
    std::uint32_t last_number_ = 0;
    unsigned dialling_ = 0;
    unsigned asked_ = 1;      ///< by the other end
    unsigned said_ = 1;       ///< to the other end
    core::duration pause_{};  ///< between dials that fail
    core::time_point dial_at_{};
    std::optional<core::time_point> surplus_since_;
    stripe_totals past_;
    std::uint64_t padding_sent_ = 0, padding_received_ = 0;
    std::optional<std::pair<core::time_point, std::uint64_t>> warming_since_;  ///< and the padding sent before

    stream_count count_;
    delay_guard guard_;
    core::duration rtt_least_{};
};

}  // namespace longhaul::net

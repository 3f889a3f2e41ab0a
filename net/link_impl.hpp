#pragma once
/// The one implementation of net::link; made and run by the mesh.

#include <deque>

#include "net/stripes.hpp"
#include "net/telemetry.hpp"

namespace longhaul::net {

/// What a finished control handshake hands to the link.
struct link_setup {
    remote_peer remote;
    side mine = side::initiator;  ///< of the control handshake; the initiator dials the bulk connections too
    noise::secret_key exporter;
    std::unique_ptr<channel> control;
    core::byte_vector preface;  ///< sealed records that go out before anything else (the responder's verdict)
    core::duration silence_limit = std::chrono::seconds(10);
    unsigned streams = 0;  ///< bulk connections; 0: found by measurement
    bool warm = true;      ///< pads new connections while a transfer waits for its bytes
    std::shared_ptr<cipher_load> ciphers = std::make_shared<cipher_load>();  ///< that of the node
    /// Initiator: opens bulk connection `number`. Called only while `run` runs.
    std::function<core::task<core::result<std::unique_ptr<channel>>>(std::uint32_t number)> dial_bulk;
};

/// Waiting control messages of the other end, beyond which the link is closed.
inline constexpr std::size_t max_waiting_messages = 4096;
inline constexpr std::size_t max_waiting_bytes = 16 << 20;
/// Control messages queued to be sent, beyond which `send` waits.
inline constexpr std::size_t max_queued_bytes = 4 << 20;

class link_impl final : public link, public std::enable_shared_from_this<link_impl> {
public:
    /// `env` must outlive `run`.
    link_impl(environment& env, link_setup setup);

    /// Serves the link until it is down; run once. Never fails: `ended` tells why.
    core::task<core::result<void>> run();
    /// Responder: the key of bulk connection `number`; errc::protocol when it was here before, errc::limit.
    core::result<noise::secret_key> key_of_bulk(std::uint32_t number) const;
    /// Responder: uses this connection, whose first record opened. Errors as above.
    core::result<void> adopt_bulk(std::uint32_t number, std::unique_ptr<channel> connection);
    /// Ends the link at once.
    void fail(core::error why, bool orderly = false);
    side mine() const { return setup_.mine; }
    core::time_point since() const { return since_; }

    const remote_peer& remote() const override { return setup_.remote; }
    bool dialled_here() const override { return setup_.mine == side::initiator; }
    bool up() const override { return !ended_; }
    const std::optional<link_end>& ended() const override { return ended_; }
    core::task<core::result<void>> send(core::byte_vector message) override;
    core::task<core::result<core::byte_vector>> receive() override;
    core::task<core::result<void>> send_transfer(std::string tag, std::shared_ptr<const core::byte_vector> data,
                                                 std::shared_ptr<const std::uint64_t> ready,
                                                 transfer_priority priority) override;
    void hold_back_state(state_question may_go) override { outgoing_.hold_back_state(std::move(may_go)); }
    std::uint64_t delivered_bytes() const override { return stripes_.delivered_bytes(); }
    bool queueing() const override;
    void data_ready() override;
    void on_offer(offer_handler handler) override;
    core::task<core::result<void>> receive_transfer(std::string tag, core::mutable_bytes destination,
                                                    arrival_handler on_arrival, held_question held,
                                                    std::uint64_t used) override;
    void make_room(const std::string& tag, std::uint64_t used) override;
    std::uint64_t received_of(const std::string& tag) const override;
    void refuse_transfer(const std::string& tag, std::string why) override;
    void withdraw_transfer(const std::string& tag) override;
    void abandon_transfer(const std::string& tag) override;
    void beat_often(bool often) override;
    void set_silence_limit(core::duration limit);
    link_stats stats() const override;
    void on_round_trip(round_trip_handler handler) override { round_trip_handler_ = std::move(handler); }
    wire_count wire() const override;
    void close(std::string reason) override;

private:
    struct outgoing_guard;
    struct incoming_guard;
    core::task<core::result<void>> read_control();
    core::task<core::result<void>> write_control();
    core::task<core::result<void>> beat();
    core::task<core::result<void>> report_progress();
    core::task<core::result<void>> end_after_goodbye();
    core::task<core::result<void>> probe_round_trips();

    core::result<void> take(const record& r);
    core::result<void> take_message_piece(const record& r);
    core::result<void> take_link_message(core::const_bytes bytes);
    core::result<void> on(const wire::heartbeat& m);
    core::result<void> on(const wire::heartbeat_echo& m);
    core::result<void> on(const wire::transfer_offer& m);
    core::result<void> on(const wire::transfer_withdraw& m);
    core::result<void> on(const wire::streams_wanted& m);
    template <typename Answer>
    core::result<void> on(const Answer& m);
    void say(const wire::control& message);
    void withdraw(outgoing_transfer& t);
    void abandon(incoming_transfer& t);
    void wake_all();
    std::size_t fill(core::mutable_bytes out);
    void send_heartbeat();
    void report_transfer(const char* direction, std::uint64_t bytes, std::optional<core::time_point> begun,
                         std::uint64_t resent);
    stripe_options options_for_stripes();
    void measure_up();
    void measure_down(std::uint64_t bytes);
    /// Ends the link and passes the error on.
    tl::unexpected<core::error> down(core::error why);
    core::error down_error() const;
    core::result<void> stopped() const;
    std::string name() const;

    environment& env_;
    link_setup setup_;
    channel& control_;
    core::time_point since_, last_heard_;
    bool writing_ = false;  ///< control has bytes that the socket does not take yet
    std::optional<link_end> ended_;
    bool saying_goodbye_ = false;
    std::string goodbye_;
    core::wakeup ending_;

    // Control, outwards: link messages go before the application's.
    core::wakeup to_write_;
    std::deque<core::byte_vector> link_messages_;
    std::deque<core::byte_vector> messages_;
    std::size_t queued_bytes_ = 0;
    std::size_t front_sent_ = 0;  ///< of the first application message
    std::optional<wire::heartbeat_echo> echo_;
    core::wakeup sent_;

    // Control, inwards.
    core::byte_vector piece_;
    std::deque<core::byte_vector> waiting_;
    std::size_t waiting_bytes_ = 0;
    core::wakeup received_;

    std::uint64_t beat_ = 0;
    core::time_point beat_at_{};
    bool beats_often_ = true;
    core::wakeup rhythm_changed_;
    std::deque<std::pair<std::uint64_t, core::time_point>> beats_;  ///< not echoed yet
    core::duration rtt_last_{};
    least_round_trip rtt_least_;
    outward_queueing outward_;
    quantiles rtts_;
    round_trip_handler round_trip_handler_;

    outgoing_transfers outgoing_;
    incoming_transfers incoming_;
    offer_handler offer_handler_;
    core::wakeup to_report_;
    goodput_meter up_, down_;
    std::uint64_t counted_up_ = 0;
    std::uint64_t resent_ = 0;

    core::wakeup sending_;  ///< a transfer to send began
    stripes stripes_;
};

}  // namespace longhaul::net

#include <algorithm>
#include <asio/this_coro.hpp>

#include "net/link_impl.hpp"
#include "net/printable.hpp"

namespace longhaul::net {

using core::errc;
using core::ok;
using core::result;
using core::task;

namespace {

/// Pieces of control messages are small, so that a heartbeat waits for little.
constexpr std::size_t message_piece = 16 * 1024;
/// Of one write on control.
constexpr std::size_t control_write = 128 * 1024;
/// Link messages queued for an end that does not read; it provokes them, so it must not choose how many.
constexpr std::size_t max_link_messages = 4 * max_open_transfers;
/// Confirmations of segments are gathered for this long.
constexpr auto report_every = std::chrono::milliseconds(20);
/// How long a goodbye may take.
constexpr auto goodbye_time = std::chrono::seconds(1);
/// While this end sends bulk, round trips are measured so often, or each half round trip, if that is longer.
constexpr auto probe_often = std::chrono::milliseconds(25);
/// Heartbeats whose echo is waited for.
constexpr std::size_t max_beats = 256;
/// A line that collapses drops control's segments and retries them ever later, while the full queue before it drains.
/// Bulk that moves excuses control for so many silence limits, not for ever: control itself may be dead.
constexpr int excused_by_bulk = 3;

/// Not before when a count last moved: the look before the one that found it moved.
class movement {
public:
    movement(std::uint64_t count, core::time_point now) : count_(count), looked_at_(now), at_(now) {}
    core::time_point look(std::uint64_t count, core::time_point now) {
        const auto before = std::exchange(looked_at_, now);
        if (std::exchange(count_, count) != count) at_ = before;
        return at_;
    }

private:
    std::uint64_t count_;
    core::time_point looked_at_, at_;
};

std::uint64_t microseconds(core::time_point t) {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count());
}

}  // namespace

link_impl::link_impl(environment& env, link_setup setup)
    : env_(env),
      setup_(std::move(setup)),
      control_(*setup_.control),
      since_(env.clock.now()),
      last_heard_(since_),
      ending_(env.executor),
      to_write_(env.executor),
      sent_(env.executor),
      received_(env.executor),
      rhythm_changed_(env.executor),
      outgoing_(env.executor),
      incoming_(env.executor),
      to_report_(env.executor),
      sending_(env.executor),
      stripes_(env, outgoing_, incoming_, options_for_stripes()) {}

stripe_options link_impl::options_for_stripes() {
    stripe_options o;
    o.silence_limit = setup_.silence_limit;
    o.streams = setup_.streams;
    o.warm = setup_.warm;
    o.ciphers = setup_.ciphers;
    if (setup_.mine == side::initiator) o.dial = std::move(setup_.dial_bulk);
    o.ask = [this](unsigned count) { say(wire::streams_wanted{count}); };
    o.on_bytes = [this](std::uint64_t n) { measure_down(n); };
    o.on_segment = [this](const std::shared_ptr<incoming_transfer>& done) {
        if (!done) return to_report_.notify();
        say(wire::transfer_done{done->id});
        measure_down(0);
    };
    o.on_warmed = [this](std::uint64_t bytes, double seconds) {
        core::event e("link_warmed");
        e.with("peer", setup_.remote.key.hex()).with("bytes", bytes).with("seconds", seconds);
        env_.events.emit(e.with("streams", std::uint64_t{stripes_.in_use()}));
    };
    o.on_crime = [this](const core::error& why) {
        (void)down(why.within(fmt::format("{} broke the protocol", name())));
    };
    return o;
}

std::string link_impl::name() const {
    return setup_.remote.name.empty() ? setup_.remote.key.brief() : setup_.remote.name;
}

// ---- life and death

task<result<void>> link_impl::run() {
    const auto self = shared_from_this();
    // Whatever cancels us must find the children joined.
    co_await asio::this_coro::throw_if_cancelled(false);
    core::scope children(env_.executor);
    children.spawn("control in", read_control());
    children.spawn("control out", write_control());
    children.spawn("heartbeat", beat());
    children.spawn("progress", report_progress());
    children.spawn("goodbye", end_after_goodbye());
    children.spawn("bulk", stripes_.run());
    children.spawn("round trips", probe_round_trips());
    auto ended = co_await children.join();
    fail(ended ? core::error(errc::closed, "the link ended") : ended.error());
    co_return ok();
}

void link_impl::fail(core::error why, bool orderly) {
    if (!ended_) ended_.emplace(link_end{std::move(why), orderly});
    control_.stream->close();
    wake_all();
}

/// Nothing more is sent or received: whoever waits for it hears of it.
void link_impl::wake_all() {
    stripes_.close();
    const auto closed = down_error();
    outgoing_.fail_all(closed);
    incoming_.fail_all(closed);
    for (auto* each : {&ending_, &to_write_, &sent_, &received_, &to_report_, &sending_}) each->notify();
}

core::error link_impl::down_error() const { return {errc::closed, ended_ ? ended_->why.message : "the link is down"}; }

/// How a child ends that has no more to do: without disturbing a goodbye.
result<void> link_impl::stopped() const { return saying_goodbye_ ? ok() : core::fail(down_error()); }

tl::unexpected<core::error> link_impl::down(core::error why) {
    if (!ended_ && (why.code == errc::protocol || why.code == errc::limit)) {
        env_.events.emit(core::event("error")
                             .with("peer", setup_.remote.key.brief())
                             .with("code", std::string(core::name_of(why.code)))
                             .with("message", fmt::format("closing the link with {}: {}", name(), why.message)));
    }
    fail(why);
    return core::fail(std::move(why));
}

void link_impl::close(std::string reason) {
    if (ended_) return;
    ended_.emplace(link_end{{errc::closed, fmt::format("this end said goodbye: {}", reason)}, true});
    saying_goodbye_ = true;
    goodbye_ = std::move(reason);
    wake_all();
}

task<result<void>> link_impl::end_after_goodbye() {
    while (!saying_goodbye_) {
        auto woken = co_await ending_.wait();
        LONGHAUL_CO_TRY(woken);
        if (ended_ && !saying_goodbye_) co_return core::fail(down_error());
    }
    auto slept = co_await env_.clock.sleep_for(goodbye_time);
    LONGHAUL_CO_TRY(slept);
    co_return down(down_error());
}

task<result<void>> link_impl::beat() {
    core::time_point excused{};  // as if something had been heard then
    auto taken_at = env_.clock.now();
    movement taken(control_.count.sent, taken_at), arrived(0, taken_at), delivered(0, taken_at);
    const auto excusing = [this](core::time_point control, core::time_point bulk) {
        return std::max(control, std::min(bulk, control + (excused_by_bulk - 1) * setup_.silence_limit));
    };
    for (;;) {
        const auto limit = setup_.silence_limit, held_up = limit / 3;
        const auto now = env_.clock.now();
        const auto arrived_at = arrived.look(stripes_.wire().received, now);
        const auto delivered_at = delivered.look(stripes_.delivered_bytes(), now);
        const auto moved_at = taken.look(control_.count.sent, now);
        taken_at = writing_ ? std::max(taken_at, moved_at) : now;
        if (now - std::max(excusing(taken_at, delivered_at), excused) >= limit) {
            // It may well talk: but whoever does not read keeps what we hold for it, and hears nobody.
            co_return down({errc::timeout,
                            fmt::format("{} has read nothing for {:.1f} s", name(), core::to_seconds(now - taken_at))});
        }
        const auto heard = std::max(excusing(last_heard_, arrived_at), excused);
        if (now - heard >= limit) {
            co_return down({errc::timeout, fmt::format("nothing was heard from {} for {:.1f} s", name(),
                                                       core::to_seconds(now - last_heard_))});
        }
        // Often, the layer above sees a silence long before the limit.
        const auto rhythm = limit / (beats_often_ ? 20 : 4);
        if (beat_ == 0 || now - beat_at_ >= rhythm) send_heartbeat();
        const auto wake_at = std::min(beat_at_ + rhythm, heard + limit);
        auto woken = co_await rhythm_changed_.wait(env_.clock, wake_at);
        if (!woken && woken.error().code != errc::timeout) co_return woken;
        // This process itself was held up: what the other end said meanwhile is still to be read.
        const auto woken_at = env_.clock.now();
        if (woken_at - wake_at > held_up) excused = woken_at - limit + held_up;
    }
}

void link_impl::set_silence_limit(core::duration limit) {
    setup_.silence_limit = limit;
    stripes_.set_silence_limit(limit);
    rhythm_changed_.notify();
}

void link_impl::beat_often(bool often) {
    if (std::exchange(beats_often_, often) != often) rhythm_changed_.notify();
}

void link_impl::send_heartbeat() {
    beat_at_ = env_.clock.now();
    beats_.emplace_back(++beat_, beat_at_);
    if (beats_.size() > max_beats) beats_.pop_front();
    say(wire::heartbeat{beat_});
}

/// Bulk must not delay control (DESIGN §4): whoever sends it looks.
task<result<void>> link_impl::probe_round_trips() {
    while (!ended_) {
        if (!stripes_.sending()) {
            auto woken = co_await sending_.wait();
            LONGHAUL_CO_TRY(woken);
            if (!stripes_.sending()) continue;
        }
        // First the pause: what is over by then has delayed nobody.
        auto slept = co_await env_.clock.sleep_for(std::max<core::duration>(probe_often, rtt_least_.least() / 2));
        LONGHAUL_CO_TRY(slept);
        if (!ended_ && stripes_.sending()) send_heartbeat();
    }
    co_return stopped();
}

// ---- control, outwards

void link_impl::say(const wire::control& message) {
    if (ended_) return;
    if (link_messages_.size() >= max_link_messages) {
        fail({errc::limit, fmt::format("{} does not read what it asks for", name())});
        return;
    }
    link_messages_.push_back(wire::serialize(message));
    to_write_.notify();
}

/// Seals as much of what is queued as fits and returns its size.
std::size_t link_impl::fill(core::mutable_bytes out) {
    std::size_t used = 0;
    const auto seal = [&](channel_record type, std::uint8_t flags, core::const_bytes payload) {
        const auto n = control_.sealer.seal(code(type), flags, payload, out.subspan(used));
        LONGHAUL_ENSURE(n, "a control record does not fit its buffer");
        used += *n;
    };
    if (echo_) {
        const auto echo = wire::serialize(*std::exchange(echo_, std::nullopt));
        seal(channel_record::link, 0, echo);
    }
    while (!link_messages_.empty() && out.size() - used >= link_messages_.front().size() + record_overhead) {
        seal(channel_record::link, 0, link_messages_.front());
        link_messages_.pop_front();
    }
    while (link_messages_.empty() && !messages_.empty()) {
        const auto rest = core::const_bytes(messages_.front()).subspan(front_sent_);
        const auto n = std::min(rest.size(), message_piece);
        if (out.size() - used < n + record_overhead) break;
        const bool last = n == rest.size();
        seal(channel_record::message, last ? 0 : more_follows, rest.first(n));
        front_sent_ += n;
        if (last) {
            queued_bytes_ -= messages_.front().size();
            messages_.pop_front();
            front_sent_ = 0;
        }
    }
    return used;
}

task<result<void>> link_impl::write_control() {
    core::byte_vector out(control_write);
    auto preface = std::move(setup_.preface);
    writing_ = true;
    auto begun = co_await control_.write(preface);
    if (!begun) co_return down(begun.error());
    for (;;) {
        const auto n = fill(out);
        if (n > 0) {
            sent_.notify();
            writing_ = true;
            auto written = co_await control_.write(core::const_bytes(out).first(n));
            if (!written) co_return down(written.error());
            continue;
        }
        if (saying_goodbye_) {
            const auto end = control_.sealer.seal_end(goodbye_);
            if (!end) co_return down(end.error());
            auto written = co_await control_.write(*end);
            if (!written) co_return down(written.error());
            co_return ok();  // the other end closes, or our patience ends
        }
        if (ended_) co_return core::fail(down_error());
        writing_ = false;
        auto woken = co_await to_write_.wait();
        LONGHAUL_CO_TRY(woken);
    }
}

task<result<void>> link_impl::send(core::byte_vector message) {
    const auto self = shared_from_this();
    if (message.size() > max_control_message) {
        co_return core::fail(errc::limit, "a control message of {} bytes exceeds {}", message.size(),
                             max_control_message);
    }
    while (!ended_ && queued_bytes_ + message.size() > max_queued_bytes) {
        auto woken = co_await sent_.wait();
        LONGHAUL_CO_TRY(woken);
    }
    if (ended_) co_return core::fail(down_error());
    queued_bytes_ += message.size();
    messages_.push_back(std::move(message));
    to_write_.notify();
    co_return ok();
}

// ---- control, inwards

task<result<void>> link_impl::read_control() {
    for (;;) {
        auto next = co_await control_.next_record();
        if (!next) {
            auto why = next.error();
            if (why.code == errc::closed) why.message = fmt::format("{} is gone: {}", name(), why.message);
            co_return down(std::move(why));
        }
        last_heard_ = env_.clock.now();
        if (next->is(record_type::end)) {
            const auto reason = to_printable_utf8(core::as_text(next->payload), max_end_reason);
            fail({errc::closed, fmt::format("{} said goodbye: {}", name(), reason)}, true);
            co_return core::fail(down_error());
        }
        if (ended_) continue;  // we said goodbye: drain until the other end closes
        auto taken = take(*next);
        if (!taken) co_return down(taken.error().within(fmt::format("{} broke the protocol", name())));
    }
}

result<void> link_impl::take(const record& r) {
    if (r.type == code(channel_record::message)) return take_message_piece(r);
    if (r.type == code(channel_record::link)) return take_link_message(r.payload);
    return core::fail(errc::protocol, "a record of type {} came on the control connection", r.type);
}

result<void> link_impl::take_message_piece(const record& r) {
    if ((r.flags & ~more_follows) != 0) return core::fail(errc::protocol, "a message piece has the flags {}", r.flags);
    if (piece_.size() + r.payload.size() > max_control_message) {
        return core::fail(errc::protocol, "a control message exceeds {} bytes", max_control_message);
    }
    const bool more = (r.flags & more_follows) != 0;
    if (more && r.payload.empty()) return core::fail(errc::protocol, "an empty message piece came");
    piece_.insert(piece_.end(), r.payload.begin(), r.payload.end());
    if (more) return ok();
    if (waiting_.size() >= max_waiting_messages || waiting_bytes_ + piece_.size() > max_waiting_bytes) {
        return core::fail(errc::limit, "{} messages of {} bytes wait to be received", waiting_.size(), waiting_bytes_);
    }
    waiting_bytes_ += piece_.size();
    waiting_.push_back(std::exchange(piece_, {}));
    received_.notify();
    return ok();
}

task<result<core::byte_vector>> link_impl::receive() {
    const auto self = shared_from_this();
    while (waiting_.empty()) {
        if (ended_) co_return core::fail(down_error());
        auto woken = co_await received_.wait();
        LONGHAUL_CO_TRY(woken);
    }
    auto message = std::move(waiting_.front());
    waiting_.pop_front();
    waiting_bytes_ -= message.size();
    co_return message;
}

result<void> link_impl::take_link_message(core::const_bytes bytes) {
    LONGHAUL_TRY_ASSIGN(const auto message, wire::parse_control(bytes));
    return std::visit([this](const auto& m) { return on(m); }, message);
}

result<void> link_impl::on(const wire::heartbeat& m) {
    // Only the latest is echoed: whoever sends faster than it reads learns nothing from the others.
    echo_ = wire::heartbeat_echo{m.sequence, microseconds(env_.clock.now())};
    to_write_.notify();
    return ok();
}

result<void> link_impl::on(const wire::heartbeat_echo& m) {
    if (m.sequence > beat_) return core::fail(errc::protocol, "heartbeat {} was echoed before it was sent", m.sequence);
    while (!beats_.empty() && beats_.front().first < m.sequence) beats_.pop_front();
    if (beats_.empty() || beats_.front().first != m.sequence) return ok();
    const auto now = env_.clock.now(), sent = beats_.front().second;
    beats_.pop_front();
    rtt_last_ = now - sent;
    rtt_least_.add(now, rtt_last_);
    auto queueing = rtt_last_ - rtt_least_.least();
    if (m.heard_us != 0) queueing = outward_.add(now, m.heard_us - microseconds(sent), queueing);
    rtts_.add(core::to_seconds(rtt_last_));
    if (round_trip_handler_) round_trip_handler_(rtt_last_);
    stripes_.round_trip(rtt_last_, rtt_least_.least(), queueing);
    return ok();
}

result<void> link_impl::on(const wire::streams_wanted& m) {
    if (setup_.mine != side::initiator) {
        return core::fail(errc::protocol, "it asked for connections, and dials them itself");
    }
    stripes_.asked(m.count);
    return ok();
}

result<void> link_impl::on(const wire::transfer_offer& m) {
    LONGHAUL_TRY_ASSIGN(const auto t, incoming_.on(m));
    stripes_.changed();
    if (offer_handler_) offer_handler_(t->tag, t->bytes);
    return ok();
}

result<void> link_impl::on(const wire::transfer_withdraw& m) {
    LONGHAUL_TRY(incoming_.on(m));
    measure_down(0);
    return ok();
}

template <typename Answer>
result<void> link_impl::on(const Answer& m) {
    if constexpr (requires { outgoing_.on(m, env_.clock.now()); }) {
        LONGHAUL_TRY(outgoing_.on(m, env_.clock.now()));
    } else {
        LONGHAUL_TRY(outgoing_.on(m));
    }
    data_ready();
    return ok();
}

// ---- transfers

/// Withdraws a transfer whose sender stopped waiting.
struct link_impl::outgoing_guard {
    link_impl& owner;
    std::shared_ptr<outgoing_transfer> transfer;
    ~outgoing_guard() {
        if (!transfer->outcome) owner.withdraw(*transfer);
    }
};

void link_impl::withdraw(outgoing_transfer& t) {
    t.outcome = core::fail(errc::cancelled, "the transfer was withdrawn");
    outgoing_.withdraw(t.id);
    say(wire::transfer_withdraw{t.id});
    measure_up();
    t.changed.notify();
}

void link_impl::withdraw_transfer(const std::string& tag) {
    if (const auto t = outgoing_.find(tag)) withdraw(*t);
}

task<result<void>> link_impl::send_transfer(std::string tag, std::shared_ptr<const core::byte_vector> data,
                                            std::shared_ptr<const std::uint64_t> ready, transfer_priority priority) {
    const auto self = shared_from_this();
    if (ended_) co_return core::fail(down_error());
    auto offered = outgoing_.offer(std::move(tag), std::move(data), std::move(ready), priority);
    LONGHAUL_CO_TRY(offered);
    const outgoing_guard guard{*this, *offered};
    const auto& t = *guard.transfer;
    say(wire::transfer_offer{t.id, t.tag, t.data->size()});
    stripes_.changed();
    while (!t.outcome) {
        auto woken = co_await guard.transfer->changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    if (*t.outcome) report_transfer("up", t.data->size() - t.skipped, t.begun, t.resent);
    co_return *t.outcome;
}

void link_impl::data_ready() {
    measure_up();
    stripes_.changed();
    if (stripes_.sending()) sending_.notify();
}

/// The event of a transfer that is complete, from its first byte on: it may have been offered long before there was
/// one. Small ones say nothing of a link.
void link_impl::report_transfer(const char* direction, std::uint64_t bytes, std::optional<core::time_point> begun,
                                std::uint64_t resent) {
    resent_ += resent;
    const double seconds = begun ? core::to_seconds(env_.clock.now() - *begun) : 0;
    if (bytes < segment_bytes || seconds <= 0) return;
    core::event e("transfer");
    e.with("peer", setup_.remote.key.hex()).with("direction", std::string(direction)).with("bytes", bytes);
    e.with("seconds", seconds).with("goodput", 8 * static_cast<double>(bytes) / seconds);
    e.with("streams", std::uint64_t{stripes_.open()}).with("rtt_seconds", core::to_seconds(rtt_last_));
    if (resent > 0) e.with("resent", resent);
    env_.events.emit(e);
}

void link_impl::on_offer(offer_handler handler) {
    offer_handler_ = std::move(handler);
    // Offers may have come before anybody listened. The handler may change the table.
    std::vector<std::pair<std::string, std::uint64_t>> before;
    for (const auto& [id, t] : incoming_.open()) {
        if (!t->accepted) before.emplace_back(t->tag, t->bytes);
    }
    for (const auto& [tag, bytes] : before) {
        if (offer_handler_) offer_handler_(tag, bytes);
    }
}

/// Abandons a transfer whose receiver stopped waiting.
struct link_impl::incoming_guard {
    link_impl& owner;
    std::shared_ptr<incoming_transfer> transfer;
    ~incoming_guard() {
        if (!transfer->outcome) owner.abandon(*transfer);
    }
};

void link_impl::abandon(incoming_transfer& t) {
    t.outcome = core::fail(errc::cancelled, "the transfer was abandoned");
    incoming_.forget(t.id);
    say(wire::transfer_abandon{t.id});
    measure_down(0);
    t.changed.notify();
}

void link_impl::abandon_transfer(const std::string& tag) {
    const auto t = incoming_.find(tag);
    if (t && t->accepted) abandon(*t);
}

task<result<void>> link_impl::receive_transfer(std::string tag, core::mutable_bytes destination,
                                               arrival_handler on_arrival, held_question held, std::uint64_t used) {
    const auto self = shared_from_this();
    if (ended_) co_return core::fail(down_error());
    auto accepted = incoming_.accept(tag, destination, std::move(on_arrival), held, used);
    held = {};  // it may keep alive what the bytes came from
    LONGHAUL_CO_TRY(accepted);
    const incoming_guard guard{*this, *accepted};
    const auto& t = *guard.transfer;
    say(wire::transfer_accept{t.id, t.credit});
    // What need not be sent is said before there is time to send it.
    while (auto report = incoming_.report()) say(*report);
    if (t.outcome) say(wire::transfer_done{t.id});
    while (!t.outcome) {
        auto woken = co_await guard.transfer->changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    if (*t.outcome) report_transfer("down", t.bytes - t.skipped, t.begun_at, 0);
    co_return *t.outcome;
}

void link_impl::make_room(const std::string& tag, std::uint64_t used) {
    const auto t = incoming_.find(tag);
    if (const auto more = incoming_.make_room(tag, used)) say(*more);
    if (t && t->outcome) say(wire::transfer_done{t->id});
    if (incoming_.has_report()) to_report_.notify();
}

std::uint64_t link_impl::received_of(const std::string& tag) const {
    const auto t = incoming_.find(tag);
    return t ? t->verified() : 0;
}

void link_impl::refuse_transfer(const std::string& tag, std::string why) {
    const auto t = incoming_.find(tag);
    if (!t || t->accepted) return;
    incoming_.forget(t->id);
    say(wire::transfer_refuse{t->id, std::move(why)});
}

task<result<void>> link_impl::report_progress() {
    for (;;) {
        while (!incoming_.has_report()) {
            if (ended_) co_return stopped();
            auto woken = co_await to_report_.wait();
            LONGHAUL_CO_TRY(woken);
        }
        auto slept = co_await env_.clock.sleep_for(report_every);
        LONGHAUL_CO_TRY(slept);
        while (auto report = incoming_.report()) say(*report);
    }
}

void link_impl::measure_up() {
    const auto now = env_.clock.now();
    if (outgoing_.active() > 0) up_.busy(now);
    up_.add(outgoing_.confirmed_bytes() - counted_up_, now);
    counted_up_ = outgoing_.confirmed_bytes();
    if (outgoing_.active() == 0) up_.idle(now);
}

void link_impl::measure_down(std::uint64_t bytes) {
    const auto now = env_.clock.now();
    if (incoming_.active() > 0 || bytes > 0) down_.busy(now);
    down_.add(bytes, now);
    if (incoming_.active() == 0) down_.idle(now);
}

bool link_impl::queueing() const {
    const auto under_way = beats_.empty() ? core::duration{} : env_.clock.now() - beats_.front().second;
    return std::max(rtt_last_, under_way) > 2 * rtt_least_.least() + std::chrono::milliseconds(20);
}

link_stats link_impl::stats() const {
    const auto bulk = stripes_.totals();
    link_stats s;
    s.rtt_min = rtt_least_.least();
    s.rtt_last = rtt_last_;
    s.rtt_median = core::from_seconds(rtts_.at(0.5));
    s.rtt_p99 = core::from_seconds(rtts_.at(0.99));
    const auto bytes = wire();
    s.wire_sent = bytes.sent;
    s.wire_received = bytes.received;
    s.padding_sent = stripes_.padding_sent();
    s.goodput_up = up_.bytes_per_second();
    s.goodput_down = down_.bytes_per_second();
    s.goodput_up_cautious = up_.cautious();
    s.goodput_down_cautious = down_.cautious();
    if (bulk.segments_sent > 0) {
        s.loss = static_cast<double>(bulk.retransmits) / static_cast<double>(bulk.segments_sent);
    }
    s.window = bulk.window;
    s.streams = ended_ ? 0 : stripes_.open();
    s.streams_used = ended_ ? 0 : stripes_.in_use();
    s.streams_wanted = stripes_.wanted();
    s.pace = stripes_.pace_limit();
    s.resent = resent_;
    s.last_heard = last_heard_;
    return s;
}

wire_count link_impl::wire() const {
    const auto bulk = stripes_.wire();
    return {control_.count.sent + bulk.sent, control_.count.received + bulk.received};
}

// ---- bulk

result<noise::secret_key> link_impl::key_of_bulk(std::uint32_t number) const {
    if (ended_) return core::fail(down_error());
    LONGHAUL_TRY(stripes_.expect(number));
    return connection_key(setup_.exporter, side::initiator, number);
}

result<void> link_impl::adopt_bulk(std::uint32_t number, std::unique_ptr<channel> connection) {
    if (ended_) return core::fail(down_error());
    return stripes_.adopt(number, std::move(connection));
}

}  // namespace longhaul::net

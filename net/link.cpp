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
/// Of one data record on bulk.
constexpr std::size_t data_piece = 32 * 1024;
/// Link messages queued for an end that does not read; it provokes them, so it must not choose how many.
constexpr std::size_t max_link_messages = 4 * max_open_transfers;
/// Confirmations of segments are gathered for this long.
constexpr auto report_every = std::chrono::milliseconds(20);
/// How long a goodbye may take.
constexpr auto goodbye_time = std::chrono::seconds(1);
constexpr auto redial_first = std::chrono::milliseconds(100);
constexpr auto redial_most = std::chrono::seconds(5);

constexpr std::size_t segment_wire =
    segment_bytes + (segment_bytes / data_piece + 1) * data_overhead + record_overhead + 20;

std::uint8_t code(channel_record type) { return static_cast<std::uint8_t>(type); }

/// Whichever ends first ends both.
task<result<void>> either(task<result<void>> a, task<result<void>> b) {
    auto first = co_await core::race(std::move(a), std::move(b));
    co_return first.index() == 0 ? std::get<0>(std::move(first)) : std::get<1>(std::move(first));
}

}  // namespace

link_impl::link_impl(environment& env, link_setup setup)
    : env_(env),
      setup_(std::move(setup)),
      control_(*setup_.control),
      since_(env.clock.now()),
      last_heard_(since_),
      to_write_(env.executor),
      sent_(env.executor),
      received_(env.executor),
      outgoing_(env.executor),
      incoming_(env.executor),
      to_report_(env.executor),
      to_send_(env.executor),
      bulk_changed_(env.executor) {}

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
    children.spawn("bulk", keep_bulk());
    auto ended = co_await children.join();
    fail(ended ? core::error(errc::closed, "the link ended") : ended.error());
    co_return ok();
}

void link_impl::fail(core::error why, bool orderly) {
    if (!ended_) ended_.emplace(link_end{std::move(why), orderly});
    control_.stream->close();
    if (bulk_) bulk_->stream->close();
    next_bulk_.reset();
    const auto closed = down_error();
    outgoing_.fail_all(closed);
    incoming_.fail_all(closed);
    for (auto* each : {&to_write_, &sent_, &received_, &to_report_, &to_send_, &bulk_changed_}) each->notify();
}

core::error link_impl::down_error() const { return {errc::closed, ended_ ? ended_->why.message : "the link is down"}; }

/// How a child ends that has no more to do: without disturbing a goodbye.
result<void> link_impl::stopped() const { return saying_goodbye_ ? ok() : core::fail(down_error()); }

tl::unexpected<core::error> link_impl::down(core::error why) {
    if (!ended_ && (why.code == errc::protocol || why.code == errc::limit)) {
        env_.events.emit(core::event("error")
                             .with("peer", setup_.remote.key.brief())
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
    if (bulk_) bulk_->stream->close();
    const auto closed = down_error();
    outgoing_.fail_all(closed);
    incoming_.fail_all(closed);
    for (auto* each : {&to_write_, &sent_, &received_, &to_report_, &to_send_, &bulk_changed_}) each->notify();
}

task<result<void>> link_impl::end_after_goodbye() {
    while (!saying_goodbye_) {
        auto woken = co_await to_write_.wait();
        LONGHAUL_CO_TRY(woken);
        if (ended_ && !saying_goodbye_) co_return core::fail(down_error());
    }
    auto slept = co_await env_.clock.sleep_for(goodbye_time);
    LONGHAUL_CO_TRY(slept);
    co_return down(down_error());
}

task<result<void>> link_impl::beat() {
    const auto interval = setup_.silence_limit / 3;
    core::time_point excused{};  // as if something had been heard then
    for (;;) {
        const auto now = env_.clock.now();
        const auto heard = std::max(last_heard_, excused);
        if (now - heard >= setup_.silence_limit) {
            co_return down({errc::timeout, fmt::format("nothing was heard from {} for {:.1f} s", name(),
                                                       core::to_seconds(setup_.silence_limit))});
        }
        if (beat_ == 0 || now - beat_at_ >= interval) {
            beat_at_ = now;
            say(wire::heartbeat{++beat_});
        }
        const auto wake_at = std::min(beat_at_ + interval, heard + setup_.silence_limit);
        auto slept = co_await env_.clock.sleep_until(wake_at);
        LONGHAUL_CO_TRY(slept);
        // This process itself was held up: what the other end said meanwhile is still to be read.
        const auto woken_at = env_.clock.now();
        if (woken_at - wake_at > interval) excused = woken_at - setup_.silence_limit + interval;
    }
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
        const auto echo = wire::serialize(wire::heartbeat_echo{*std::exchange(echo_, std::nullopt)});
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
    auto begun = co_await control_.write(preface);
    if (!begun) co_return down(begun.error());
    for (;;) {
        const auto n = fill(out);
        if (n > 0) {
            sent_.notify();
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
    echo_ = m.sequence;
    to_write_.notify();
    return ok();
}

result<void> link_impl::on(const wire::heartbeat_echo& m) {
    if (m.sequence > beat_) return core::fail(errc::protocol, "heartbeat {} was echoed before it was sent", m.sequence);
    if (m.sequence != beat_) return ok();
    rtt_last_ = env_.clock.now() - beat_at_;
    rtt_min_ = rtt_min_ > core::duration{} ? std::min(rtt_min_, rtt_last_) : rtt_last_;
    return ok();
}

result<void> link_impl::on(const wire::transfer_offer& m) {
    LONGHAUL_TRY_ASSIGN(const auto t, incoming_.on(m));
    if (offer_handler_) offer_handler_(t->tag, t->bytes);
    return ok();
}

template <typename Answer>
result<void> link_impl::on(const Answer& m) {
    if constexpr (std::is_same_v<Answer, wire::transfer_withdraw>) {
        LONGHAUL_TRY(incoming_.on(m));
        measure_down(0);
    } else {
        LONGHAUL_TRY(outgoing_.on(m));
        measure_up();
        to_send_.notify();
    }
    return ok();
}

// ---- transfers

/// Withdraws a transfer whose sender stopped waiting.
struct link_impl::outgoing_guard {
    link_impl& owner;
    std::shared_ptr<outgoing_transfer> transfer;
    ~outgoing_guard() {
        if (transfer->outcome) return;
        owner.outgoing_.withdraw(transfer->id);
        owner.say(wire::transfer_withdraw{transfer->id});
        owner.measure_up();
    }
};

task<result<void>> link_impl::send_transfer(std::string tag, std::shared_ptr<const core::byte_vector> data,
                                            std::shared_ptr<const std::uint64_t> ready) {
    const auto self = shared_from_this();
    if (ended_) co_return core::fail(down_error());
    auto offered = outgoing_.offer(std::move(tag), std::move(data), std::move(ready));
    LONGHAUL_CO_TRY(offered);
    const outgoing_guard guard{*this, *offered};
    const auto& t = *guard.transfer;
    say(wire::transfer_offer{t.id, t.tag, t.data->size()});
    while (!t.outcome) {
        auto woken = co_await guard.transfer->changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return *t.outcome;
}

void link_impl::data_ready() {
    measure_up();
    to_send_.notify();
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
        if (transfer->outcome) return;
        owner.incoming_.forget(transfer->id);
        owner.say(wire::transfer_abandon{transfer->id});
        owner.measure_down(0);
    }
};

task<result<void>> link_impl::receive_transfer(std::string tag, core::mutable_bytes destination,
                                               arrival_handler on_arrival) {
    const auto self = shared_from_this();
    if (ended_) co_return core::fail(down_error());
    auto accepted = incoming_.accept(tag, destination, std::move(on_arrival));
    LONGHAUL_CO_TRY(accepted);
    const incoming_guard guard{*this, *accepted};
    const auto& t = *guard.transfer;
    say(wire::transfer_accept{t.id, t.bytes});
    if (t.bytes == 0) say(wire::transfer_done{t.id});
    while (!t.outcome) {
        auto woken = co_await guard.transfer->changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return *t.outcome;
}

std::uint64_t link_impl::received_of(const std::string& tag) const {
    const auto t = incoming_.find(tag);
    return t ? t->received + t->partial : 0;
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

link_stats link_impl::stats() const {
    link_stats s;
    s.rtt_min = rtt_min_;
    s.rtt_last = rtt_last_;
    s.wire_sent = control_.count.sent + past_bulk_.sent + (bulk_ ? bulk_->count.sent : 0);
    s.wire_received = control_.count.received + past_bulk_.received + (bulk_ ? bulk_->count.received : 0);
    s.goodput_up = up_.bytes_per_second();
    s.goodput_down = down_.bytes_per_second();
    s.streams = bulk_ && !ended_ ? 1 : 0;
    s.last_heard = last_heard_;
    return s;
}

// ---- bulk

result<noise::secret_key> link_impl::key_of_bulk(std::uint32_t number) {
    if (ended_) return core::fail(down_error());
    if (setup_.mine != side::responder || number <= bulk_number_) {
        return core::fail(errc::protocol, "bulk connection {} is not expected", number);
    }
    bulk_number_ = number;
    return connection_key(setup_.exporter, side::initiator, number);
}

void link_impl::adopt_bulk(std::unique_ptr<channel> connection) {
    if (ended_) return;
    next_bulk_ = std::move(connection);
    if (bulk_) bulk_->stream->close();
    bulk_changed_.notify();
}

/// Keeps one bulk connection as long as control lives.
task<result<void>> link_impl::keep_bulk() {
    core::duration pause{};
    while (!ended_) {
        if (setup_.mine == side::initiator) {
            if (pause > core::duration{}) {
                const auto jitter = 0.75 + env_.entropy.unit() / 2;
                auto slept = co_await env_.clock.sleep_for(core::from_seconds(core::to_seconds(pause) * jitter));
                LONGHAUL_CO_TRY(slept);
            }
            pause = std::clamp<core::duration>(pause * 2, redial_first, redial_most);
            auto dialling = setup_.dial_bulk(++bulk_number_);
            auto dialled = co_await std::move(dialling);
            if (!dialled) continue;
            next_bulk_ = std::move(*dialled);
        }
        while (!next_bulk_ && !ended_) {
            auto woken = co_await bulk_changed_.wait();
            LONGHAUL_CO_TRY(woken);
        }
        if (ended_) break;
        ++carrier_;
        bulk_ = std::move(next_bulk_);
        const auto opened_at = env_.clock.now();
        auto served = co_await serve_bulk();
        if (env_.clock.now() - opened_at > redial_most) pause = redial_first;
        past_bulk_.sent += bulk_->count.sent;
        past_bulk_.received += bulk_->count.received;
        bulk_.reset();
        outgoing_.connection_lost(carrier_);
        incoming_.connection_lost();
        if (!served && (served.error().code == errc::protocol || served.error().code == errc::limit)) {
            co_return down(served.error().within(fmt::format("{} broke the protocol", name())));
        }
    }
    co_return stopped();
}

/// Until the present bulk connection ends; its error.
task<result<void>> link_impl::serve_bulk() {
    auto moving = either(read_bulk(), write_bulk());
    return either(std::move(moving), watch_bulk());
}

task<result<void>> link_impl::watch_bulk() {
    const auto& c = *bulk_;
    auto received = c.count.received;
    // Looks are counted, not time: a process that was held up itself must look again first.
    for (int quiet = 0; quiet < 3; ++quiet) {
        auto slept = co_await env_.clock.sleep_for(setup_.silence_limit / 3);
        LONGHAUL_CO_TRY(slept);
        if (c.count.received == received) continue;
        received = c.count.received;
        quiet = -1;
    }
    co_return core::fail(errc::timeout, "nothing was heard on the bulk connection");
}

/// Writes the announcement and the data records of a segment; returns their size.
std::size_t link_impl::seal_segment(const outgoing_transfers::work& work, core::mutable_bytes out) {
    auto& sealer = bulk_->sealer;
    auto used = sealer.seal(code(channel_record::segment), 0, work.what.encode(), out);
    LONGHAUL_ENSURE(used, "a segment header does not fit its buffer");
    auto rest = work.bytes;
    while (!rest.empty()) {
        const auto piece = rest.first(std::min(rest.size(), data_piece));
        const auto n = sealer.seal_data(piece, out.subspan(*used));
        LONGHAUL_ENSURE(n, "a data record does not fit its buffer");
        *used += *n;
        rest = rest.subspan(piece.size());
    }
    return *used;
}

task<result<void>> link_impl::write_bulk() {
    auto& c = *bulk_;
    core::byte_vector out(segment_wire);
    const auto interval = setup_.silence_limit / 3;
    auto next_idle = env_.clock.now();
    for (bool first = true;; first = false) {
        std::size_t n = 0;
        // The first record is always an idle one: the responder uses the connection only after it.
        if (const auto work = first ? std::nullopt : outgoing_.next(carrier_)) {
            n = seal_segment(*work, out);
        } else if (first || env_.clock.now() >= next_idle) {
            const auto idle = c.sealer.seal(code(channel_record::idle), 0, {}, out);
            LONGHAUL_CO_TRY(idle);
            n = *idle;
        } else {
            auto woken = co_await core::with_deadline(env_.clock, to_send_.wait(), next_idle);
            if (!woken && woken.error().code != errc::timeout) co_return core::fail(woken.error());
            continue;
        }
        auto written = co_await c.write(core::const_bytes(out).first(n));
        LONGHAUL_CO_TRY(written);
        next_idle = env_.clock.now() + interval;
    }
}

task<result<void>> link_impl::read_bulk() {
    auto& c = *bulk_;
    for (;;) {
        auto next = co_await c.next_record();
        LONGHAUL_CO_TRY(next);
        if (next->is(record_type::end)) co_return core::fail(errc::closed, "the bulk connection ended");
        if (next->type == code(channel_record::idle) && next->payload.empty()) continue;
        if (next->type != code(channel_record::segment)) {
            co_return core::fail(errc::protocol, "a record of type {} with {} bytes came on a bulk connection",
                                 next->type, next->payload.size());
        }
        const auto what = segment::parse(next->payload);
        LONGHAUL_CO_TRY(what);
        auto got = co_await read_segment(*what);
        LONGHAUL_CO_TRY(got);
    }
}

task<result<void>> link_impl::read_segment(segment what) {
    auto& c = *bulk_;
    const auto wanted = incoming_.begin(what);
    LONGHAUL_CO_TRY(wanted);
    for (std::uint32_t at = 0; at < what.length;) {
        auto ciphertext = co_await c.next_ciphertext();
        LONGHAUL_CO_TRY(ciphertext);
        const auto n = ciphertext->size() - std::min(ciphertext->size(), noise::tag_size);
        if (n == 0 || n > what.length - at) {
            co_return core::fail(errc::protocol, "a data record of {} bytes came where {} were announced", n,
                                 what.length - at);
        }
        // The transfer may have ended while we waited: then its bytes are verified in place and dropped.
        const auto place = *wanted ? incoming_.place(what, at, n) : core::mutable_bytes{};
        const auto opened = c.opener.open_data(*ciphertext, place.empty() ? ciphertext->first(n) : place);
        LONGHAUL_CO_TRY(opened);
        at += static_cast<std::uint32_t>(n);
        if (place.empty()) continue;
        incoming_.verified(what, n);
        measure_down(n);
    }
    if (!*wanted) co_return ok();
    if (const auto done = incoming_.finish(what)) {
        say(wire::transfer_done{done->id});
        measure_down(0);
    } else {
        to_report_.notify();
    }
    co_return ok();
}

}  // namespace longhaul::net

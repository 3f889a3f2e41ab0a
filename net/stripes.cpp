#include "net/stripes.hpp"

#include <algorithm>

namespace longhaul::net {

using core::errc;
using core::ok;
using core::result;
using core::task;

namespace {

/// Of one data record.
constexpr std::size_t data_piece = 32 * 1024;
/// Sealed at once, and given to the socket.
constexpr std::size_t write_piece = 4 * (data_piece + data_overhead) + record_overhead + 20;
/// Dials of one link at the same time: the other end bounds handshakes per address.
constexpr unsigned most_dials = 8;
constexpr auto redial_first = std::chrono::milliseconds(100);
constexpr auto redial_most = std::chrono::seconds(5);
/// More than one connection is opened when the link has lived so long, or has something to send before: who only asks
/// a question needs none.
constexpr auto settled = std::chrono::seconds(1);
/// Connections that nobody wants are kept so long.
constexpr auto surplus_kept = std::chrono::seconds(10);
/// A connection that got nothing through for so long, or so many round trips, has stalled.
constexpr auto stalled_least = std::chrono::milliseconds(500);
constexpr int stalled_round_trips = 4;
/// While bulk flows, measurements are made so often (or each half round trip, if that is longer).
constexpr auto look_often = std::chrono::milliseconds(25);
/// Padding may cost this share of the transfers that wait for their bytes, and small ones gain nothing by it.
constexpr std::uint64_t padding_share = 8;
constexpr std::uint64_t worth_warming = 1024 * 1024;
/// On a shorter path slow start is over at once.
constexpr auto round_trip_worth_warming = std::chrono::milliseconds(2);
/// Connection numbers that are remembered behind the greatest.
constexpr std::uint32_t remembered = 1024;

/// Whichever ends first ends both.
task<result<void>> either(task<result<void>> a, task<result<void>> b) {
    auto first = co_await core::race(std::move(a), std::move(b));
    co_return first.index() == 0 ? std::get<0>(std::move(first)) : std::get<1>(std::move(first));
}

}  // namespace

stripes::stripes(environment& env, outgoing_transfers& outgoing, incoming_transfers& incoming, stripe_options options)
    : env_(env),
      outgoing_(outgoing),
      incoming_(incoming),
      options_(std::move(options)),
      children_(env.executor),
      to_send_(env.executor),
      to_dial_(env.executor),
      to_measure_(env.executor),
      since_(env.clock.now()),
      count_(std::min(options_.streams, max_streams)) {}

task<result<void>> stripes::run() {
    children_.spawn("dialling", keep_open());
    children_.spawn("measuring", measure());
    co_return co_await children_.join();
}

void stripes::close() {
    if (std::exchange(closed_, true)) return;
    for (const auto& [number, s] : open_) s->connection->stream->close();
    for (auto* each : {&to_send_, &to_dial_, &to_measure_}) each->notify();
}

// ---- how many

bool stripes::early() const {
    return env_.clock.now() - since_ < settled && outgoing_.empty() && incoming_.open().empty();
}

unsigned stripes::target() const {
    return early() ? 1 : std::clamp(std::max(count_.wanted(), asked_), 1U, max_streams);
}

void stripes::asked(unsigned count) {
    asked_ = count;
    to_dial_.notify();
}

/// A transfer will go as soon as its bytes are made, and nobody knows yet what the path carries.
bool stripes::warming() const {
    if (closed_ || !options_.warm || rtt_least_ < round_trip_worth_warming) return false;
    if (count_.filled() || guard_.limit() > 0 || outgoing_.backlog()) return false;
    const auto awaited = outgoing_.awaited_bytes();
    return awaited >= worth_warming && padding_sent_ + data_piece <= awaited / padding_share;
}

void stripes::notice_warmth() {
    const auto now = env_.clock.now();
    if (warming()) {
        if (!warming_since_) warming_since_ = {now, padding_sent_};
        to_send_.notify();
    } else if (const auto begun = std::exchange(warming_since_, {})) {
        const auto padded = padding_sent_ - begun->second;
        if (padded > 0) options_.on_warmed(padded, core::to_seconds(now - begun->first));
    }
}

/// Most of what happens to transfers gives nobody here something to do, and a link has many who would look.
void stripes::changed() {
    if (outgoing_.backlog()) to_send_.notify();
    if (sending()) to_measure_.notify();
    if (env_.clock.now() - since_ < settled) to_dial_.notify();
}

unsigned stripes::in_use() const { return std::min(open(), count_.carrying(outgoing_.offered_bytes())); }

/// The connections with the smallest numbers carry, at both ends: so both can want different numbers.
bool stripes::may_send(const stripe& s) const {
    const auto rank = std::distance(open_.begin(), open_.find(s.number));
    return static_cast<unsigned>(rank) < count_.carrying(outgoing_.offered_bytes());
}

/// A carrying connection has got nothing through for long: the others step in.
bool stripes::some_stalled() const {
    const auto before = env_.clock.now() - std::max<core::duration>(stalled_least, stalled_round_trips * rtt_least_);
    return std::ranges::any_of(
        open_, [&](const auto& entry) { return may_send(*entry.second) && entry.second->moved < before; });
}

result<void> stripes::expect(std::uint32_t number) const {
    if (closed_) return core::fail(errc::closed, "the link is down");
    if (options_.dial || seen_.contains(number) || (last_number_ > remembered && number <= last_number_ - remembered)) {
        return core::fail(errc::protocol, "bulk connection {} is not expected", number);
    }
    if (open_.size() + dialling_ >= 2 * max_streams) {
        return core::fail(errc::limit, "the link has {} bulk connections already", open_.size());
    }
    return ok();
}

result<void> stripes::adopt(std::uint32_t number, std::unique_ptr<channel> connection) {
    LONGHAUL_TRY(expect(number));
    seen_.insert(number);
    last_number_ = std::max(last_number_, number);
    while (seen_.size() > remembered) seen_.erase(seen_.begin());
    begin(number, std::move(connection));
    return ok();
}

void stripes::begin(std::uint32_t number, std::unique_ptr<channel> connection) {
    if (closed_) return;
    if (open_.size() >= max_streams) {
        // The dialler closes what it has given up; a newer connection means that the oldest is dead.
        open_.begin()->second->connection->stream->close();
    }
    auto s = std::make_shared<stripe>();
    s->number = number;
    s->connection = std::move(connection);
    s->opened = s->moved = env_.clock.now();
    open_[number] = s;
    children_.spawn_isolated("bulk", serve(s));
    to_send_.notify();
}

/// Dials what is missing as long as the link lives, and closes what nobody wants.
task<result<void>> stripes::keep_open() {
    while (!closed_) {
        const auto now = env_.clock.now();
        auto wake_at = now + options_.silence_limit;
        if (now - since_ < settled) wake_at = std::min(wake_at, since_ + settled);
        if (!options_.dial) {
            if (const auto wish = early() ? 1 : count_.wanted(); wish != said_) {
                said_ = wish;
                options_.ask(wish);
            }
        } else if (open() + dialling_ < target()) {
            surplus_since_.reset();
            if (dialling_ < most_dials && now >= dial_at_) {
                ++dialling_;
                children_.spawn_isolated("dial", dial_one());
                continue;
            }
            if (dialling_ < most_dials) wake_at = std::min(wake_at, dial_at_);
        } else if (open() > target()) {
            if (!surplus_since_) surplus_since_ = now;
            if (now - *surplus_since_ >= surplus_kept) {
                open_.rbegin()->second->connection->stream->close();
                surplus_since_.reset();
            } else {
                wake_at = std::min(wake_at, *surplus_since_ + surplus_kept);
            }
        } else {
            surplus_since_.reset();
        }
        auto woken = co_await to_dial_.wait(env_.clock, wake_at);
        if (!woken && woken.error().code != errc::timeout) co_return woken;
    }
    co_return ok();
}

task<result<void>> stripes::dial_one() {
    struct counted {
        stripes& owner;
        ~counted() {
            --owner.dialling_;
            owner.to_dial_.notify();
        }
    };
    const counted entry{*this};
    const auto number = ++last_number_;
    auto dialling = options_.dial(number);
    auto dialled = co_await std::move(dialling);
    if (dialled) {
        begin(number, std::move(*dialled));
    } else {
        put_off();
    }
    co_return ok();
}

/// The next dial waits, longer each time.
void stripes::put_off() {
    pause_ = std::clamp<core::duration>(pause_ * 2, redial_first, redial_most);
    const auto jitter = 0.75 + env_.entropy.unit() / 2;
    dial_at_ = env_.clock.now() + core::from_seconds(core::to_seconds(pause_) * jitter);
}

// ---- measuring

void stripes::round_trip(core::duration last, core::duration least, core::duration queueing) {
    const auto now = env_.clock.now();
    rtt_least_ = least;
    guard_.round_trip(now, last, queueing);
    pace();
    if (!sending()) look();
}

void stripes::look() {
    for (const auto& [number, s] : open_) {
        const auto before = std::exchange(s->last, s->connection->stream->info().value_or(s->last));
        if (s->last.delivered_bytes != before.delivered_bytes || s->last.queued_bytes == 0) s->moved = env_.clock.now();
    }
    const auto sums = totals();
    stream_sample sample;
    sample.now = env_.clock.now();
    sample.delivered = delivered_bytes(sums);
    sample.flowing = sample.saturated = outgoing_.backlog() || warming();
    if (!sample.saturated && !open_.empty()) {
        // On a thin line the last segment is taken early, and most of a transfer's time is behind that.
        const auto more = [](const auto& entry) { return entry.second->last.unsent_bytes > 0; };
        sample.flowing = std::ranges::any_of(open_, more);
        sample.saturated =
            std::ranges::all_of(open_, [&](const auto& entry) { return !may_send(*entry.second) || more(entry); });
    }
    sample.open = in_use();
    sample.offered = outgoing_.offered_bytes();
    sample.rtt = rtt_least_;
    sample.queueing = guard_.queueing() || guard_.limit() > 0;
    sample.window = sums.window_limit;
    if (sending()) {
        guard_.delivered(sample.now, sample.delivered);
    } else {
        guard_.idle();
    }
    const auto before = count_.wanted();
    count_.step(sample);
    if (count_.wanted() == before) return;
    to_dial_.notify();
    to_send_.notify();
}

task<result<void>> stripes::measure() {
    while (!closed_) {
        look();
        pace();
        notice_warmth();
        if (!sending()) {
            auto woken = co_await to_measure_.wait();
            LONGHAUL_CO_TRY(woken);
        } else {
            auto slept = co_await env_.clock.sleep_for(look_often);
            LONGHAUL_CO_TRY(slept);
            const auto overdue = outgoing_.next_overdue(0);
            if (outgoing_.holding_back() || (overdue && *overdue < env_.clock.now())) {
                outgoing_.look_again();
                to_send_.notify();
            }
        }
    }
    co_return ok();
}

void stripes::pace() {
    // Connections that were given up still empty their buffers: they share, too.
    const auto carrying = std::ranges::count_if(
        open_, [this](const auto& entry) { return may_send(*entry.second) || entry.second->last.queued_bytes > 0; });
    const double each = carrying > 0 ? guard_.limit() / static_cast<double>(carrying) : 0;
    for (const auto& [number, s] : open_) {
        if (s->pace == each) continue;
        s->pace = each;
        s->connection->stream->set_pace(each);
    }
}

stripe_totals stripes::totals() const {
    auto sums = past_;
    for (const auto& [number, s] : open_) add(sums, *s);
    return sums;
}

std::uint64_t stripes::delivered_bytes(const stripe_totals& sums) const {
    return sums.delivered > 0 ? sums.delivered : outgoing_.confirmed_bytes();
}

wire_count stripes::wire() const {
    auto sum = past_.wire;
    for (const auto& [number, s] : open_) {
        sum.sent += s->connection->count.sent;
        sum.received += s->connection->count.received;
    }
    return sum;
}

void stripes::add(stripe_totals& sums, const stripe& s) {
    sums.wire.sent += s.connection->count.sent;
    sums.wire.received += s.connection->count.received;
    sums.delivered += s.last.delivered_bytes;
    sums.segments_sent += s.last.segments_sent;
    sums.retransmits += s.last.retransmits;
    sums.window = std::max(sums.window, s.last.congestion_window_bytes);
    sums.window_limit = std::max(sums.window_limit, s.last.window_limit_bytes);
}

// ---- one connection

task<result<void>> stripes::serve(shared_stripe s) {
    auto served = co_await serve_until_end(*s);
    if (const auto info = s->connection->stream->info()) s->last = *info;
    s->connection->stream->close();
    open_.erase(s->number);
    add(past_, *s);
    outgoing_.connection_lost(s->number);
    incoming_.connection_lost(s->number);
    if (s->useful || env_.clock.now() - s->opened > redial_most) {
        pause_ = {};
        dial_at_ = env_.clock.now();
    } else {
        put_off();
    }
    to_dial_.notify();
    to_send_.notify();
    const auto code = served ? errc::closed : served.error().code;
    if (code == errc::protocol || code == errc::limit) options_.on_crime(served.error());
    co_return ok();
}

task<result<void>> stripes::serve_until_end(stripe& s) {
    auto moving = either(read(s), write(s));
    return either(std::move(moving), watch(s));
}

task<result<void>> stripes::watch(stripe& s) {
    const auto& count = s.connection->count;
    auto received = count.received;
    // Looks are counted, not time: a process that was held up itself must look again first.
    for (int quiet = 0; quiet < 3; ++quiet) {
        auto slept = co_await env_.clock.sleep_for(options_.silence_limit / 3);
        LONGHAUL_CO_TRY(slept);
        to_send_.notify();
        if (count.received == received) continue;
        received = count.received;
        quiet = -1;
    }
    co_return core::fail(errc::timeout, "nothing was heard on the bulk connection");
}

task<result<void>> stripes::write(stripe& s) {
    // The first record is always an idle one: the other end uses the connection only after it.
    auto begun = co_await write_idle(s);
    LONGHAUL_CO_TRY(begun);
    const auto interval = options_.silence_limit / 3;
    auto next_idle = env_.clock.now() + interval;
    for (;;) {
        const auto overdue = outgoing_.next_overdue(s.number);
        const bool late = overdue && *overdue < env_.clock.now();
        if (may_send(s) ? late || outgoing_.backlog() : late && some_stalled()) {
            // Only a socket that wants data takes a segment: so none waits for a slow connection.
            auto wants = co_await s.connection->stream->writable();
            LONGHAUL_CO_TRY(wants);
            auto work = may_send(s) ? outgoing_.next(s.number, env_.clock.now())
                                    : outgoing_.overdue(s.number, env_.clock.now());
            if (work) {
                auto written = co_await write_segment(s, std::move(*work));
                LONGHAUL_CO_TRY(written);
                next_idle = env_.clock.now() + interval;
                continue;
            }
        }
        if (may_send(s) && warming()) {
            auto written = co_await write_padding(s);
            LONGHAUL_CO_TRY(written);
            next_idle = env_.clock.now() + interval;
            continue;
        }
        if (env_.clock.now() >= next_idle) {
            auto written = co_await write_idle(s);
            LONGHAUL_CO_TRY(written);
            next_idle = env_.clock.now() + interval;
            continue;
        }
        // No timer for each wait: `watch` wakes it when it may have been silent for too long, and `measure` when a
        // segment may be overdue.
        auto woken = co_await to_send_.wait();
        LONGHAUL_CO_TRY(woken);
    }
}

task<result<void>> stripes::write_idle(stripe& s, core::const_bytes padding) {
    core::byte_vector out(padding.size() + record_overhead);
    const auto n = s.connection->sealer.seal(code(channel_record::idle), 0, padding, out);
    LONGHAUL_CO_TRY(n);
    co_return co_await s.connection->write(core::const_bytes(out).first(*n));
}

task<result<void>> stripes::write_padding(stripe& s) {
    static constexpr std::array<std::byte, data_piece> nothing{};
    auto wants = co_await s.connection->stream->writable();
    LONGHAUL_CO_TRY(wants);
    if (!warming()) co_return ok();
    padding_sent_ += nothing.size();
    co_return co_await write_idle(s, nothing);
}

/// Does a piece of cipher work on this thread.
template <typename Work>
result<void> stripes::cipher(Work work) {
    const auto begun = env_.clock.now();
    auto done = work();
    const auto now = env_.clock.now();
    options_.ciphers->spent(now, now - begun);
    return done;
}

/// The same on a worker; meanwhile this thread serves others. What `work` refers to must live until this returns.
template <typename Work>
task<result<void>> stripes::cipher_by_worker(Work work) {
    result<void> done;
    core::duration took{};
    auto job = [&] {
        const auto begun = env_.clock.now();
        done = work();
        took = env_.clock.now() - begun;
    };
    auto ran = co_await env_.workers.run(job, {});
    LONGHAUL_CO_TRY(ran);
    options_.ciphers->spent(env_.clock.now(), took);
    co_return done;
}

/// Writes the announcement and the data records of a segment, sealed piece by piece.
task<result<void>> stripes::write_segment(stripe& s, outgoing_transfers::work work) {
    auto& sealer = s.connection->sealer;
    core::byte_vector out(std::min(write_piece, work.bytes.size() + 4 * (record_overhead + data_overhead)));
    const auto header = work.what.encode();
    auto used = sealer.seal(code(channel_record::segment), 0, header, out);
    LONGHAUL_CO_TRY(used);
    s.useful = true;
    auto rest = work.bytes;
    const auto seal_what_fits = [&]() -> result<void> {
        while (!rest.empty()) {
            const auto piece = rest.first(std::min(rest.size(), data_piece));
            if (out.size() - *used < piece.size() + data_overhead) break;
            LONGHAUL_TRY_ASSIGN(const auto n, sealer.seal_data(piece, core::mutable_bytes(out).subspan(*used)));
            *used += n;
            rest = rest.subspan(piece.size());
        }
        return ok();
    };
    while (!rest.empty()) {
        if (needs_worker()) {
            auto sealed = co_await cipher_by_worker(seal_what_fits);
            LONGHAUL_CO_TRY(sealed);
        } else {
            auto sealed = cipher(seal_what_fits);
            LONGHAUL_CO_TRY(sealed);
        }
        auto written = co_await s.connection->write(core::const_bytes(out).first(*used));
        LONGHAUL_CO_TRY(written);
        *used = 0;
    }
    co_return ok();
}

task<result<void>> stripes::read(stripe& s) {
    for (;;) {
        auto next = co_await s.connection->next_record();
        LONGHAUL_CO_TRY(next);
        if (next->is(record_type::end)) co_return core::fail(errc::closed, "the bulk connection ended");
        if (next->type == code(channel_record::idle)) {
            padding_received_ += next->payload.size();
            if (padding_received_ <= incoming_.accepted_bytes() / padding_share) continue;
            co_return core::fail(errc::protocol, "{} bytes of padding came for {} that were accepted",
                                 padding_received_, incoming_.accepted_bytes());
        }
        if (next->type != code(channel_record::segment)) {
            co_return core::fail(errc::protocol, "a record of type {} with {} bytes came on a bulk connection",
                                 next->type, next->payload.size());
        }
        const auto what = segment::parse(next->payload);
        LONGHAUL_CO_TRY(what);
        s.useful = true;
        auto got = co_await read_segment(s, *what);
        LONGHAUL_CO_TRY(got);
    }
}

task<result<void>> stripes::read_segment(stripe& s, segment what) {
    auto& c = *s.connection;
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
        const auto in_place = ciphertext->first(n);
        const bool by_worker = needs_worker();
        if (by_worker) {
            // Into the buffer of this connection: the transfer may end meanwhile, and its destination with it.
            const auto open_in_place = [&] { return c.opener.open_data(*ciphertext, in_place); };
            auto opened = co_await cipher_by_worker(open_in_place);
            LONGHAUL_CO_TRY(opened);
        }
        // The transfer may have ended while we waited, or another connection was first with this segment: then the
        // bytes are verified in place and dropped.
        const auto place = *wanted ? incoming_.place(what, at, n) : core::mutable_bytes{};
        if (!by_worker) {
            const auto opened =
                cipher([&] { return c.opener.open_data(*ciphertext, place.empty() ? in_place : place); });
            LONGHAUL_CO_TRY(opened);
        } else if (!place.empty()) {
            std::ranges::copy(in_place, place.begin());
        }
        at += static_cast<std::uint32_t>(n);
        if (place.empty()) continue;
        incoming_.verified(s.number, what, n, env_.clock.now());
        options_.on_bytes(n);
    }
    if (*wanted) options_.on_segment(incoming_.finish(what));
    co_return ok();
}

}  // namespace longhaul::net

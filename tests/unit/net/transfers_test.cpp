#include "net/transfers.hpp"

#include <algorithm>
#include <asio/io_context.hpp>
#include <deque>

#include "core/entropy.hpp"
#include "net/telemetry.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::net;
using core::errc;

using namespace std::chrono_literals;

namespace {

/// When nothing depends on time.
constexpr core::time_point noon{};

/// Two ends of a link without a network: the test carries their words and segments.
struct pair_of_tables {
    asio::io_context io;
    outgoing_transfers out{io.get_executor()};
    incoming_transfers in{io.get_executor()};

    std::shared_ptr<outgoing_transfer> offer(const std::string& tag, std::size_t n,
                                             transfer_priority priority = transfer_priority::payload) {
        auto made = out.offer(tag, std::make_shared<const core::byte_vector>(n, std::byte{1}), nullptr, priority);
        REQUIRE(made);
        REQUIRE(in.on(wire::transfer_offer{(*made)->id, tag, n}));
        return *made;
    }
    void accept(const outgoing_transfer& t, core::mutable_bytes into) {
        REQUIRE(in.accept(t.tag, into));
        REQUIRE(out.on(wire::transfer_accept{t.id, into.size()}));
    }
};

}  // namespace

TEST_CASE("open transfers are served in turn, and only against credit") {
    pair_of_tables p;
    core::byte_vector a(3 * segment_bytes), b(2 * segment_bytes + 5);
    const auto ta = p.offer("a", a.size()), tb = p.offer("b", b.size()), waiting = p.offer("waiting", 100);
    CHECK_FALSE(p.out.next(1, noon));
    p.accept(*ta, a);
    p.accept(*tb, b);
    std::vector<std::pair<std::string, std::uint64_t>> order;
    while (const auto w = p.out.next(1, noon)) order.emplace_back(w->transfer->tag, w->what.index());
    CHECK(order == std::vector<std::pair<std::string, std::uint64_t>>{
                       {"a", 0}, {"b", 0}, {"a", 1}, {"b", 1}, {"a", 2}, {"b", 2}});
    CHECK(p.out.active() == 2);
}

TEST_CASE("what the receiver holds already is not sent, and not counted as delivered by this link") {
    pair_of_tables p;
    const std::size_t size = 3 * segment_bytes + 7;
    const auto t = p.offer("t", size);
    core::byte_vector into(size);
    std::vector<std::uint64_t> told;
    const auto note = [&told](std::uint64_t at, std::uint64_t) { told.push_back(at / segment_bytes); };
    const auto held = [](std::uint64_t at, std::uint64_t n) { return at == segment_bytes || n == 7; };
    const auto accepted = p.in.accept("t", into, note, held);
    REQUIRE(accepted);
    REQUIRE(p.out.on(wire::transfer_accept{t->id, size}));
    const auto report = p.in.report();
    REQUIRE(report);
    REQUIRE(p.out.on(*report, noon));
    CHECK_FALSE(p.in.report());
    CHECK(p.out.confirmed_bytes() == 0);
    std::vector<std::uint64_t> sent;
    while (const auto w = p.out.next(1, noon)) {
        sent.push_back(w->what.index());
        REQUIRE(p.in.begin(w->what));
        p.in.verified(1, w->what, w->what.length, noon);
        p.in.finish(w->what);
    }
    CHECK(sent == std::vector<std::uint64_t>{0, 2});
    CHECK(told == sent);
    REQUIRE((*accepted)->outcome);
    CHECK(*(*accepted)->outcome);
    CHECK(p.in.active() == 0);
    // All of it: over at once.
    const auto whole = p.offer("whole", size);
    const auto all = p.in.accept("whole", into, {}, [](std::uint64_t, std::uint64_t) { return true; });
    REQUIRE(all);
    CHECK(((*all)->outcome && *(*all)->outcome));
    CHECK(p.in.active() == 0);
    CHECK_FALSE(p.in.report());
}

TEST_CASE(
    "a window holds a transfer that is larger: bytes come only against credit, and lie at their place modulo its "
    "size") {
    pair_of_tables p;
    const std::size_t size = 5 * segment_bytes + 7;
    const auto t = p.offer("t", size);
    core::byte_vector window(2 * segment_bytes);
    CHECK(p.in.accept("t", core::mutable_bytes(window).first(segment_bytes + 1)).error().code == errc::usage);
    CHECK(p.in.accept("t", core::mutable_bytes(window).first(0)).error().code == errc::usage);
    const auto accepted = p.in.accept("t", window);
    REQUIRE(accepted);
    const auto& in = **accepted;
    CHECK(in.credit == window.size());
    REQUIRE(p.out.on(wire::transfer_accept{t->id, in.credit}));
    std::vector<std::uint64_t> sent;
    const auto send_all = [&] {
        while (const auto w = p.out.next(1, noon)) {
            sent.push_back(w->what.index());
            REQUIRE(p.in.begin(w->what));
            const auto place = p.in.place(w->what, 3, 2);
            CHECK(place.data() == window.data() + w->what.offset % window.size() + 3);
            p.in.verified(1, w->what, w->what.length, noon);
            p.in.finish(w->what);
        }
    };
    send_all();
    CHECK(sent == std::vector<std::uint64_t>{0, 1});
    // Whoever sends against no credit would overwrite what is still needed.
    segment early{t->id, 2 * segment_bytes, segment_bytes};
    CHECK(p.in.begin(early).error().code == errc::protocol);
    CHECK_FALSE(p.in.make_room("t", 0));
    CHECK(p.in.make_room("t", segment_bytes + 5));  // room for one whole segment
    CHECK(p.in.begin(early));
    REQUIRE(p.out.on(wire::transfer_accept{t->id, in.credit}));
    send_all();
    CHECK(sent == std::vector<std::uint64_t>{0, 1, 2});
    CHECK_FALSE(p.in.make_room("t", segment_bytes));  // less than before
    CHECK_FALSE(p.in.make_room("unknown", 5));
    CHECK(p.in.make_room("t", 3 * segment_bytes));
    REQUIRE(p.out.on(wire::transfer_accept{t->id, in.credit}));
    send_all();
    CHECK(sent == std::vector<std::uint64_t>{0, 1, 2, 3, 4});
    CHECK(p.in.make_room("t", 4 * segment_bytes));
    CHECK(in.credit == size);
    REQUIRE(p.out.on(wire::transfer_accept{t->id, in.credit}));
    send_all();
    CHECK(sent == std::vector<std::uint64_t>{0, 1, 2, 3, 4, 5});
    CHECK((in.outcome && *in.outcome));
    // What is not wanted any more counts as arrived, and nothing is written to its place.
    const auto skipped = p.offer("skipped", size);
    CHECK_FALSE(p.in.make_room("skipped", segment_bytes));  // not accepted
    REQUIRE(p.in.accept("skipped", window));
    const segment first{skipped->id, 0, segment_bytes};
    CHECK(*p.in.begin(first));
    p.in.verified(1, first, 100, noon);
    CHECK(p.in.make_room("skipped", segment_bytes));
    CHECK_FALSE(*p.in.begin(first));
    CHECK(p.in.place(first, 100, 2).empty());
    CHECK(p.in.active() == 1);
    REQUIRE(p.in.report());
    // From an earlier link everything before byte 3·segment + 1 was used: whole segments of it need not come.
    const auto again = p.offer("again", size);
    const auto later = p.in.accept("again", window, {}, {}, 3 * segment_bytes + 1);
    REQUIRE(later);
    CHECK((*later)->credit == 5 * segment_bytes);
    CHECK((*later)->have == std::vector<bool>{true, true, true, false, false, false});
}

TEST_CASE("a transfer that is still being made goes as far as it is ready, and what arrives is told once") {
    pair_of_tables p;
    const std::size_t size = 3 * segment_bytes + 7;
    auto ready = std::make_shared<std::uint64_t>(0);
    const auto made = p.out.offer("t", std::make_shared<const core::byte_vector>(size, std::byte{1}), ready);
    REQUIRE(made);
    REQUIRE(p.in.on(wire::transfer_offer{(*made)->id, "t", size}));
    core::byte_vector into(size);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> told;
    REQUIRE(p.in.accept("t", into, [&told](std::uint64_t at, std::uint64_t n) { told.emplace_back(at, n); }));
    REQUIRE(p.out.on(wire::transfer_accept{(*made)->id, size}));
    CHECK_FALSE(p.out.next(1, noon));
    CHECK(p.out.active() == 0);  // nothing to send is no slowness of the link
    *ready = 2 * segment_bytes - 1;
    const auto first = p.out.next(1, noon);
    REQUIRE(first);
    CHECK_FALSE(p.out.next(1, noon));
    CHECK(p.out.active() == 1);
    *ready = size;
    std::vector<segment> sent{first->what};
    while (const auto w = p.out.next(1, noon)) sent.push_back(w->what);
    REQUIRE(sent.size() == 4);
    CHECK(p.in.active() == 0);
    for (const auto i : {2U, 0U, 3U, 1U}) {
        REQUIRE(p.in.begin(sent[i]));
        p.in.verified(1, sent[i], sent[i].length, noon);
        CHECK(p.in.active() == 1);
        p.in.finish(sent[i]);
    }
    CHECK(p.in.active() == 0);
    CHECK(told == std::vector<std::pair<std::uint64_t, std::uint64_t>>{{2 * segment_bytes, segment_bytes},
                                                                       {0, segment_bytes},
                                                                       {3 * segment_bytes, 7},
                                                                       {segment_bytes, segment_bytes}});
}

TEST_CASE("what a dead connection carried is sent again, but for what was confirmed") {
    pair_of_tables p;
    core::byte_vector into(5 * segment_bytes);
    const auto t = p.offer("t", into.size());
    p.accept(*t, into);
    for (const std::uint32_t number : {1U, 2U, 1U, 2U, 1U}) REQUIRE(p.out.next(number, noon));
    CHECK_FALSE(p.out.next(1, noon));
    REQUIRE(p.out.on(wire::transfer_progress{t->id, {{0, 1}}}, noon));
    CHECK(p.out.confirmed_bytes() == segment_bytes);
    p.out.connection_lost(1);
    std::vector<std::uint64_t> again;
    while (const auto w = p.out.next(3, noon)) again.push_back(w->what.index());
    CHECK(again == std::vector<std::uint64_t>{2, 4});
    REQUIRE(p.out.on(wire::transfer_done{t->id}, noon));
    CHECK(p.out.confirmed_bytes() == into.size());
    CHECK((t->outcome && *t->outcome));
    CHECK(p.out.active() == 0);
}

TEST_CASE("payloads go before states, and a state goes on when the payloads are through") {
    pair_of_tables p;
    core::byte_vector a(2 * segment_bytes), b(2 * segment_bytes);
    const auto state = p.offer("state", a.size(), transfer_priority::state);
    const auto payload = p.offer("payload", b.size());
    p.accept(*state, a);
    REQUIRE(p.out.next(1, noon)->transfer == state);
    p.accept(*payload, b);
    CHECK(p.out.next(2, noon)->transfer == payload);
    CHECK(p.out.next(1, noon)->transfer == payload);
    CHECK(p.out.next(2, noon)->transfer == state);
    CHECK_FALSE(p.out.backlog());
}

TEST_CASE("a state waits while it is held back, and payloads go on") {
    pair_of_tables p;
    core::byte_vector a(2 * segment_bytes), b(segment_bytes);
    const auto state = p.offer("state", a.size(), transfer_priority::state);
    p.accept(*state, a);
    bool may_go = false;
    std::uint64_t asked_for = 0;
    p.out.hold_back_state([&](std::uint64_t bytes) {
        asked_for = bytes;
        return may_go;
    });
    CHECK(p.out.backlog());
    CHECK_FALSE(p.out.next(1, noon));
    CHECK(asked_for == segment_bytes);
    CHECK(p.out.holding_back());
    CHECK_FALSE(p.out.backlog());
    const auto payload = p.offer("payload", b.size());
    p.accept(*payload, b);
    CHECK(p.out.backlog());
    CHECK(p.out.next(1, noon)->transfer == payload);
    may_go = true;
    p.out.look_again();
    CHECK(p.out.backlog());
    CHECK(p.out.next(1, noon)->transfer == state);
    CHECK(p.out.next(1, noon)->transfer == state);
    CHECK_FALSE(p.out.backlog());
}

TEST_CASE("a connection that stands by gets what another holds up, and nothing else") {
    pair_of_tables p;
    core::byte_vector into(6 * segment_bytes);
    const auto t = p.offer("t", into.size());
    p.accept(*t, into);
    auto now = noon + 1s;
    REQUIRE(p.out.next(2, now));
    CHECK_FALSE(p.out.overdue(3, now + 1h));  // nobody knows yet how long a segment takes
    for (std::uint64_t i = 1; i < 4; ++i) {
        REQUIRE(p.out.next(1, now)->what.index() == i);
        now += 100ms;
        REQUIRE(p.out.on(wire::transfer_progress{t->id, {{i, 1}}}, now));
    }
    CHECK_FALSE(p.out.overdue(3, noon + 1s + 100ms));
    CHECK_FALSE(p.out.overdue(2, now + 1h));  // it has something to do
    const auto late = p.out.overdue(3, now + 1h);
    REQUIRE(late);
    CHECK(late->what.index() == 0);
    CHECK_FALSE(p.out.overdue(4, now + 1h));
    CHECK(p.out.backlog());
}

TEST_CASE("a segment that a slow connection holds up goes to an idle one, once, and the first to arrive counts") {
    pair_of_tables p;
    core::byte_vector into(6 * segment_bytes);
    const auto t = p.offer("t", into.size());
    p.accept(*t, into);
    // Connection 1 delivers in 100 ms what it is given; connection 2 keeps its one segment.
    auto now = noon + 1s;
    const auto stuck = p.out.next(2, now);
    REQUIRE(stuck);
    for (std::uint64_t i = 1; i < 5; ++i) {
        REQUIRE(p.out.next(1, now)->what.index() == i);
        now += 100ms;
        REQUIRE(p.out.on(wire::transfer_progress{t->id, {{i, 1}}}, now));
        CHECK((i > 2 || p.out.next_overdue(1) > now));
    }
    // It has overtaken connection 2 by far: the stuck one goes before what is fresh.
    const auto again = p.out.next(1, now);
    REQUIRE(again);
    CHECK(again->what.index() == 0);
    CHECK(t->resent == 1);
    // Never a third time, not even to an idle connection much later.
    for (std::uint32_t c = 3; const auto w = p.out.next(c, now + 1h); ++c) CHECK(w->what.index() != 0);
    // Connection 2 was half through: both write the same place, and the second to finish is dropped.
    const auto s = stuck->what;
    const auto half = segment_bytes / 2;
    REQUIRE(*p.in.begin(s));
    CHECK(p.in.place(s, 0, half).data() == into.data());
    p.in.verified(2, s, half, noon);
    CHECK(p.in.find("t")->verified() == half);
    p.in.verified(1, s, segment_bytes - 1, noon);
    CHECK(p.in.find("t")->verified() == segment_bytes - 1);  // each place counts once
    p.in.verified(1, s, 1, noon);
    CHECK_FALSE(p.in.finish(s));
    CHECK(p.in.find("t")->verified() == segment_bytes);
    CHECK(p.in.place(s, half, half).empty());  // the rest of connection 2's is not written any more
    CHECK_FALSE(p.in.finish(s));
    CHECK(p.in.find("t")->received == segment_bytes);
    CHECK_FALSE(*p.in.begin(s));
}

TEST_CASE("when one of two carriers of a segment dies it is not sent again, when both do it is") {
    pair_of_tables p;
    core::byte_vector into(2 * segment_bytes);
    const auto t = p.offer("t", into.size());
    p.accept(*t, into);
    REQUIRE(p.out.next(1, noon));
    REQUIRE(p.out.next(2, noon));
    REQUIRE(p.out.on(wire::transfer_progress{t->id, {{0, 1}}}, noon + 100ms));
    REQUIRE(p.out.next(1, noon + 10s)->what.index() == 1);
    p.out.connection_lost(2);
    CHECK_FALSE(p.out.next(3, noon + 20s));
    p.out.connection_lost(1);
    REQUIRE(p.out.next(3, noon + 30s)->what.index() == 1);
}

TEST_CASE("over any connections that die at any time, every byte arrives, once") {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        INFO("seed " << seed);
        core::seeded_entropy random(seed);
        pair_of_tables p;
        std::vector<core::byte_vector> into;
        std::vector<std::shared_ptr<outgoing_transfer>> sent;
        for (int i = 0; i < 3; ++i) into.emplace_back(1 + random.below(6 * segment_bytes));
        for (std::size_t i = 0; i < into.size(); ++i) {
            sent.push_back(p.offer(std::to_string(i), into[i].size()));
            p.accept(*sent[i], into[i]);
        }
        // Each connection: its number and what is under way on it; confirmations travel apart from them.
        struct connection {
            std::uint32_t number;
            std::deque<segment> under_way;
        };
        std::vector<connection> connections{{1, {}}, {2, {}}, {3, {}}};
        std::uint32_t numbers = 3;
        std::deque<wire::transfer_progress> reports;
        std::uint64_t arrived = 0;
        std::size_t done = 0;
        auto now = noon + 1s;
        for (int steps = 0; done < into.size(); ++steps) {
            now += std::chrono::milliseconds(random.below(10));
            REQUIRE(steps < 100000);
            auto& c = connections[random.below(connections.size())];
            switch (random.below(8)) {
                case 0:
                case 1:
                case 2:
                    if (const auto w = p.out.next(c.number, now)) c.under_way.push_back(w->what);
                    break;
                case 3:
                case 4:
                case 5: {
                    if (c.under_way.empty()) break;
                    const auto s = c.under_way.front();
                    c.under_way.pop_front();
                    const auto wanted = p.in.begin(s);
                    REQUIRE(wanted);
                    if (!*wanted) break;
                    const auto place = p.in.place(s, 0, s.length);
                    // Whatever is already there came twice.
                    REQUIRE(std::ranges::all_of(place, [](std::byte b) { return b == std::byte{0}; }));
                    std::ranges::fill(place, std::byte{1});
                    p.in.verified(c.number, s, s.length, noon);
                    arrived += s.length;
                    if (const auto whole = p.in.finish(s)) {
                        REQUIRE(p.out.on(wire::transfer_done{whole->id}, now));
                        ++done;
                    } else if (random.below(2) == 0) {
                        while (auto r = p.in.report()) reports.push_back(*r);
                    }
                    break;
                }
                case 6:
                    if (reports.empty()) break;
                    REQUIRE(p.out.on(reports.front(), now));
                    reports.pop_front();
                    break;
                default:
                    if (random.below(4) != 0) break;
                    p.out.connection_lost(c.number);
                    p.in.connection_lost(c.number);
                    c = {++numbers, {}};
                    break;
            }
        }
        std::uint64_t total = 0;
        for (std::size_t i = 0; i < into.size(); ++i) {
            total += into[i].size();
            CHECK(into[i] == *sent[i]->data);
            CHECK((sent[i]->outcome && *sent[i]->outcome));
        }
        CHECK(arrived == total);
        CHECK(p.out.confirmed_bytes() == total);
        CHECK(p.in.active() == 0);
        CHECK_FALSE(p.in.has_report());
    }
}

TEST_CASE("no more transfers are open than a link may have") {
    pair_of_tables p;
    for (std::size_t i = 0; i < max_open_transfers; ++i) p.offer(std::to_string(i), 1);
    const auto one = std::make_shared<const core::byte_vector>(1);
    CHECK(p.out.offer("one more", one).error().code == errc::limit);
    CHECK(p.in.on(wire::transfer_offer{max_open_transfers + 1, "one more", 1}).error().code == errc::protocol);
    CHECK(p.out.offer(std::string(max_transfer_tag + 1, 'x'), one).error().code == errc::limit);
    CHECK(p.out.offer("", one).error().code == errc::limit);
    p.out.fail_all({errc::closed, "over"});
    CHECK(p.out.offer("again", one));
}

TEST_CASE("goodput counts busy time only") {
    const core::time_point start{};
    goodput_meter m;
    CHECK(m.bytes_per_second() == 0);
    m.busy(start);
    m.add(1'000'000, start + 500ms);
    m.idle(start + 500ms);
    CHECK(m.bytes_per_second() == Approx(2e6));
    m.busy(start + 100s);  // the pause before does not count
    m.add(2'000'000, start + 101s);
    CHECK(m.bytes_per_second() == Approx(2e6));
    m.add(4'000'000, start + 102s);
    m.add(5'000'000, start + 103s);
    CHECK(m.bytes_per_second() == Approx(2e6));  // of 2, 2, 4 and 5 the median, and the least quarter
    m.add(5'000'000, start + 104s);
    CHECK(m.bytes_per_second() == Approx(4e6));
    CHECK(m.cautious() == Approx(2e6));
    m.idle(start + 110s);  // nothing more came: not a sample
    CHECK(m.bytes_per_second() == Approx(4e6));
    m.busy(start + 200s);
    m.add(1000, start + 200s + 10ms);  // too little to tell goodput from latency
    m.idle(start + 200s + 10ms);
    CHECK(m.bytes_per_second() == Approx(4e6));
    // A thin line: no second brings enough, and yet it is measured.
    goodput_meter thin;
    thin.busy(start);
    for (int i = 1; i <= 20; ++i) thin.add(40'000, start + i * 500ms);
    CHECK(thin.bytes_per_second() == Approx(80'000));
    // A trickle is none.
    goodput_meter trickle;
    trickle.busy(start);
    for (int i = 1; i <= 20; ++i) trickle.add(1'000, start + i * 500ms);
    CHECK(trickle.bytes_per_second() == 0);
}

TEST_CASE("quantiles are of the latest samples") {
    quantiles q(100);
    CHECK(q.at(0.5) == 0);
    for (int i = 0; i < 50; ++i) q.add(1e9);
    for (int i = 100; i >= 1; --i) q.add(i);
    CHECK(q.at(0) == 1);
    CHECK(q.at(0.25) == 25);
    CHECK(q.at(0.5) == 50);
    CHECK(q.at(0.99) == 99);
    CHECK(q.at(1) == 100);
}

TEST_CASE("the queue on the way out is told apart from the one on the way back, whatever the other clock shows") {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{1} << 63U, ~std::uint64_t{0} - 20'000}) {
        for (const double drift : {-40e-6, 0.0, 40e-6}) {
            outward_queueing q;
            auto now = noon;
            const auto measure = [&](core::duration out, core::duration back) {
                now += 50ms;
                const double ran = core::to_seconds(now - noon) * drift;
                const auto arrived = std::chrono::duration_cast<std::chrono::microseconds>(
                    50ms + out + core::from_seconds(ran));  // 50 ms of way
                return q.add(now, offset + static_cast<std::uint64_t>(arrived.count()), out + back);
            };
            const auto near = [](core::duration got, core::duration expected) {
                CHECK(got <= expected + 3ms);
                CHECK(got >= expected - 4ms);
            };
            for (int i = 0; i < 20; ++i) CHECK(measure(0ms, 0ms) == 0ms);
            for (int i = 0; i < 400; ++i) near(measure(80ms, 0ms), 80ms);
            for (int i = 0; i < 400; ++i) near(measure(0ms, 80ms), 0ms);
            for (int i = 0; i < 400; ++i) near(measure(60ms, 30ms), 60ms);
        }
    }
}

TEST_CASE("no queue on the way out is longer than what the round trip shows") {
    outward_queueing q;
    core::seeded_entropy random(9);
    auto now = noon;
    for (int i = 0; i < 20'000; ++i) {
        const auto round_trip = std::chrono::milliseconds(random.below(200));
        const auto out = q.add(now += 50ms, random.below(~std::uint64_t{0}), round_trip);
        REQUIRE(out >= 0ms);
        REQUIRE(out <= round_trip);
    }
}

TEST_CASE("the least round trip is of ten minutes") {
    least_round_trip r;
    CHECK(r.least() == 0s);
    auto now = noon;
    r.add(now, 50ms);
    for (int i = 0; i < 9 * 60; ++i) r.add(now += 1s, 120ms);
    CHECK(r.least() == 50ms);
    for (int i = 0; i < 2 * 60; ++i) r.add(now += 1s, 120ms);
    CHECK(r.least() == 120ms);
    r.add(now, 100ms);
    CHECK(r.least() == 100ms);
}

// Peers that finished the handshake and then break the rules.

#include "net/secure.hpp"
#include "net/transfers.hpp"
#include "tests/unit/net/mesh_world.hpp"

namespace longhaul::net::testing {

namespace {

/// An authenticated peer that breaks rules: the handshake by hand, then whatever a test likes.
struct rogue {
    std::optional<channel> control, bulk;
    noise::secret_key exporter;
};

task<result<void>> introduce(world& w, const identity& self, const endpoint& to, rogue& out) {
    auto s = co_await connect(w, to);
    LONGHAUL_CO_TRY(s);
    raw_connection c(std::move(*s));
    hello mine;
    const auto greeted = co_await greet(c, mine);
    LONGHAUL_CO_TRY(greeted);
    self_description description;
    control_handshake handshake(side::initiator, self, description, {}, greeted->prologue, {}, w.env.entropy);
    while (!handshake.done()) {
        auto stepped = co_await step(c, handshake);
        LONGHAUL_CO_TRY(stepped);
    }
    auto keys = handshake.finish();
    out.exporter = keys.exporter;
    out.control.emplace(std::move(c.stream), std::move(keys), c.count);
    auto answer = co_await out.control->next_record();
    LONGHAUL_CO_TRY(answer);
    const auto said = parse_verdict(answer->payload);
    LONGHAUL_CO_TRY(said);
    co_return said->as_result();
}

task<result<void>> open_bulk(world& w, const endpoint& to, rogue& r, std::uint32_t number) {
    auto dialling = dial_bulk(w.env, to, {}, r.exporter, number, 1s, 1s);
    auto made = co_await std::move(dialling);
    LONGHAUL_CO_TRY(made);
    r.bulk.emplace(std::move(**made));
    co_return ok();
}

task<result<void>> put(channel& c, std::uint8_t type, std::uint8_t flags, const byte_vector& payload) {
    byte_vector sealed(payload.size() + record_overhead);
    const auto n = c.sealer.seal(type, flags, payload, sealed);
    LONGHAUL_CO_TRY(n);
    co_return co_await c.write(sealed);
}

const byte_vector nothing;

byte_vector segment_header(std::uint64_t id, std::uint64_t offset, std::uint32_t length) {
    segment s;
    s.transfer = id;
    s.offset = offset;
    s.length = length;
    return s.encode();
}

constexpr auto link_type = static_cast<std::uint8_t>(channel_record::link);
constexpr auto message_type = static_cast<std::uint8_t>(channel_record::message);
constexpr auto segment_type = static_cast<std::uint8_t>(channel_record::segment);
constexpr auto idle_type = static_cast<std::uint8_t>(channel_record::idle);

/// One record that breaks the protocol.
struct crime {
    std::string name;
    bool on_bulk;
    std::uint8_t type, flags;
    byte_vector payload;
};

/// What an authenticated peer may not say, on a link where it offered transfer 1 of 300,000 bytes, which was accepted,
/// and transfer 2, which was not, and where transfer 1 of 100 bytes was offered to it.
std::vector<crime> crimes() {
    const auto on_control = [](std::string name, const wire::control& m) {
        return crime{std::move(name), false, link_type, 0, wire::serialize(m)};
    };
    std::vector<crime> all;
    all.push_back({"unknown record", false, 99, 0, {}});
    all.push_back({"bulk record on control", false, segment_type, 0, segment_header(1, 0, segment_bytes)});
    all.push_back({"no link message", false, link_type, 0, byte_vector(5, std::byte{0xff})});
    all.push_back({"unknown flags", false, message_type, 6, {}});
    all.push_back({"empty piece", false, message_type, more_follows, {}});
    all.push_back(on_control("offer again", wire::transfer_offer{2, "again", 5}));
    all.push_back(on_control("same tag", wire::transfer_offer{3, "accepted", 5}));
    all.push_back(on_control("withdraw the unknown", wire::transfer_withdraw{9}));
    all.push_back(on_control("accept the unknown", wire::transfer_accept{9, 1}));
    all.push_back(on_control("too much credit", wire::transfer_accept{1, 101}));
    all.push_back(on_control("done before accepted", wire::transfer_done{1}));
    all.push_back(on_control("progress before accepted", wire::transfer_progress{1, {{0, 1}}}));
    all.push_back(on_control("refuse the unknown", wire::transfer_refuse{9, ""}));
    all.push_back(on_control("connections asked for by their dialler", wire::streams_wanted{2}));
    all.push_back(on_control("echo of the future", wire::heartbeat_echo{1000, 0}));
    all.push_back({"control record on bulk", true, message_type, 0, {}});
    // An eighth of the 300,000 bytes that were accepted may be padding.
    all.push_back({"more padding than may be", true, idle_type, 0, byte_vector(300'000 / 8 + 1)});
    all.push_back({"short header", true, segment_type, 0, byte_vector(19)});
    all.push_back({"segment of the unknown", true, segment_type, 0, segment_header(9, 0, 100)});
    all.push_back({"segment before accepted", true, segment_type, 0, segment_header(2, 0, 10)});
    all.push_back({"segment off the grid", true, segment_type, 0, segment_header(1, 5, 100)});
    all.push_back({"segment beyond the end", true, segment_type, 0, segment_header(1, 2 * segment_bytes, 100)});
    all.push_back({"segment too long", true, segment_type, 0, segment_header(1, segment_bytes, segment_bytes)});
    all.push_back({"segment too short", true, segment_type, 0, segment_header(1, 0, 100)});
    all.push_back({"segment of nothing", true, segment_type, 0, segment_header(1, 0, 0)});
    return all;
}

/// Brings a rogue to the state that `crimes` describes, lets it commit one, and sees the link end for it.
task<result<void>> commit(world& w, node& h, const crime& what, byte_vector& into) {
    const auto ups = h.ups.size();
    const auto self = identity::generate(w.env.entropy);
    rogue r;
    MUST(co_await introduce(w, self, h.at, r));
    MUST(co_await eventually(w, [&h, ups] { return h.ups.size() == ups + 1; }));
    const auto l = h.ups.back();
    core::scope waiting(w.env.executor);
    auto work = [](world& in, node& host, link& victim, rogue& by, const crime& act) -> task<result<void>> {
        const auto first = wire::serialize(wire::transfer_offer{1, "accepted", 300000});
        const auto second = wire::serialize(wire::transfer_offer{2, "not accepted", 10});
        MUST(co_await put(*by.control, link_type, 0, first));
        MUST(co_await put(*by.control, link_type, 0, second));
        MUST(co_await open_bulk(in, host.at, by, 1));
        MUST(co_await put(*by.bulk, idle_type, 0, nothing));
        MUST(co_await eventually(in, [&victim] { return victim.stats().streams == 1; }));
        CHECK(victim.up());
        MUST(co_await put(act.on_bulk ? *by.bulk : *by.control, act.type, act.flags, act.payload));
        MUST(co_await eventually(in, [&victim] { return !victim.up(); }));
        CHECK(victim.ended()->why.code == errc::protocol);
        CHECK(victim.ended()->why.message.find("broke the protocol") != std::string::npos);
        co_return ok();
    };
    l->on_offer([&](const std::string& tag, std::uint64_t) {
        if (tag == "accepted") waiting.spawn_isolated("take", l->receive_transfer(tag, into));
    });
    waiting.spawn_isolated("give", l->send_transfer("to the rogue", std::make_shared<const byte_vector>(100)));
    waiting.spawn("crime", work(w, h, *l, r, what));
    co_return co_await waiting.join();
}

}  // namespace

LINK_TEST("an authenticated peer that breaks the protocol loses its link, with a sentence, and nobody else does") {
    node n(w);
    auto body = [](world& in, node& h) -> task<result<void>> {
        node friendly(in);
        auto visits = [](world& inner, node& host, node& friend_of) -> task<result<void>> {
            auto linked = co_await dial(friend_of, host.at);
            MUST(linked);
            byte_vector into(300000);
            const auto all = crimes();
            for (const auto& each : all) {
                INFO(each.name);
                auto committed = co_await commit(inner, host, each, into);
                MUST(committed);
            }
            CHECK((*linked)->up());
            co_return co_await still_serves(inner, host);
        };
        auto inner = visits(in, h, friendly);
        std::vector<node*> all{&friendly};
        auto served = co_await serving(in, std::move(all), std::move(inner));
        co_return served;
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("a bulk connection needs the session, a fresh number and the key") {
    node n(w);
    auto body = [](world& in, node& h) -> task<result<void>> {
        const auto self = identity::generate(in.env.entropy);
        rogue r;
        MUST(co_await introduce(in, self, h.at, r));
        MUST(co_await eventually(in, [&h] { return !h.ups.empty(); }));
        MUST(co_await open_bulk(in, h.at, r, 3));
        MUST(co_await put(*r.bulk, idle_type, 0, nothing));
        MUST(co_await eventually(in, [&h] { return h.ups[0]->stats().streams == 1; }));
        const auto opens = [&in, &h, &r](rogue& by, std::uint32_t number) -> task<result<void>> {
            by.exporter = r.exporter;
            return open_bulk(in, h.at, by, number);
        };
        rogue again;
        const auto used = co_await opens(again, 3);
        CHECK_FALSE(used);
        rogue stranger;  // another session
        const auto refused = co_await open_bulk(in, h.at, stranger, 4);
        CHECK_FALSE(refused);
        CHECK(h.ups[0]->up());
        CHECK(h.ups[0]->stats().streams == 1);
        // Dials overtake one another, but not by so much.
        std::list<rogue> more(64);
        MUST(co_await opens(more.front(), 2));
        MUST(co_await put(*more.front().bulk, idle_type, 0, nothing));
        MUST(co_await eventually(in, [&h] { return h.ups[0]->stats().streams == 2; }));
        std::uint32_t number = 5000;
        for (auto it = std::next(more.begin()); it != more.end(); ++it) {
            MUST(co_await opens(*it, number++));
            MUST(co_await put(*it->bulk, idle_type, 0, nothing));
        }
        rogue late;
        const auto too_late = co_await opens(late, 4);
        CHECK_FALSE(too_late);
        // The 65th: the one with the smallest number gives way.
        MUST(co_await hung_up(in, *more.front().bulk->stream));
        MUST(co_await eventually(in, [&h] { return h.ups[0]->stats().streams == 64; }));
        CHECK(h.ups[0]->up());
        co_return ok();
    };
    co_return co_await beside(w, n, body);
}

namespace {

/// Somebody who read a session's id off the wire, and has no key.
struct eavesdropper {
    std::unique_ptr<stream> connection;
};

/// Says the hello of bulk connection `number`, and waits until it is answered.
task<result<void>> say_hello(world& w, const endpoint& to, const rogue& overheard, std::uint32_t number,
                             eavesdropper& out) {
    auto s = co_await connect(w, to);
    LONGHAUL_CO_TRY(s);
    raw_connection c(std::move(*s));
    hello mine;
    mine.role = hello_role::bulk;
    mine.connection = number;
    mine.session = session_of(overheard.exporter);
    const auto greeted = co_await greet(c, mine);
    LONGHAUL_CO_TRY(greeted);
    out.connection = std::move(c.stream);
    co_return ok();
}

/// Brings a rogue's link up.
task<result<void>> link_up(world& w, node& h, rogue& r) {
    const auto self = identity::generate(w.env.entropy);
    MUST(co_await introduce(w, self, h.at, r));
    co_return co_await eventually(w, [&h] { return !h.ups.empty(); });
}

}  // namespace

LINK_TEST("who knows a session's id and no key uses up no connection number") {
    node n(w);
    auto body = [](world& in, node& h) -> task<result<void>> {
        rogue r;
        MUST(co_await link_up(in, h, r));
        for (const std::uint32_t number : {1U, 2U, 0xFFFFFFFFU}) {
            eavesdropper e;
            MUST(co_await say_hello(in, h.at, r, number, e));
            const byte_vector guess(2 + 48, std::byte{0});
            MUST(co_await e.connection->write_some(guess));
            MUST(co_await hung_up(in, *e.connection));
        }
        for (const std::uint32_t number : {1U, 2U}) {
            rogue other;
            other.exporter = r.exporter;
            MUST(co_await open_bulk(in, h.at, other, number));
            MUST(co_await put(*other.bulk, idle_type, 0, nothing));
            MUST(co_await eventually(in, [&h] { return h.ups[0]->stats().streams == 1; }));
            other.bulk.reset();
            MUST(co_await eventually(in, [&h] { return h.ups[0]->stats().streams == 0; }));
        }
        co_return ok();
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("a session's id alone does not admit to the room for acquaintances, its key does") {
    mesh_options crowded;
    crowded.door = {.strangers = 1, .strangers_per_block = 1, .acquaintances = 1, .acquaintances_per_block = 1};
    crowded.is_member = [](const peer_key&) { return false; };  // nobody is known by its address
    node n(w, crowded);
    auto body = [](world& in, node& h) -> task<result<void>> {
        rogue r;
        MUST(co_await link_up(in, h, r));
        eavesdropper one, two;
        MUST(co_await say_hello(in, h.at, r, 1, one));
        MUST(co_await say_hello(in, h.at, r, 2, two));
        MUST(co_await hung_up(in, *one.connection));
        CHECK(h.net->door().waiting == 1);
        // The genuine one: it is vouched for as soon as its first message opens, though its first record is to come.
        MUST(co_await open_bulk(in, h.at, r, 3));
        MUST(co_await hung_up(in, *two.connection));
        MUST(co_await say_hello(in, h.at, r, 4, one));
        CHECK(h.net->door().waiting == 2);
        MUST(co_await put(*r.bulk, idle_type, 0, nothing));
        MUST(co_await eventually(in, [&h] { return h.ups[0]->stats().streams == 1; }));
        co_return ok();
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("late and repeated segments are dropped, bytes arrive once") {
    node n(w);
    auto body = [](world& in, node& h) -> task<result<void>> {
        const auto self = identity::generate(in.env.entropy);
        rogue r;
        MUST(co_await introduce(in, self, h.at, r));
        MUST(co_await eventually(in, [&h] { return !h.ups.empty(); }));
        const auto l = h.ups[0];
        byte_vector into(segment_bytes + 100);
        core::scope waiting(in.env.executor);
        bool complete = false;
        auto receiving = [](link& from, byte_vector& to, bool& done) -> task<result<void>> {
            auto taking = from.receive_transfer("t", to);
            auto got = co_await std::move(taking);
            MUST(got);
            done = true;
            co_return ok();
        };
        l->on_offer([&](const std::string&, std::uint64_t) { waiting.spawn("take", receiving(*l, into, complete)); });
        const auto offer = wire::serialize(wire::transfer_offer{1, "t", into.size()});
        MUST(co_await put(*r.control, link_type, 0, offer));
        MUST(co_await open_bulk(in, h.at, r, 1));
        MUST(co_await put(*r.bulk, idle_type, 0, nothing));
        MUST(co_await eventually(in, [&waiting] { return waiting.size() == 1; }));
        auto send_segment = [](channel& bulk, std::uint64_t index, std::uint32_t length,
                               int value) -> task<result<void>> {
            const auto header = segment_header(1, index * segment_bytes, length);
            MUST(co_await put(bulk, segment_type, 0, header));
            for (std::uint32_t at = 0; at < length;) {
                const byte_vector plain(std::min<std::uint32_t>(length - at, 50000), static_cast<std::byte>(value));
                byte_vector sealed(plain.size() + data_overhead);
                MUST(bulk.sealer.seal_data(plain, sealed));
                MUST(co_await bulk.write(sealed));
                at += static_cast<std::uint32_t>(plain.size());
            }
            co_return ok();
        };
        MUST(co_await send_segment(*r.bulk, 1, 100, 1));
        MUST(co_await send_segment(*r.bulk, 1, 100, 2));  // repeated: dropped
        MUST(co_await eventually(in, [&l] { return l->received_of("t") == 100; }));
        CHECK_FALSE(complete);
        MUST(co_await send_segment(*r.bulk, 0, segment_bytes, 3));
        MUST(co_await waiting.join());
        CHECK(complete);
        CHECK(into[0] == std::byte{3});
        CHECK(into[segment_bytes - 1] == std::byte{3});
        CHECK(into[segment_bytes] == std::byte{1});
        MUST(co_await send_segment(*r.bulk, 1, 100, 4));  // late: dropped
        MUST(co_await put(*r.bulk, idle_type, 0, nothing));
        auto calm = co_await in.env.clock.sleep_for(20ms);
        MUST(calm);
        CHECK(into[segment_bytes] == std::byte{1});
        CHECK(l->up());
        co_return ok();
    };
    co_return co_await beside(w, n, body);
}

namespace {

/// Says that it lives, and reads nothing.
task<result<void>> only_talks(world& w, channel& c, link& victim) {
    for (std::uint64_t i = 1; victim.up(); ++i) {
        const auto beat = wire::serialize(wire::heartbeat{i});
        (void)co_await put(c, link_type, 0, beat);
        auto slept = co_await w.env.clock.sleep_for(100ms);
        LONGHAUL_CO_TRY(slept);
    }
    co_return ok();
}

/// Sends a record's bytes so slowly that it never comes to an end.
task<result<void>> dribbles(world& w, channel& c, link& victim) {
    const byte_vector payload(1000);
    byte_vector sealed(payload.size() + record_overhead);
    MUST(c.sealer.seal(message_type, 0, payload, sealed));
    for (std::size_t i = 0; i < sealed.size() && victim.up(); ++i) {
        const auto one = core::const_bytes(sealed).subspan(i, 1);
        (void)co_await c.write(one);
        auto slept = co_await w.env.clock.sleep_for(50ms);
        LONGHAUL_CO_TRY(slept);
    }
    co_return ok();
}

/// More than all buffers between the two hold.
task<result<void>> sends_much(link& l) {
    for (int i = 0; i < 32; ++i) {
        auto sent = co_await l.send(byte_vector(max_control_message));
        LONGHAUL_CO_TRY(sent);
    }
    co_return ok();
}

}  // namespace

LINK_TEST("bulk that comes excuses a silent control connection, though not for ever") {
    mesh_options hasty;
    hasty.silence_limit = 600ms;
    node n(w, hasty);
    auto body = [](world& in, node& h) -> task<result<void>> {
        rogue r;
        const auto before = in.env.clock.now();
        MUST(co_await link_up(in, h, r));
        const auto l = h.ups.back();
        MUST(co_await open_bulk(in, h.at, r, 1));
        while (l->up() && in.env.clock.now() - before < 5s) {
            MUST(co_await put(*r.bulk, idle_type, 0, nothing));
            auto slept = co_await in.env.clock.sleep_for(50ms);
            LONGHAUL_CO_TRY(slept);
        }
        MUST_HOLD(l->ended().has_value());
        CHECK(l->ended()->why.code == errc::timeout);
        CHECK(l->ended()->why.message.find("nothing was heard") != std::string::npos);
        CHECK(in.env.clock.now() - before >= 1800ms);
        co_return co_await still_serves(in, h);
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("who reads nothing, and who takes for ever to say one thing, is cut, however alive it seems") {
    mesh_options hasty;
    hasty.silence_limit = 600ms;
    node n(w, hasty);
    auto body = [](world& in, node& h) -> task<result<void>> {
        for (const bool reads : {false, true}) {
            const auto ups = h.ups.size();
            const auto self = identity::generate(in.env.entropy);
            rogue r;
            const auto before = in.env.clock.now();
            MUST(co_await introduce(in, self, h.at, r));
            MUST(co_await eventually(in, [&h, ups] { return h.ups.size() == ups + 1; }));
            const auto l = h.ups.back();
            core::scope both(in.env.executor);
            if (reads) {
                both.spawn("rogue", dribbles(in, *r.control, *l));
            } else {
                both.spawn("rogue", only_talks(in, *r.control, *l));
                both.spawn_isolated("host", sends_much(*l));
            }
            MUST(co_await both.join());
            MUST_HOLD(l->ended().has_value());
            CHECK(l->ended()->why.code == errc::timeout);
            CHECK((l->ended()->why.message.find("has read nothing") != std::string::npos) == !reads);
            CHECK(in.env.clock.now() - before >= 600ms);
        }
        co_return co_await still_serves(in, h);
    };
    co_return co_await beside(w, n, body);
}

}  // namespace longhaul::net::testing

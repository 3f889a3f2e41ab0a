#include <set>

#include "net/secure.hpp"
#include "tests/unit/net/mesh_world.hpp"

namespace longhaul::net::testing {

LINK_TEST("both ends learn who the other is, authenticated") {
    struct pair {
        node a, b;
    };
    mesh_options oa, ob;
    oa.name = "alice";
    oa.token = key_of(9);
    oa.features = 5;
    oa.advertised = {{"alice.example", 0}, {"10.0.0.1", 7000}};
    ob.name = "bob";
    ob.advertised = {{"bob.example", 0}};
    ob.token = key_of(8);
    pair p{node(w, oa, 77), node(w, ob)};
    std::vector<remote_peer> judged;
    p.b.admit = [&judged](const remote_peer& r, bool they_dialled) -> result<void> {
        CHECK(they_dialled);
        judged.push_back(r);
        return ok();
    };
    p.a.admit = [](const remote_peer&, bool they_dialled) -> result<void> {
        CHECK_FALSE(they_dialled);
        return ok();
    };
    auto body = [](world& in, pair& both, std::vector<remote_peer>& seen) -> task<result<void>> {
        MUST(both.b.listen());
        auto made = co_await dial(both.a, both.b.at);
        MUST(made);
        const auto& bob = (*made)->remote();
        CHECK(bob.key == both.b.self.key());
        CHECK(bob.name == "bob");
        CHECK_FALSE(bob.token);  // only who dials presents one
        CHECK(bob.observed == both.b.at);
        CHECK(bob.advertised == std::vector<endpoint>{{"bob.example", both.b.at.port}});
        MUST(co_await eventually(in, [&both] { return both.b.ups.size() == 1; }));
        const auto& alice = both.b.ups[0]->remote();
        CHECK(alice.name == "alice");
        CHECK(alice.incarnation == 77);
        CHECK(alice.features == 5);
        CHECK(alice.advertised == std::vector<endpoint>{{"10.0.0.1", 7000}});  // it listens nowhere
        MUST_HOLD(seen.size() == 1);
        CHECK(seen[0].token == key_of(9));
        CHECK(seen[0].key == both.a.self.key());
        auto again = co_await dial(both.a, both.b.at);
        MUST(again);
        CHECK(*again == *made);
        CHECK(both.b.ups.size() == 1);
        CHECK(both.b.net->links().size() == 1);
        co_return ok();
    };
    auto inner = body(w, p, judged);
    std::vector<node*> all{&p.a, &p.b};
    co_return co_await serving(w, std::move(all), std::move(inner));
}

LINK_TEST("a wrong key, another run, a refused token and a full node each say so to who dials") {
    node host(w, with_psk(2));
    host.admit = [](const remote_peer& r, bool) -> result<void> {
        if (r.token && *r.token == key_of(9)) return ok();
        return fail(errc::not_admitted, "this invitation was used already: ask for a new ticket");
    };
    auto body = [](world& in, node& h) -> task<result<void>> {
        const auto attempt = [&](mesh_options o) { return std::make_unique<node>(in, std::move(o)); };
        auto wrong_key = attempt(with_psk(3));
        auto made = co_await dial(*wrong_key, h.at);
        CHECK(code_is(made, errc::not_admitted));
        CHECK(made.error().message ==
              fmt::format("{}: the ticket's key does not fit this run: ask for a new ticket", h.at.text()));
        auto no_key_options = with_psk(0);
        auto no_key = attempt(no_key_options);
        made = co_await dial(*no_key, h.at);
        CHECK(code_is(made, errc::not_admitted));
        CHECK(made.error().message.find("only invited nodes") != std::string::npos);
        auto other_run_options = with_psk(2);
        other_run_options.run = key_of(44);
        auto other_run = attempt(other_run_options);
        made = co_await dial(*other_run, h.at);
        CHECK(code_is(made, errc::run_mismatch));
        auto bad_token_options = with_psk(2);
        bad_token_options.token = key_of(10);
        auto bad_token = attempt(bad_token_options);
        made = co_await dial(*bad_token, h.at);
        CHECK(code_is(made, errc::not_admitted));
        CHECK(made.error().message.ends_with("this invitation was used already: ask for a new ticket"));
        CHECK(h.ups.empty());
        MUST(co_await still_serves(in, h, 2, 9));
        co_return ok();
    };
    co_return co_await beside(w, host, body);
}

LINK_TEST("who dials may refuse who answers, before it says who it is") {
    struct pair {
        node a, b;
    };
    pair p{node(w), node(w)};
    p.a.admit = [](const remote_peer&, bool) -> result<void> { return fail(errc::not_admitted, "not the founder"); };
    auto body = [](pair& both) -> task<result<void>> {
        MUST(both.b.listen());
        const auto made = co_await dial(both.a, both.b.at);
        CHECK(code_is(made, errc::not_admitted));
        CHECK(both.b.ups.empty());
        const auto self = co_await dial(both.b, both.b.at);
        CHECK(code_is(self, errc::protocol));
        co_return ok();
    };
    auto inner = body(p);
    std::vector<node*> all{&p.a, &p.b};
    co_return co_await serving(w, std::move(all), std::move(inner));
}

LINK_TEST("nobody there, somebody else there, and somebody silent there are three different errors") {
    node n(w);
    auto body = [](world& in, node& h) -> task<result<void>> {
        auto l = in.env.network.listen({in.host, 0});
        MUST(l);
        const auto at = (*l)->local();
        auto chatter = [](listener& from, std::string_view words, stream*& held) -> task<result<void>> {
            auto s = co_await from.accept();
            LONGHAUL_CO_TRY(s);
            if (!words.empty()) {
                auto written = co_await write_all(**s, core::as_bytes(words));
                LONGHAUL_CO_TRY(written);
            }
            std::array<std::byte, 512> scratch{};
            held = s->get();
            for (;;) {
                auto got = co_await (*s)->read_some(scratch);
                if (!got || *got == 0) co_return ok();
            }
        };
        mesh_options hasty;
        hasty.handshake_deadline = 100ms;
        node guest(in, hasty);
        stream* held = nullptr;
        constexpr std::string_view http =
            "HTTP/1.1 400 Bad Request\r\nServer: something-else/1.2.3 (Unix)\r\nContent-Type: text/html\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n";
        auto to_http = core::both(dial(guest, at), chatter(**l, http, held));
        const auto other = co_await std::move(to_http);
        CHECK(code_is(other.first, errc::protocol));
        auto to_silent = core::both(dial(guest, at), chatter(**l, "", held));
        const auto silent = co_await std::move(to_silent);
        CHECK(code_is(silent.first, errc::timeout));
        (*l)->close();
        const auto nobody = co_await dial(guest, at);
        CHECK(code_is(nobody, errc::unreachable));
        CHECK(nobody.error().message.find(at.text()) != std::string::npos);
        MUST(co_await still_serves(in, h));
        co_return ok();
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("another wire version is named by both sides, and a probe tells what is there") {
    node n(w, with_psk(2));
    auto body = [](world& in, node& h) -> task<result<void>> {
        auto probing = mesh::probe(h.env, h.at, 2s);
        const auto told = co_await std::move(probing);
        MUST(told);
        CHECK(told->run == key_of(1));
        CHECK(told->wire_min == wire_version_min);
        CHECK(told->wire_max == wire_version_max);
        CHECK(told->rtt > core::duration{});

        hello future;
        future.wire_min = wire_version_max + 1;
        future.wire_max = wire_version_max + 3;
        future.run = key_of(1);
        auto connecting = in.env.network.connect(h.at, stream_purpose::control);
        auto made = co_await std::move(connecting);
        MUST(made);
        raw_connection c(std::move(*made));
        const auto greeted = co_await greet(c, future);
        CHECK((!greeted && greeted.error().code == errc::version_mismatch));

        // A node of the future at the other end.
        auto l = in.env.network.listen({in.host, 0});
        MUST(l);
        auto answering = [](listener& from, hello as) -> task<result<void>> {
            auto s = co_await from.accept();
            LONGHAUL_CO_TRY(s);
            std::array<std::byte, hello_size> theirs{};
            auto read = co_await read_exact(**s, theirs);
            LONGHAUL_CO_TRY(read);
            const auto bytes = as.encode();
            co_return co_await write_all(**s, bytes);
        };
        node guest(in, with_psk(2));
        const auto at = (*l)->local();
        auto meeting = core::both(dial(guest, at), answering(**l, future));
        const auto met = co_await std::move(meeting);
        CHECK(code_is(met.first, errc::version_mismatch));
        CHECK(met.first.error().message.find(at.text()) != std::string::npos);
        MUST(co_await still_serves(in, h, 2));
        co_return ok();
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("of simultaneous dials one stays, the same for both") {
    for (int round = 0; round < 30; ++round) {
        struct pair {
            node a, b;
        };
        pair p{node(w), node(w)};
        auto body = [](world& in, pair& both) -> task<result<void>> {
            MUST(both.a.listen());
            MUST(both.b.listen());
            auto dialling = core::both(dial(both.a, both.b.at), dial(both.b, both.a.at));
            const auto made = co_await std::move(dialling);
            MUST(made.first);
            MUST(made.second);
            // The two ends of the one link understand each other.
            MUST(co_await eventually(
                in, [&both] { return both.a.net->find(both.b.self.key()) && both.b.net->find(both.a.self.key()); }));
            const auto ab = both.a.net->find(both.b.self.key()), ba = both.b.net->find(both.a.self.key());
            auto sending = ab->send(text("one link"));
            MUST(co_await std::move(sending));
            const auto got = co_await ba->receive();
            MUST(got);
            CHECK(core::as_text(*got) == "one link");
            CHECK(made.first->get() == ab.get());
            CHECK(made.second->get() == ba.get());
            CHECK(both.a.net->links().size() == 1);
            CHECK(both.b.net->links().size() == 1);
            // Nothing that came up went down again.
            CHECK(both.a.ups.size() == 1);
            CHECK(both.b.ups.size() == 1);
            co_return ok();
        };
        auto inner = body(w, p);
        std::vector<node*> all{&p.a, &p.b};
        auto served = co_await serving(w, std::move(all), std::move(inner));
        MUST(served);
    }
    co_return ok();
}

LINK_TEST("a peer that started again replaces its old link, an older start is refused") {
    node n(w);
    auto body = [](world& in, node& h) -> task<result<void>> {
        const auto own = identity::generate(in.env.entropy);
        node old_start(in, own, {}, 5), new_start(in, own, {}, 6), older(in, own, {}, 4);
        auto visits = [](world& inner, node& host, node& second, node& third, node& first) -> task<result<void>> {
            MUST(co_await dial(first, host.at));
            MUST(co_await eventually(inner, [&host] { return host.ups.size() == 1; }));
            MUST(co_await dial(second, host.at));
            MUST(co_await eventually(inner, [&host] { return host.ups.size() == 2; }));
            CHECK_FALSE(host.ups[0]->up());
            CHECK(host.ups[1]->up());
            CHECK(host.net->links().size() == 1);
            MUST(co_await eventually(inner, [&first] { return !first.ups[0]->up(); }));
            const auto refused = co_await dial(third, host.at);
            CHECK(code_is(refused, errc::not_admitted));
            CHECK(host.ups[1]->up());
            // The same start may come back: it has lost the link that we still see.
            second.network.kill(stream_purpose::control);
            MUST(co_await eventually(inner, [&second] { return !second.ups[0]->up(); }));
            MUST(co_await dial(second, host.at));
            co_return ok();
        };
        auto inner = visits(in, h, new_start, older, old_start);
        std::vector<node*> all{&old_start, &new_start, &older};
        auto served = co_await serving(in, std::move(all), std::move(inner));
        co_return served;
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("a node with all the links it may have refuses the next one and keeps the others") {
    mesh_options small;
    small.max_links = 1;
    node n(w, small);
    auto body = [](world& in, node& h) -> task<result<void>> {
        node first(in), second(in);
        auto visits = [](node& host, node& one, node& two) -> task<result<void>> {
            auto made = co_await dial(one, host.at);
            MUST(made);
            const auto refused = co_await dial(two, host.at);
            CHECK(code_is(refused, errc::limit));
            CHECK((*made)->up());
            co_return ok();
        };
        auto inner = visits(h, first, second);
        std::vector<node*> all{&first, &second};
        auto served = co_await serving(in, std::move(all), std::move(inner));
        co_return served;
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("garbage, truncated and oversized frames end their own connection only") {
    mesh_options hasty;
    hasty.handshake_deadline = 300ms;
    node n(w, hasty);
    auto body = [](world& in, node& h) -> task<result<void>> {
        node friendly(in);
        auto visits = [](world& inner, node& host, node& friend_of) -> task<result<void>> {
            auto linked = co_await dial(friend_of, host.at);
            MUST(linked);
            hello right;
            const auto good = right.encode();
            for (std::size_t round = 0; round < 60; ++round) {
                auto s = co_await connect(inner, host.at);
                MUST(s);
                byte_vector bytes;
                switch (round % 4) {
                    case 0: bytes = pattern(1 + round * 20, round); break;  // garbage, short and long
                    case 1: bytes.assign(good.begin(), good.begin() + 1 + static_cast<int>(round)); break;  // truncated
                    case 2:  // a hello with one bit flipped
                        bytes.assign(good.begin(), good.end());
                        bytes[round % 24] ^= std::byte{0x40};
                        break;
                    case 3:  // a right hello, then a frame that is announced as 65,535 bytes
                        bytes.assign(good.begin(), good.end());
                        bytes.resize(bytes.size() + 4096, std::byte{0xff});
                        break;
                    default: break;
                }
                auto written = co_await write_all(**s, bytes);
                if (round % 4 == 1) (*s)->close();
                if (round % 4 != 1) MUST(co_await hung_up(inner, **s));
            }
            CHECK((*linked)->up());
            MUST(co_await still_serves(inner, host));
            co_return ok();
        };
        auto inner = visits(in, h, friendly);
        std::vector<node*> all{&friendly};
        auto served = co_await serving(in, std::move(all), std::move(inner));
        co_return served;
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("connections that say nothing, or little, are hung up on, the oldest at once when there are too many") {
    mesh_options hasty;
    hasty.handshake_deadline = 400ms;
    hasty.door.strangers_per_block = 8;
    node n(w, hasty);
    auto body = [](world& in, node& h) -> task<result<void>> {
        const auto before = in.env.clock.now();
        std::vector<std::unique_ptr<stream>> idle;
        for (int i = 0; i < 30; ++i) {
            auto s = co_await connect(in, h.at);
            MUST(s);
            if (i % 2 == 0) {
                const std::array one{std::byte{'L'}};
                auto written = co_await write_all(**s, one);
            }
            idle.push_back(std::move(*s));
        }
        // Those that made room went at once, the others go at the deadline.
        for (std::size_t i = 0; i < 22; ++i) MUST(co_await hung_up(in, *idle[i]));
        if (in.simulated) {
            CHECK(in.env.clock.now() - before < 400ms);
            CHECK(h.net->door().waiting == 8);
            CHECK(h.net->door().turned_away == 22);
        }
        for (auto& s : idle) MUST(co_await hung_up(in, *s));
        CHECK(in.env.clock.now() - before >= 400ms);
        MUST(co_await still_serves(in, h));
        co_return ok();
    };
    co_return co_await beside(w, n, body);
}

LINK_TEST("who has become a link waits at the door no more when that is told") {
    node n(w);
    std::optional<std::size_t> waiting;
    n.on_up = [&n, &waiting](link&) { waiting = n.net->door().waiting; };
    auto body = [](world& in, node& h) -> task<result<void>> { co_return co_await still_serves(in, h); };
    auto done = co_await beside(w, n, body);
    CHECK(waiting == 0);
    co_return done;
}

namespace {

/// Strangers that say a right hello and then nothing, one every `pause`, until `done`.
task<result<void>> flood(world& w, endpoint to, core::duration pause, const bool& done) {
    std::vector<std::unique_ptr<stream>> held;
    hello right;
    right.run = key_of(1);
    const auto bytes = right.encode();
    while (!done) {
        auto s = co_await connect(w, to);
        LONGHAUL_CO_TRY(s);
        auto written = co_await write_all(**s, bytes);
        held.push_back(std::move(*s));
        auto slept = co_await w.env.clock.sleep_for(pause);
        LONGHAUL_CO_TRY(slept);
    }
    co_return ok();
}

}  // namespace

LINK_TEST("a node with the run's secret gets in while strangers from its own address fill every place") {
    auto few = with_psk(2);
    few.door.strangers = few.door.strangers_per_block = 8;
    few.is_member = [](const peer_key&) { return false; };
    node n(w, few);
    auto body = [](world& in, node& h) -> task<result<void>> {
        bool done = false;
        core::scope strangers(in.env.executor);
        // Eight places, and a stranger every 10 ms: each has 80 ms, and nobody but a guest says more than a hello.
        strangers.spawn("flood", flood(in, h.at, 10ms, done));
        auto visits = [](world& inner, node& host, bool& over) -> task<result<void>> {
            MUST(co_await eventually(inner, [&host] { return host.net->door().turned_away > 20; }));
            CHECK(host.net->door().waiting == 8);
            for (int i = 0; i < 5; ++i) MUST(co_await still_serves(inner, host, 2));
            CHECK(host.ups.size() == 5);
            over = true;
            co_return ok();
        };
        strangers.spawn("visits", visits(in, h, done));
        co_return co_await strangers.join();
    };
    co_return co_await beside(w, n, body);
}

SIMULATED_LINK_TEST("guests have slots of their own: a member gets in, and the oldest guest makes way in its time") {
    std::set<peer_key> members;
    mesh_options small;
    small.is_member = [&members](const peer_key& key) { return members.contains(key); };
    small.max_links = 1;
    small.max_guests = 2;
    small.guest_time = 300ms;
    node n(w, small);
    struct cast {
        node one, two, three, four, member, second_member;
        std::set<peer_key>& members;
    };
    cast all{node(w), node(w), node(w), node(w), node(w), node(w), members};
    members = {all.member.self.key(), all.second_member.self.key()};
    auto body = [](world& in, node& host, cast& who) -> task<result<void>> {
        MUST(host.listen());
        auto first = co_await dial(who.one, host.at);
        MUST(first);
        auto second = co_await dial(who.two, host.at);
        MUST(second);
        CHECK(code_is(co_await dial(who.three, host.at), errc::limit));
        auto member = co_await dial(who.member, host.at);
        MUST(member);
        CHECK(code_is(co_await dial(who.second_member, host.at), errc::limit));
        auto slept = co_await in.env.clock.sleep_for(300ms);
        MUST(slept);
        MUST(co_await dial(who.four, host.at));
        MUST(co_await eventually(in, [&first] { return !(*first)->up(); }));
        CHECK((*first)->ended()->orderly);
        CHECK((*second)->up());
        CHECK((*member)->up());
        co_return ok();
    };
    auto inner = body(w, n, all);
    std::vector<node*> nodes{&n, &all.one, &all.two, &all.three, &all.four, &all.member, &all.second_member};
    co_return co_await serving(w, std::move(nodes), std::move(inner));
}

LINK_TEST("a mesh that closes ends its dials and its handshakes at once") {
    node n(w);
    MUST(n.listen());
    auto l = w.env.network.listen({w.host, 0});
    MUST(l);
    std::optional<core::error> told;
    core::scope all(w.env.executor);
    auto dialling = [](node& from, endpoint to) -> task<result<void>> {
        auto made = co_await dial(from, to);
        LONGHAUL_CO_TRY(made);
        co_return ok();
    };
    auto idle = co_await connect(w, n.at);
    MUST(idle);
    all.spawn("serve", n.net->serve());
    all.spawn_isolated("dial", dialling(n, (*l)->local()), [&told](const core::error& e) { told = e; });
    auto calm = co_await w.env.clock.sleep_for(50ms);
    MUST(calm);
    const auto before = w.env.clock.now();
    n.net->close("leaving");
    MUST(co_await all.join());
    if (w.simulated) CHECK(w.env.clock.now() - before < 500ms);
    MUST_HOLD(told);
    CHECK(told->code == errc::closed);
    CHECK_FALSE(co_await dial(n, n.at));
    co_return ok();
}

}  // namespace longhaul::net::testing

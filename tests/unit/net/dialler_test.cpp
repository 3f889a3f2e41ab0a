// Several addresses of one peer, in exact virtual time and over real sockets.

#include "net/dialler.hpp"

#include "tests/unit/net/mesh_world.hpp"

using namespace longhaul;
using namespace longhaul::net;
using core::errc;
using core::ok;
using core::result;
using core::task;
using namespace std::chrono_literals;

namespace {

constexpr std::uint16_t port = 7400;
constexpr auto one_way = 40ms;

/// What one dial came to.
struct outcome {
    core::duration took{};
    std::string asked, error;
    std::vector<std::string> later;  ///< where the following dials of the same dialler ended
};

task<result<void>> listens(environment& env) {
    auto l = env.network.listen({"", port});
    LONGHAUL_CO_TRY(l);
    std::vector<std::unique_ptr<stream>> held;
    for (;;) {
        auto s = co_await (*l)->accept();
        LONGHAUL_CO_TRY(s);
        held.push_back(std::move(*s));
    }
}

task<result<void>> dials(environment& env, std::vector<endpoint> to, core::duration patience, std::size_t times,
                         outcome& out) {
    dialler d(env, std::move(to), stream_purpose::control, patience);
    const auto begun = env.clock.now();
    auto first = co_await d.next();
    out.took = env.clock.now() - begun;
    if (first) {
        out.asked = first->asked.host;
    } else {
        out.error = first.error().message;
    }
    for (std::size_t i = 1; i < times; ++i) {
        auto again = co_await d.next();
        out.later.push_back(again ? again->asked.host : again.error().message);
    }
    co_return ok();
}

/// "a" dials "b", which listens at its name, at 192.0.2.2 and at 2001:db8::2, on a path of 80 ms there and back.
struct two_machines {
    sim::world w{3};
    outcome out;
    two_machines() {
        w.add_node("a");
        w.add_node("b");
        w.add_node("c");  // nobody listens there
        w.set_default_path({.delay = one_way});
        w.add_address("b", "192.0.2.2");
        w.add_address("b", "2001:db8::2");
        w.add_address("c", "192.0.2.3");
        w.add_address("c", "2001:db8::3");
        w.add_address("b", "192.0.2.66");
        w.add_address("b", "2001:db8::66");
        w.set_dark("192.0.2.66");
        w.set_dark("2001:db8::66");
        w["b"].start(listens);
        w.run_until(1ms);
    }
    outcome dial(const std::vector<std::string>& hosts, core::duration patience = 10s, std::size_t times = 1) {
        std::vector<endpoint> to;
        for (const auto& h : hosts) to.push_back({h, port});
        auto& a = w["a"];
        a.start([this, to, patience, times](environment& env) { return dials(env, to, patience, times, out); });
        REQUIRE(w.run_while([&a] { return !a.outcome(); }, 10min));
        return out;
    }
};

constexpr core::duration round_trip = 2 * one_way;

}  // namespace

TEST_CASE("an address that answers is connected to after one round trip, and the others are not tried") {
    two_machines m;
    const auto got = m.dial({"192.0.2.2", "2001:db8::66"});
    CHECK(got.asked == "192.0.2.2");
    CHECK(got.took == round_trip);
}

TEST_CASE("behind an address that drops everything the next one is tried after 250 ms, not after its time is up") {
    two_machines m;
    const auto got = m.dial({"2001:db8::66", "192.0.2.2"});
    CHECK(got.asked == "192.0.2.2");
    CHECK(got.took == dial_stagger + round_trip);
}

TEST_CASE("an address that refuses makes way at once") {
    two_machines m;
    const auto got = m.dial({"192.0.2.3", "192.0.2.2"});
    CHECK(got.asked == "192.0.2.2");
    CHECK(got.took == 2 * round_trip);
}

TEST_CASE("the families take turns, beginning with the first address's") {
    two_machines m;
    SECTION("the second attempt is of the other family") {
        const auto got = m.dial({"192.0.2.66", "192.0.2.66", "192.0.2.66", "2001:db8::2"});
        CHECK(got.asked == "2001:db8::2");
        CHECK(got.took == dial_stagger + round_trip);
    }
    SECTION("and the third of the first") {
        const auto got = m.dial({"2001:db8::66", "2001:db8::2", "192.0.2.66"});
        CHECK(got.asked == "2001:db8::2");
        CHECK(got.took == 2 * dial_stagger + round_trip);
    }
}

TEST_CASE("a name with several records is tried like a list of addresses") {
    two_machines m;
    m.w.add_record("seed.example", {"2001:db8::66", "192.0.2.66", "2001:db8::3", "192.0.2.2"});
    const auto got = m.dial({"seed.example"});
    CHECK(got.asked == "seed.example");
    // The third refuses after a round trip, which lets the fourth begin.
    CHECK(got.took == 2 * dial_stagger + 2 * round_trip);
}

TEST_CASE("nobody there: each address has its time, and the last failure says who") {
    two_machines m;
    const auto got = m.dial({"192.0.2.66", "2001:db8::66"}, 3s);
    CHECK(got.took == dial_stagger + 3s);
    CHECK(got.error == "nobody answered at [2001:db8::66]:7400 within 3 s: check the address and the firewall");
}

TEST_CASE("after a winner that will not do the others follow, those that were given up included") {
    two_machines m;
    const auto got = m.dial({"2001:db8::66", "192.0.2.2", "2001:db8::2", "192.0.2.3"}, 3s, 4);
    CHECK(got.asked == "192.0.2.2");
    REQUIRE(got.later.size() == 3);
    CHECK(got.later[0] == "2001:db8::2");
    CHECK(got.later[1] == "nobody answered at [2001:db8::66]:7400 within 3 s: check the address and the firewall");
    CHECK(got.later[2] == got.later[1]);
}

TEST_CASE("no more than 128 addresses are tried, and 16 of one name") {
    two_machines m;
    SECTION("in a list") {
        std::vector<std::string> many(128, "192.0.2.3");
        many.emplace_back("192.0.2.2");
        CHECK(m.dial(many).error.find("refused") != std::string::npos);
    }
    SECTION("of a name") {
        std::vector<std::string> many(16, "192.0.2.3");
        many.emplace_back("192.0.2.2");
        m.w.add_record("seed.example", many);
        CHECK(m.dial({"seed.example"}).error.starts_with("seed.example:7400: "));
    }
}

TEST_CASE("a dial that is cancelled ends at once") {
    two_machines m;
    core::error told;
    auto hasty = [](environment& env, core::error& why) -> task<result<void>> {
        std::vector<endpoint> to;
        to.push_back({"192.0.2.66", port});
        dialler d(env, std::move(to), stream_purpose::control, 10s);
        auto got = co_await core::with_deadline(env.clock, d.next(), env.clock.now() + 100ms);
        if (!got) why = got.error();
        co_return ok();
    };
    auto& a = m.w["a"];
    a.start([&](environment& env) { return hasty(env, told); });
    const auto before = m.w.now();
    REQUIRE(m.w.run_while([&a] { return !a.outcome(); }, 10min));
    CHECK(m.w.now() - before == 100ms);
    CHECK(told.code == errc::timeout);
}

namespace longhaul::net::testing {

LINK_TEST("of several addresses, another node's and a dead one's among them, the peer's is found") {
    node n(w), other(w);
    struct three {
        node &wanted, &other, guest;
    };
    three t{n, other, node(w)};
    auto body = [](world& in, three& all) -> task<result<void>> {
        MUST(all.wanted.listen());
        MUST(all.other.listen());
        auto l = in.env.network.listen({in.host, 0});
        MUST(l);
        const auto dead = (*l)->local();
        (*l)->close();
        std::vector<endpoint> to;
        for (const auto& e : {dead, all.other.at, all.wanted.at}) to.push_back(e);
        auto made = co_await all.guest.net->dial(to, all.wanted.self.key());
        MUST(made);
        CHECK(made->link->remote().key == all.wanted.self.key());
        CHECK(made->asked == all.wanted.at);
        to.pop_back();
        auto none = co_await all.guest.net->dial(to, all.wanted.self.key());
        MUST_HOLD(!none);
        CHECK(none.error().message.find("leads to another node") != std::string::npos);
        co_return ok();
    };
    auto inner = body(w, t);
    std::vector<node*> all{&n, &other, &t.guest};
    co_return co_await serving(w, std::move(all), std::move(inner));
}

}  // namespace longhaul::net::testing

// A node's limits over all of its links together, in virtual time.

#include "net/paced_network.hpp"

#include "tests/unit/net/link_world.hpp"

namespace longhaul::net::testing {

namespace {

/// A node that keeps to its limits, and one without.
struct limited_pair {
    paced_network paced;
    environment env;
    world limited_world;
    node limited, other;
    std::shared_ptr<link> there, back;

    limited_pair(world& w, core::bit_rate up, core::bit_rate down)
        : paced(w.env.network, w.env.clock, up, down),
          env{w.env.executor, w.env.clock, w.env.entropy, paced, w.env.storage, w.env.workers, w.env.events},
          limited_world{env, w.host, w.simulated},
          limited(limited_world),
          other(w) {}
};

/// Control that takes a tenth of the limit, and never waits for it.
task<result<void>> talk(world& w, link& l, const bool& enough) {
    while (!enough) {
        auto sending = l.send(byte_vector(2000));
        auto sent = co_await std::move(sending);
        LONGHAUL_CO_TRY(sent);
        auto slept = co_await w.env.clock.sleep_for(20ms);
        LONGHAUL_CO_TRY(slept);
    }
    co_return ok();
}
task<result<void>> listen_to(link& l) {
    for (;;) {
        auto heard = co_await l.receive();
        if (!heard) co_return ok();
    }
}

/// Moves transfers one way while control talks, and compares what the link's sockets carried with the limit.
task<result<void>> keeps(world& w, limited_pair& p, bool up, double limit) {
    MUST(p.other.listen());
    auto dialling = p.limited.net->dial(p.other.at);
    auto dialled = co_await std::move(dialling);
    MUST(dialled);
    p.there = *dialled;
    MUST(co_await eventually(w, [&p] { return !p.other.ups.empty(); }));
    p.back = p.other.ups.front();
    bool enough = false;
    core::scope talking(w.env.executor);
    talking.spawn("one", talk(w, *p.there, enough));
    talking.spawn("other", talk(w, *p.back, enough));
    talking.spawn("hears one", listen_to(*p.back));
    talking.spawn("hears other", listen_to(*p.there));
    auto& from = up ? *p.there : *p.back;
    auto& to = up ? *p.back : *p.there;
    MUST(co_await move_one(w, from, to, "first", 1 << 20, 1));
    const auto before = p.there->wire();
    const auto begun = w.env.clock.now();
    MUST(co_await move_one(w, from, to, "second", 10 << 20, 2));
    const auto after = p.there->wire();
    const auto seconds = core::to_seconds(w.env.clock.now() - begun);
    enough = true;
    p.there->close("all is said");
    MUST(co_await talking.join());
    const auto sent = after.sent - before.sent, received = after.received - before.received;
    const auto passed =
        up ? with_headers(sent) + acknowledgements(received) : with_headers(received) + acknowledgements(sent);
    CHECK(static_cast<double>(passed) * 8 / seconds == Approx(limit).epsilon(0.03));
    co_return ok();
}

task<result<void>> limit_is_kept(world& w, bool up) {
    constexpr double limit = 8e6;
    limited_pair p(w, {up ? limit : 0}, {up ? 0 : limit});
    auto body = keeps(w, p, up, limit);
    std::vector<node*> both{&p.limited, &p.other};
    co_return co_await serving(w, std::move(both), std::move(body));
}

}  // namespace

SIMULATED_LINK_TEST("what a node sends, control and headers included, is its limit within 3 %") {
    co_return co_await limit_is_kept(w, true);
}

SIMULATED_LINK_TEST("what a node receives, control and headers included, is its limit within 3 %") {
    co_return co_await limit_is_kept(w, false);
}

}  // namespace longhaul::net::testing

// Transfers over several bulk connections that die, hang and are asked for by either end.

#include "net/transfers.hpp"
#include "tests/unit/net/link_world.hpp"

namespace longhaul::net::testing {

namespace {

struct striped {
    node a, b;
    std::shared_ptr<link> ab, ba;
    striped(world& w, unsigned streams_a, unsigned streams_b)
        : a(w, with_streams(streams_a)), b(w, with_streams(streams_b)) {}
    static mesh_options with_streams(unsigned n) {
        mesh_options o;
        o.streams = n;
        return o;
    }
};

using striped_body = task<result<void>> (*)(world&, striped&);

task<result<void>> joined(world& w, striped& s, striped_body body) {
    MUST(s.b.listen());
    auto dialling = s.a.net->dial(s.b.at);
    auto dialled = co_await std::move(dialling);
    MUST(dialled);
    s.ab = *dialled;
    MUST(co_await eventually(w, [&s] { return !s.b.ups.empty(); }));
    s.ba = s.b.ups.front();
    co_return co_await body(w, s);
}

task<result<void>> with_stripes(world& w, unsigned streams_a, unsigned streams_b, striped_body body) {
    striped s(w, streams_a, streams_b);
    auto inner = joined(w, s, body);
    std::vector<node*> both{&s.a, &s.b};
    co_return co_await serving(w, std::move(both), std::move(inner));
}

}  // namespace

LINK_TEST("as many connections are opened as either end wants, and a transfer uses them") {
    auto body = [](world& in, striped& s) -> task<result<void>> {
        MUST(co_await eventually(in, [&s] { return s.ab->stats().streams == 4 && s.ba->stats().streams == 4; }));
        CHECK(s.ab->stats().streams_used == 2);
        CHECK(s.ba->stats().streams_used == 4);
        MUST(co_await move_one(in, *s.ab, *s.ba, "there", 8 << 20, 1));
        MUST(co_await move_one(in, *s.ba, *s.ab, "back", 8 << 20, 2));
        const auto seen = s.a.network.count(stream_purpose::bulk);
        CHECK(seen == 4);
        CHECK(s.ab->stats().goodput_up_cautious > 0);
        CHECK(s.ab->stats().goodput_up >= s.ab->stats().goodput_up_cautious);
        CHECK(s.ab->stats().rtt_p99 >= s.ab->stats().rtt_min);
        co_return ok();
    };
    co_return co_await with_stripes(w, 2, 4, body);
}

SIMULATED_LINK_TEST("a transfer's event counts from its first byte, and only what had to come") {
    auto body = [](world& in, striped& s) -> task<result<void>> {
        constexpr std::size_t size = 8 * segment_bytes, held = 2 * segment_bytes;
        const auto data = std::make_shared<const byte_vector>(pattern(size, 1));
        const auto ready = std::make_shared<std::uint64_t>(0);
        byte_vector into(size);
        core::scope all(in.env.executor);
        s.ba->on_offer([&](const std::string& tag, std::uint64_t) {
            all.spawn("take", s.ba->receive_transfer(tag, into, {}, [&](std::uint64_t at, std::uint64_t) {
                std::ranges::copy(std::span(*data).subspan(at, segment_bytes),
                                  into.begin() + static_cast<std::ptrdiff_t>(at));
                return at < held;
            }));
        });
        all.spawn("give", s.ab->send_transfer("late", data, ready));
        for (const auto& [pause, made] : {std::pair(2s, size / 2), std::pair(1s, size)}) {
            auto slept = co_await in.env.clock.sleep_for(pause);
            MUST(slept);
            *ready = made;
            s.ab->data_ready();
        }
        MUST(co_await all.join());
        CHECK(into == *data);
        for (const auto* n : {&s.a, &s.b}) {
            const auto found = std::ranges::find(n->events.seen, "transfer", &core::event::name);
            MUST_HOLD(found != n->events.seen.end());
            const auto seconds = std::get<double>(*found->find("seconds"));
            CHECK(std::get<std::uint64_t>(*found->find("bytes")) == size - held);
            CHECK(seconds >= 1);
            CHECK(seconds < 1.1);
        }
        co_return ok();
    };
    co_return co_await with_stripes(w, 1, 1, body);
}

LINK_TEST("one connection after another dies during a transfer, and every byte arrives, once") {
    auto body = [](world& in, striped& s) -> task<result<void>> {
        constexpr std::size_t size = 48 << 20;
        core::scope all(in.env.executor);
        bool done = false;
        auto killer = [](world& inner, striped& both, bool& over) -> task<result<void>> {
            std::uint64_t kills = 0, next = size / 20;
            while (!over) {
                while (!over && both.ba->received_of("there") < next && both.ba->received_of("there") != 0) {
                    auto slept = co_await inner.env.clock.sleep_for(1ms);
                    LONGHAUL_CO_TRY(slept);
                }
                (kills % 2 == 0 ? both.a : both.b).network.kill_one(stream_purpose::bulk);
                auto slept = co_await inner.env.clock.sleep_for(5ms);
                LONGHAUL_CO_TRY(slept);
                next += size / 20;
                ++kills;
            }
            co_return ok();
        };
        auto mover = [](world& inner, striped& both, bool& over) -> task<result<void>> {
            auto moved = co_await move_one(inner, *both.ab, *both.ba, "there", size, 1);
            over = true;
            co_return moved;
        };
        MUST(co_await eventually(in, [&s] { return s.ab->stats().streams == 4; }));
        all.spawn("move", mover(in, s, done));
        all.spawn("kill", killer(in, s, done));
        MUST(co_await all.join());
        CHECK(s.ab->up());
        CHECK(s.ba->up());
        MUST(co_await eventually(in, [&s] { return s.ab->stats().streams == 4; }, 30s));
        co_return ok();
    };
    co_return co_await with_stripes(w, 4, 1, body);
}

LINK_TEST("a connection on which nothing passes any more does not stall a transfer") {
    auto body = [](world& in, striped& s) -> task<result<void>> {
        MUST(co_await eventually(in, [&s] { return s.ab->stats().streams == 3; }));
        // What segments usually take must be known before one can be overdue.
        MUST(co_await move_one(in, *s.ab, *s.ba, "first", 4 << 20, 1));
        s.b.network.freeze_one(stream_purpose::bulk);
        const auto begun = in.env.clock.now();
        MUST(co_await move_one(in, *s.ab, *s.ba, "second", 4 << 20, 2));
        // The silence limit, after which the connection is given up, is ten seconds.
        if (in.simulated) CHECK(in.env.clock.now() - begun < 5s);
        CHECK(s.ab->stats().resent > 0);
        CHECK(s.ab->stats().resent <= 16);
        CHECK(s.ab->stats().streams == 3);
        co_return ok();
    };
    co_return co_await with_stripes(w, 3, 1, body);
}

SIMULATED_LINK_TEST("new connections are warmed while a transfer waits: once, for an eighth of its bytes at most") {
    auto body = [](world& in, striped& s) -> task<result<void>> {
        constexpr std::size_t size = 16 << 20;
        const auto warmed = [&s] { return std::ranges::count(s.a.events.seen, "link_warmed", &core::event::name); };
        for (int i = 0; i < 2; ++i) {
            const auto tag = fmt::format("late {}", i);
            const auto data = std::make_shared<const byte_vector>(pattern(size, 1));
            const auto ready = std::make_shared<std::uint64_t>(0);
            byte_vector into(size);
            core::scope all(in.env.executor);
            s.ba->on_offer([&](const std::string& offered, std::uint64_t) {
                all.spawn("take", s.ba->receive_transfer(offered, into));
            });
            const auto before = s.ab->stats();
            all.spawn("give", s.ab->send_transfer(tag, data, ready));
            if (i == 0) MUST(co_await eventually(in, [&] { return warmed() == 1; }));
            auto slept = co_await in.env.clock.sleep_for(300ms);
            MUST(slept);
            const auto after = s.ab->stats();
            const auto padded = after.padding_sent - before.padding_sent;
            CHECK(padded <= size / 8);
            CHECK((padded > 64 * 1024) == (i == 0));
            CHECK(after.wire_sent - before.wire_sent < padded + 64 * 1024);
            *ready = size;
            s.ab->data_ready();
            MUST(co_await all.join());
            CHECK(into == *data);
        }
        CHECK(warmed() == 1);
        CHECK(std::ranges::count(s.b.events.seen, "link_warmed", &core::event::name) == 0);
        co_return ok();
    };
    co_return co_await with_stripes(w, 0, 0, body);
}

LINK_TEST("a small transfer is not worth padding") {
    auto body = [](world& in, striped& s) -> task<result<void>> {
        const auto data = std::make_shared<const byte_vector>(pattern(512 * 1024, 1));
        const auto ready = std::make_shared<std::uint64_t>(0);
        byte_vector into(data->size());
        core::scope all(in.env.executor);
        s.ba->on_offer(
            [&](const std::string& tag, std::uint64_t) { all.spawn("take", s.ba->receive_transfer(tag, into)); });
        const auto before = s.ab->stats().wire_sent;
        all.spawn("give", s.ab->send_transfer("small", data, ready));
        auto slept = co_await in.env.clock.sleep_for(300ms);
        MUST(slept);
        CHECK(s.ab->stats().wire_sent - before < 16 * 1024);
        *ready = data->size();
        s.ab->data_ready();
        MUST(co_await all.join());
        co_return ok();
    };
    co_return co_await with_stripes(w, 0, 0, body);
}

}  // namespace longhaul::net::testing

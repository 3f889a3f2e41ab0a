#include <set>

#include "net/transfers.hpp"
#include "tests/unit/net/link_world.hpp"

// Inside the namespace: <unistd.h> has a link, too.
namespace longhaul::net::testing {

namespace {

/// Two nodes that are linked; a dialled b.
struct couple {
    node a, b;
    std::shared_ptr<link> ab, ba;
    explicit couple(world& w, mesh_options options = {}) : a(w, std::move(options)), b(w) {}
    std::vector<node*> nodes() { return {&a, &b}; }
};

task<result<void>> join(world& w, couple& c) {
    LONGHAUL_CO_TRY(c.b.listen());
    auto dialling = c.a.net->dial(c.b.at);
    auto dialled = co_await std::move(dialling);
    LONGHAUL_CO_TRY(dialled);
    c.ab = *dialled;
    auto up = co_await eventually(w, [&c] { return !c.b.ups.empty(); });
    LONGHAUL_CO_TRY(up);
    c.ba = c.b.ups.front();
    co_return ok();
}

using case_body = task<result<void>> (*)(world&, couple&);

task<result<void>> joined_body(world& w, couple& c, case_body body) {
    auto joined = co_await join(w, c);
    MUST(joined);
    co_return co_await body(w, c);
}

/// a's limit of silence is three tenths of a second instead of ten seconds.
enum class patience { usual, little };

task<result<void>> with_couple(world& w, patience p, case_body body) {
    mesh_options options;
    if (p == patience::little) options.silence_limit = 300ms;
    couple c(w, std::move(options));
    auto inner = joined_body(w, c, body);
    co_return co_await serving(w, c.nodes(), std::move(inner));
}

task<result<void>> send_text(link& l, std::string_view s) {
    auto sending = l.send(text(s));
    co_return co_await std::move(sending);
}

task<result<void>> expect_text(link& l, std::string_view expected) {
    auto got = co_await l.receive();
    LONGHAUL_CO_TRY(got);
    if (core::as_text(*got) != expected) co_return fail(errc::internal, "got other bytes than {}", expected);
    co_return ok();
}

}  // namespace

LINK_TEST("control messages of all sizes arrive in order, both ways") {
    auto body = [](world&, couple& c) -> task<result<void>> {
        const std::vector<std::size_t> sizes{0, 1, 2, 16383, 16384, 16385, 65536, max_control_message};
        for (const auto& [from, to] : {std::pair{c.ab, c.ba}, std::pair{c.ba, c.ab}}) {
            for (const auto n : sizes) {
                auto sending = from->send(pattern(n, n));
                MUST(co_await std::move(sending));
            }
            for (const auto n : sizes) {
                auto got = co_await to->receive();
                MUST(got);
                CHECK(*got == pattern(n, n));
            }
        }
        auto sending = c.ab->send(byte_vector(max_control_message + 1));
        const auto refused = co_await std::move(sending);
        CHECK((!refused && refused.error().code == errc::limit));
        CHECK(c.ab->up());
        CHECK(c.ab->remote().key == c.b.self.key());
        CHECK(c.ba->remote().key == c.a.self.key());
        CHECK(c.ab->stats().rtt_min > core::duration{});
        co_return ok();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("transfers of all sizes arrive intact in both directions while control round trips go on") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        core::scope all(in.env.executor);
        std::size_t i = 0;
        std::list<std::string> tags;
        for (const std::size_t n :
             {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{262143}, std::size_t{262144},
              std::size_t{262145}, std::size_t{5000000}, std::size_t{32} << 20U}) {
            all.spawn("there", move_one(in, *c.ab, *c.ba, tags.emplace_back(fmt::format("there {}", n)), n, ++i));
            all.spawn("back", move_one(in, *c.ba, *c.ab, tags.emplace_back(fmt::format("back {}", n)), n, ++i));
        }
        auto pings = [](link& near, link& far) -> task<result<void>> {
            for (int round = 0; round < 50; ++round) {
                MUST(co_await send_text(near, "ping"));
                MUST(co_await expect_text(far, "ping"));
                MUST(co_await send_text(far, "pong"));
                MUST(co_await expect_text(near, "pong"));
            }
            co_return ok();
        };
        all.spawn("pings", pings(*c.ab, *c.ba));
        MUST(co_await all.join());
        const auto up = c.ab->stats(), down = c.ba->stats();
        CHECK(up.goodput_up > 0);
        CHECK(up.goodput_down > 0);
        CHECK(up.streams >= 1);
        // Framing costs little, and both ends count the same bytes but for what is under way.
        constexpr double payload = (32 << 20) + 5000000 + 3 * 262144 + 1001;
        CHECK(static_cast<double>(up.wire_sent) > payload);
        // What was overdue on a busy machine went twice.
        CHECK(static_cast<double>(up.wire_sent) < payload * 1.01 + static_cast<double>(up.resent * segment_bytes));
        CHECK(static_cast<double>(down.wire_received) > payload);
        CHECK(down.wire_received <= up.wire_sent);
        co_return ok();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("an offer waits for its acceptance and holds nobody up meanwhile") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        std::vector<std::string> offered;
        core::scope all(in.env.executor);
        all.spawn("late", give(*c.ab, "late", 100000, 1));
        MUST(co_await move_one(in, *c.ab, *c.ba, "other", 3000000, 2));
        // The handler hears of offers that came before it.
        c.ba->on_offer([&offered](const std::string& tag, std::uint64_t bytes) {
            offered.push_back(fmt::format("{} {}", tag, bytes));
        });
        CHECK(offered == std::vector<std::string>{"late 100000"});
        byte_vector small(5), right(100000);
        auto wrong_size = c.ba->receive_transfer("late", small);
        const auto unfit = co_await std::move(wrong_size);
        CHECK((!unfit && unfit.error().code == errc::usage));
        CHECK(c.ba->received_of("late") == 0);
        MUST(co_await take(in, *c.ba, "late", right));
        CHECK(right == pattern(100000, 1));
        MUST(co_await all.join());
        auto unknown = c.ba->receive_transfer("never offered", small);
        const auto missing = co_await std::move(unknown);
        CHECK((!missing && missing.error().code == errc::not_found));
        co_return ok();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("a refused transfer tells the sender why, and a tag is free again afterwards") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        c.ba->on_offer([&c](const std::string& tag, std::uint64_t bytes) {
            if (bytes > 1000) c.ba->refuse_transfer(tag, "too much for me");
        });
        auto refused = co_await give(*c.ab, "x", 1001, 3);
        MUST_HOLD(!refused);
        CHECK(refused.error().code == errc::not_admitted);
        CHECK(refused.error().message == "the receiver refused the transfer: too much for me");
        MUST(co_await move_one(in, *c.ab, *c.ba, "x", 1000, 1));
        core::scope all(in.env.executor);
        all.spawn("first", give(*c.ab, "twice", 10, 3));
        MUST(co_await eventually(in, [&c] { return c.ab->stats().wire_sent > 0; }));
        auto twice = co_await give(*c.ab, "twice", 10, 3);
        CHECK((!twice && twice.error().code == errc::usage));
        byte_vector got(10);
        MUST(co_await take(in, *c.ba, "twice", got));
        co_return co_await all.join();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("a receiver that abandons ends the transfer at both ends, the next one is not disturbed") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        auto got = std::make_unique<byte_vector>(32 << 20);
        core::scope all(in.env.executor);
        std::optional<core::error> told;
        all.spawn_isolated("give", give(*c.ab, "big", 32 << 20, 3), [&told](const core::error& e) { told = e; });
        auto some = [](world& inner, couple& both) -> task<result<void>> {
            co_return co_await eventually(inner, [&both] { return both.ba->received_of("big") > 100000; });
        };
        auto taking = take(in, *c.ba, "big", *got);
        auto first = co_await core::race(std::move(taking), some(in, c));
        CHECK(first.index() == 1);
        got.reset();  // what still arrives must not be written there
        MUST(co_await eventually(in, [&told] { return told.has_value(); }));
        CHECK(told->code == errc::not_admitted);
        MUST(co_await move_one(in, *c.ab, *c.ba, "big", 1000000, 7));
        co_return co_await all.join();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("a sender that stops waiting withdraws the transfer") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        byte_vector got(32 << 20);
        core::scope receiving(in.env.executor);
        std::optional<core::error> told;
        c.ba->on_offer([&](const std::string& tag, std::uint64_t) {
            receiving.spawn_isolated("take", c.ba->receive_transfer(tag, got),
                                     [&told](const core::error& e) { told = e; });
        });
        auto some = [](world& inner, couple& both) -> task<result<void>> {
            co_return co_await eventually(inner, [&both] { return both.ba->received_of("big") > 100000; });
        };
        auto giving = give(*c.ab, "big", 32 << 20, 3);
        auto first = co_await core::race(std::move(giving), some(in, c));
        CHECK(first.index() == 1);
        MUST(co_await eventually(in, [&told] { return told.has_value(); }));
        CHECK(told->code == errc::not_found);
        c.ba->on_offer({});
        MUST(co_await move_one(in, *c.ab, *c.ba, "big", 1000000, 7));
        co_return co_await receiving.join();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("either end ends a transfer by its tag: its own call returns as cancelled, and the tag is free again") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        auto noted = [](task<result<void>> moving, std::optional<errc>& end) -> task<result<void>> {
            auto moved = co_await std::move(moving);
            if (!moved) end = moved.error().code;
            co_return ok();
        };
        for (const bool by_sender : {true, false}) {
            byte_vector got(32 << 20);
            std::optional<errc> sent, received;
            bool offered = false;
            c.ba->on_offer([&offered](const std::string&, std::uint64_t) { offered = true; });
            core::scope all(in.env.executor);
            all.spawn("give", noted(give(*c.ab, "big", 32 << 20, 3), sent));
            MUST(co_await eventually(in, [&offered] { return offered; }));
            c.ba->on_offer({});
            all.spawn("take", noted(c.ba->receive_transfer("big", got), received));
            MUST(co_await eventually(in, [&c] { return c.ba->received_of("big") > 100000; }));
            if (by_sender) {
                c.ab->withdraw_transfer("big");
            } else {
                c.ba->abandon_transfer("big");
            }
            MUST(co_await all.join());
            CHECK(sent == (by_sender ? errc::cancelled : errc::not_admitted));
            CHECK(received == (by_sender ? errc::not_found : errc::cancelled));
            MUST(co_await move_one(in, *c.ab, *c.ba, "big", 1000000, 7));
        }
        c.ab->withdraw_transfer("never offered");
        c.ba->abandon_transfer("never offered");
        co_return ok();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("a small transfer is not blocked by a large one before it") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        bool large_done = false;
        auto large = [](world& inner, couple& both, bool& done) -> task<result<void>> {
            auto moved = co_await move_one(inner, *both.ab, *both.ba, "large", 32 << 20, 1);
            done = true;
            co_return moved;
        };
        core::scope all(in.env.executor);
        all.spawn("large", large(in, c, large_done));
        MUST(co_await eventually(in, [&c] { return c.ba->received_of("large") > 0; }));
        MUST(co_await move_one(in, *c.ab, *c.ba, "small", 1000, 2));
        CHECK_FALSE(large_done);
        co_return co_await all.join();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("a transfer outlives the death of its bulk connection, again and again") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        core::scope all(in.env.executor);
        constexpr std::size_t size = 24 << 20;
        all.spawn("there", move_one(in, *c.ab, *c.ba, "there", size, 1));
        all.spawn("back", move_one(in, *c.ba, *c.ab, "back", size, 2));
        for (const double part : {0.1, 0.4, 0.7}) {
            MUST(co_await eventually(in, [&c, part] {
                return static_cast<double>(c.ba->received_of("there")) > part * size || c.ba->received_of("back") > 0;
            }));
            (part > 0.2 && part < 0.5 ? c.a : c.b).network.kill(stream_purpose::bulk);
        }
        MUST(co_await all.join());
        CHECK(c.ab->up());
        CHECK(c.ba->up());
        MUST(co_await eventually(in, [&c] { return c.ab->stats().streams >= 1 && c.ba->stats().streams >= 1; }));
        co_return ok();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

namespace {

class counting_workers final : public core::workers {
public:
    explicit counting_workers(core::workers& w) : workers_(w) {}
    task<result<void>> run(std::function<void()> job, core::duration modelled) override {
        ++jobs;
        return workers_.run(std::move(job), modelled);
    }
    unsigned concurrency() const override { return workers_.concurrency(); }
    bool full() const override { return workers_.full(); }
    std::size_t jobs = 0;

private:
    core::workers& workers_;
};

}  // namespace

LINK_TEST("workers cipher bulk while ciphers take too much of one thread's time, and connections may die meanwhile") {
    counting_workers counted(w.env.workers);
    environment env{w.env.executor, w.env.clock, w.env.entropy, w.env.network, w.env.storage, counted, w.env.events};
    world in{env, w.host, w.simulated};
    mesh_options busy;
    busy.cipher_share = 0;  // any is too much
    couple c(in, std::move(busy));
    const auto body = [](world& inside, couple& both) -> task<result<void>> {
        core::scope all(inside.env.executor);
        constexpr std::size_t size = 24 << 20;
        all.spawn("there", move_one(inside, *both.ab, *both.ba, "there", size, 1));
        all.spawn("back", move_one(inside, *both.ba, *both.ab, "back", size, 2));
        MUST(co_await eventually(inside, [&both] { return both.ba->received_of("there") > size / 4; }));
        both.a.network.kill(stream_purpose::bulk);
        co_return co_await all.join();
    };
    auto inner = joined_body(in, c, body);
    auto served = co_await serving(in, c.nodes(), std::move(inner));
    CHECK(counted.jobs > 100);
    co_return served;
}

LINK_TEST("the death of the control connection is told to everybody who waits, at both ends") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        core::scope all(in.env.executor);
        std::multiset<errc> told;
        const auto note = [&told](const core::error& e) { told.insert(e.code); };
        byte_vector into(10);
        MUST(co_await send_text(*c.ab, "last words"));
        all.spawn_isolated("offer", give(*c.ab, "never accepted", 10, 3), note);
        all.spawn_isolated("receive", expect_text(*c.ab, "nothing"), note);
        MUST(co_await eventually(in, [&c] { return c.ab->stats().streams >= 1; }));
        c.a.network.kill(stream_purpose::control);
        MUST(co_await all.join());
        CHECK(told == std::multiset<errc>{errc::closed, errc::closed});
        MUST(co_await eventually(in, [&c] { return !c.ab->up() && !c.ba->up(); }));
        CHECK_FALSE(c.ab->ended()->orderly);
        CHECK_FALSE(c.ba->ended()->orderly);
        CHECK(c.ba->ended()->why.code == errc::closed);
        CHECK_FALSE(c.a.net->find(c.b.self.key()));
        MUST(co_await expect_text(*c.ba, "last words"));
        const auto sent = co_await send_text(*c.ab, "too late");
        CHECK((!sent && sent.error().code == errc::closed));
        auto accepted = c.ab->receive_transfer("x", into);
        const auto late = co_await std::move(accepted);
        CHECK((!late && late.error().code == errc::closed));
        co_return ok();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("a goodbye is an orderly end with its reason, after what was sent before it") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        for (int i = 0; i < 20; ++i) {
            auto sending = c.ab->send(pattern(100000, 5));
            MUST(co_await std::move(sending));
        }
        c.ab->close("training is done");
        CHECK_FALSE(c.ab->up());
        CHECK(c.ab->ended()->orderly);
        MUST(co_await eventually(in, [&c] { return !c.ba->up(); }));
        CHECK(c.ba->ended()->orderly);
        CHECK(c.ba->ended()->why.message.ends_with("said goodbye: training is done"));
        for (int i = 0; i < 20; ++i) {
            auto got = co_await c.ba->receive();
            MUST(got);
            CHECK(*got == pattern(100000, 5));
        }
        const auto end = co_await c.ba->receive();
        CHECK((!end && end.error().code == errc::closed));
        MUST(co_await eventually(in, [&c] { return c.a.network.count(stream_purpose::control) == 0; }));
        co_return ok();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("a stopped peer is down after the silence limit, not never") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        auto calm = co_await in.env.clock.sleep_for(600ms);
        MUST(calm);
        CHECK(c.ab->up());  // heartbeats alone keep it
        const auto before = in.env.clock.now();
        c.b.network.now.frozen = true;
        MUST(co_await eventually(in, [&c] { return !c.ab->up(); }));
        CHECK(c.ab->ended()->why.code == errc::timeout);
        if (in.simulated) CHECK(in.env.clock.now() - before >= 200ms);
        c.b.network.now.frozen = false;
        MUST(co_await eventually(in, [&c] { return !c.ba->up(); }));
        co_return ok();
    };
    co_return co_await with_couple(w, patience::little, body);
}

TEST_CASE("a process that was held up itself does not accuse the others") {
    run_real([](world& w) -> task<result<void>> {
        auto body = [](world& in, couple& c) -> task<result<void>> {
            MUST(co_await eventually(in, [&c] { return c.ab->stats().streams >= 1; }));
            for (int i = 0; i < 3; ++i) {
                const auto until = in.env.clock.now() + 500ms;  // beyond the limit of 300 ms
                while (in.env.clock.now() < until) continue;
                auto calm = co_await in.env.clock.sleep_for(150ms);
                MUST(calm);
            }
            CHECK(c.ab->up());
            CHECK(c.ab->stats().streams >= 1);
            co_return ok();
        };
        co_return co_await with_couple(w, patience::little, body);
    });
}

LINK_TEST("send waits while the other end does not take, and ends with the link") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        c.b.network.now.frozen = true;
        std::size_t queued = 0;
        std::optional<core::error> told;
        auto sender = [](link& l, std::size_t& count) -> task<result<void>> {
            for (;;) {
                auto sending = l.send(byte_vector(max_control_message));
                auto sent = co_await std::move(sending);
                LONGHAUL_CO_TRY(sent);
                ++count;
            }
        };
        core::scope all(in.env.executor);
        all.spawn_isolated("send", sender(*c.ab, queued), [&told](const core::error& e) { told = e; });
        MUST(co_await all.join());
        CHECK(told->code == errc::closed);
        // Ours is bounded; the rest went into the kernel's buffers.
        CHECK(queued >= 4);
        CHECK(queued < 40);
        CHECK(c.ab->ended()->why.code == errc::timeout);
        c.b.network.now.frozen = false;
        co_return ok();
    };
    co_return co_await with_couple(w, patience::little, body);
}

LINK_TEST("whoever floods an application that does not receive loses the link, with a sentence") {
    auto body = [](world& in, couple& c) -> task<result<void>> {
        for (std::size_t i = 0; i < 5000; ++i) {
            const auto sent = co_await send_text(*c.ab, "flood");
            if (!sent) break;
        }
        MUST(co_await eventually(in, [&c] { return !c.ba->up(); }));
        CHECK(c.ba->ended()->why.code == errc::limit);
        MUST(co_await eventually(in, [&c] { return !c.ab->up(); }));
        // What had been received within the limit is still there.
        for (int i = 0; i < 4096; ++i) MUST(co_await expect_text(*c.ba, "flood"));
        const auto end = co_await c.ba->receive();
        CHECK_FALSE(end);
        co_return ok();
    };
    co_return co_await with_couple(w, patience::usual, body);
}

LINK_TEST("a link works over streams that give and take one byte at a time") {
    couple c(w);
    c.a.network.now.most_read = c.b.network.now.most_read = 1;
    c.a.network.now.most_write = c.b.network.now.most_write = 1;
    auto body = [](world& in, couple& both) -> task<result<void>> {
        MUST(co_await send_text(*both.ab, "hello"));
        MUST(co_await expect_text(*both.ba, "hello"));
        MUST(co_await move_one(in, *both.ab, *both.ba, "slow", 3000, 1));
        co_return ok();
    };
    auto inner = joined_body(w, c, body);
    co_return co_await serving(w, c.nodes(), std::move(inner));
}

LINK_TEST("two thousand messages survive any fragmentation") {
    couple c(w);
    for (auto* n : c.nodes()) n->network.now = {.most_read = 3000, .most_write = 3000, .random_sizes = true};
    auto body = [](world& in, couple& both) -> task<result<void>> {
        auto sender = [](link& l) -> task<result<void>> {
            for (std::size_t i = 0; i < 2000; ++i) {
                auto sending = l.send(pattern(i * 7919 % 500, i));
                MUST(co_await std::move(sending));
            }
            co_return ok();
        };
        auto receiver = [](link& l) -> task<result<void>> {
            for (std::size_t i = 0; i < 2000; ++i) {
                auto got = co_await l.receive();
                MUST(got);
                MUST_HOLD(*got == pattern(i * 7919 % 500, i));
            }
            co_return ok();
        };
        core::scope all(in.env.executor);
        all.spawn("send", sender(*both.ab));
        all.spawn("receive", receiver(*both.ba));
        all.spawn("bulk", move_one(in, *both.ba, *both.ab, "bulk", 1000000, 1));
        co_return co_await all.join();
    };
    auto inner = joined_body(w, c, body);
    co_return co_await serving(w, c.nodes(), std::move(inner));
}

}  // namespace longhaul::net::testing

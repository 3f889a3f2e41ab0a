#pragma once
/// Meshes side by side in one process, over a network whose streams a test can slow, freeze and break.
///
/// A case is a coroutine over `world&`; LINK_TEST runs it twice: over real loopback TCP in real time, and over the
/// simulated network, all nodes on one simulated machine, in virtual time. SIMULATED_LINK_TEST is for what must happen
/// in time.

#include <asio/io_context.hpp>
#include <filesystem>
#include <list>

#include "core/posix_storage.hpp"
#include "core/thread_workers.hpp"
#include "net/asio_network.hpp"
#include "net/mesh.hpp"
#include "sim/world.hpp"
#include "tests/test.hpp"

namespace longhaul::net::testing {

using core::byte_vector;
using core::errc;
using core::fail;
using core::ok;
using core::result;
using core::task;
using namespace std::chrono_literals;

/// CHECK inside a coroutine that returns the first failure, too: what follows would make no sense.
#define MUST(...)                                                                     \
    do {                                                                              \
        auto&& longhaul_must = (__VA_ARGS__);                                         \
        if (!longhaul_must) {                                                         \
            FAIL_CHECK(#__VA_ARGS__ " failed: " << longhaul_must.error().message);    \
            co_return ::longhaul::core::fail(errc::internal, "the test ended early"); \
        }                                                                             \
    } while (false)
#define MUST_HOLD(...)                                                                \
    do {                                                                              \
        if (!(__VA_ARGS__)) {                                                         \
            FAIL_CHECK(#__VA_ARGS__ " does not hold");                                \
            co_return ::longhaul::core::fail(errc::internal, "the test ended early"); \
        }                                                                             \
    } while (false)

/// What a test may do to all streams of one node, as they live.
struct faults {
    std::size_t most_read = ~std::size_t{0}, most_write = ~std::size_t{0};
    bool random_sizes = false;  ///< up to the above, at random
    bool frozen = false;        ///< nothing is read or written any more: a stopped process, or a lost path
};

class faulty_network;

/// A stream that obeys the faults of its node.
class faulty_stream final : public stream {
public:
    faulty_stream(std::unique_ptr<stream> under, faulty_network& owner, stream_purpose purpose);
    ~faulty_stream() override;
    task<result<std::size_t>> read_some(core::mutable_bytes out) override;
    task<result<std::size_t>> write_some(core::const_bytes data) override;
    task<result<void>> writable() override { return under_->writable(); }
    void close() override {
        closed_ = true;
        under_->close();
    }
    endpoint local() const override { return under_->local(); }
    endpoint remote() const override { return under_->remote(); }
    std::optional<stream_info> info() const override { return under_->info(); }
    void set_pace(double bytes_per_second) override { under_->set_pace(bytes_per_second); }
    void set_purpose(stream_purpose purpose) override {
        purpose_ = purpose;
        under_->set_purpose(purpose);
    }
    stream_purpose purpose() const { return purpose_; }
    bool closed() const { return closed_; }

private:
    std::size_t portion(std::size_t most, std::size_t asked);
    std::unique_ptr<stream> under_;
    faulty_network& owner_;
    stream_purpose purpose_;
    bool closed_ = false;
    bool frozen_ = false;
    friend class faulty_network;
};

class faulty_network final : public network {
public:
    faulty_network(network& under, core::clock& clock, core::entropy& entropy)
        : under_(under), clock_(clock), entropy_(entropy) {}

    faults now;

    /// Breaks all living streams of that purpose.
    void kill(stream_purpose purpose) {
        for (auto* s : alive_) {
            if (s->purpose() == purpose) s->close();
        }
    }
    /// Breaks the oldest of them.
    void kill_one(stream_purpose purpose) {
        if (auto* s = oldest(purpose)) s->close();
    }
    /// From now on nothing passes on the oldest of them, either way.
    void freeze_one(stream_purpose purpose);
    /// Open streams of that purpose.
    std::size_t count(stream_purpose purpose) const {
        return static_cast<std::size_t>(
            std::ranges::count_if(alive_, [&](auto* s) { return s->purpose() == purpose && !s->closed(); }));
    }

    task<result<std::vector<endpoint>>> resolve(endpoint of) override { return under_.resolve(std::move(of)); }
    task<result<std::unique_ptr<stream>>> connect(endpoint to, stream_purpose purpose) override {
        auto connecting = under_.connect(std::move(to), purpose);
        auto made = co_await std::move(connecting);
        LONGHAUL_CO_TRY(made);
        co_return std::make_unique<faulty_stream>(std::move(*made), *this, purpose);
    }
    result<std::unique_ptr<listener>> listen(endpoint at) override {
        LONGHAUL_TRY_ASSIGN(auto l, under_.listen(std::move(at)));
        return std::make_unique<faulty_listener>(std::move(l), *this);
    }

private:
    friend class faulty_stream;
    class faulty_listener final : public listener {
    public:
        faulty_listener(std::unique_ptr<listener> under, faulty_network& owner)
            : under_(std::move(under)), owner_(owner) {}
        task<result<std::unique_ptr<stream>>> accept() override {
            auto made = co_await under_->accept();
            LONGHAUL_CO_TRY(made);
            co_return std::make_unique<faulty_stream>(std::move(*made), owner_, stream_purpose::control);
        }
        endpoint local() const override { return under_->local(); }
        void close() override { under_->close(); }

    private:
        std::unique_ptr<listener> under_;
        faulty_network& owner_;
    };

    faulty_stream* oldest(stream_purpose purpose) const {
        const auto found =
            std::ranges::find_if(alive_, [&](auto* s) { return s->purpose() == purpose && !s->closed(); });
        return found == alive_.end() ? nullptr : *found;
    }

    network& under_;
    core::clock& clock_;
    core::entropy& entropy_;
    std::vector<faulty_stream*> alive_;
};

inline void faulty_network::freeze_one(stream_purpose purpose) {
    if (auto* s = oldest(purpose)) s->frozen_ = true;
}

inline faulty_stream::faulty_stream(std::unique_ptr<stream> under, faulty_network& owner, stream_purpose purpose)
    : under_(std::move(under)), owner_(owner), purpose_(purpose) {
    owner_.alive_.push_back(this);
}
inline faulty_stream::~faulty_stream() { std::erase(owner_.alive_, this); }
inline std::size_t faulty_stream::portion(std::size_t most, std::size_t asked) {
    const auto n = std::min(most, asked);
    return owner_.now.random_sizes ? 1 + owner_.entropy_.below(n) : n;
}
inline task<result<std::size_t>> faulty_stream::read_some(core::mutable_bytes out) {
    auto got = co_await under_->read_some(out.first(portion(owner_.now.most_read, out.size())));
    while (owner_.now.frozen || (frozen_ && !closed_)) {
        auto slept = co_await owner_.clock_.sleep_for(5ms);
        LONGHAUL_CO_TRY(slept);
    }
    co_return got;
}
inline task<result<std::size_t>> faulty_stream::write_some(core::const_bytes data) {
    while (owner_.now.frozen || (frozen_ && !closed_)) {
        auto slept = co_await owner_.clock_.sleep_for(5ms);
        LONGHAUL_CO_TRY(slept);
    }
    co_return co_await under_->write_some(data.first(portion(owner_.now.most_write, data.size())));
}

/// A world with one thread and one clock.
struct world {
    environment& env;
    std::string host;  ///< of endpoints to listen on
    bool simulated;    ///< how long something took means something: in real time the machine may stall
};

class kept_events final : public core::event_sink {
public:
    void emit(const core::event& e) override { seen.push_back(e); }
    std::vector<core::event> seen;
};

/// One node: its identity, its view of the network, its mesh, and what came up.
struct node {
    node(world& w, mesh_options options = {}, std::uint64_t incarnation = 1)
        : node(w, identity::generate(w.env.entropy), std::move(options), incarnation) {}
    node(world& w, identity own, mesh_options options, std::uint64_t incarnation = 1)
        : base(w),
          self(std::move(own)),
          network(w.env.network, w.env.clock, w.env.entropy),
          env{w.env.executor, w.env.clock, w.env.entropy, network, w.env.storage, w.env.workers, events},
          changed(w.env.executor) {
        options.incarnation = incarnation;
        net.emplace(
            env, self, std::move(options),
            [this](const remote_peer& peer, bool they_dialled) -> result<void> {
                return admit ? admit(peer, they_dialled) : ok();
            },
            [this](std::shared_ptr<link> l) {
                if (on_up) on_up(*l);
                ups.push_back(std::move(l));
                changed.notify();
            });
    }

    world& base;
    identity self;
    faulty_network network;
    kept_events events;
    environment env;
    mesh::admission admit;
    std::function<void(link&)> on_up;
    std::vector<std::shared_ptr<link>> ups;  ///< all that ever came up
    core::wakeup changed;
    std::optional<mesh> net;
    endpoint at;

    result<void> listen() {
        LONGHAUL_TRY_ASSIGN(at, net->listen({base.host, 0}));
        if (at.host.empty()) at.host = base.host;
        return ok();
    }
};

/// Runs `body` while all `nodes` serve; closes them afterwards and waits for their ends.
inline task<result<void>> closing_after(task<result<void>> body, std::vector<node*> nodes) {
    auto done = co_await std::move(body);
    for (auto* n : nodes) n->net->close("the test is over");
    co_return done;
}
inline task<result<void>> serving(world& w, std::vector<node*> nodes, task<result<void>> body) {
    core::scope all(w.env.executor);
    for (auto* n : nodes) all.spawn("serve", n->net->serve());
    auto main = closing_after(std::move(body), nodes);
    all.spawn("body", std::move(main));
    co_return co_await all.join();
}

/// Waits until `condition` holds; fails after `limit`.
inline task<result<void>> eventually(world& w, std::function<bool()> condition, core::duration limit = 10s) {
    const auto until = w.env.clock.now() + limit;
    while (!condition()) {
        if (w.env.clock.now() >= until) co_return fail(errc::timeout, "it did not come true in time");
        auto slept = co_await w.env.clock.sleep_for(2ms);
        LONGHAUL_CO_TRY(slept);
    }
    co_return ok();
}

/// Bytes that depend on the seed and the place.
inline byte_vector pattern(std::size_t n, std::uint64_t seed) {
    byte_vector out(n);
    std::uint64_t x = seed * 0x9E3779B97F4A7C15ULL + 1;
    for (auto& b : out) {
        x ^= x << 13U;
        x ^= x >> 7U;
        x ^= x << 17U;
        b = static_cast<std::byte>(x);
    }
    return out;
}
inline byte_vector text(std::string_view s) {
    const auto b = core::as_bytes(s);
    return {b.begin(), b.end()};
}

// Tags are views of literals: g++ 12 breaks strings that are made inside a co_await expression.

/// Accepts `tag` when it is offered and receives it.
inline task<result<void>> take(world& w, link& l, std::string_view tag, byte_vector& into) {
    for (;;) {
        auto receiving = l.receive_transfer(std::string(tag), into);
        auto got = co_await std::move(receiving);
        if (got || got.error().code != errc::not_found || !l.up()) co_return got;
        auto slept = co_await w.env.clock.sleep_for(1ms);
        LONGHAUL_CO_TRY(slept);
    }
}

/// Sends `n` bytes of the pattern `seed`.
inline task<result<void>> give(link& l, std::string_view tag, std::size_t n, std::uint64_t seed) {
    auto sending = l.send_transfer(std::string(tag), std::make_shared<const byte_vector>(pattern(n, seed)));
    co_return co_await std::move(sending);
}

inline task<result<void>> move_one(world& w, link& from, link& to, std::string_view tag, std::size_t n,
                                   std::uint64_t seed) {
    byte_vector got(n);
    auto giving = give(from, tag, n, seed);
    auto taking = take(w, to, tag, got);
    auto moved = co_await core::both(std::move(giving), std::move(taking));
    LONGHAUL_CO_TRY(moved.first);
    LONGHAUL_CO_TRY(moved.second);
    if (got != pattern(n, seed)) co_return fail(errc::internal, "transfer {} of {} bytes arrived changed", tag, n);
    co_return ok();
}

/// Over real loopback TCP and real time.
inline void run_real(const std::function<task<result<void>>(world&)>& body, core::duration limit = 60s) {
    asio::io_context io;
    asio_clock clock(io.get_executor());
    core::system_entropy entropy;
    asio_network network(io.get_executor());
    core::thread_workers workers(1);
    const auto folder = std::filesystem::temp_directory_path() / ("longhaul_link_" + entropy.key().brief());
    auto storage = core::posix_storage::open(folder.string(), workers);
    REQUIRE(storage);
    kept_events events;
    environment env{io.get_executor(), clock, entropy, network, **storage, workers, events};
    world w{env, "127.0.0.1", false};
    std::optional<result<void>> outcome;
    auto main = core::with_deadline(clock, body(w), clock.now() + limit);
    core::start(io.get_executor(), std::move(main), [&](result<void> r) { outcome = std::move(r); });
    io.run();
    std::filesystem::remove_all(folder);
    REQUIRE(outcome);
    INFO((*outcome ? std::string() : outcome->error().message));
    CHECK(*outcome);
}

/// The same body in the simulated world.
inline void run_simulated(const std::function<task<result<void>>(world&)>& body) {
    sim::world simulation(7);
    // A line and a path of its own even to itself: so that bytes take time, as they do between machines.
    auto& machine = simulation.add_node("machine", {.up = {1e9}, .down = {1e9}});
    simulation.set_path("machine", "machine", {.delay = 1ms});
    machine.start([&body](environment& env) -> task<result<void>> {
        world w{env, "machine", true};
        co_return co_await body(w);
    });
    simulation.run_while([&machine] { return !machine.outcome(); }, 10min);
    REQUIRE(machine.outcome());
    const auto& outcome = *machine.outcome();
    INFO((outcome ? std::string() : outcome.error().message));
    CHECK(outcome);
}

}  // namespace longhaul::net::testing

#define LINK_TEST_NAMED(function, name)                                                 \
    static longhaul::core::task<longhaul::core::result<void>> function(                 \
        [[maybe_unused]] longhaul::net::testing::world& w);                             \
    TEST_CASE(name) { longhaul::net::testing::run_real(function); }                     \
    TEST_CASE(name " (simulated)") { longhaul::net::testing::run_simulated(function); } \
    static longhaul::core::task<longhaul::core::result<void>> function(                 \
        [[maybe_unused]] longhaul::net::testing::world& w)
/// A case over `world& w`, a coroutine that returns task<result<void>>.
#define LINK_TEST(name) LINK_TEST_NAMED(LONGHAUL_CONCAT(link_case_, __COUNTER__), name)

#define SIMULATED_LINK_TEST_NAMED(function, name)                        \
    static longhaul::core::task<longhaul::core::result<void>> function(  \
        [[maybe_unused]] longhaul::net::testing::world& w);              \
    TEST_CASE(name) { longhaul::net::testing::run_simulated(function); } \
    static longhaul::core::task<longhaul::core::result<void>> function(  \
        [[maybe_unused]] longhaul::net::testing::world& w)
#define SIMULATED_LINK_TEST(name) SIMULATED_LINK_TEST_NAMED(LONGHAUL_CONCAT(link_case_, __COUNTER__), name)

/// `longhaul bench transfer`: one end serves, the other measures transfers between the two, each until the receiver has
/// verified the last byte. The links are those of a run: encrypted, striped, with the number of connections found.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/hash.hpp"
#include "core/json.hpp"
#include "net/mesh.hpp"
#include "net/paced_network.hpp"
#include "net/telemetry.hpp"
#include "peers/command/command.hpp"
#include "peers/command/world.hpp"

namespace longhaul::peers::command {

namespace {

using core::errc;
using core::ok;
using core::result;
using core::task;
using ordered_json = nlohmann::ordered_json;
using shared_link = std::shared_ptr<net::link>;
using shared_bytes = std::shared_ptr<const core::byte_vector>;

/// The server keeps one buffer of what it is sent, and one of what it sends, a link.
constexpr std::uint64_t most_bytes = std::uint64_t{4} << 30;
constexpr std::size_t most_repeats = 10000;
/// Before the first measurement: for connections to be opened.
constexpr auto opening = std::chrono::milliseconds(1500);
constexpr auto opening_limit = std::chrono::seconds(10);
/// For the other end to hash what it has.
constexpr auto hashing_limit = std::chrono::seconds(60);

struct wishes {
    std::string address;
    std::string listen = ":7400";
    std::string size = "64 MiB";
    std::string streams = "auto";
    std::string pause = "0 s";
    std::string up_limit, down_limit;
    std::string congestion_control = "bbr";
    std::int64_t repeat = 5;
    bool serve = false, both = false, down = false, cold = false, as_json = false;
    // Checked:
    std::uint64_t bytes = 0;
    unsigned stream_count = 0;
    core::duration between{};
};

net::mesh_options options_for(const wishes& w) {
    net::mesh_options o;
    o.run = core::hash(core::as_bytes("longhaul bench transfer"));
    o.name = "bench";
    o.streams = w.stream_count;
    o.warm = !w.cold;
    return o;
}

/// Bytes that no path can compress.
shared_bytes random_bytes(net::environment& env, std::uint64_t n) {
    auto bytes = std::make_shared<core::byte_vector>(n);
    core::seeded_entropy random(env.entropy.u64(), "bench");
    random.fill(*bytes);
    return bytes;
}

// ---- what both ends do with a link: take what is offered, into one buffer

struct receiver {
    explicit receiver(const asio::any_io_executor& executor) : changed(executor), children(executor) {}
    shared_link on;
    core::byte_vector buffer;
    std::uint64_t arrived = 0;  ///< bytes of the last transfer
    std::string done;           ///< its tag
    std::optional<core::error> failed;
    core::wakeup changed;
    core::scope children;
};

task<result<void>> take(receiver& r, std::string tag, std::uint64_t bytes) {
    if (r.buffer.size() < bytes) r.buffer.resize(bytes);
    auto got = co_await r.on->receive_transfer(tag, core::mutable_bytes(r.buffer).first(bytes));
    if (got) {
        r.done = tag;
        r.arrived = bytes;
    } else {
        r.failed = got.error();
    }
    r.changed.notify();
    co_return ok();
}

void take_offers(receiver& r, shared_link on) {
    r.on = std::move(on);
    r.on->on_offer([&r](const std::string& tag, std::uint64_t bytes) {
        if (bytes > most_bytes || r.children.size() > 0) {
            r.on->refuse_transfer(tag, "one transfer at a time, of at most 4 GiB");
        } else {
            r.children.spawn_isolated("take", take(r, tag, bytes));
        }
    });
}

// ---- and send

/// One transfer at a time. It is offered before its bytes may go, as a round's payload is while it is still being made.
struct sender {
    explicit sender(const asio::any_io_executor& executor) : changed(executor), children(executor) {}
    shared_bytes data;
    std::shared_ptr<std::uint64_t> ready;
    std::optional<result<void>> outcome;
    core::wakeup changed;
    core::scope children;
};

task<result<void>> give(sender& s, shared_link to, std::string tag, std::shared_ptr<const std::uint64_t> ready) {
    auto sending = to->send_transfer(std::move(tag), s.data, std::move(ready));
    s.outcome = co_await std::move(sending);
    s.changed.notify();
    co_return ok();
}

void announce(sender& s, shared_link to, std::string tag) {
    s.ready = std::make_shared<std::uint64_t>(0);
    s.outcome.reset();
    s.children.spawn_isolated("send", give(s, std::move(to), std::move(tag), s.ready));
}

void go(sender& s, net::link& to) {
    *s.ready = s.data->size();
    to.data_ready();
}

// ---- the end that serves

/// What an end holds, for the other one to compare.
std::string hash_of(core::const_bytes bytes) { return bytes.empty() ? "nothing" : core::hash(bytes).hex(); }

/// Connections that carry a large transfer from this end; `streams_used` is of what is offered now, which may be
/// nothing.
unsigned carrying(const net::link_stats& s) { return std::min(s.streams, s.streams_wanted); }

task<result<void>> say(net::link& l, std::string words) {
    const auto bytes = core::as_bytes(words);
    auto saying = l.send(core::byte_vector(bytes.begin(), bytes.end()));
    co_return co_await std::move(saying);
}

/// Sends what the other end asks for: after "announce TAG BYTES" it is offered, after "send TAG" its bytes go. "report"
/// is answered by the hashes of what came last and of what went, and by the connections that carry what this end sends.
task<result<void>> serve_requests(net::environment& env, receiver& r) {
    sender s(env.executor);
    for (;;) {
        auto message = co_await r.on->receive();
        if (!message) break;
        const std::string words(core::as_text(*message));
        const auto space = words.find(' '), second = words.find(' ', space + 1);
        if (words.starts_with("announce ") && second != std::string::npos) {
            const auto bytes = core::parse_bytes(words.substr(second + 1) + " B");
            if (!bytes || *bytes > most_bytes || s.children.size() > 0) continue;
            if (!s.data || s.data->size() != *bytes) s.data = random_bytes(env, *bytes);
            announce(s, r.on, words.substr(space + 1, second - space - 1));
        } else if (words.starts_with("send ") && s.ready) {
            go(s, *r.on);
        } else if (words == "report") {
            const auto went = s.data ? core::const_bytes(*s.data) : core::const_bytes{};
            const auto came = hash_of(core::const_bytes(r.buffer).first(r.arrived));
            auto telling = say(*r.on, fmt::format("{} {} {}", came, hash_of(went), carrying(r.on->stats())));
            auto told = co_await std::move(telling);
            if (!told) break;
        }
    }
    s.children.cancel();
    co_return co_await s.children.join();
}

task<result<void>> serve_link(net::environment& env, shared_link l) {
    receiver r(env.executor);
    take_offers(r, l);
    auto served = co_await serve_requests(env, r);
    l->on_offer({});
    r.children.cancel();
    auto joined = co_await r.children.join();
    LONGHAUL_CO_TRY(joined);
    co_return served;
}

task<result<void>> until_signal(net::environment& env, net::mesh& mesh) {
    net::signals signals(env.executor);
    auto signal = co_await signals.next();
    LONGHAUL_CO_TRY(signal);
    mesh.close("the bench was stopped");
    co_return ok();
}

task<result<void>> serve(net::environment& env, const wishes& w) {
    const auto self = net::identity::generate(env.entropy);
    core::scope all(env.executor);
    net::mesh mesh(
        env, self, options_for(w), [](const net::remote_peer&, bool) { return ok(); },
        [&](shared_link l) { all.spawn_isolated("link", serve_link(env, std::move(l))); });
    auto at = net::parse_listen_endpoint(w.listen);
    LONGHAUL_CO_TRY(at);
    auto bound = mesh.listen(*at);
    LONGHAUL_CO_TRY(bound);
    ordered_json ready;
    ready["listen"] = bound->text();
    if (w.as_json) {
        std::puts(core::json_text(ready).c_str());
    } else {
        fmt::print("serving on {}; on the other machine: longhaul bench transfer HOST:{}\n", bound->text(),
                   bound->port);
    }
    std::fflush(stdout);
    all.spawn("mesh", mesh.serve());
    all.spawn("signal", until_signal(env, mesh));
    co_return co_await all.join();
}

// ---- the end that measures

struct measured {
    std::vector<double> seconds, up, down;
    net::quantiles round_trips{1 << 20};  ///< of control, all of them, in seconds
    net::link_stats stats;
    unsigned streams_used_there = 0;
};

task<result<void>> arrives(receiver& r, std::string tag) {
    while (r.done != tag) {
        if (r.failed) co_return core::fail(*r.failed);
        if (!r.on->up()) co_return core::fail(r.on->ended()->why);
        auto woken = co_await r.changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return ok();
}

task<result<void>> send_and_note(net::environment& env, net::link& l, sender& s, double& seconds) {
    const auto begun = env.clock.now();
    go(s, l);
    while (!s.outcome) {
        auto woken = co_await s.changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    seconds = core::to_seconds(env.clock.now() - begun);
    co_return *s.outcome;
}

task<result<void>> fetch_and_note(net::environment& env, receiver& r, std::string tag, double& seconds) {
    const auto begun = env.clock.now();
    auto asked = co_await say(*r.on, "send " + tag);
    LONGHAUL_CO_TRY(asked);
    auto arrived = co_await arrives(r, tag);
    seconds = core::to_seconds(env.clock.now() - begun);
    co_return arrived;
}

/// Both ends make room for what comes next.
task<result<void>> prepare(net::environment& env, receiver& r, sender& s, const wishes& w, std::string tag) {
    if (!w.down || w.both) announce(s, r.on, tag);
    if (w.down || w.both) {
        auto asked = co_await say(*r.on, fmt::format("announce {} {}", tag, w.bytes));
        LONGHAUL_CO_TRY(asked);
    }
    const auto rtt = r.on->stats().rtt_last;
    co_return co_await env.clock.sleep_for(std::max<core::duration>(w.between, 4 * rtt));
}

task<result<void>> repeat_once(net::environment& env, receiver& r, sender& s, const wishes& w, std::string tag,
                               measured& out) {
    double up = 0, down = 0;
    if (w.both) {
        auto there = send_and_note(env, *r.on, s, up);
        auto back = fetch_and_note(env, r, tag, down);
        auto moved = co_await core::both(std::move(there), std::move(back));
        LONGHAUL_CO_TRY(moved.first);
        LONGHAUL_CO_TRY(moved.second);
    } else if (w.down) {
        auto back = co_await fetch_and_note(env, r, tag, down);
        LONGHAUL_CO_TRY(back);
    } else {
        auto there = co_await send_and_note(env, *r.on, s, up);
        LONGHAUL_CO_TRY(there);
    }
    out.seconds.push_back(std::max(up, down));
    out.up.push_back(up);
    out.down.push_back(down);
    co_return ok();
}

/// The bulk connections that both ends want are there.
task<result<void>> connections_open(net::environment& env, net::link& l) {
    const auto begun = env.clock.now();
    for (;;) {
        auto slept = co_await env.clock.sleep_for(std::chrono::milliseconds(20));
        LONGHAUL_CO_TRY(slept);
        const auto waited = env.clock.now() - begun;
        const auto s = l.stats();
        if (!l.up()) co_return core::fail(l.ended()->why);
        if ((waited > opening && s.streams >= s.streams_wanted && s.streams > 0) || waited > opening_limit)
            co_return ok();
    }
}

/// Both ends have the same bytes at the end, whatever happened on the way. Connections that the other end sends on.
task<result<unsigned>> compare_ends(net::environment& env, receiver& r, const sender& s, const wishes& w) {
    auto asked = co_await say(*r.on, "report");
    LONGHAUL_CO_TRY(asked);
    auto waiting = r.on->receive();
    auto answer = co_await core::with_deadline(env.clock, std::move(waiting), env.clock.now() + hashing_limit);
    LONGHAUL_CO_TRY(answer);
    const bool sends = !w.down || w.both, takes = w.down || w.both;
    const auto came = sends ? hash_of(*s.data) : hash_of({});
    const auto went = takes ? hash_of(core::const_bytes(r.buffer).first(r.arrived)) : hash_of({});
    std::istringstream words{std::string(core::as_text(*answer))};
    std::string their_came, their_went;
    unsigned streams = 0;
    if (!(words >> their_came >> their_went >> streams)) {
        co_return core::fail(errc::protocol, "the other end's report does not parse: is it of the same version?");
    }
    if (their_came != came || their_went != went) {
        co_return core::fail(errc::internal, "the ends hold different bytes after the transfer: please report it");
    }
    co_return streams;
}

task<result<void>> measure_link(net::environment& env, shared_link l, const wishes& w, measured& out) {
    sender s(env.executor);
    s.data = random_bytes(env, w.bytes);
    receiver r(env.executor);
    r.buffer.resize(w.down || w.both ? w.bytes : 0);
    take_offers(r, l);
    std::optional<core::error> failed;
    auto open = co_await connections_open(env, *l);
    LONGHAUL_CO_TRY(open);
    l->on_round_trip([&out](core::duration d) { out.round_trips.add(core::to_seconds(d)); });
    for (std::int64_t i = 0; i < w.repeat; ++i) {
        const auto tag = fmt::format("t{}", i);
        auto done = co_await prepare(env, r, s, w, tag);
        if (done) {
            auto repeating = repeat_once(env, r, s, w, tag, out);
            done = co_await std::move(repeating);
        }
        if (done) continue;
        failed = done.error();
        break;
    }
    out.stats = l->stats();
    l->on_round_trip({});
    if (!failed) {
        auto comparing = compare_ends(env, r, s, w);
        auto streams = co_await std::move(comparing);
        if (!streams) failed = streams.error();
        out.streams_used_there = streams.value_or(0);
    }
    if (failed) l->close("the measurement failed");
    l->on_offer({});
    r.children.cancel();
    s.children.cancel();
    auto received = co_await r.children.join();
    auto sent = co_await s.children.join();
    if (failed) co_return core::fail(*failed);
    LONGHAUL_CO_TRY(received);
    co_return sent;
}

task<result<void>> dial_and_measure(net::environment& env, net::mesh& mesh, const wishes& w, measured& out) {
    auto to = net::parse_ticket(w.address);
    LONGHAUL_CO_TRY(to);
    auto dialled = co_await mesh.dial(to->addresses);
    LONGHAUL_CO_TRY(dialled);
    auto done = co_await measure_link(env, dialled->link, w, out);
    mesh.close("measured");
    co_return done;
}

task<result<void>> measure(net::environment& env, const wishes& w, measured& out) {
    const auto self = net::identity::generate(env.entropy);
    core::scope all(env.executor);
    net::mesh mesh(env, self, options_for(w), [](const net::remote_peer&, bool) { return ok(); }, [](shared_link) {});
    all.spawn("mesh", mesh.serve());
    all.spawn("measurement", dial_and_measure(env, mesh, w, out));
    co_return co_await all.join();
}

void print(const wishes& w, const measured& m) {
    const double payload = 8 * static_cast<double>(w.bytes) * (w.both ? 2 : 1);
    if (!w.as_json) {
        fmt::print("{} {} in {:.3f} s (median of {}): {}, {} connections, round trip {:.1f} ms, loss {:.3f} %\n",
                   core::format_bytes(w.bytes), w.both ? "each way" : (w.down ? "from there" : "to there"),
                   median(m.seconds), m.seconds.size(), core::format_rate({payload / median(m.seconds)}),
                   m.stats.streams, core::to_seconds(m.stats.rtt_min) * 1e3, m.stats.loss * 100);
        return;
    }
    ordered_json j;
    j["bytes"] = w.bytes;
    j["seconds"] = m.seconds;
    j["goodput_bits_per_second"] = ordered_json::array();
    for (const auto s : m.seconds) j["goodput_bits_per_second"].push_back(payload / s);
    j["streams"] = m.stats.streams;
    j["rtt_seconds"] = core::to_seconds(m.stats.rtt_min);
    j["verified"] = true;
    j["direction"] = w.both ? "both" : (w.down ? "down" : "up");
    if (w.both) {
        j["seconds_up"] = m.up;
        j["seconds_down"] = m.down;
    }
    j["streams_used"] = w.down && !w.both ? m.streams_used_there : carrying(m.stats);
    if (w.both) j["streams_used_down"] = m.streams_used_there;
    j["rtt_p99_seconds"] = m.round_trips.at(0.99);
    j["rtt_most_seconds"] = m.round_trips.at(1);
    j["loss"] = m.stats.loss;
    j["resent"] = m.stats.resent;
    j["pace"] = 8 * m.stats.pace;
    j["wire_sent"] = m.stats.wire_sent;
    j["wire_received"] = m.stats.wire_received;
    j["padding_sent"] = m.stats.padding_sent;
    std::puts(core::json_text(j).c_str());
}

result<void> check(wishes& w) {
    LONGHAUL_TRY_ASSIGN(w.bytes, core::parse_bytes(w.size));
    LONGHAUL_TRY_ASSIGN(w.between, core::parse_duration(w.pause));
    if (w.serve == !w.address.empty()) {
        return core::fail(errc::usage, "bench transfer takes either --serve or the address of a machine that serves");
    }
    if (w.bytes == 0 || w.bytes > most_bytes) {
        return core::fail(errc::usage, "--size {} is not within 1 B and 4 GiB", w.size);
    }
    if (w.streams != "auto") {
        unsigned n = 0;
        for (const char c : w.streams)
            n = c >= '0' && c <= '9' && n < 100 ? n * 10 + static_cast<unsigned>(c - '0') : 1000;
        if (n < 1 || n > 64) return core::fail(errc::usage, "--streams {} is neither auto nor 1 to 64", w.streams);
        w.stream_count = n;
    }
    return ok();
}

result<int> bench(wishes w) {
    LONGHAUL_TRY(check(w));
    core::bit_rate up, down;
    if (!w.up_limit.empty()) {
        LONGHAUL_TRY_ASSIGN(up, core::parse_rate(w.up_limit));
    }
    if (!w.down_limit.empty()) {
        LONGHAUL_TRY_ASSIGN(down, core::parse_rate(w.down_limit));
    }
    visitor here;
    here.host().network.set_congestion_control(w.congestion_control);
    net::paced_network paced(here.host().network, here.host().clock, up, down);
    auto& under = here.env();
    net::environment env{under.executor, under.clock, under.entropy, paced, under.storage, under.workers, under.events};
    if (w.serve) {
        LONGHAUL_TRY(here.host().run(serve(env, w)));
        return 0;
    }
    measured m;
    LONGHAUL_TRY(here.host().run(measure(env, w, m)));
    print(w, m);
    return 0;
}

}  // namespace

void add_bench_transfer(CLI::App& bench_command, action& chosen) {
    auto* command = bench_command.add_subcommand("transfer", "how fast bytes go between two machines, and verify");
    const auto w = std::make_shared<wishes>();
    command->add_option("ADDR", w->address, "HOST[:PORT] of a machine that serves");
    command->add_flag("--serve", w->serve, "be the other end, until interrupted");
    command->add_option("--listen", w->listen, "with --serve: HOST:PORT; default :7400");
    command->add_option("--size", w->size, "of a transfer; default 64 MiB");
    command->add_option("--streams", w->streams, "bulk connections: auto (found by measurement) or a number");
    command->add_option("--repeat", w->repeat, "transfers; default 5")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{most_repeats}));
    command->add_option("--pause", w->pause, "silence between transfers");
    command->add_flag("--down", w->down, "the other end sends");
    command->add_flag("--both", w->both, "both ends send at once");
    command->add_flag("--cold", w->cold, "this end does not warm new connections while a transfer waits to begin");
    command->add_option("--up-limit", w->up_limit, "most that this end sends, like 50 Mbit/s");
    command->add_option("--down-limit", w->down_limit, "most that this end receives");
    command->add_option("--congestion-control", w->congestion_control,
                        "of bulk connections, where the kernel offers it; default bbr");
    command->add_flag("--json", w->as_json, "for programs");
    command->callback([w, &chosen] { chosen = [w] { return bench(*w); }; });
}

}  // namespace longhaul::peers::command

#include "peers/peer.hpp"

#include <algorithm>

#include "peers/known_addresses.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

constexpr auto linger_for_others = 15s;
constexpr auto flush_deadline = 2s;

/// Ends this node when the coordinator cannot be reached for too long.
core::task<core::result<void>> watch_coordinator(node& n) {
    n.coordinator_seen = n.env.clock.now();
    for (;;) {
        auto slept = co_await n.env.clock.sleep_for(std::min<core::duration>(1s, n.options.quorum_patience));
        LONGHAUL_CO_TRY(slept);
        const auto now = n.env.clock.now();
        if (n.log->leads() || n.find(n.log->leader())) n.coordinator_seen = now;
        if (now - n.coordinator_seen < n.options.quorum_patience) continue;
        n.fatal = core::error(errc::quorum_lost,
                              fmt::format("no coordinator was reachable for {}: this node's state is saved; start it "
                                          "again when the others are back",
                                          core::format_duration(n.options.quorum_patience)));
        n.changed.notify();
        co_return core::ok();
    }
}

/// Keeps what a plot of links needs: one event a peer now and then.
core::task<core::result<void>> report_links(node& n) {
    for (;;) {
        auto slept = co_await n.env.clock.sleep_for(10s);
        LONGHAUL_CO_TRY(slept);
        for (const auto& [key, peer] : n.links) {
            const auto s = peer->link->stats();
            core::event e("link");
            e.with("peer", key.hex()).with("rtt_seconds", core::to_seconds(s.rtt_last));
            e.with("goodput_up", s.goodput_up * 8).with("goodput_down", s.goodput_down * 8);
            e.with("goodput_up_p25", s.goodput_up_cautious * 8).with("goodput_down_p25", s.goodput_down_cautious * 8);
            e.with("rtt_min_seconds", core::to_seconds(s.rtt_min));
            e.with("rtt_median_seconds", core::to_seconds(s.rtt_median));
            e.with("rtt_p99_seconds", core::to_seconds(s.rtt_p99));
            e.with("loss", s.loss).with("window", s.window).with("pace", s.pace * 8).with("resent", s.resent);
            e.with("streams", std::uint64_t{s.streams}).with("streams_used", std::uint64_t{s.streams_used});
            e.with("wire_sent", s.wire_sent).with("wire_received", s.wire_received);
            n.emit(std::move(e));
        }
    }
}

/// Keeps the file of members' addresses for the next start.
core::task<core::result<void>> remember_members(node& n) {
    for (;;) {
        auto addresses = member_addresses(n.led(), n.self());
        if (!addresses.empty() && addresses != n.known_addresses) {
            n.known_addresses = addresses;
            auto saved = co_await save_known_addresses(n.env.storage, std::move(addresses));
            if (!saved) n.report(saved.error(), "keeping the members' addresses");
        }
        auto slept = co_await n.env.clock.sleep_for(1s);
        LONGHAUL_CO_TRY(slept);
    }
}

bool others_are_done(const node& n) {
    return std::ranges::all_of(n.links, [&n](const auto& entry) {
        const auto& [key, peer] = entry;
        const auto* m = n.led().find(key);
        return peer->observer || m == nullptr || is_elsewhere(n, *peer) ||
               (peer->generation == n.led().generation() && peer->applied >= n.led().committed());
    });
}

bool serves_somebody(const node& n) {
    return std::ranges::any_of(n.links, [](const auto& entry) { return !entry.second->serving.empty(); });
}

bool nothing_to_send(const node& n) {
    return std::ranges::all_of(n.links, [](const auto& entry) { return entry.second->outbox.empty(); });
}

core::task<core::result<void>> say_goodbye(node& n) {
    if (!n.finished) {
        // If nobody can take over now, somebody will be elected.
        auto handed_over = co_await n.log->hand_over();
        if (!handed_over && handed_over.error().code == errc::cancelled) co_return handed_over;
    }
    if (n.finished && n.log->leads()) {
        // Whoever is a moment behind may still need the last aggregate.
        // What is on its way to them may take longer than any fixed time; a stalled transfer ends by itself.
        do {
            const auto done = [&n] { return others_are_done(n); };
            (void)co_await core::wait_until(n.changed, done, n.env.clock, n.env.clock.now() + linger_for_others);
        } while (!others_are_done(n) && serves_somebody(n));
    }
    const std::string reason = n.finished ? "the run is over" : n.leave_reason;
    n.send_all(leaving_message{reason.substr(0, max_reason)});
    const auto flushed = [&n] { return nothing_to_send(n); };
    (void)co_await core::wait_until(n.flushed, flushed, n.env.clock, n.env.clock.now() + flush_deadline);
    n.mesh->close(reason);
    const auto all_closed = [&n] { return n.links.empty(); };
    (void)co_await core::wait_until(n.changed, all_closed, n.env.clock, n.env.clock.now() + flush_deadline);
    co_return core::ok();
}

void tell_the_end(node& n, std::string reason) {
    core::event e("left");
    e.with("reason", std::move(reason));
    if (n.state) e.with("round", n.state->round).with("root", n.state->root.hex());
    if (n.eval_loss) e.with("eval_loss", *n.eval_loss);
    const auto [sent, received] = n.wire_bytes();
    e.with("wire_sent", sent).with("wire_received", received);
    n.emit(std::move(e));
    n.doing = member_state::stopped;
}

core::task<core::result<void>> take_part_and_end(node& n) {
    auto took_part = co_await take_part(n);
    if (!took_part && took_part.error().code == errc::cancelled) co_return took_part;
    if (took_part || took_part.error().code == errc::quorum_lost) {
        give_up_payload(n);
        auto saved = co_await checkpoint_now(n);
        if (!saved) n.report(saved.error(), "the last checkpoint");
        if (took_part && !saved) took_part = saved;
    }
    if (took_part) {
        auto said = co_await say_goodbye(n);
        LONGHAUL_CO_TRY(said);
    }
    tell_the_end(n, took_part ? (n.finished ? "the run is over" : n.leave_reason) : took_part.error().message);
    co_return took_part;
}

core::task<core::result<void>> live(node& n) {
    auto started = co_await start(n);
    LONGHAUL_CO_TRY(started);
    if (n.finished) {
        tell_the_end(n, "the run was complete before this start, and nobody answers any more");
        co_return core::ok();
    }
    n.recovering = n.log->leads();
    assign_data(n, n.number, n.state ? n.state->position : 0);
    core::event e("started");
    e.with("run", n.run->run_id.hex()).with("name", n.options.name).with("key", n.self().hex());
    e.with("number", std::uint64_t{n.number}).with("listen", n.listen.text()).with("resumed", n.resumed);
    e.with("trainer", n.trainer->description()).with("parameters", n.tensors().elements());
    e.with("memory", n.memory).with("data", n.run->manifest.data_description);
    // With a controller nobody knows how many they will be.
    if (!n.config().controller.enabled) e.with("rounds", std::int64_t{n.config().stop.rounds});
    e.with("H", std::int64_t{n.config().inner.steps}).with("codec", n.config().exchange.codec);
    n.emit(std::move(e));
    n.tell_ready();
    n.tasks.spawn("dialling", keep_connected(n));
    n.tasks.spawn("link reports", report_links(n));
    n.tasks.spawn("members' addresses", remember_members(n));
    n.tasks.spawn("reach", learn_reach(n));
    n.tasks.spawn("progress reports", report_progress(n));
    n.tasks.spawn("staying admitted", stay_admitted(n));
    n.tasks.spawn("coordinator", coordinate_when_leading(n));
    n.tasks.spawn("silence", watch_for_silence(n));
    n.tasks.spawn("voters", keep_voters(n));
    n.tasks.spawn("generation", keep_generation(n));
    n.tasks.spawn("coordinator watch", watch_coordinator(n));
    co_return co_await take_part_and_end(n);
}

/// Runs `live` beside what it spawned; when it ends, everything ends.
core::task<core::result<void>> live_to_the_end(node& n) {
    auto outcome = co_await live(n);
    n.outcome = outcome;
    if (n.mesh) n.mesh->close(outcome ? "done" : outcome.error().message);
    n.tasks.cancel();
    co_return core::ok();
}

/// One node's life. What failed first is what a person should hear of; our own cancelling of the rest is not.
core::task<core::result<void>> run_one(node& n) {
    n.tasks.spawn("peer", live_to_the_end(n));
    auto joined = co_await n.tasks.join();
    if (n.outcome && !*n.outcome && (*n.outcome).error().code != errc::cancelled) co_return *n.outcome;
    if (!joined && joined.error().code != errc::cancelled) co_return joined;
    if (n.outcome) co_return *n.outcome;
    co_return joined;
}

}  // namespace

ready_report node::ready() const {
    ready_report r;
    net::ticket t;
    t.addresses = advertised();
    t.name = config().name;
    net::ticket_key key;
    key.run = run->run_id;
    if (run->manifest.invite()) {
        key.secret = secrets.psk;
        key.token = secrets.token;
    }
    t.key = key;
    r.ticket = t.text();
    r.listen = listen;
    r.key = self();
    r.run = run->run_id;
    r.resumed = resumed;
    r.trust_on_first_use = trusted_on_first_use;
    return r;
}

void node::tell_ready() {
    if (auto tell = std::exchange(options.on_ready, {})) tell(ready());
}

struct peer::impl {
    impl(net::environment& env, peer_options options) : n(env, std::move(options)) {
        n.status_json = [this] { return to_json(status_of(n)); };
    }
    node n;
};

peer::peer(net::environment& env, peer_options options) : impl_(std::make_shared<impl>(env, std::move(options))) {}
peer::~peer() = default;

core::task<core::result<void>> peer::run() {
    // A disk that forgets all the time is a broken one: its node does not draw identities as fast as it can.
    for (core::duration pause = 1s;; pause = std::min<core::duration>(2 * pause, 5min)) {
        const auto held = impl_;
        auto& n = held->n;
        auto ended = co_await run_one(n);
        if (ended || ended.error().code != errc::forgotten) co_return ended;
        auto another = co_await become_another(n, ended.error());
        LONGHAUL_CO_TRY(another);
        const auto asked = [&n] { return n.leaving; };
        auto waited = co_await core::wait_until(n.changed, asked, n.env.clock, n.env.clock.now() + pause);
        if (waited) co_return core::ok();
        if (waited.error().code != errc::timeout) co_return waited;
        auto options = n.options;
        options.self = *another;
        impl_ = std::make_shared<impl>(n.env, std::move(options));
    }
}
peer_status peer::status() const { return status_of(impl_->n); }

void peer::leave(std::string reason) {
    auto& n = impl_->n;
    if (n.leaving) return;
    n.leaving = true;
    n.leave_reason = std::move(reason);
    n.changed.notify();
}

core::result<void> peer::stop_run(std::string reason) {
    auto& n = impl_->n;
    if (!n.log || !n.log->leads()) {
        return fail(errc::usage,
                    "only the coordinator can stop the run: ask {}, or use 'longhaul leave' for this node alone",
                    n.log ? n.log->leader().brief() : std::string("it"));
    }
    n.wanted_phase = run_state_record{run_phase::stopped, std::move(reason)};
    n.changed.notify();
    return core::ok();
}

core::result<void> peer::pause_run(bool paused) {
    auto& n = impl_->n;
    if (!n.log || !n.log->leads()) return fail(errc::usage, "only the coordinator can pause or resume the run");
    n.wanted_phase = run_state_record{paused ? run_phase::paused : run_phase::running, "asked by a person"};
    n.changed.notify();
    return core::ok();
}

core::result<void> peer::recover() {
    auto& n = impl_->n;
    LONGHAUL_TRY(may_recover(n));
    n.wanted_recovery = true;
    n.changed.notify();
    return core::ok();
}

}  // namespace longhaul::peers

#include <algorithm>
#include <cmath>

#include "peers/node.hpp"
#include "peers/training.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t max_open_offers = 256;  ///< of one peer

/// What a member does next: a pure look at what it knows.
enum class next_step { finish, catch_up, train, report, begin_ahead, wait };

next_step decide(const node& n) {
    if (n.leaving || n.fatal) return next_step::finish;
    if (!n.log_known || n.recovering) return next_step::wait;
    const auto& l = n.led();
    if (!n.state || n.state->generation != l.generation() || n.state->round != l.committed())
        return next_step::catch_up;
    if (n.found_stopped) return next_step::wait;
    if (l.phase() == run_phase::stopped || l.position() >= n.config().total_steps()) {
        return next_step::finish;
    }
    if (!l.open()) return next_step::wait;
    const auto& open = *l.open();
    const std::pair produced{l.generation(), open.round};
    if (has(open.contributors, n.number) && n.produced_for != produced) return next_step::train;
    const std::tuple wanted{l.generation(), open.round, open.attempt};
    if (n.ready_for != wanted && n.held.result(l.generation(), open.round, open.attempt)) return next_step::report;
    if (may_begin_ahead(n)) return next_step::begin_ahead;
    return next_step::wait;
}

/// The aggregate of this attempt is here, in whole.
void send_ready(node& n, const round_record& open, const model_state& before) {
    ready_message ready;
    ready.generation = n.led().generation();
    ready.round = open.round;
    ready.attempt = open.attempt;
    ready.aggregate_root = n.candidate->root;
    ready.state_root = before.root;
    ready.contributions = n.candidate->contributions;
    if (n.coordinator) {
        n.coordinator->ready(n.number, ready, n.env.clock.now());
        n.changed.notify();
    } else {
        n.send(n.log->leader(), ready);
    }
}

/// The aggregate of the open attempt is complete: tells the coordinator.
void report_ready(node& n) {
    const auto open = *n.led().open();
    n.candidate = n.held.result(n.led().generation(), open.round, open.attempt);
    n.ready_for = {n.led().generation(), open.round, open.attempt};
    n.timing.ready_at = n.env.clock.now();
    tell_lines(n);  // the next round may be planned as soon as this one is agreed on
    send_ready(n, open, *n.state);
    n.doing = member_state::waiting;
}

/// The exchange as part of a node.
class node_exchange final : public exchange_host {
public:
    explicit node_exchange(node& n) : n_(n) {}
    net::environment& env() override { return n_.env; }
    const net::identity& identity() const override { return n_.options.self; }
    core::digest run() const override { return n_.run->run_id; }
    peer_number self() const override { return n_.number; }
    const core::tensor_manifest& tensors(std::uint64_t round) const override { return n_.part_of(round).tensors; }
    std::uint64_t most_elements() const override { return n_.parts().largest().tensors.elements(); }
    optim::aggregation aggregation() const override { return aggregation_of(n_.config()); }
    std::shared_ptr<net::link> link_of(peer_number who) const override {
        const auto peer = n_.find(who);
        return peer ? peer->link : nullptr;
    }
    const net::peer_key* key_of(peer_number who) const override {
        const auto* m = n_.led().find(who);
        return m == nullptr ? nullptr : &m->admitted.key;
    }
    core::scope& tasks() override { return n_.tasks; }
    core::wakeup& changed() override { return n_.changed; }
    void report(const core::error& e, std::string_view doing_what) override { n_.report(e, doing_what); }
    void caught(const net::peer_key& who, const core::error& lie, std::string_view doing_what) override {
        cut_off(n_, who, lie, doing_what);
    }
    void reconsider() override {
        for (const auto& [key, peer] : n_.links) consider_offers(n_, peer);
    }

private:
    node& n_;
};

bool my_turn_to_evaluate(const node& n, const committed_round& done) {
    const auto every = static_cast<std::uint64_t>(n.config().eval.every);
    const bool last = n.state->position >= n.config().total_steps();
    if (every == 0 || (done.commit.round % every != 0 && !last)) return false;
    // The last round is evaluated by everybody: each node's own log then ends with the result.
    if (last) return true;
    // But nobody falls behind for a number: whoever still catches up goes on, and a sum of nothing is nobody's turn.
    if (n.state->round < n.led().committed() || done.commit.contributions.empty()) return false;
    const auto turn = (done.commit.round / every) % done.commit.contributions.size();
    return done.commit.contributions[turn].number == n.number;
}

applied_message applied_by(const node& n) {
    applied_message m;
    m.generation = n.state->generation;
    m.round = n.state->round;
    m.tokens = n.state->tokens;
    return m;
}

core::task<core::result<void>> evaluate(node& n, applied_message& report) {
    const auto state = n.state;
    core::result<double> loss = fail(errc::internal, "nothing was evaluated");
    auto& trainer = *n.trainer;
    auto idle = co_await hold_ahead(n);
    LONGHAUL_CO_TRY(idle);
    core::flat_buffer local(n.ahead || trainer_goes_on(n) ? n.tensors().elements() : 0);
    const auto job = [&trainer, &state, &loss, &local] {
        if (!local.empty()) trainer.read(local);
        trainer.write(state->anchor);
        loss = trainer.evaluate();
        if (!local.empty()) trainer.write(local);
    };
    auto ran = co_await n.env.workers.run(job, trainer.modelled_step_time());
    go_on_ahead(n);
    LONGHAUL_CO_TRY(ran);
    LONGHAUL_CO_TRY(loss);
    if (!std::isfinite(*loss)) co_return fail(errc::limit, "the held-out loss is not finite: lower inner.lr");
    n.eval_loss = *loss;
    n.eval_seen = state->round;
    core::event e("eval");
    e.with("round", state->round).with("loss", *loss).with("by", n.options.name).with("tokens", state->tokens);
    n.emit(std::move(e));
    report.eval_round = state->round;
    report.eval_loss = *loss;
    co_return core::ok();
}

void tell(node& n, const std::function<bool(const net::peer_key&, const linked_peer&)>& whom) {
    const auto report = applied_by(n);
    for (const auto& [key, peer] : n.links) {
        if (!peer->observer && whom(key, *peer)) n.send(key, report);
    }
    if (n.coordinator) n.coordinator->caught_up(n.number, report.generation, report.round, n.env.clock.now());
    n.changed.notify();
}

}  // namespace

void send_progress(node& n) {
    progress_message p;
    p.generation = n.held.terms().generation;
    p.round = n.held.terms().round;
    p.steps = n.steps_done;
    p.verified_bytes = n.held.arrived_bytes();
    p.payloads = n.held.authors();
    p.behind = n.held.behind();
    p.attempt = n.held.terms().attempt;
    p.restarted = n.missed == std::pair(p.generation, p.round);
    if (n.coordinator) {
        n.coordinator->progress(n.number, p, n.env.clock.now());
        n.changed.notify();
    } else {
        n.send(n.log->leader(), p);
    }
}

void tell_applied(node& n) {
    tell(n, [](const auto&, const auto&) { return true; });
}

void tell_committed(node& n) {
    tell(n, [&n](const net::peer_key& who, const linked_peer& peer) {
        return n.led().voters().votes(who) || n.log->leader() == who || is_elsewhere(n, peer);
    });
}

void note_committed(node& n) {
    const auto& l = n.led();
    if (l.voters().votes(n.self())) return;
    for (const auto& [key, peer] : n.links) {
        const auto* m = l.find(key);
        const bool took_part = m != nullptr && has(n.last_members, m->admitted.number);
        if (took_part && peer->caught_up && peer->generation == l.generation()) {
            peer->applied = std::max(peer->applied, l.committed());
        }
    }
}

void repeat_standing(node& n) {
    const auto& open = n.led().open();
    if (!open || n.held.terms().round != open->round) return;
    send_progress(n);
    const std::tuple said{n.led().generation(), open->round, open->attempt};
    if (n.ready_for == said && n.candidate && n.state) send_ready(n, *open, *n.state);
}

void consider_offers(node& n, const shared_linked& from) {
    if (!n.log_known) return;
    const auto* sender = n.led().find(from->link->remote().key);
    std::vector<std::pair<std::string, std::uint64_t>> offers(from->offers.begin(), from->offers.end());
    for (const auto& [tag, bytes] : offers) {
        if (from->expected.contains(tag)) continue;  // a fetch takes it
        // What is taken may fail at once, and everything is considered anew: not this offer.
        if (from->offers.erase(tag) == 0) continue;
        auto verdict = exchange::verdict::refused;
        if (sender == nullptr || from->offers.size() >= max_open_offers) {
            from->link->refuse_transfer(tag, sender == nullptr ? "you are not admitted" : "too many offers");
        } else {
            verdict = n.held.consider(from->link, sender->admitted.number, tag, bytes);
        }
        if (verdict == exchange::verdict::later) from->offers.emplace(tag, bytes);
    }
}

void open_exchange(node& n) {
    const auto& open = n.led().open();
    if (!open) return;
    exchange_terms t;
    t.generation = n.led().generation();
    t.round = open->round;
    t.attempt = open->attempt;
    t.members = open->members;
    t.contributors = open->contributors;
    t.codec = open->plan.codec;
    t.plan = open->exchange;
    t.max_steps = max_steps_claimed(n);
    t.exchanges = static_cast<std::uint32_t>(open->plan.exchanges());
    t.staleness = open->plan.staleness;
    if (std::pair(t.generation, t.round) != std::pair(n.held.terms().generation, n.held.terms().round)) {
        n.line_up.take(n.held.sent());
        n.line_down.take(n.held.received());
        const bool begun = n.ahead && n.ahead->generation == t.generation && n.ahead->round == t.round;
        n.steps_done = begun ? n.ahead->steps : 0;
    }
    n.held.open(std::move(t));
}

void discard_mass(node& n, std::string reason) {
    if (n.mass.carry().empty() && !n.mass.pending()) return;
    core::event lost("mass_lost");
    lost.with("sum", n.mass.account().held).with("tokens", n.mass.discard()).with("reason", std::move(reason));
    n.emit(std::move(lost));
}

void give_up_payload(node& n) {
    if (!n.mass.pending()) return;
    const auto mass = n.mass.give_up();
    core::event lost("mass_lost");
    lost.with("sum", mass.sum).with("tokens", mass.tokens);
    lost.with("reason", std::string("this node left before it heard whether a commit took its payload"));
    n.emit(std::move(lost));
}

void settle_mass(node& n) {
    if (!n.log_known || !n.state || n.state->generation != n.led().generation()) return;
    (void)n.mass.settle(n.led(), n.number, n.state->round);
}

std::unique_ptr<exchange_host> make_exchange_host(node& n) { return std::make_unique<node_exchange>(n); }

core::task<core::result<void>> report_progress(node& n) {
    for (;;) {
        auto slept = co_await n.env.clock.sleep_for(1s);
        LONGHAUL_CO_TRY(slept);
        if (!n.held.receiving()) continue;
        send_progress(n);
        tell_lines(n);  // the next round may begin before this exchange is over here
    }
}

core::task<core::result<void>> after_apply(node& n, committed_round done, bool own_merged, shared_state before) {
    auto& t = n.timing;
    const auto now = n.env.clock.now();
    const bool took_part = t.started != core::time_point{};
    if (t.ready_at != core::time_point{}) t.wait = now - t.ready_at;
    if (t.encoded_at != core::time_point{}) t.send = std::max(core::duration{}, n.held.delivered_at() - t.encoded_at);
    const double seconds = took_part ? core::to_seconds(now - t.started) : 0;
    const auto [sent, received] = n.untold_wire_bytes();
    const auto elements = n.tensors().elements();
    const auto peers = done.commit.contributions.size();
    core::event e("round_committed");
    e.with("generation", n.state->generation).with("round", done.commit.round);
    e.with("attempt", std::uint64_t{done.commit.attempt}).with("members", std::uint64_t{done.members});
    e.with("merged", std::uint64_t{peers}).with("own_merged", own_merged).with("tokens", n.state->tokens);
    e.with("root", n.state->root.hex())
        .with("tau_steps", done.plan.late_steps())
        .with("tau_rounds", std::uint64_t{done.plan.delay});
    if (n.parts().count() > 1) e.with("fragment", (done.commit.round - 1) % n.parts().count() + 1);
    const double compute = core::to_seconds(t.compute), encode = core::to_seconds(t.encode);
    const double exchange_seconds =
        t.encoded_at == core::time_point{} ? std::max(0.0, seconds - compute) : core::to_seconds(now - t.encoded_at);
    e.with("seconds", seconds).with("compute_seconds", compute).with("encode_seconds", encode);
    e.with("send_seconds", core::to_seconds(t.send)).with("wait_seconds", core::to_seconds(t.wait));
    e.with("exchange_seconds", exchange_seconds);
    e.with("limited_by", std::string(compute >= exchange_seconds ? "compute" : "exchange"));
    e.with("wire_sent", sent).with("wire_received", received);
    e.with("messages_sent", std::exchange(n.messages_sent, 0));
    // What data-parallel training would send in these steps: f32 gradients, to as many peers. A round that was only
    // caught up with saved nothing.
    const bool saved = took_part && peers > 1;
    e.with("raw_bytes", saved ? elements * 4 * done.plan.inner_steps * (peers - 1) : std::uint64_t{0});
    if (const double loss = mean_loss(done.commit); std::isfinite(loss)) e.with("loss", loss);
    const auto mass = n.mass.account();
    LONGHAUL_ENSURE(mass.balances(), "what was produced was sent, is held or is counted lost (I13)");
    e.with("mass_produced", mass.produced).with("mass_sent", mass.sent).with("mass_residual", mass.held);
    e.with("mass_lost", mass.lost).with("mass_rounding", mass.rounding);
    n.emit(std::move(e));
    t = {};
    n.applied_at = now;

    tell_lines(n);
    // First tell, then evaluate: the next round need not wait for a number.
    const bool was_member = n.state->round == n.led().committed() && has(n.last_members, n.number);
    was_member ? tell_committed(n) : tell_applied(n);
    auto taken = co_await take_fragment(n, std::move(before), done, own_merged);
    LONGHAUL_CO_TRY(taken);
    if (my_turn_to_evaluate(n, done)) {
        auto report = applied_by(n);
        auto evaluated = co_await evaluate(n, report);
        LONGHAUL_CO_TRY(evaluated);
        if (n.coordinator) {
            n.coordinator->evaluated(report.eval_round, report.eval_loss);
        } else {
            n.send(n.log->leader(), report);
        }
    }
    const auto every = static_cast<std::uint64_t>(n.config().checkpoint.every);
    if (every > 0 && n.state->round % every == 0) start_checkpoint(n);
    co_return core::ok();
}

core::task<core::result<void>> take_part(node& n) {
    std::pair<std::uint32_t, std::vector<peer_number>> told;  // payloads that were here when we last said so
    for (;;) {
        settle_mass(n);
        switch (decide(n)) {
            case next_step::finish: {
                if (n.fatal) co_return fail(*n.fatal);
                n.finished = !n.leaving;
                co_return core::ok();
            }
            case next_step::catch_up: {
                auto caught_up = co_await catch_up(n);
                LONGHAUL_CO_TRY(caught_up);
                break;
            }
            case next_step::train: {
                auto trained_now = co_await train(n);
                LONGHAUL_CO_TRY(trained_now);
                break;
            }
            case next_step::begin_ahead: {
                // Without a pseudo-gradient of its own that is under way: from the anchor.
                auto idle = co_await stop_ahead(n);
                LONGHAUL_CO_TRY(idle);
                if (decide(n) != next_step::begin_ahead) break;
                const bool goes_on = trainer_goes_on(n);
                if (!goes_on) n.local = local_parameters{n.state->generation, n.state->round};
                begin_ahead(n, goes_on ? core::flat_buffer() : n.state->anchor);
                break;
            }
            case next_step::report: {
                report_ready(n);
                break;
            }
            case next_step::wait: {
                if (n.doing == member_state::catching_up) n.doing = member_state::waiting;
                // Who dies after full delivery stays in the round: the coordinator hears of it at once.
                if (std::pair here{n.held.terms().attempt, n.held.authors()}; n.log_known && here != told) {
                    told = std::move(here);
                    send_progress(n);
                }
                auto woken = co_await n.changed.wait();
                LONGHAUL_CO_TRY(woken);
                break;
            }
        }
    }
}

}  // namespace longhaul::peers

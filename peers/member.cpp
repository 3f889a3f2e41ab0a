#include <algorithm>
#include <cmath>

#include "compress/codec.hpp"
#include "optim/aggregate.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t max_open_offers = 256;  ///< of one peer

/// What a member does next: a pure look at what it knows.
enum class next_step { finish, catch_up, train, aggregate, wait };

bool in(const std::vector<peer_number>& sorted, peer_number who) { return std::ranges::binary_search(sorted, who); }

next_step decide(const node& n) {
    if (n.leaving || n.fatal) return next_step::finish;
    if (!n.log_known || n.recovering) return next_step::wait;
    const auto& l = n.led();
    if (!n.state || n.state->generation != l.generation() || n.state->round != l.committed())
        return next_step::catch_up;
    if (l.phase() == run_phase::stopped || l.committed() >= static_cast<std::uint64_t>(n.config().stop.rounds)) {
        return next_step::finish;
    }
    if (!l.open()) return next_step::wait;
    const auto& open = *l.open();
    const std::pair produced{l.generation(), open.round};
    if (in(open.contributors, n.number) && n.produced_for != produced) return next_step::train;
    const std::tuple wanted{l.generation(), open.round, open.attempt};
    if (in(open.members, n.number) && n.ready_for != wanted && n.held.round() == open.round) {
        const auto have = [&n](peer_number c) { return n.held.find(c) != nullptr; };
        if (std::ranges::all_of(open.contributors, have)) return next_step::aggregate;
    }
    return next_step::wait;
}

/// Whether this node's training for `round` can still be summed.
bool still_wanted(const node& n, std::uint64_t generation, std::uint64_t round) {
    const auto& l = n.led();
    return !n.leaving && !n.fatal && l.generation() == generation && l.open() && l.open()->round == round &&
           in(l.open()->contributors, n.number);
}

void send_progress(node& n) {
    progress_message p;
    p.generation = n.held.generation();
    p.round = n.held.round();
    p.steps = n.steps_done;
    p.verified_bytes = n.held.bytes();
    for (const auto& tag : n.receiving) {
        for (const auto& [key, peer] : n.links) p.verified_bytes += peer->link->received_of(tag);
    }
    p.payloads = n.held.authors();
    if (n.coordinator) {
        n.coordinator->progress(n.number, p, n.env.clock.now());
        n.changed.notify();
    } else {
        n.send(n.log->leader(), p);
    }
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

/// Gives one member our payload, again after each new link, until it has it or the round is over.
core::task<core::result<void>> push_payload(node& n, peer_number to, payload p) {
    const auto tag = tag_of({fetch_kind::payload, p.header.generation, p.header.round, p.header.author});
    const auto wanted = [&n, to, &p] {
        return n.led().generation() == p.header.generation && n.led().committed() < p.header.round && n.led().open() &&
               in(n.led().open()->members, to);
    };
    while (wanted()) {
        if (const auto peer = n.find(to); peer && peer->link->up()) {
            auto sent = co_await peer->link->send_transfer(tag, p.bytes);
            // Refused means that it has the payload from elsewhere or needs none; otherwise the link broke: again.
            if (sent && n.produced_for == std::pair(p.header.generation, p.header.round)) {
                n.timing.send = std::max(n.timing.send, n.env.clock.now() - n.timing.encoded_at);
            }
            if (sent || sent.error().code == errc::not_admitted) co_return core::ok();
            if (sent.error().code != errc::closed) co_return sent;
        }
        auto woken = co_await n.changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return core::ok();
}

struct trained {
    std::uint64_t tokens = 0;
    std::uint32_t steps = 0;
    double loss_sum = 0;
};

/// Runs inner steps from the anchor until the plan's H are done or nobody wants them any more.
core::task<core::result<trained>> inner_steps(node& n, shared_state start, std::uint64_t generation,
                                              round_record open) {
    trained done;
    auto& trainer = *n.trainer;
    const auto write = [&trainer, &start] { trainer.write(start->anchor); };
    auto written = co_await n.env.workers.run(write, 0s);
    LONGHAUL_CO_TRY(written);
    const auto H = open.plan.inner_steps;
    auto last_progress = n.env.clock.now();
    n.steps_done = 0;
    while (done.steps < H && still_wanted(n, generation, open.round)) {
        optim::step_context at;
        at.position = optim::run_position(open.position, done.steps, H, H);
        at.lr = optim::learning_rate(n.config().inner, at.position, n.config().total_steps());
        if (n.trainer_is_cold) at.lr *= optim::ramp(n.steps_since_reset++);
        core::result<optim::step_report> report;
        const auto step = [&trainer, &at, &report] { report = trainer.step(at); };
        auto ran = co_await n.env.workers.run(step, trainer.modelled_step_time());
        LONGHAUL_CO_TRY(ran);
        if (report && !std::isfinite(report->loss))
            report = fail(errc::limit, "the loss is not finite: lower inner.lr");
        if (!report) {
            co_return fail(report.error().within(fmt::format("inner step {} of round {}", done.steps + 1, open.round)));
        }
        ++done.steps;
        done.tokens += report->tokens;
        done.loss_sum += report->loss;
        n.steps_done = done.steps;
        // Slow trainers show that they are alive and at work; fast ones need not.
        if (n.env.clock.now() - last_progress > 1s) {
            last_progress = n.env.clock.now();
            send_progress(n);
        }
    }
    co_return done;
}

/// A contributor may have carried a few rounds' work; whoever claims more would scale everybody's step.
std::uint64_t max_steps_claimed(const node& n) { return 64 * static_cast<std::uint64_t>(n.config().inner.steps); }

core::task<core::result<void>> train(node& n) {
    const auto start = n.state;
    const auto generation = n.led().generation();
    const auto open = *n.led().open();
    n.doing = member_state::training;
    n.timing = {};
    n.timing.started = n.env.clock.now();

    auto done = co_await inner_steps(n, start, generation, open);
    LONGHAUL_CO_TRY(done);
    n.timing.compute = n.env.clock.now() - n.timing.started;
    if (done->steps == 0) co_return core::ok();
    n.train_loss = done->loss_sum / done->steps;
    core::event inner("inner");
    inner.with("round", open.round).with("steps", std::uint64_t{done->steps}).with("tokens", done->tokens);
    inner.with("loss", *n.train_loss).with("seconds", core::to_seconds(n.timing.compute));
    n.emit(std::move(inner));

    // Δ = anchor − local, plus what earlier rounds did not take (DESIGN §6).
    auto carry = n.mass.take_carry();
    if (std::uint64_t{carry.steps} + done->steps > max_steps_claimed(n)) {
        core::event lost("mass_lost");
        lost.with("tokens", carry.tokens);
        lost.with("reason", std::string("no round took it for so long that the others would not believe it any more"));
        n.emit(std::move(lost));
        carry = {};
    }
    carried_mass mass;
    mass.tokens = done->tokens + carry.tokens;
    mass.steps = done->steps + carry.steps;
    mass.values.resize(n.tensors().elements());
    const auto begun = n.env.clock.now();
    const auto codec = compress::find_codec(open.plan.codec);
    LONGHAUL_CO_TRY(codec);
    payload_header header;
    header.run = n.run->run_id;
    header.generation = generation;
    header.round = open.round;
    header.author = n.number;
    header.codec = open.plan.codec;
    header.tokens = mass.tokens;
    header.steps = mass.steps;
    header.loss = *n.train_loss;
    core::result<payload> made = fail(errc::internal, "nothing was encoded");
    const auto make = [&] {
        n.trainer->read(mass.values);
        optim::form_delta(start->anchor, mass.values, carry.values, mass.values);
        auto body = (*codec)->encode(n.tensors(), mass.values);
        if (!body) {
            made = fail(body.error());
            return;
        }
        made = make_payload(header, *body, n.options.self);
    };
    auto encoded = co_await n.env.workers.run(make, 0s);
    LONGHAUL_CO_TRY(encoded);
    LONGHAUL_CO_TRY(made);
    n.timing.encode = n.env.clock.now() - begun;
    if (!still_wanted(n, generation, open.round)) {
        // Too late for this round: the mass goes into the next payload, once.
        n.mass.fold_back(std::move(mass));
        co_return core::ok();
    }
    n.mass.sent({generation, open.round, made->id, std::move(mass)});
    n.produced_for = {generation, open.round};
    n.timing.encoded_at = n.env.clock.now();
    LONGHAUL_CO_TRY(n.held.add(*made));
    send_progress(n);
    for (const auto m : open.members) {
        if (m != n.number) n.tasks.spawn_isolated("payload", push_payload(n, m, *made));
    }
    n.doing = member_state::exchanging;
    co_return core::ok();
}

core::task<core::result<void>> aggregate_and_report(node& n) {
    const auto open = *n.led().open();
    const auto before = n.state;
    const auto generation = n.led().generation();
    const auto payloads = n.held.complete(open.contributors);
    core::result<shared_aggregate> summed = fail(errc::internal, "nothing was summed");
    const auto begun = n.env.clock.now();
    const auto job = [&] { summed = sum(n.tensors(), payloads); };
    auto ran = co_await n.env.workers.run(job, 0s);
    LONGHAUL_CO_TRY(ran);
    LONGHAUL_CO_TRY(summed);
    n.timing.encode += n.env.clock.now() - begun;
    // The log may have moved on while this was summed: then it is nobody's attempt any more.
    if (n.led().generation() != generation || n.led().open() != open) co_return core::ok();
    n.ready_for = {generation, open.round, open.attempt};
    n.timing.ready_at = n.env.clock.now();
    // A round without contributors has an empty aggregate of its own.
    if (payloads.empty()) {
        auto none = std::make_shared<aggregate>(**summed);
        none->round = open.round;
        none->generation = generation;
        summed = shared_aggregate(none);
    }
    n.candidate = *summed;
    send_ready(n, open, *before);
    n.doing = member_state::waiting;
    co_return core::ok();
}

/// A payload that was offered for the open round: received, checked as hostile, decoded once to see that it can be
/// summed.
core::task<core::result<void>> receive_payload(node& n, shared_linked from, fetch_message what, std::string tag,
                                               std::uint64_t bytes) {
    const auto release = [&n, &tag] {
        n.receiving.erase(tag);
        for (const auto& [key, peer] : n.links) consider_offers(n, peer);
        n.changed.notify();
    };
    auto buffer = std::make_shared<core::byte_vector>(bytes);
    auto got = co_await receive_steadily(n, from, tag, *buffer);
    if (!got) {
        // A lost link is told once, by its own event; the author sends again over the next one.
        if (got.error().code != errc::closed) n.report(got.error(), "receiving a payload");
        release();
        co_return core::ok();
    }
    const auto* author = n.led().find(what.author);
    LONGHAUL_ENSURE(author != nullptr, "an offer of a payload is accepted for known authors only");
    const auto key = author->admitted.key;
    core::result<payload> opened = fail(errc::internal, "nothing was checked");
    const auto check = [&] {
        opened = open_payload(std::move(buffer), key);
        if (!opened) return;
        core::flat_buffer scratch(n.tensors().elements());
        const auto codec = compress::find_codec(opened->header.codec);
        if (!codec) {
            opened = fail(codec.error());
        } else if (auto decoded = (*codec)->decode(n.tensors(), opened->body(), scratch); !decoded) {
            opened = fail(decoded.error());
        } else if (!std::ranges::all_of(scratch, [](float x) { return std::isfinite(x); })) {
            opened = fail(errc::protocol, "it contains values that are not finite");
        }
    };
    auto checked = co_await n.env.workers.run(check, 0s);
    LONGHAUL_CO_TRY(checked);
    if (opened) {
        const auto& h = opened->header;
        const bool right =
            h.run == n.run->run_id && h.generation == what.generation && h.round == what.round &&
            h.author == what.author && h.steps > 0 && h.steps <= max_steps_claimed(n) && h.tokens > 0 &&
            h.tokens <= optim::max_contribution_tokens &&
            (!n.led().open() || n.led().open()->round != what.round || h.codec == n.led().open()->plan.codec);
        if (!right) opened = fail(errc::protocol, "its header names another run, round, author or codec");
    }
    if (opened) {
        if (auto added = n.held.add(std::move(*opened)); !added) opened = fail(added.error());
    }
    if (!opened) {
        // Whoever forwards what cannot be true is cut off; the round goes on without it.
        n.report(opened.error(), fmt::format("the payload of peer {} for round {}", what.author, what.round));
        n.refused.insert(tag);
        from->link->close("it sent a payload that cannot be true");
    }
    release();
    send_progress(n);
    co_return core::ok();
}

bool my_turn_to_evaluate(const node& n, const committed_round& done) {
    const auto every = static_cast<std::uint64_t>(n.config().eval.every);
    const bool last = done.commit.round == static_cast<std::uint64_t>(n.config().stop.rounds);
    if (every == 0 || (done.commit.round % every != 0 && !last)) return false;
    // The last round is evaluated by everybody: each node's own log then ends with the result.
    if (last || done.commit.contributions.empty()) return true;
    const auto turn = (done.commit.round / every) % done.commit.contributions.size();
    return done.commit.contributions[turn].number == n.number;
}

core::task<core::result<void>> evaluate(node& n, applied_message& report) {
    const auto state = n.state;
    core::result<double> loss = fail(errc::internal, "nothing was evaluated");
    auto& trainer = *n.trainer;
    const auto job = [&trainer, &state, &loss] {
        trainer.write(state->anchor);
        loss = trainer.evaluate();
    };
    auto ran = co_await n.env.workers.run(job, trainer.modelled_step_time());
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

}  // namespace

void repeat_standing(node& n) {
    const auto& open = n.led().open();
    if (n.log->leads() || !open || n.held.round() != open->round) return;
    send_progress(n);
    const std::tuple said{n.led().generation(), open->round, open->attempt};
    if (n.ready_for == said && n.candidate && n.state) send_ready(n, *open, *n.state);
}

void consider_offers(node& n, const shared_linked& from) {
    if (!n.log_known) return;
    const auto& l = n.led();
    std::vector<std::pair<std::string, std::uint64_t>> offers(from->offers.begin(), from->offers.end());
    for (const auto& [tag, bytes] : offers) {
        if (from->expected.contains(tag)) continue;  // a fetch takes it
        const auto refuse = [&](std::string why) {
            from->offers.erase(tag);
            from->link->refuse_transfer(tag, std::move(why));
        };
        const auto what = parse_tag(tag);
        if (!what || what->kind != fetch_kind::payload) {
            refuse("nobody asked for it");
            continue;
        }
        const bool later = what->generation > l.generation() ||
                           (what->generation == l.generation() &&
                            (what->round > l.committed() + 1 || (what->round == l.committed() + 1 && !l.open())));
        if (later) {
            // We will hear of that round in a moment.
            if (from->offers.size() > max_open_offers) refuse("too many offers");
            continue;
        }
        if (what->generation < l.generation() || what->round <= l.committed()) {
            refuse("that round is settled");
            continue;
        }
        const auto* author = l.find(what->author);
        if (author == nullptr || author->admitted.key != from->link->remote().key || n.refused.contains(tag)) {
            refuse("not yours to send");
            continue;
        }
        if (!in(l.open()->members, n.number) || !in(l.open()->contributors, what->author)) {
            refuse("not part of that round");
            continue;
        }
        if (n.held.find(what->author) != nullptr) {
            refuse("already here");
            continue;
        }
        if (n.receiving.contains(tag)) continue;  // over an older link, whose end is about to be noticed
        const auto codec = compress::find_codec(l.open()->plan.codec);
        if (!codec || bytes > (*codec)->max_payload_bytes(n.tensors()) + max_payload_header) {
            refuse("larger than any payload of this model");
            continue;
        }
        from->offers.erase(tag);
        n.receiving.insert(tag);
        n.tasks.spawn_isolated("payload", receive_payload(n, from, *what, tag, bytes),
                               [&n](const core::error& e) { n.report(e, "receiving a payload"); });
    }
}

core::task<core::result<void>> report_progress(node& n) {
    for (;;) {
        auto slept = co_await n.env.clock.sleep_for(1s);
        LONGHAUL_CO_TRY(slept);
        if (!n.receiving.empty()) send_progress(n);
    }
}

core::task<core::result<void>> after_apply(node& n, committed_round done, bool own_merged) {
    auto& t = n.timing;
    const auto now = n.env.clock.now();
    const bool took_part = t.started != core::time_point{};
    if (t.ready_at != core::time_point{}) t.wait = now - t.ready_at;
    const double seconds = took_part ? core::to_seconds(now - t.started) : 0;
    const auto [sent, received] = n.untold_wire_bytes();
    const auto elements = n.tensors().elements();
    const auto peers = done.commit.contributions.size();
    double loss = 0;
    std::uint64_t tokens = 0;
    for (const auto& c : done.commit.contributions) {
        loss += c.loss * static_cast<double>(c.tokens);
        tokens += c.tokens;
    }
    core::event e("round_committed");
    e.with("generation", n.state->generation).with("round", done.commit.round);
    e.with("attempt", std::uint64_t{done.commit.attempt}).with("members", std::uint64_t{done.members});
    e.with("merged", std::uint64_t{peers}).with("own_merged", own_merged).with("tokens", n.state->tokens);
    e.with("root", n.state->root.hex()).with("tau_steps", std::uint64_t{0}).with("tau_rounds", std::uint64_t{0});
    const double compute = core::to_seconds(t.compute), encode = core::to_seconds(t.encode);
    const double exchange_seconds = std::max(0.0, seconds - compute - encode);
    e.with("seconds", seconds).with("compute_seconds", compute).with("encode_seconds", encode);
    e.with("send_seconds", core::to_seconds(t.send)).with("wait_seconds", core::to_seconds(t.wait));
    e.with("exchange_seconds", exchange_seconds);
    e.with("limited_by", std::string(compute >= exchange_seconds ? "compute" : "exchange"));
    e.with("wire_sent", sent).with("wire_received", received);
    // What data-parallel training would send in these steps: f32 gradients, to as many peers. A round that was only
    // caught up with saved nothing.
    const bool saved = took_part && peers > 1;
    e.with("raw_bytes", saved ? elements * 4 * done.plan.inner_steps * (peers - 1) : std::uint64_t{0});
    if (tokens > 0) e.with("loss", loss / static_cast<double>(tokens));
    n.emit(std::move(e));
    t = {};

    applied_message report;
    report.generation = n.state->generation;
    report.round = n.state->round;
    // First tell, then evaluate: the next round need not wait for a number.
    n.send_all(report);
    if (n.coordinator) n.coordinator->caught_up(n.number, report.generation, report.round);
    n.changed.notify();
    if (my_turn_to_evaluate(n, done)) {
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
    for (;;) {
        if (n.log_known) {
            (void)n.mass.settle(n.led(), n.number);
        }
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
            case next_step::aggregate: {
                auto reported = co_await aggregate_and_report(n);
                LONGHAUL_CO_TRY(reported);
                break;
            }
            case next_step::wait: {
                if (n.doing == member_state::catching_up) n.doing = member_state::waiting;
                auto woken = co_await n.changed.wait();
                LONGHAUL_CO_TRY(woken);
                break;
            }
        }
    }
}

}  // namespace longhaul::peers

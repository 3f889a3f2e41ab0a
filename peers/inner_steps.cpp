#include "peers/inner_steps.hpp"

#include <cmath>

#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

bool goes_on(const node& n, const inner_steps& s) {
    // A round that is over, or in a log that was left, takes them no more.
    const auto to_come = [&] {
        return n.log_known && n.led().generation() == s.generation && n.led().committed() < s.round;
    };
    if (s.ahead) return !n.leaving && !n.fatal && !s.stop && to_come();
    return still_wanted(n, s.generation, s.round);
}

/// Leaves the trainer alone as long as somebody else needs it.
core::task<core::result<void>> rest(node& n, shared_steps s) {
    s->rests = true;
    n.changed.notify();
    const auto may_go_on = [&n, &s] { return !s->held || !goes_on(n, *s); };
    auto woken = co_await core::wait_until(n.changed, may_go_on);
    s->rests = false;
    co_return woken;
}

core::task<core::result<void>> make_ahead(node& n, shared_steps s) {
    auto& trainer = *n.trainer;
    const auto write = [&trainer, &s] {
        if (!s->start.empty()) trainer.write(s->start);
    };
    auto made = co_await n.env.workers.run(write, 0s);
    if (made) made = co_await make_steps(n, s);
    s->running = false;
    n.changed.notify();
    if (made) co_return core::ok();
    // Whoever takes them reports it.
    s->failed = made.error();
    if (made.error().code == errc::cancelled) co_return made;
    co_return core::ok();
}

}  // namespace

bool still_wanted(const node& n, std::uint64_t generation, std::uint64_t round) {
    const auto& l = n.led();
    return !n.leaving && !n.fatal && l.generation() == generation && l.open() && l.open()->round == round &&
           has(l.open()->contributors, n.number);
}

core::task<core::result<void>> make_steps(node& n, shared_steps s) {
    auto& trainer = *n.trainer;
    if (s->told == core::time_point{}) s->told = n.env.clock.now();
    auto paced_from = n.env.clock.now() - n.options.step_time * static_cast<int>(s->steps);
    const auto enough = [&s] { return s->steps >= (s->until > 0 ? std::min(s->until, s->own) : s->own); };
    while (!enough() && goes_on(n, *s)) {
        const auto now = n.env.clock.now();
        if (s->held) {
            auto rested = co_await rest(n, s);
            LONGHAUL_CO_TRY(rested);
            paced_from += n.env.clock.now() - now;
            continue;
        }
        optim::step_context at;
        at.position = optim::run_position(s->position, s->steps, s->H, s->own);
        at.lr = optim::learning_rate(n.config().inner, at.position, n.config().total_steps());
        if (n.trainer_is_cold) at.lr *= optim::ramp(n.steps_since_reset++);
        core::result<optim::step_report> report;
        const auto step = [&trainer, &at, &report] { report = trainer.step(at); };
        auto ran = co_await n.env.workers.run(step, trainer.modelled_step_time());
        LONGHAUL_CO_TRY(ran);
        if (report && !std::isfinite(report->loss))
            report = fail(errc::limit, "the loss is not finite: lower inner.lr");
        if (!report)
            co_return fail(report.error().within(fmt::format("inner step {} of round {}", s->steps + 1, s->round)));
        ++s->steps;
        s->tokens += report->tokens;
        s->loss_sum += report->loss;
        if (n.options.step_time > 0s) {
            auto slept =
                co_await n.env.clock.sleep_until(paced_from + n.options.step_time * static_cast<int>(s->steps));
            LONGHAUL_CO_TRY(slept);
        }
        s->took += n.env.clock.now() - now;
        if (s->ahead) continue;
        n.steps_done = s->steps;
        // Slow trainers show that they are alive and at work; fast ones need not.
        if (n.env.clock.now() - s->told > 1s) {
            s->told = n.env.clock.now();
            send_progress(n);
        }
    }
    co_return core::ok();
}

bool trainer_goes_on(const node& n) {
    return n.parts().count() > 1 && n.state && n.local && n.local->generation == n.state->generation &&
           n.local->round == n.state->round;
}

core::task<core::result<void>> take_fragment(node& n, shared_state before, committed_round done, bool accepted) {
    const auto after = n.state;
    const bool goes_on = n.parts().count() > 1 && n.local && n.local->generation == before->generation &&
                         n.local->round == before->round && after->generation == before->generation;
    if (!goes_on) co_return core::ok();
    n.local->round = after->round;
    const bool told = accepted && n.local->told == after->round;
    const auto& part = n.part_of(after->round);
    const float own = done.plan.delay > 0 ? static_cast<float>(n.config().exchange.mix) : 0.0F;
    auto& trainer = *n.trainer;
    core::flat_buffer local(n.tensors().elements());
    const auto job = [&] {
        trainer.read(local);
        const auto old_anchor = part.of(std::span(before->anchor)), anchor = part.of(std::span(after->anchor));
        const auto values = part.of(std::span(local));
        for (std::size_t i = 0; i < values.size(); ++i) {
            values[i] = told ? own * values[i] + (1 - own) * anchor[i] : values[i] + (anchor[i] - old_anchor[i]);
        }
        trainer.write(local);
    };
    auto idle = co_await hold_ahead(n);
    LONGHAUL_CO_TRY(idle);
    auto ran = co_await n.env.workers.run(job, 0s);
    go_on_ahead(n);
    co_return ran;
}

bool may_begin_ahead(const node& n) {
    const auto& l = n.led();
    if (!l.open() || l.open()->plan.delay == 0 || !has(l.open()->members, n.number)) return false;
    const auto& open = *l.open();
    const bool has_begun = n.ahead && n.ahead->generation == l.generation() && n.ahead->round == open.round + 1;
    return !has_begun && open.position + open.plan.inner_steps < n.config().total_steps();
}

void begin_ahead(node& n, core::flat_buffer start) {
    const auto& open = *n.led().open();
    auto s = std::make_shared<inner_steps>();
    s->generation = n.led().generation();
    s->round = open.round + 1;
    s->position = open.position + open.plan.inner_steps;
    // As if the next plan were this one; when its round opens it is known.
    s->H = open.plan.inner_steps;
    s->own = std::min(open.steps_of(n.number), n.config().total_steps() - s->position);
    s->start = std::move(start);
    s->begun = n.env.clock.now();
    s->ahead = s->running = true;
    n.ahead = s;
    n.tasks.spawn_isolated("training", make_ahead(n, s));
}

core::task<core::result<shared_steps>> take_ahead(node& n, std::uint64_t generation, round_record open) {
    const auto s = n.ahead;
    if (!s || s->generation != generation || s->round != open.round) {
        auto stopped = co_await stop_ahead(n);
        LONGHAUL_CO_TRY(stopped);
        co_return shared_steps{};
    }
    n.ahead.reset();
    s->ahead = false;
    s->position = open.position;
    s->H = open.plan.inner_steps;
    s->own = open.steps_of(n.number);
    const auto are_over = [&s] { return !s->running; };
    auto over = co_await core::wait_until(n.changed, are_over);
    LONGHAUL_CO_TRY(over);
    if (s->failed) co_return fail(*s->failed);
    co_return s;
}

core::task<core::result<void>> stop_ahead(node& n) {
    const auto s = std::exchange(n.ahead, nullptr);
    if (!s) co_return core::ok();
    s->stop = true;
    n.changed.notify();
    const auto are_over = [&s] { return !s->running; };
    auto over = co_await core::wait_until(n.changed, are_over);
    LONGHAUL_CO_TRY(over);
    // With fragments they stay in the trainer's parameters.
    if (s->steps == 0 || n.parts().count() > 1) co_return core::ok();
    core::event lost("ahead_lost");
    lost.with("round", s->round).with("steps", std::uint64_t{s->steps}).with("tokens", s->tokens);
    n.emit(std::move(lost));
    co_return core::ok();
}

core::task<core::result<void>> hold_ahead(node& n) {
    const auto s = n.ahead;
    if (!s) co_return core::ok();
    s->held = true;
    const auto is_idle = [&s] { return !s->running || s->rests; };
    co_return co_await core::wait_until(n.changed, is_idle);
}

void go_on_ahead(node& n) {
    if (!n.ahead) return;
    n.ahead->held = false;
    n.changed.notify();
}

}  // namespace longhaul::peers

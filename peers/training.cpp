#include "peers/training.hpp"

#include <algorithm>

#include "peers/node.hpp"

namespace longhaul::peers {

using namespace std::chrono_literals;

namespace {

/// The median of a few rounds: a machine that was busy once is not slow.
void note_step_time(node& n, double seconds) {
    constexpr std::size_t rounds = 5;
    n.step_times.push_back(seconds);
    if (n.step_times.size() > rounds) n.step_times.pop_front();
    std::vector<double> sorted(n.step_times.begin(), n.step_times.end());
    std::ranges::sort(sorted);
    n.step_seconds = sorted[sorted.size() / 2];
}

/// Buffers are averaged and have no momentum: receivers repeat nothing of them.
void forget_buffers(const core::tensor_manifest& tensors, std::span<float> said) {
    for (std::size_t t = 0; t < tensors.size(); ++t)
        if (tensors.specs()[t].role == core::tensor_role::buffer) std::ranges::fill(tensors.part(said, t), 0.0F);
}

/// This node's steps of the open round: those that it began ahead and the rest, or all from the anchor.
core::task<core::result<shared_steps>> steps_of_round(node& n, shared_state start, std::uint64_t generation,
                                                      round_record open) {
    auto taken = co_await take_ahead(n, generation, open);
    LONGHAUL_CO_TRY(taken);
    auto s = *taken;
    if (!s) {
        s = std::make_shared<inner_steps>();
        s->generation = generation;
        s->round = open.round;
        s->position = open.position;
        s->H = open.plan.inner_steps;
        s->own = open.steps_of(n.number);
        s->begun = n.env.clock.now();
        if (!trainer_goes_on(n)) {
            auto& trainer = *n.trainer;
            const auto write = [&trainer, &start] { trainer.write(start->anchor); };
            auto written = co_await n.env.workers.run(write, 0s);
            LONGHAUL_CO_TRY(written);
            n.local = local_parameters{start->generation, start->round};
        }
    }
    n.steps_done = s->steps;
    auto made = co_await make_steps(n, s);
    LONGHAUL_CO_TRY(made);
    co_return s;
}

/// What the steps after these begin from, `local` being where these have ended: the anchor less this node's own
/// pseudo-gradient and what else of its own nobody has merged yet.
core::flat_buffer start_of_next(const inner_steps& s, std::span<const float> anchor, std::span<const float> local,
                                std::span<const float> unmerged) {
    core::flat_buffer next(local.begin(), local.end());
    for (std::size_t i = 0; i < s.start.size(); ++i) next[i] = anchor[i] - (s.start[i] - local[i]);
    for (std::size_t i = 0; i < unmerged.size(); ++i) next[i] -= unmerged[i];
    return next;
}

}  // namespace

std::uint64_t max_steps_claimed(const node& n) { return 64 * n.config().most_steps(); }

void steps_made(node& n, const inner_steps& s) {
    n.train_loss = s.loss_sum / s.steps;
    note_step_time(n, core::to_seconds(s.took) / s.steps);
    core::event inner("inner");
    inner.with("round", s.round).with("steps", std::uint64_t{s.steps}).with("tokens", s.tokens);
    inner.with("loss", *n.train_loss).with("seconds", core::to_seconds(s.took));
    n.emit(std::move(inner));
}

carried_mass take_carry(node& n, std::uint64_t steps) {
    auto carry = n.mass.take_carry();
    if (carry.steps + steps <= max_steps_claimed(n)) return carry;
    core::event lost("mass_lost");
    n.mass.lose(carry);
    lost.with("tokens", carry.tokens);
    lost.with("reason", std::string("no round took it for so long that the others would not believe it any more"));
    n.emit(std::move(lost));
    return {};
}

core::task<core::result<void>> train(node& n) {
    const auto start = n.state;
    const auto generation = n.led().generation();
    const auto open = *n.led().open();
    n.doing = member_state::training;
    n.timing = {};
    n.timing.started = n.env.clock.now();

    // The others make room meanwhile: the payload can go as soon as there is some of it.
    n.held.prepare();
    if (open.plan.exchanges() > 1) {
        auto by_exchanges = co_await train_by_exchanges(n, start, generation, open);
        co_return by_exchanges;
    }
    auto made = co_await steps_of_round(n, start, generation, open);
    if (!made || (*made)->steps == 0) n.held.withdraw();
    LONGHAUL_CO_TRY(made);
    const auto& done = *made;
    n.timing.compute = done->took;
    if (done->begun < n.timing.started) n.timing.started = std::max(done->begun, n.applied_at);
    if (done->steps == 0) co_return core::ok();
    steps_made(n, *done);

    // Δ = anchor − local, plus what earlier rounds did not take or say (DESIGN §6).
    auto carry = take_carry(n, done->steps);
    pending_payload payload;
    payload.generation = generation;
    payload.round = open.round;
    auto& mass = payload.mass;
    mass.tokens = done->tokens + carry.tokens;
    mass.steps = done->steps + carry.steps;
    const auto& part = n.part_of(open.round);
    mass.values.resize(part.tensors.elements());
    compress::payload_source source;
    source.anchor = part.of(std::span<const float>(done->start.empty() ? start->anchor : done->start));
    source.residual = carry.values;
    if (n.mass.rule().keeps_residual) {
        // The new residual takes the old one's place, unless a part of that is to be added again: nothing moves between
        // here and the end of this function.
        if (n.mass.rule().gain == 1) payload.left = std::move(carry.values);
        payload.left.resize(mass.values.size());
    }
    if (n.mass.rule().repeats > 0) {
        mass.velocity = std::move(carry.velocity);
        mass.velocity.resize(mass.values.size());
        mass.moves = carry.moves;
        forget_buffers(n.tensors(), mass.velocity);
        source.said = mass.velocity;
        source.repeats = payload.repeats = n.mass.repeats_of(carry);
        source.gain = n.mass.rule().gain;
    }
    if (n.mass.rule().momentum > 0) {
        mass.velocity = std::move(carry.velocity);
        mass.velocity.resize(mass.values.size());
        source.velocity = mass.velocity;
        source.momentum = n.mass.rule().momentum;
    }
    source.beta = n.mass.beta_for(generation, open.round);
    source.values = mass.values;
    source.left = payload.left;
    compress::mass_sums sums;
    const auto begun = n.env.clock.now();
    core::flat_buffer next;
    const bool begins_next = may_begin_ahead(n);
    // What feedback keeps is sent bit by bit; what is only carried goes with this payload, and is unmerged as well.
    const auto unmerged =
        n.mass.rule().keeps_residual ? std::span<const float>() : std::span<const float>(carry.values);
    const auto read = [&n, &mass, &next, &done, &start, &part, unmerged, begins_next] {
        if (n.parts().count() > 1) {
            core::flat_buffer local(n.tensors().elements());
            n.trainer->read(local);
            std::ranges::copy(part.of(std::span<const float>(local)), mass.values.begin());
            return;
        }
        n.trainer->read(mass.values);
        if (begins_next) next = start_of_next(*done, start->anchor, mass.values, unmerged);
    };
    auto was_read = co_await n.env.workers.run(read, 0s);
    LONGHAUL_CO_TRY(was_read);
    // A record that the exchange has refused has no streams, either.
    const bool has_streams = n.held.terms().generation == generation && n.held.terms().round == open.round;
    if (!has_streams || !still_wanted(n, generation, open.round)) {
        // Too late for this round: the mass goes into the next payload, once.
        n.held.withdraw();
        n.produced_for = {generation, open.round};
        source.gain = 1;
        const auto form = [&] { sums = compress::compensate(source, 0, mass.values.size()); };
        auto formed = co_await n.env.workers.run(form, 0s);
        LONGHAUL_CO_TRY(formed);
        n.mass.formed(generation, open.round, sums, carry.sum);
        mass.sum = sums.compensated;
        n.mass.fold_back(std::move(mass));
        co_return core::ok();
    }
    n.doing = member_state::exchanging;
    work_done work;
    work.tokens = mass.tokens;
    work.steps = mass.steps;
    work.loss = *n.train_loss;
    LONGHAUL_CO_TRY_ASSIGN(const auto codec, compress::find_codec(open.plan.codec));
    const auto grid = chunk_grid::of(part.tensors.elements(), *codec);
    auto& chunks = payload.chunks;
    if (codec->goes_on()) chunks.resize(grid.count());
    const auto& last = n.mass.last_chunks();
    const range_encoder encode = [&source, &sums, &chunks, &last, &grid, codec](const compress::range& r,
                                                                                core::mutable_bytes out) {
        const auto chunk = r.first() / grid.elements;
        compress::rounding how;
        if (!last.empty()) how.before = last[chunk];
        auto encoded = compress::encode(source, *codec, r, how, out, sums);
        if (!chunks.empty()) chunks[chunk].assign(out.begin(), out.end());
        return encoded;
    };
    auto contributed = co_await n.held.contribute(encode, work);
    LONGHAUL_CO_TRY(contributed);
    // Between the last chunk and this line nothing waits: no commit can have taken what is not pending yet.
    n.timing.encoded_at = n.env.clock.now();
    n.timing.encode = n.timing.encoded_at - begun;
    n.produced_for = {generation, open.round};
    n.mass.formed(generation, open.round, sums, carry.sum);
    mass.sum = sums.compensated;
    payload.sent = sums.sent;
    payload.id = contributed->payload;
    n.mass.sent(std::move(payload));
    if (n.local) n.local->told = open.round;
    // Whether a log that was left takes it will not be heard here.
    if (!n.log_known || n.led().generation() != generation) give_up_payload(n);
    send_progress(n);
    const bool has_start = !next.empty() || trainer_goes_on(n);
    if (begins_next && has_start && still_wanted(n, generation, open.round) && may_begin_ahead(n))
        begin_ahead(n, std::move(next));
    co_return core::ok();
}

}  // namespace longhaul::peers

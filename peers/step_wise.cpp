/// Rounds of several exchanges: D-SGD, and with delay and feedback DeCo-SGD (arXiv 2507.17346). After each few inner
/// steps a peer gives what it has learnt of them, and goes on from where all are: the mean of that exchange, or of one
/// that is a few older, is applied to everybody's parameters alike. What the round commits is the sum of its means, so
/// a death takes no other peer's steps with it: the sums are made again without the dead one, and whoever had applied
/// others is put right by the commit.

#include <algorithm>
#include <cmath>

#include "optim/outer.hpp"
#include "peers/node.hpp"
#include "peers/training.hpp"

namespace longhaul::peers {

using namespace std::chrono_literals;

namespace {

/// A payload in the making, over the exchanges of a round.
struct growing_payload {
    pending_payload payload;     ///< mass.values: what was said so far
    core::flat_buffer residual;  ///< for the next exchange: what feedback keeps, or at first what was carried
    double residual_sum = 0;
    core::flat_buffer compensated;  ///< of the latest exchange; before, where the trainer is
};

/// Encodes the steps since `from`, to where `g.compensated` is, for the exchange `step` of the round that is open.
core::task<core::result<contribution>> give(node& n, growing_payload& g, const round_record& open, std::uint32_t step,
                                            std::span<const float> from, work_done work) {
    LONGHAUL_CO_TRY_ASSIGN(const auto codec, compress::find_codec(open.plan.codec));
    const bool keeps = n.mass.rule().keeps_residual;
    compress::payload_source source;
    source.anchor = from;
    source.residual = g.residual;
    source.beta = n.mass.beta_for(g.payload.generation, g.payload.round, step);
    source.values = g.compensated;
    if (keeps) {
        g.residual.resize(from.size());
        source.left = g.residual;
    }
    compress::mass_sums sums;
    const range_encoder encode = [&source, &sums, codec](const compress::range& r, core::mutable_bytes out) {
        return compress::encode(source, *codec, r, {}, out, sums);
    };
    auto contributed = co_await n.held.contribute(encode, work, step);
    LONGHAUL_CO_TRY(contributed);
    auto& said = g.payload.mass.values;
    const auto add = [&said, &g, &sums, keeps] {
        for (std::size_t i = 0; i < said.size(); ++i) {
            said[i] += g.compensated[i] - (keeps ? g.residual[i] : 0.0F);
            sums.size += static_cast<double>(std::abs(said[i]));
        }
    };
    auto added = co_await n.env.workers.run(add, 0s);
    LONGHAUL_CO_TRY(added);
    n.mass.formed(g.payload.generation, g.payload.round, sums, g.residual_sum, step);
    g.payload.sent += keeps ? sums.sent : sums.compensated;
    g.residual_sum = keeps ? sums.compensated - sums.sent : 0;
    if (!keeps) g.residual = {};
    co_return contributed;
}

/// Nobody will take what was said: all of it, and the steps from `from` to where `g.compensated` is, go into the next
/// payload, once.
core::task<core::result<void>> keep_all(node& n, growing_payload& g, std::uint32_t step, std::span<const float> from,
                                        bool has_steps) {
    auto& mass = g.payload.mass;
    mass.sum = g.payload.sent + g.residual_sum;
    compress::payload_source source;
    source.anchor = from;
    source.residual = g.residual;
    source.beta = has_steps ? n.mass.beta_for(g.payload.generation, g.payload.round, step) : 1;
    source.values = g.compensated;
    compress::mass_sums sums;
    const auto form = [&g, &source, &sums, &mass, from, has_steps] {
        if (!has_steps) std::ranges::copy(from, g.compensated.begin());
        sums = compress::compensate(source, 0, g.compensated.size());
        for (std::size_t i = 0; i < mass.values.size(); ++i) mass.values[i] += g.compensated[i];
    };
    auto formed = co_await n.env.workers.run(form, 0s);
    LONGHAUL_CO_TRY(formed);
    if (has_steps) {
        n.mass.formed(g.payload.generation, g.payload.round, sums, g.residual_sum, step);
        mass.sum = g.payload.sent + sums.compensated;
    }
    n.mass.fold_back(std::move(mass));
    co_return core::ok();
}

}  // namespace

core::task<core::result<void>> train_by_exchanges(node& n, shared_state start, std::uint64_t generation,
                                                  round_record open) {
    const auto& plan = open.plan;
    const auto exchanges = static_cast<std::uint32_t>(plan.exchanges());
    const auto elements = n.tensors().elements();
    auto steps = std::make_shared<inner_steps>();
    steps->generation = generation;
    steps->round = open.round;
    steps->position = open.position;
    steps->H = steps->own = open.steps_of(n.number);
    steps->begun = n.env.clock.now();
    n.steps_done = 0;

    core::flat_buffer here = start->anchor, momentum(elements);
    const auto write = [&n, &here] { n.trainer->write(here); };
    growing_payload g;
    g.payload.generation = generation;
    g.payload.round = open.round;
    auto& mass = g.payload.mass;
    // Claimed evenly, it must fit each exchange's share of what others believe, rounded either way.
    auto carry = take_carry(n, 4 * steps->own);
    mass.values.resize(elements);
    mass.tokens = carry.tokens;
    mass.steps = carry.steps;
    g.residual = std::move(carry.values);
    g.residual_sum = carry.sum;
    g.compensated.resize(elements);
    const auto read = [&n, &g] { n.trainer->read(g.compensated); };
    core::duration waited{};
    const auto wanted = [&n, generation, &open] {
        const auto& t = n.held.terms();
        return t.generation == generation && t.round == open.round && still_wanted(n, generation, open.round);
    };
    n.held.want_means(0);
    auto written = co_await n.env.workers.run(write, 0s);
    LONGHAUL_CO_TRY(written);
    for (std::uint32_t step = 0; step < exchanges; ++step) {
        const auto steps_before = steps->steps;
        const auto tokens_before = steps->tokens;
        const double loss_before = steps->loss_sum;
        steps->until = std::min(steps->own, (step + 1) * plan.exchange_every);
        auto made = co_await make_steps(n, steps);
        LONGHAUL_CO_TRY(made);
        mass.tokens += steps->tokens - tokens_before;
        mass.steps += steps->steps - steps_before;
        const bool has_steps = steps->steps > steps_before;
        if (has_steps) {
            auto was_read = co_await n.env.workers.run(read, 0s);
            LONGHAUL_CO_TRY(was_read);
        }
        if (steps->steps < steps->until || !wanted()) {
            n.held.withdraw();
            n.held.want_means(std::nullopt);
            n.produced_for = {generation, open.round};
            if (steps->steps > 0) steps_made(n, *steps);
            auto kept = co_await keep_all(n, g, step, here, has_steps);
            co_return kept;
        }
        n.doing = member_state::exchanging;
        // What is carried is claimed evenly, so that no exchange weighs much more than those of others.
        const auto share = [exchanges, step](std::uint64_t all) {
            return all * (step + 1) / exchanges - all * step / exchanges;
        };
        work_done work;
        work.tokens = steps->tokens - tokens_before + share(carry.tokens);
        work.steps = steps->steps - steps_before + static_cast<std::uint32_t>(share(carry.steps));
        work.loss = (steps->loss_sum - loss_before) / (steps->steps - steps_before);
        const auto begun = n.env.clock.now();
        auto contributed = co_await give(n, g, open, step, here, work);
        LONGHAUL_CO_TRY(contributed);
        n.timing.encode += n.env.clock.now() - begun;
        if (step + 1 == exchanges) {
            g.payload.id = contributed->payload;
            break;
        }
        if (step >= plan.staleness) {
            const auto due = step - plan.staleness;
            const auto is_here = [&n, &wanted, due] { return n.held.has_mean(due) || !wanted(); };
            const auto since = n.env.clock.now();
            auto came = co_await core::wait_until(n.changed, is_here);
            LONGHAUL_CO_TRY(came);
            waited += n.env.clock.now() - since;
            if (const auto mean = n.held.take_mean(due)) {
                const auto move = [&n, &plan, &here, &momentum, &mean] {
                    optim::outer_step(n.tensors(), false, plan.outer_lr, 0, here, momentum, *mean);
                };
                auto moved = co_await n.env.workers.run(move, 0s);
                LONGHAUL_CO_TRY(moved);
            }
        }
        written = co_await n.env.workers.run(write, 0s);
        LONGHAUL_CO_TRY(written);
        n.doing = member_state::training;
    }
    n.held.want_means(std::nullopt);
    n.timing.compute = steps->took;
    // As if all that was waited for came at the end.
    n.timing.encoded_at = n.env.clock.now() - waited;
    n.produced_for = {generation, open.round};
    steps_made(n, *steps);
    mass.sum = g.payload.sent + g.residual_sum;
    if (n.mass.rule().keeps_residual) {
        const auto add = [&mass, &g] {
            for (std::size_t i = 0; i < mass.values.size(); ++i) mass.values[i] += g.residual[i];
        };
        auto added = co_await n.env.workers.run(add, 0s);
        LONGHAUL_CO_TRY(added);
        g.payload.left = std::move(g.residual);
    }
    n.mass.sent(std::move(g.payload));
    // Whether a log that was left takes it will not be heard here.
    if (!n.log_known || n.led().generation() != generation) give_up_payload(n);
    send_progress(n);
    co_return core::ok();
}

}  // namespace longhaul::peers

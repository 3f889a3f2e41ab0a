#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "peers/checkpoint.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

/// Largest checkpoint that is read back: what memory could hold anyway.
constexpr std::uint64_t max_checkpoint_bytes = std::uint64_t{1} << 42;

core::task<core::result<void>> save(node& n) {
    const auto state = n.state;
    // These may change before all is written; a state never does.
    const auto carried = n.mass.carry().values;
    const auto said = carried.empty() ? core::flat_buffer() : n.mass.said();
    std::string extra;
    checkpoint_view c;
    c.run = n.run->run_id;
    c.generation = state->generation;
    c.round = state->round;
    c.step = state->position;
    c.tokens = state->tokens;
    c.manifest = &n.tensors();
    c.anchor = state->anchor;
    c.momentum = state->momentum;
    c.residual = carried;
    c.said = said;
    if (!carried.empty()) {
        extra = fmt::format(
            R"({{"carry_of":"{}","carry_tokens":{},"carry_steps":{},"carry_generation":{},"carry_applied":{}}})",
            n.self().hex(), n.mass.carry().tokens, n.mass.carry().steps, state->generation, state->round);
        c.extra_json = extra;
    }
    const auto begun = n.env.clock.now();
    auto saved =
        co_await save_checkpoint(n.env.storage, n.env.workers, c, static_cast<unsigned>(n.config().checkpoint.keep));
    LONGHAUL_CO_TRY(saved);
    // Meanwhile this node may have gone over to another generation, of which it has none yet.
    if (n.state->generation == state->generation) n.last_checkpoint = state->round;
    core::event e("checkpoint");
    e.with("round", state->round).with("root", state->root.hex());
    e.with("seconds", core::to_seconds(n.env.clock.now() - begun));
    n.emit(std::move(e));
    co_return core::ok();
}

core::task<core::result<void>> save_and_clear(node& n) {
    auto saved = co_await save(n);
    n.checkpointing = false;
    n.changed.notify();
    if (!saved) n.report(saved.error(), "writing a checkpoint");
    if (saved && !n.last_checkpoint) start_checkpoint(n);
    co_return core::ok();
}

}  // namespace

void start_checkpoint(node& n) {
    if (n.checkpointing || !n.state) return;
    n.checkpointing = true;
    n.tasks.spawn_isolated("checkpoint", save_and_clear(n));
}

core::task<core::result<void>> checkpoint_now(node& n) {
    auto idle = co_await core::wait_until(n.changed, [&n] { return !n.checkpointing; });
    LONGHAUL_CO_TRY(idle);
    // What is carried may have grown since the state was written.
    if (!n.state || (n.last_checkpoint == n.state->round && n.mass.carry().empty())) co_return core::ok();
    co_return co_await save(n);
}

core::task<core::result<void>> restore(node& n) {
    auto found = co_await load_newest_checkpoint(n.env.storage, n.env.workers, max_checkpoint_bytes, n.run->run_id);
    if (!found && found.error().code == errc::malformed && knows_others(n)) {
        n.report(found.error(), "reading checkpoints, of which none is whole: the state comes from others");
        co_return core::ok();
    }
    LONGHAUL_CO_TRY(found);
    if (!*found) co_return core::ok();
    for (const auto& sentence : (*found)->skipped) {
        n.report(core::error(errc::malformed, sentence), "reading checkpoints");
    }
    auto& c = (*found)->value;
    if (const auto difference = c.manifest.first_difference(n.tensors()); !difference.empty()) {
        co_return fail(errc::run_mismatch, "the checkpoint of round {} is of another model: {}", c.round, difference);
    }
    auto state = std::make_shared<model_state>();
    state->generation = c.generation;
    state->round = c.round;
    state->position = c.step;
    state->tokens = c.tokens;
    state->anchor = std::move(c.anchor);
    state->momentum = std::move(c.momentum);
    seal(*state);
    n.last_checkpoint = state->round;
    n.state = std::move(state);
    // The inner optimizer starts from zero, so it ramps up, except at the very beginning, where everybody warms up.
    n.trainer_is_cold = c.round > 0;
    if (!c.residual.empty()) {
        auto extra = core::parse_json(c.extra_json, max_checkpoint_extra, 4);
        LONGHAUL_CO_TRY(extra);
        carried_mass mass;
        mass.values = std::move(c.residual);
        mass.velocity = std::move(c.said);
        LONGHAUL_CO_TRY_ASSIGN(mass.tokens, core::json_u64(*extra, "carry_tokens"));
        LONGHAUL_CO_TRY_ASSIGN(const auto steps, core::json_u64(*extra, "carry_steps"));
        mass.steps = static_cast<std::uint32_t>(steps);
        LONGHAUL_CO_TRY_ASSIGN(const auto generation, core::json_u64(*extra, "carry_generation"));
        LONGHAUL_CO_TRY_ASSIGN(const auto applied, core::json_u64(*extra, "carry_applied"));
        const auto author = core::json_string(*extra, "carry_of");
        n.mass.restore(std::move(mass));
        // Only the log knows what became of a node's last payload, and it knows the node by its key.
        if (!author || *author != n.self().hex()) {
            discard_mass(n, "a checkpoint carried it, of the node that this one was before");
        } else if (generation != n.state->generation || applied != n.state->round) {
            discard_mass(n, "a checkpoint carried it, and it is of another state");
        }
    }
    co_return core::ok();
}

}  // namespace longhaul::peers

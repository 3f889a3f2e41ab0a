#include "peers/run_config.hpp"

#include <algorithm>

#include "net/ticket.hpp"
#include "optim/schedule.hpp"

namespace longhaul::peers {

namespace {

/// What each kind of model can be trained on; data.kind "auto" fits every model.
core::result<void> validate_pair(const optim::model_config& model, const optim::data_config& data) {
    const auto fits = [&](std::initializer_list<std::string_view> kinds) {
        return std::find(kinds.begin(), kinds.end(), data.kind) != kinds.end();
    };
    if (data.kind == "auto") return core::ok();
    if (model.kind == "quadratic" && !fits({"quadratic"})) {
        return core::fail(core::errc::config,
                          "model.kind = \"quadratic\" needs no data, but data.kind is \"{}\": remove data.kind or set "
                          "it to \"quadratic\"",
                          data.kind);
    }
    if (model.kind == "gpt" && !fits({"stdlib", "text", "tokens"})) {
        return core::fail(core::errc::config,
                          "model.kind = \"gpt\" reads tokens, but data.kind is \"{}\": use stdlib, text or tokens",
                          data.kind);
    }
    if ((model.kind == "mlp" || model.kind == "cnn") && !fits({"mnist"})) {
        return core::fail(core::errc::config,
                          "model.kind = \"{}\" reads images, but data.kind is \"{}\": use mnist and name its folder in "
                          "data.path",
                          model.kind, data.kind);
    }
    return core::ok();
}

core::result<void> validate_times(const peers_config& c) {
    const auto at_least = [](std::string_view key, core::duration value, core::duration least) -> core::result<void> {
        if (value >= least) return core::ok();
        return core::fail(core::errc::config, "{} = \"{}\" is too short: give at least {}", key,
                          core::format_duration(value), core::format_duration(least));
    };
    LONGHAUL_TRY(at_least("peers.silence_limit", c.silence_limit, std::chrono::milliseconds(100)));
    LONGHAUL_TRY(at_least("peers.grace", c.grace, std::chrono::milliseconds(10)));
    LONGHAUL_TRY(at_least("peers.first_deadline", c.first_deadline, std::chrono::seconds(1)));
    constexpr auto longest = std::chrono::hours(24 * 30);
    for (const auto value : {c.silence_limit, c.grace, c.first_deadline}) {
        if (value > longest) {
            return core::fail(core::errc::config,
                              "a time of {} in [peers] is longer than a month: silence_limit, grace and "
                              "first_deadline must be shorter",
                              core::format_duration(value));
        }
    }
    return core::ok();
}

double lr_limit_of_delay(const optim::round_plan& p) {
    return optim::outer_lr_limit_of_delay(p.nesterov, static_cast<double>(p.outer_momentum));
}

/// Rounds of several exchanges: what they cannot be together with.
core::result<void> validate_exchanges(const run_config& c, const optim::round_plan& plan) {
    const auto& x = c.exchange;
    const auto refuse = [&x](std::string_view with, std::string_view why, std::string_view instead) {
        return core::fail(core::errc::config, "exchange.every = {} with {}: {}; {}, or leave exchange.every out",
                          x.every, with, why, instead);
    };
    if (x.every == 0) {
        if (x.staleness == 0) return core::ok();
        return core::fail(core::errc::config,
                          "exchange.staleness = {} counts exchanges within a round: give exchange.every, the inner "
                          "steps between two of them (exchange.delay counts rounds)",
                          x.staleness);
    }
    if (x.every > c.inner.steps) {
        return core::fail(core::errc::config,
                          "exchange.every = {} is more than the inner.steps = {} of a round: give 1 to {}", x.every,
                          c.inner.steps, c.inner.steps);
    }
    if (plan.exchanges() > optim::max_exchanges) {
        return core::fail(core::errc::config,
                          "exchange.every = {} makes {} exchanges of a round of {} inner steps: give at least {}",
                          x.every, plan.exchanges(), c.inner.steps,
                          (plan.inner_steps + optim::max_exchanges - 1) / optim::max_exchanges);
    }
    if (plan.staleness >= plan.exchanges()) {
        return core::fail(core::errc::config,
                          "exchange.staleness = {} is not below the {} exchanges of a round: give 0 to {}", x.staleness,
                          plan.exchanges(), plan.exchanges() - 1);
    }
    if (plan.outer_momentum != 0 || plan.nesterov) {
        return refuse(fmt::format("outer momentum {}", plan.outer_momentum),
                      "the steps between two exchanges go on from their mean, without momentum",
                      "set outer.optimizer = \"sgd\" and no outer.momentum");
    }
    if (x.fragments > 1) return refuse("fragments", "each exchange has the whole model", "set exchange.fragments = 1");
    if (x.delay > 0)
        return refuse("exchange.delay = 1", "it has its own delay, exchange.staleness", "set exchange.delay = 0");
    if (x.mode == "shard")
        return refuse("mode \"shard\"", "every member sums each exchange itself", "set exchange.mode = \"gather\"");
    if (x.feedback != "none" && x.feedback != "ef") {
        return refuse(fmt::format("feedback \"{}\"", x.feedback), "what it keeps goes on from round to round",
                      "set exchange.feedback = \"ef\"");
    }
    if (const auto codec = compress::find_codec(x.codec); codec && (*codec)->goes_on())
        return refuse(fmt::format("codec \"{}\"", x.codec), "it goes on from a round's last payload", "take topk-4/64");
    return core::ok();
}

core::result<compress::feedback_rule> feedback_with(const run_config& c, std::string_view name) {
    LONGHAUL_TRY_ASSIGN(const auto codec, compress::find_codec(name));
    const auto outer = configured_plan(c, *codec);
    compress::feedback_wishes wishes{c.exchange.beta, c.exchange.momentum, c.exchange.gain};
    if (!outer.nesterov) wishes.heavy_ball = static_cast<double>(outer.outer_momentum);
    return compress::find_feedback(c.exchange.feedback, wishes, *codec);
}

}  // namespace

std::uint64_t run_config::most_steps() const {
    return static_cast<std::uint64_t>(controller.enabled ? std::max(inner.steps, controller.most_steps) : inner.steps);
}

std::vector<std::string> run_config::codecs() const {
    std::vector<std::string> out{exchange.codec};
    if (!controller.enabled) return out;
    auto more = controller.codecs;
    if (more.empty() && exchange.feedback == "none") more = {"bf16", "int8", "int4", "ecsq-3"};
    for (auto& codec : more) {
        if (std::ranges::find(out, codec) == out.end()) out.push_back(std::move(codec));
    }
    return out;
}

optim::round_plan configured_plan(const run_config& c, const compress::codec& codec) {
    auto outer = c.outer;
    // Of a step or a few, a pseudo-gradient is a gradient: plain steps by the mean (DESIGN §6, "DeCo-SGD").
    if (c.exchange.every > 0 && outer.optimizer == "auto") outer.optimizer = "sgd";
    auto plan = optim::fixed_plan(c.inner, outer, codec);
    plan.delay = static_cast<std::uint32_t>(c.exchange.delay);
    plan.exchange_every = static_cast<std::uint64_t>(c.exchange.every);
    plan.staleness = static_cast<std::uint32_t>(c.exchange.staleness);
    return plan;
}

optim::aggregation aggregation_of(const run_config& c) {
    const auto named = optim::find_aggregation(c.exchange.aggregate);
    if (named) return *named;
    const auto feedback = feedback_of(c);
    const bool repeats = feedback && feedback->repeats > 0;
    return c.peers.admission == "open" && !repeats ? optim::aggregation::clip : optim::aggregation::mean;
}

std::uint64_t most_staleness(const run_config& c) {
    const auto configured = static_cast<std::uint64_t>(c.exchange.staleness);
    const bool chosen = c.exchange.every > 0 && c.controller.enabled && c.controller.choose_delay;
    return chosen ? std::max<std::uint64_t>(configured, most_staleness_chosen) : configured;
}

bool may_have_delay(const run_config& c) {
    return c.exchange.delay > 0 || (c.exchange.every == 0 && c.controller.enabled && c.controller.choose_delay);
}

bool may_be_late(const optim::round_plan& plan) { return static_cast<double>(plan.outer_lr) < lr_limit_of_delay(plan); }

core::result<compress::feedback_rule> feedback_of(const run_config& c) { return feedback_with(c, c.exchange.codec); }

void bind(core::config_binder& b, run_config& c) {
    b.bind("name", c.name, "of the run, in tickets and paths: letters, digits, '.', '_' and '-'");
    optim::bind(b, c.model);
    optim::bind(b, c.data);
    optim::bind(b, c.inner);
    optim::bind(b, c.outer);
    b.bind_choice("exchange.codec", c.exchange.codec, compress::codec_names(), "how pseudo-gradients are encoded");
    b.bind_choice("exchange.feedback", c.exchange.feedback, compress::feedback_names(),
                  "what a codec loses is kept and sent later (ef; dgc: with momentum), or not (none); ef21 and "
                  "econtrol send what the outer momentum does not hold yet");
    b.bind("exchange.beta", c.exchange.beta, "of what ef keeps, each round; 1 forgets nothing", -1e9, 1e9);
    b.bind("exchange.momentum", c.exchange.momentum, "of dgc, in place of the outer optimizer's", -1e9, 1e9);
    b.bind("exchange.gain", c.exchange.gain, "of econtrol's residual in a payload", -1e9, 1e9);
    b.bind_choice("exchange.mode", c.exchange.mode, {"auto", "gather", "shard"},
                  "gather: every member gets every payload; shard: owners sum and return; auto: the faster");
    auto aggregations = optim::aggregation_names();
    aggregations.insert(aggregations.begin(), "auto");
    b.bind_choice("exchange.aggregate", c.exchange.aggregate, std::move(aggregations),
                  "how contributions become one: mean, or so that a quarter of liars cannot move it far; auto: clip in "
                  "open runs, else mean");
    b.bind("exchange.delay", c.exchange.delay,
           "rounds that a payload may be under way while its author does the next steps", 0, 1);
    b.bind("exchange.fragments", c.exchange.fragments,
           "parts of the model, of which each round exchanges one, in turn (Streaming DiLoCo)", 1, 64);
    b.bind("exchange.mix", c.exchange.mix,
           "of a member's own parameters, in what it goes on with when a late fragment arrives", 0, 0.95);
    b.bind("exchange.every", c.exchange.every,
           "inner steps between the exchanges of a round (D-SGD, DeCo-SGD); 0: one exchange, at its end", 0, 1'000'000);
    b.bind("exchange.staleness", c.exchange.staleness,
           "exchanges of a round by which the result of one of them may be late (DeCo-SGD)", 0, 1'000'000);
    b.bind("controller.enabled", c.controller.enabled,
           "inner.steps and exchange.codec are where it begins; stop.rounds x inner.steps is still when the run ends");
    b.bind("controller.choose_delay", c.controller.choose_delay,
           "whether it also chooses exchange.delay, where the outer step allows that");
    const auto fewest = static_cast<std::int64_t>(optim::fewest_shared_steps);
    b.bind("controller.least_steps", c.controller.least_steps, "that it may choose for a round", fewest, 1'000'000);
    b.bind("controller.most_steps", c.controller.most_steps, "that it may choose for a round", fewest, 1'000'000);
    b.bind("controller.codecs", c.controller.codecs,
           "that it may choose from; empty: bf16, int8, int4 and ecsq-3, or with feedback exchange.codec");
    b.bind_choice("peers.admission", c.peers.admission, {"invite", "open"},
                  "invite: the ticket carries the run's secret; open: an address is enough");
    b.bind("peers.min", c.peers.min, "members before the first round starts", 1, 10'000);
    b.bind("peers.max", c.peers.max, "members at the same time", 1, 10'000);
    b.bind("peers.per_round", c.peers.per_round,
           "members that contribute to a round, drawn anew for each; the others take its result; 0: all", 0, 10'000);
    b.bind_choice("peers.pace", c.peers.pace, {"own", "equal"},
                  "own: inner steps by each peer's speed, so that nobody waits for the slowest; equal: inner.steps");
    b.bind("peers.silence_limit", c.peers.silence_limit, "a peer that is silent for so long is taken for dead");
    b.bind_choice("peers.on_quorum_loss", c.peers.on_quorum_loss, {"auto", "continue", "pause"},
                  "when who orders records is gone: continue opens a generation without them, pause waits; auto: "
                  "continue while fewer than three do");
    b.bind("peers.grace", c.peers.grace, "added to every deadline that history predicts");
    b.bind("peers.first_deadline", c.peers.first_deadline, "of a round, while there is no history");
    b.bind("checkpoint.every", c.checkpoint.every, "rounds; also at the end and when asked to stop", 1, 1'000'000'000);
    b.bind("checkpoint.keep", c.checkpoint.keep, "checkpoints kept, the newest ones", 1, 1000);
    b.bind("eval.every", c.eval.every, "rounds between evaluations, in which the members take turns; 0: never", 0,
           1'000'000'000);
    b.bind("stop.rounds", c.stop.rounds, "the run ends after so many rounds of inner.steps", 1, 1'000'000'000);
}

core::result<void> validate(const run_config& c) {
    if (!net::is_run_name(c.name)) {
        return core::fail(core::errc::config,
                          "name = \"{}\" is not a run's name: use 1 to 64 of A-Z a-z 0-9 . _ - (for example "
                          "\"shakespeare-1\")",
                          c.name.substr(0, 64));
    }
    LONGHAUL_TRY_ASSIGN(const auto codec, compress::find_codec(c.exchange.codec));
    LONGHAUL_TRY_ASSIGN(const auto feedback, feedback_of(c));
    const auto outer = configured_plan(c, *codec);
    LONGHAUL_TRY(validate_exchanges(c, outer));
    if (feedback.momentum > 0 && (outer.nesterov || outer.outer_momentum > 0)) {
        return core::fail(
            core::errc::config,
            "exchange.feedback = \"dgc\" has momentum of its own, and outer.optimizer = \"{}\" with momentum "
            "{} would be another on top: remove outer.optimizer and outer.momentum",
            c.outer.optimizer, outer.outer_momentum);
    }
    if (feedback.repeats > 0 && aggregation_of(c) != optim::aggregation::mean) {
        return core::fail(core::errc::config,
                          "exchange.feedback = \"{}\" needs exchange.aggregate = \"mean\": what receivers hold is the "
                          "sum of all that was sent",
                          c.exchange.feedback);
    }
    for (const auto& name : c.codecs()) {
        LONGHAUL_TRY_ASSIGN(const auto one, compress::find_codec(name));
        LONGHAUL_TRY(feedback_with(c, name));
        if (c.codecs().size() > 1 && one->goes_on()) {
            return core::fail(core::errc::config,
                              "{} goes on from its last payload, so that the controller cannot choose it from round to "
                              "round: leave only exchange.codec in controller.codecs",
                              name);
        }
        const auto how = aggregation_of(c);
        const bool by_coordinate = how == optim::aggregation::trimmed_mean || how == optim::aggregation::centered_clip;
        if (by_coordinate && one->wants_feedback()) {
            return core::fail(
                core::errc::config,
                "exchange.aggregate = \"{}\" compares the peers' values of each coordinate, of which {} "
                "sends a few: use clip, or one of the codecs f32, bf16, int8, int4, e3m0, ecsq-4 and ecsq-3",
                c.exchange.aggregate, name);
        }
        if (c.exchange.mode == "shard" && !one->fits_sums()) {
            return core::fail(core::errc::config,
                              "exchange.mode = \"shard\" encodes sums once more, which {} is too coarse for: use auto "
                              "or gather, or one of the codecs f32, bf16 and int8",
                              name);
        }
    }
    if (c.peers.per_round > 0 && may_have_delay(c)) {
        return core::fail(
            core::errc::config,
            "peers.per_round = {} draws who contributes when a round opens, and with a delay all have begun by "
            "then: set exchange.delay = 0 and controller.choose_delay = false",
            c.peers.per_round);
    }
    if (c.exchange.fragments > 1 && c.exchange.feedback != "none") {
        return core::fail(core::errc::config,
                          "exchange.fragments = {} with exchange.feedback = \"{}\": what a fragment's payload does not "
                          "say stays in its author's parameters; set feedback = \"none\", or fragments = 1",
                          c.exchange.fragments, c.exchange.feedback);
    }
    if (c.exchange.delay > 0 && c.exchange.fragments == 1 && !may_be_late(outer)) {
        return core::fail(
            core::errc::config,
            "exchange.delay = 1 with outer.lr = {} and momentum {} never settles: give outer.lr less than "
            "{:.2f}, or no delay",
            outer.outer_lr, outer.outer_momentum, lr_limit_of_delay(outer));
    }
    if (c.controller.least_steps > c.controller.most_steps) {
        return core::fail(core::errc::config,
                          "controller.least_steps = {} is larger than controller.most_steps = {}: leave it room",
                          c.controller.least_steps, c.controller.most_steps);
    }
    if (c.name == "." || c.name == "..") {
        return core::fail(core::errc::config, "name = \"{}\" would be another folder: choose a word", c.name);
    }
    if (c.model.kind == "gpt" && c.model.width % c.model.heads != 0) {
        return core::fail(core::errc::config,
                          "model.width = {} is not divisible by model.heads = {}: each head needs an equal part",
                          c.model.width, c.model.heads);
    }
    LONGHAUL_TRY(validate_pair(c.model, c.data));
    if (c.peers.min > c.peers.max) {
        return core::fail(core::errc::config, "peers.min = {} is larger than peers.max = {}: the run would never start",
                          c.peers.min, c.peers.max);
    }
    LONGHAUL_TRY(validate_times(c.peers));
    return core::ok();
}

}  // namespace longhaul::peers

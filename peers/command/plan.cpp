/// `longhaul plan`: what the rounds of a run would take on links that one only thinks of, and which the controller
/// would choose. Useful before anybody rents a machine.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "core/units.hpp"
#include "optim/controller.hpp"
#include "peers/command/arguments.hpp"
#include "peers/command/command.hpp"
#include "peers/plan_choices.hpp"

namespace longhaul::peers::command {

namespace {

struct plan_wishes {
    arguments run;
    std::int64_t parameters = 0;
    int peers = 4;
    std::string up = "100 Mbit/s", down, rtt = "50 ms", step;
    std::size_t rows = 12;
    bool as_json = false;
};

/// Beside steps and exchange, before anything is measured: two round trips and a write to agree, and a pass of 4 bytes
/// a parameter at 1 GB/s to encode.
double beside_seconds(double rtt, std::int64_t parameters) {
    return 2 * rtt + 0.01 + 4e-9 * static_cast<double>(parameters);
}

struct table_row {
    optim::weighed_plan weighed;
    std::string mode;
    std::uint64_t payload_bytes = 0;
};

/// Of equal peers on equal lines, which are all that is known here.
exchange_planner equal_peers(int count, double up, double down, double rtt, const exchange_planner::model& m) {
    exchange_planner planner(m);
    for (peer_number n = 1; n <= static_cast<peer_number>(count); ++n) {
        lines_message lines;
        lines.up = up;
        lines.down = down;
        for (peer_number other = 1; other <= static_cast<peer_number>(count); ++other) {
            if (other != n) lines.links.push_back({other, static_cast<std::uint32_t>(rtt * 1e6)});
        }
        planner.heard(n, lines, {});
    }
    return planner;
}

core::result<std::int64_t> parameters_of(const plan_wishes& w, const run_config& c) {
    if (w.parameters > 0) return w.parameters;
    if (c.model.kind == "quadratic") return c.model.width;
    return core::fail(core::errc::usage,
                      "--parameters is missing: how many the {} has (the event \"started\" of a run tells)",
                      c.model.kind);
}

core::result<int> show(const plan_wishes& w) {
    LONGHAUL_TRY_ASSIGN(auto settings, resolve(w.run, true, ""));
    auto& config = settings.run;
    if (config.exchange.every > 0) {
        return core::fail(core::errc::usage,
                          "exchange.every = {}: the alternatives here are rounds of one exchange; leave it out (with "
                          "exchange.staleness) to see those",
                          config.exchange.every);
    }
    config.controller.enabled = true;
    LONGHAUL_TRY(validate(config));
    LONGHAUL_TRY_ASSIGN(const auto up, core::parse_rate(w.up));
    LONGHAUL_TRY_ASSIGN(const auto down, core::parse_rate(w.down.empty() ? w.up : w.down));
    LONGHAUL_TRY_ASSIGN(const auto round_trip, core::parse_duration(w.rtt));
    LONGHAUL_TRY_ASSIGN(const auto step, core::parse_duration(w.step));
    if (step <= core::duration{}) return core::fail(core::errc::usage, "--step must be longer than nothing");
    const auto rtt = core::to_seconds(round_trip);
    LONGHAUL_TRY_ASSIGN(const auto parameters, parameters_of(w, config));
    core::tensor_spec spec;
    spec.name = "all";
    spec.shape = {1, parameters};
    if (config.exchange.fragments > 1) spec.shape = {parameters, 1};
    std::vector<core::tensor_spec> specs{spec};
    LONGHAUL_TRY_ASSIGN(const auto tensors, core::tensor_manifest::make(std::move(specs)));

    LONGHAUL_TRY_ASSIGN(const auto parts, fragments::cut(tensors, static_cast<std::size_t>(config.exchange.fragments)));
    const auto choices = choices_of(config, parts);
    std::vector<peer_number> everybody;
    for (peer_number n = 1; n <= static_cast<peer_number>(w.peers); ++n) everybody.push_back(n);
    std::map<std::string, exchange_planner::choice> ways;
    for (const auto& [codec, models] : choices.exchange) {
        const auto& model = models.front();
        const auto planner = equal_peers(w.peers, up.bytes_per_second(), down.bytes_per_second(), rtt, model);
        ways[codec] = planner.plan(everybody, everybody, {}, {});
    }
    std::vector<optim::plan_alternative> all;
    for (const auto& p : choices.to_choose) all.push_back({p, ways.at(p.codec).plan.predicted_seconds});
    const optim::measured_pace pace{core::to_seconds(step), beside_seconds(rtt, parameters)};
    const optim::quality_model quality = [&parts](const auto& p) { return optim::prior_quality(p, parts.count()); };
    const auto decision = optim::choose_plan(all, pace, quality, std::nullopt, 0);
    const auto steps = static_cast<double>(config.total_steps());

    if (!w.as_json) {
        fmt::print("{} parameters, {} peers, {} up, {} down, {} of round trip, a step of {}; times are predictions\n\n",
                   parameters, w.peers, w.up, w.down.empty() ? w.up : w.down, w.rtt, w.step);
        fmt::print("{:>5}  {:<14} {:<7} {:>5} {:>10} {:>10} {:>9} {:>10} {:>8}\n", "H", "codec", "mode", "delay",
                   "round", "exchange", "computing", "payload", "cost");
    }
    auto rows = nlohmann::ordered_json::array();
    for (const auto& a : decision.alternatives) {
        if (!w.as_json && rows.size() >= w.rows) break;
        const auto H = static_cast<double>(a.plan.inner_steps);
        const double share = H * pace.step_seconds / a.round_seconds;
        const auto payload = choices.model_of(a.plan.codec, 1).payload_bytes;
        const auto& mode = ways.at(a.plan.codec).mode;
        if (!w.as_json) {
            fmt::print("{:>5}  {:<14} {:<7} {:>5} {:>8.2f} s {:>8.2f} s {:>8.1f}% {:>10} {:>8.3g}\n",
                       a.plan.inner_steps, a.plan.codec, mode, a.plan.delay, a.round_seconds, a.exchange_seconds,
                       100 * share, core::format_bytes(payload), a.cost);
        }
        nlohmann::ordered_json row;
        row["H"] = a.plan.inner_steps;
        row["codec"] = a.plan.codec;
        row["mode"] = mode;
        row["tau_rounds"] = a.plan.delay;
        row["round_seconds"] = a.round_seconds;
        row["exchange_seconds"] = a.exchange_seconds;
        row["computing_share"] = share;
        row["payload_bytes"] = payload;
        row["run_seconds"] = steps / H * a.round_seconds;
        row["cost"] = a.cost;
        rows.push_back(std::move(row));
    }
    if (w.as_json) {
        nlohmann::ordered_json j;
        j["parameters"] = parameters;
        j["peers"] = w.peers;
        j["reason"] = decision.reason;
        j["alternatives"] = std::move(rows);
        std::puts(core::json_text(j).c_str());
        return 0;
    }
    fmt::print("\ncost: seconds for the progress of one step that is exchanged at once (docs/CONTROLLER.md).\n{}\n",
               decision.reason);
    return 0;
}

}  // namespace

void add_plan(CLI::App& app, action& chosen) {
    auto* command = app.add_subcommand("plan", "what rounds would take on given links, and which would be chosen");
    const auto w = std::make_shared<plan_wishes>();
    command->add_option("RUN.toml", w->run.run_file, "the run; without it, the defaults");
    command->add_option("--set", w->run.settings, "KEY=VALUE: any key of RUN.toml")->take_all();
    command->add_option("--parameters", w->parameters, "of the model")->check(CLI::Range(1LL, 1'000'000'000'000LL));
    command->add_option("--peers", w->peers, "how many")->check(CLI::Range(2, 1024))->capture_default_str();
    command->add_option("--up", w->up, "rate of each peer's uplink")->capture_default_str();
    command->add_option("--down", w->down, "of its downlink; default: as --up");
    command->add_option("--rtt", w->rtt, "round trip between any two")->capture_default_str();
    command->add_option("--step", w->step, "time of an inner step, for example \"200 ms\"")->required();
    command->add_option("--rows", w->rows, "so many of the cheapest are shown")->capture_default_str();
    command->add_flag("--json", w->as_json, "all of them, for programs");
    command->callback([=, &chosen] { chosen = [=] { return show(*w); }; });
}

}  // namespace longhaul::peers::command

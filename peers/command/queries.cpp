#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "core/units.hpp"
#include "peers/command/address.hpp"
#include "peers/command/command.hpp"
#include "peers/command/control.hpp"
#include "peers/command/world.hpp"
#include "peers/generation.hpp"
#include "peers/peer.hpp"

namespace longhaul::peers::command {

namespace {

using json = nlohmann::json;

constexpr std::size_t max_status = 8 << 20;
constexpr std::size_t max_status_depth = 8;
constexpr auto query_deadline = std::chrono::seconds(10);

/// What a query was asked, as flags.
struct query {
    std::string address, state_dir;
    bool as_json = false;
};

core::task<core::result<std::string>> ask_here(net::environment& env, std::string state_dir) {
    auto folder = co_await find_daemon(env, std::move(state_dir));
    LONGHAUL_CO_TRY(folder);
    co_return co_await ask_daemon(env, *folder, "status");
}

core::result<json> status_of(const query& q) {
    visitor here;
    core::result<std::string> text;
    if (q.address.empty()) {
        text = here.ask(ask_here(here.env(), q.state_dir));
    } else {
        LONGHAUL_TRY_ASSIGN(auto ticket, read_address(q.address));
        text = here.ask(query_status(here.env(), std::move(ticket), query_deadline));
    }
    LONGHAUL_TRY(text);
    auto parsed = core::parse_json(*text, max_status, max_status_depth);
    if (!parsed || !parsed->is_object()) {
        return core::fail(core::errc::protocol,
                          "the node's status is not understood: it runs another version of longhaul");
    }
    return parsed;
}

/// A field for people; a status from afar may lack any. Control characters of strangers stay outside the terminal.
std::string field(const json& j, const char* key) {
    const auto it = j.find(key);
    if (it == j.end() || it->is_null()) return "-";
    std::string out = it->is_string() ? it->get<std::string>() : core::json_text(*it);
    for (auto& c : out) {
        if ((c >= 0 && c < ' ') || c == 0x7f) c = '?';
    }
    return out;
}

std::string generation_of(const json& j) { return generation_name(core::json_u64(j, "generation").value_or(0)); }
std::string short_key(const json& j, const char* key) { return field(j, key).substr(0, 8); }

std::string size(const json& j, const char* key) {
    const auto it = j.find(key);
    return it != j.end() && it->is_number_unsigned() ? core::format_bytes(it->get<std::uint64_t>()) : "-";
}

/// A number in other units; "-" when it is not known.
std::string measured(const json& j, const char* key, fmt::format_string<double> words, double factor) {
    const auto it = j.find(key);
    return it != j.end() && it->is_number() && it->get<double>() > 0 ? fmt::format(words, it->get<double>() * factor)
                                                                     : "-";
}

std::string loss(const json& j, const char* key) {
    const auto it = j.find(key);
    return it != j.end() && it->is_number() ? fmt::format("{:.4f}", it->get<double>()) : "-";
}

bool flag(const json& j, const char* key) {
    const auto it = j.find(key);
    return it != j.end() && it->is_boolean() && it->get<bool>();
}

core::result<int> status(const query& q) {
    LONGHAUL_TRY_ASSIGN(const auto s, status_of(q));
    if (q.as_json) {
        std::puts(core::json_text(s).c_str());
        return 0;
    }
    fmt::print("run          {} ({})\n", field(s, "run_name"), short_key(s, "run"));
    fmt::print("node         {} ({}), {}\n", field(s, "name"), short_key(s, "key"), field(s, "state"));
    if (const auto reason = field(s, "waiting_for"); !reason.empty()) fmt::print("waits        {}\n", reason);
    fmt::print("rounds       {} of {} applied; attempt {} of round {}, generation {}\n", field(s, "applied"),
               field(s, "rounds_total"), field(s, "attempt"), field(s, "round"), generation_of(s));
    fmt::print("peers        {} alive, {} participating, {} merged in the last round\n", field(s, "alive"),
               field(s, "participating"), field(s, "merged"));
    fmt::print("loss         {} held out, {} in training\n", loss(s, "eval_loss"), loss(s, "train_loss"));
    if (const auto reason = field(s, "plan_reason"); !reason.empty()) fmt::print("plan         {}\n", reason);
    fmt::print("traffic      {} sent, {} received\n", size(s, "wire_sent"), size(s, "wire_received"));
    fmt::print("coordinator  {}, {}\n", short_key(s, "coordinator"),
               flag(s, "coordinator_reachable") ? "reachable" : "not reachable");
    fmt::print("inbound      {}\n", field(s, "reach"));
    if (const auto advice = field(s, "reach_advice"); advice.size() > 1) fmt::print("             {}\n", advice);
    if (s.contains("state_dir")) fmt::print("state        {}\n", field(s, "state_dir"));
    if (s.contains("ticket") && field(s, "ticket") != "") fmt::print("ticket       {}\n", field(s, "ticket"));
    return 0;
}

core::result<int> peers(const query& q) {
    LONGHAUL_TRY_ASSIGN(const auto s, status_of(q));
    const auto rows = s.value("peers", json::array());
    if (q.as_json) {
        std::puts(core::json_text(rows).c_str());
        return 0;
    }
    constexpr auto line =
        "{:<16} {:<8} {:<22} {:<5} {:<13} {:<6} {:>7} {:>8} {:>13} {:>13} {:>6} {:>2} {:>10} {:>10}\n";
    fmt::print(line, "name", "key", "address", "alive", "participating", "merged", "applied", "rtt", "to it", "from it",
               "loss", "k", "sent", "received");
    for (const auto& p : rows) {
        if (!p.is_object()) continue;
        const auto yes = [&](const char* key) { return flag(p, key) ? "yes" : "no"; };
        const auto link = p.value("link", json::object());
        fmt::print(line, field(p, "name"), short_key(p, "key"), field(p, "address"), yes("alive"), yes("participating"),
                   yes("merged"), field(p, "applied"), measured(p, "rtt_seconds", "{:.1f} ms", 1e3),
                   measured(link, "goodput_up", "{:.1f} Mbit/s", 1e-6),
                   measured(link, "goodput_down", "{:.1f} Mbit/s", 1e-6), measured(link, "loss", "{:.2f} %", 100),
                   field(link, "streams_used"), size(p, "wire_sent"), size(p, "wire_received"));
    }
    return 0;
}

void add(CLI::App& app, action& chosen, const char* name, const char* help, core::result<int> (*show)(const query&)) {
    auto* command = app.add_subcommand(name, help);
    const auto q = std::make_shared<query>();
    command->add_option("ADDR", q->address, std::string(address_help) + "; default: this machine's node");
    command->add_option("--state-dir", q->state_dir, "of this machine's node; default: the one that started last");
    command->add_flag("--json", q->as_json, "for programs");
    command->callback([q, show, &chosen] { chosen = [q, show] { return show(*q); }; });
}

}  // namespace

void add_queries(CLI::App& app, action& chosen) {
    add(app, chosen, "status", "how a run is doing, as one of its members sees it", status);
    add(app, chosen, "peers", "who is in a run, as one of its members sees it", peers);
}

}  // namespace longhaul::peers::command

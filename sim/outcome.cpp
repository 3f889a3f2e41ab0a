#include "sim/outcome.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace longhaul::sim {

namespace {

peer_outcome read(const std::string& name, const peer_end& end) {
    peer_outcome out;
    out.name = name;
    out.alive = end.alive;
    out.ended = end.ended;
    double computed = 0, passed = 0;
    for (const auto& [at, e] : *end.events) {
        if (e.name == "catch_up") {
            out.applied = field<std::uint64_t>(e, "round").value_or(out.applied);
            out.root = field<std::string>(e, "root").value_or(out.root);
        }
        if (e.name != "round_committed") continue;
        out.applied = field<std::uint64_t>(e, "round").value_or(out.applied);
        out.root = field<std::string>(e, "root").value_or(out.root);
        out.wire_sent += field<std::uint64_t>(e, "wire_sent").value_or(0);
        out.wire_received += field<std::uint64_t>(e, "wire_received").value_or(0);
        if (const auto loss = field<double>(e, "loss")) out.loss = loss;
        computed += field<double>(e, "compute_seconds").value_or(0);
        passed += field<double>(e, "seconds").value_or(0);
    }
    if (passed > 0) out.compute_utilisation = std::min(1.0, computed / passed);
    return out;
}

double median_round(const std::deque<seen_event>& events) {
    std::vector<double> seconds;
    for (const auto& [at, e] : events) {
        if (e.name == "round_committed") seconds.push_back(field<double>(e, "seconds").value_or(0));
    }
    if (seconds.empty()) return 0;
    if (seconds.size() > 1) seconds.erase(seconds.begin());
    const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
    std::ranges::nth_element(seconds, middle);
    return *middle;
}

}  // namespace

outcome judge(const scenario& s, std::span<const peer_end> ends, core::duration took, const recovery& after) {
    outcome out;
    out.seconds = core::to_seconds(took);
    std::vector<node_history> histories;
    for (std::size_t i = 0; i < ends.size(); ++i) {
        const auto& name = s.net.peers[i].name;
        out.peers.push_back(read(name, ends[i]));
        histories.push_back({name, ends[i].events});
    }
    const auto found = check_invariants(histories);
    out.rounds = found.newest_round;
    out.commits = found.commits_seen;
    out.round_seconds = median_round(*ends.front().events);
    for (const auto rule : checked_invariants()) {
        const auto broken = found.first.find(std::string(rule));
        out.invariants[std::string(rule)] = broken == found.first.end() ? "ok" : broken->second;
    }

    auto wanted = after.wanted();
    const bool recovers = wanted > 0;
    if (!recovers) wanted = static_cast<std::uint64_t>(s.expect.rounds > 0 ? s.expect.rounds : s.run.stop.rounds);
    // How many rounds its steps make is the controller's matter: `within` says whether it came to its end.
    if (!recovers && s.expect.rounds == 0 && s.run.controller.enabled) wanted = found.newest_round;
    std::string late;
    std::int64_t alive = 0;
    for (std::uint32_t i = 0; i < out.peers.size(); ++i) {
        const auto& p = out.peers[i];
        if (!p.alive) continue;
        ++alive;
        const auto* comma = late.empty() ? "" : ", ";
        if (p.applied < wanted) {
            late += fmt::format("{}{} is at {}", comma, p.name, p.applied);
        } else if (recovers && !after.merged_again(i)) {
            late += fmt::format("{}none has merged the work of {} since the last fault", comma, p.name);
        }
    }
    if (alive == 0) late = "nobody lives";
    // All faults of a scenario have ceased, or are what it is about: progress to the end is what is left to show.
    out.invariants["I12"] = late.empty() ? "ok" : fmt::format("of {} rounds, {}", wanted, late);
    out.expect["rounds"] = late.empty() ? "ok" : out.invariants["I12"];
    if (s.expect.alive > 0) {
        out.expect["alive"] =
            alive >= s.expect.alive ? "ok" : fmt::format("{} peers live, not {}", alive, s.expect.alive);
    }
    out.expect["within"] =
        took < s.expect.within ? "ok" : fmt::format("it took longer than {}", core::format_duration(s.expect.within));
    const auto holds = [](const auto& entry) { return entry.second == "ok"; };
    out.ok = std::ranges::all_of(out.invariants, holds) && std::ranges::all_of(out.expect, holds);
    return out;
}

std::string to_json(const outcome& o) {
    nlohmann::ordered_json j;
    j["seed"] = o.seed;
    if (!o.trace_hash.empty()) j["trace_hash"] = o.trace_hash;
    j["rounds"] = o.rounds;
    j[o.in_virtual_time ? "virtual_seconds" : "seconds"] = o.seconds;
    j["round_seconds"] = o.round_seconds;
    auto& peers = j["peers"] = nlohmann::ordered_json::object();
    for (const auto& p : o.peers) {
        auto& row = peers[p.name];
        row["applied"] = p.applied;
        row["root"] = p.root;
        row["loss"] = p.loss ? nlohmann::ordered_json(*p.loss) : nlohmann::ordered_json();
        row["wire_sent"] = p.wire_sent;
        row["wire_received"] = p.wire_received;
        row["compute_utilisation"] = p.compute_utilisation;
        row["alive"] = p.alive;
        if (!p.ended.empty()) row["ended"] = p.ended;
    }
    j["invariants"] = o.invariants;
    j["expect"] = o.expect;
    if (!o.network.empty()) j["network"] = nlohmann::ordered_json::parse(o.network, nullptr, false);
    j["ok"] = o.ok;
    return j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string describe(const outcome& o) {
    auto out = fmt::format("{} rounds in {:.1f} {}seconds, {:.3f} s a round\n", o.rounds, o.seconds,
                           o.in_virtual_time ? "virtual " : "", o.round_seconds);
    for (const auto& p : o.peers) {
        out += fmt::format("  {}: round {}, {:.1f} MB sent, {:.1f} MB received, {:.0f} % of the time training{}{}\n",
                           p.name, p.applied, static_cast<double>(p.wire_sent) / 1e6,
                           static_cast<double>(p.wire_received) / 1e6, p.compute_utilisation * 100,
                           p.ended.empty() ? "" : "; ", p.ended);
    }
    for (const auto* group : {&o.invariants, &o.expect}) {
        for (const auto& [name, verdict] : *group) {
            if (verdict != "ok") out += fmt::format("{}: {}\n", name, verdict);
        }
    }
    const auto network = nlohmann::json::parse(o.network, nullptr, false);
    if (network.is_object() && !network.value("kept_up", true)) {
        out +=
            "this machine could not keep up with the links that it emulated: the times above mean little; ask for "
            "lower rates, or for fewer peers\n";
    }
    return out + (o.ok ? "all invariants and expectations hold\n" : "NOT ok\n");
}

}  // namespace longhaul::sim

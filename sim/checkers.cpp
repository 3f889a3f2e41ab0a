#include "sim/checkers.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <tuple>

namespace longhaul::sim {

namespace {

struct committed {
    std::string root;
    std::uint64_t attempt = 0, merged = 0, tokens = 0;
    std::string first_seen_on;
    std::set<std::string> own_merged;  // nodes that say so
};

/// What a node held in one life, from its first event to its last.
struct life {
    virtual_time begun{}, ended{};
    std::string key;
    struct state {
        virtual_time since{};
        std::uint64_t generation = 0, round = 0;
    };
    std::vector<state> held;
};

class checker {
public:
    void read(const node_history& node);
    void search_for_lost(const node_history& node);
    void conclude();
    findings out;

private:
    void committed_on(const node_history& node, const core::event& e, std::optional<std::uint64_t>& applied);
    void weigh(const node_history& node, const core::event& e, std::optional<double>& sent);
    void count_tokens();
    void live_on(const node_history& node, const seen_event& s);
    void break_rule(const char* rule, std::string sentence) {
        out.first.try_emplace(rule, sentence);
        out.broken.push_back(fmt::format("{}: {}", rule, sentence));
    }

    std::map<std::pair<std::uint64_t, std::uint64_t>, committed> rounds_;
    struct kept {
        const char* rule;
        std::string node, root;
        std::uint64_t round;
    };
    std::vector<kept> states_;                        // that were checkpointed or downloaded
    std::map<std::uint64_t, std::uint64_t> trained_;  // tokens, by the round for which they were
    std::vector<std::pair<std::string, life>> lives_;
};

void checker::live_on(const node_history& node, const seen_event& s) {
    if (s.event.name == "starting") {
        lives_.push_back({node.name, {s.at, s.at, field<std::string>(s.event, "key").value_or(""), {}}});
    }
    if (lives_.empty() || lives_.back().first != node.name) return;
    auto& now = lives_.back().second;
    now.ended = s.at;
    if (s.event.name != "round_committed" && s.event.name != "catch_up") return;
    now.held.push_back({s.at, field<std::uint64_t>(s.event, "generation").value_or(0),
                        field<std::uint64_t>(s.event, "round").value_or(0)});
}

/// I9: who coordinates takes back committed rounds only when nobody who is there has them.
void checker::search_for_lost(const node_history& node) {
    // A report of links now and then shows that a node lives on.
    constexpr auto news = std::chrono::seconds(5);
    std::set<std::string> linked;
    for (const auto& [at, e] : *node.events) {
        const auto peer = field<std::string>(e, "peer").value_or("");
        if (e.name == "starting") linked.clear();
        if (e.name == "peer_up") linked.insert(peer);
        if (e.name == "link_lost" || e.name == "peer_silent") linked.erase(peer);
        if (e.name != "generation" || field<std::uint64_t>(e, "lost_rounds").value_or(0) == 0) continue;
        const auto parent = field<std::uint64_t>(e, "parent").value_or(0);
        const auto round = field<std::uint64_t>(e, "round").value_or(0);
        for (const auto& [name, l] : lives_) {
            if (name == node.name || !linked.contains(l.key) || l.begun > at - news || l.ended < at + news) continue;
            const auto newer = [&](const life::state& s) {
                return s.since <= at - news && s.generation == parent && s.round > round;
            };
            if (std::ranges::none_of(l.held, newer)) continue;
            break_rule("I9", fmt::format("{} goes back to round {}, and {}, which is linked with it, holds more",
                                         node.name, round, name));
            return;
        }
    }
}

void checker::committed_on(const node_history& node, const core::event& e, std::optional<std::uint64_t>& applied) {
    ++out.commits_seen;
    const auto number = [&e](const char* name) { return field<std::uint64_t>(e, name).value_or(0); };
    const auto generation = number("generation"), round = number("round");
    out.newest_round = std::max(out.newest_round, round);
    if (applied && round != *applied + 1) {
        break_rule("I2", fmt::format("{} applied round {} after round {}", node.name, round, *applied));
    }
    applied = round;
    committed now{field<std::string>(e, "root").value_or(""),
                  number("attempt"),
                  number("merged"),
                  number("tokens"),
                  node.name,
                  {}};
    auto& then = rounds_.try_emplace({generation, round}, now).first->second;
    const auto differ = [&](const char* rule, const char* what, const auto& a, const auto& b) {
        if (a == b) return;
        break_rule(rule, fmt::format("round {} has {} {} on {} and {} on {}", round, what, a, then.first_seen_on, b,
                                     node.name));
    };
    differ("I1", "attempt", then.attempt, now.attempt);
    differ("I3", "root", then.root, now.root);
    differ("I4", "as many merged payloads as", then.merged, now.merged);
    differ("I6", "tokens", then.tokens, now.tokens);
    if (field<bool>(e, "own_merged").value_or(false)) then.own_merged.insert(node.name);
}

/// `sent` is what the node said of the round before, if nothing came between them.
void checker::weigh(const node_history& node, const core::event& e, std::optional<double>& sent) {
    const auto sum = [&e](const char* name) { return field<double>(e, name); };
    const auto now = sum("mass_sent");
    if (!now) return;
    const double produced = sum("mass_produced").value_or(0), held = sum("mass_residual").value_or(0);
    const double lost = sum("mass_lost").value_or(0), rounding = sum("mass_rounding").value_or(0);
    const auto round = field<std::uint64_t>(e, "round").value_or(0);
    if (!(std::abs(produced - *now - held - lost) <= rounding)) {
        break_rule("I13", fmt::format("{} produced {} up to round {}, of which {} were sent, {} are held and {} lost",
                                      node.name, produced, round, *now, held, lost));
    }
    if (sent && *sent != *now && !field<bool>(e, "own_merged").value_or(false)) {
        break_rule("I13", fmt::format("{} counts {} as sent in round {}, which did not merge it", node.name,
                                      *now - *sent, round));
    }
    sent = now;
}

void checker::read(const node_history& node) {
    std::optional<std::uint64_t> applied;
    std::optional<double> sent;
    for (const auto& seen : *node.events) {
        const auto& e = seen.event;
        live_on(node, seen);
        if (e.name == "started") applied.reset();
        if (e.name == "started" || e.name == "catch_up" || e.name == "generation") sent.reset();
        if (e.name == "round_committed") weigh(node, e, sent);
        if (e.name == "inner") {
            trained_[field<std::uint64_t>(e, "round").value_or(0)] += field<std::uint64_t>(e, "tokens").value_or(0);
        }
        if (e.name == "error" && field<std::string>(e, "code") == name_of(core::errc::run_mismatch)) {
            break_rule("I3", fmt::format("{}: {}", node.name, field<std::string>(e, "message").value_or("")));
        }
        if (e.name == "error" && field<std::string>(e, "code") == name_of(core::errc::protocol)) {
            break_rule("honesty", fmt::format("{} finds that {}", node.name,
                                              field<std::string>(e, "message").value_or("somebody lies")));
        }
        // Who opens a generation holds the state that it begins with.
        if (e.name == "catch_up" || e.name == "generation") applied = field<std::uint64_t>(e, "round");
        if (e.name == "round_committed") committed_on(node, e, applied);
        const bool saved = e.name == "checkpoint", downloaded = e.name == "catch_up";
        const auto root = field<std::string>(e, "root");
        if ((saved || downloaded) && root) {
            states_.push_back({saved ? "I8" : "I10", node.name, *root, field<std::uint64_t>(e, "round").value_or(0)});
        }
    }
}

/// I6: what a round has counted, it and all before it, somebody has trained, each token once.
void checker::count_tokens() {
    auto next = trained_.begin();
    std::uint64_t trained = 0;
    std::map<std::uint64_t, std::uint64_t> counted;  // of all generations the most
    for (const auto& [key, c] : rounds_) counted[key.second] = std::max(counted[key.second], c.tokens);
    for (const auto& [round, tokens] : counted) {
        for (; next != trained_.end() && next->first <= round; ++next) trained += next->second;
        if (tokens <= trained) continue;
        break_rule("I6",
                   fmt::format("{} tokens are counted up to round {}, and {} were trained", tokens, round, trained));
        return;
    }
}

void checker::conclude() {
    count_tokens();
    std::map<std::uint64_t, std::set<std::string>> roots;  // of all generations
    for (const auto& [key, c] : rounds_) {
        roots[key.second].insert(c.root);
        if (c.own_merged.size() > c.merged) {
            break_rule("I5", fmt::format("round {} merged {} payloads, and {} nodes say that theirs is among them",
                                         key.second, c.merged, c.own_merged.size()));
        }
    }
    for (const auto& k : states_) {
        const auto known = roots.find(k.round);
        if (known == roots.end() || known->second.contains(k.root)) continue;
        break_rule(k.rule, fmt::format("{} {} a state of round {} with root {}, which nobody committed", k.node,
                                       std::string_view(k.rule) == "I8" ? "saved" : "downloaded", k.round, k.root));
    }
}

}  // namespace

findings check_invariants(std::span<const node_history> nodes) {
    checker c;
    for (const auto& n : nodes) c.read(n);
    for (const auto& n : nodes) c.search_for_lost(n);
    c.conclude();
    return std::move(c.out);
}

findings check_invariants(const world& w) {
    std::vector<node_history> nodes;
    for (const auto& n : w.nodes()) nodes.push_back({n->name(), &n->events()});
    return check_invariants(nodes);
}

std::span<const std::string_view> checked_invariants() {
    static constexpr std::array<std::string_view, 11> all{"I1", "I2", "I3",  "I4",  "I5",     "I6",
                                                          "I8", "I9", "I10", "I13", "honesty"};
    return all;
}

}  // namespace longhaul::sim

#include "sim/checkers.hpp"

#include <optional>
#include <tuple>

namespace longhaul::sim {

namespace {

template <typename T>
std::optional<T> field(const core::event& e, std::string_view name) {
    const auto* v = e.find(name);
    if (v == nullptr) return std::nullopt;
    const auto* t = std::get_if<T>(v);
    return t == nullptr ? std::nullopt : std::optional<T>(*t);
}

struct committed {
    std::string root;
    std::uint64_t merged = 0, tokens = 0;
    std::string first_seen_on;
};

}  // namespace

findings check_invariants(const world& w) {
    findings out;
    std::map<std::pair<std::uint64_t, std::uint64_t>, committed> rounds;
    for (const auto& n : w.nodes()) {
        std::optional<std::uint64_t> applied;
        for (const auto& [at, e] : n->events()) {
            if (e.name == "started") applied.reset();
            if (e.name == "catch_up") applied = field<std::uint64_t>(e, "round");
            if (e.name != "round_committed") continue;
            ++out.commits_seen;
            const auto generation = field<std::uint64_t>(e, "generation").value_or(0);
            const auto round = field<std::uint64_t>(e, "round").value_or(0);
            out.newest_round = std::max(out.newest_round, round);
            if (applied && round != *applied + 1) {
                out.broken.push_back(fmt::format("I2: {} applied round {} after round {}", n->name(), round, *applied));
            }
            applied = round;
            committed now{field<std::string>(e, "root").value_or(""), field<std::uint64_t>(e, "merged").value_or(0),
                          field<std::uint64_t>(e, "tokens").value_or(0), n->name()};
            const auto [it, first] = rounds.try_emplace({generation, round}, now);
            if (first) continue;
            const auto& then = it->second;
            if (then.root != now.root) {
                out.broken.push_back(fmt::format("I3: round {} has root {} on {} and {} on {}", round, then.root,
                                                 then.first_seen_on, now.root, n->name()));
            }
            if (then.merged != now.merged || then.tokens != now.tokens) {
                out.broken.push_back(
                    fmt::format("I4/I6: round {} merged {} payloads and {} tokens on {}, {} and {} on {}", round,
                                then.merged, then.tokens, then.first_seen_on, now.merged, now.tokens, n->name()));
            }
        }
    }
    return out;
}

}  // namespace longhaul::sim

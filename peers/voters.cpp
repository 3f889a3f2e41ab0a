#include "peers/voters.hpp"

#include <algorithm>

namespace longhaul::peers {

using kind = raft::change::kind;

std::size_t voters_wanted(std::size_t eligible) { return eligible >= 5 ? 5 : eligible >= 3 ? 3 : 1; }

std::optional<raft::change> next_voter_change(const raft::configuration& now,
                                              const std::vector<voter_candidate>& candidates,
                                              const raft::voter_id& self) {
    const auto find = [&](const raft::voter_id& who) {
        return std::ranges::find(candidates, who, &voter_candidate::key);
    };
    const auto gone = [&](const raft::voter_id& who) {
        const auto c = find(who);
        return who != self && (c == candidates.end() || c->gone);
    };
    const auto eligible = static_cast<std::size_t>(
        std::ranges::count_if(candidates, [&](const auto& c) { return c.key == self || !c.gone; }));
    const auto wanted = voters_wanted(eligible);
    const auto dead = std::ranges::find_if(now.voters, gone);
    const auto alive = static_cast<std::size_t>(std::ranges::count_if(now.voters, [&](auto& v) { return !gone(v); }));

    if (const auto useless = std::ranges::find_if(now.learners, gone); useless != now.learners.end()) {
        return raft::change{kind::remove, {*useless}};
    }
    const auto following = alive + now.learners.size();
    if (alive < wanted) {
        const auto next =
            std::ranges::find_if(candidates, [&](const auto& c) { return c.linked && !c.gone && !now.has(c.key); });
        if (following < wanted && next != candidates.end()) return raft::change{kind::add_learner, {next->key}};
        // Others may be here and of no use for long: as many as follow vote, if that makes a better number.
        const auto reached = std::min(wanted, voters_wanted(following));
        if (alive < reached) {
            // From one voter to three in one change: two survive no death at all.
            const auto together = std::ptrdiff_t(now.decides_alone(self) ? reached - 1 : 1);
            return raft::change{kind::promote, {now.learners.begin(), now.learners.begin() + together}};
        }
    }
    // While nobody can take its place, a dead voter that comes back is worth more than its seat: of an even number one
    // less needs fewer votes, of an odd one as many.
    const bool replaced = alive >= wanted || now.voters.size() % 2 == 0;
    if (dead != now.voters.end() && replaced) return raft::change{kind::remove, {*dead}};
    if (alive < wanted) return std::nullopt;
    if (alive > wanted) {
        // The last in the order of choice goes first.
        for (auto c = candidates.rbegin(); c != candidates.rend(); ++c) {
            if (c->key != self && now.votes(c->key)) return raft::change{kind::remove, {c->key}};
        }
    }
    if (!now.learners.empty()) return raft::change{kind::remove, {now.learners.front()}};
    return std::nullopt;
}

}  // namespace longhaul::peers

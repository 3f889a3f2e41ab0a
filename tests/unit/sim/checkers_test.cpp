#include "sim/checkers.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;

namespace {

using events = std::deque<sim::seen_event>;

core::event committed(std::uint64_t round, const std::string& root, std::uint64_t generation = 1) {
    core::event e("round_committed");
    e.with("generation", generation).with("round", round).with("attempt", std::uint64_t{1}).with("root", root);
    e.with("merged", std::uint64_t{1}).with("tokens", std::uint64_t{0}).with("own_merged", false);
    return e;
}

core::event starting(const std::string& key) {
    core::event e("starting");
    e.with("key", key);
    return e;
}

core::event of_peer(const char* what, const std::string& key) {
    core::event e(what);
    e.with("peer", key);
    return e;
}

/// The rules that these histories break.
std::vector<std::string> broken(std::initializer_list<const events*> of) {
    std::vector<sim::node_history> nodes;
    for (const auto* e : of) nodes.push_back({fmt::format("n{}", nodes.size()), e});
    std::vector<std::string> rules;
    for (const auto& [rule, sentence] : sim::check_invariants(nodes).first) rules.push_back(rule);
    return rules;
}

using rules = std::vector<std::string>;

}  // namespace

TEST_CASE("what must not differ between nodes is found where it does") {
    const events a{{1s, starting("a")}, {2s, committed(1, "x")}, {3s, committed(2, "y")}};
    CHECK(broken({&a, &a}).empty());
    events b = a;
    b[2].event = committed(2, "z");
    CHECK(broken({&a, &b}) == rules{"I3"});
    b[2].event = committed(3, "z");
    CHECK(broken({&a, &b}) == rules{"I2"});
    for (const auto& [rule, key, value] :
         {std::tuple("I1", "attempt", 2), std::tuple("I4", "merged", 2), std::tuple("I6", "tokens", 5)}) {
        core::event e("round_committed");
        e.with("generation", std::uint64_t{1}).with("round", std::uint64_t{2}).with("root", std::string("y"));
        for (const auto* name : {"attempt", "merged", "tokens"}) {
            const std::uint64_t usual = std::string_view(name) == "tokens" ? 0 : 1;
            e.with(name, name == std::string_view(key) ? static_cast<std::uint64_t>(value) : usual);
        }
        b[2].event = e;
        CHECK(broken({&a, &b}) == rules{rule});
    }
}

TEST_CASE("I9: a round is taken back only when nobody who is there has it") {
    core::event back("generation");
    back.with("generation", std::uint64_t{2}).with("parent", std::uint64_t{1});
    back.with("round", std::uint64_t{1}).with("lost_rounds", std::uint64_t{1});
    const events coordinator{{1s, starting("a")}, {2s, committed(1, "x")}, {3s, of_peer("peer_up", "b")}, {60s, back}};
    events holder{{1s, starting("b")}, {2s, committed(1, "x")}, {9s, committed(2, "y")}, {70s, core::event("link")}};
    CHECK(broken({&coordinator, &holder}) == rules{"I9"});
    // It does not reach who takes the round back.
    auto alone = coordinator;
    alone.insert(alone.end() - 1, {50s, of_peer("link_lost", "b")});
    CHECK(broken({&alone, &holder}).empty());
    // It had died, and came back with less.
    auto died = holder;
    died.insert(died.end() - 1, {20s, starting("b")});
    CHECK(broken({&coordinator, &died}).empty());
    // It died, and nobody knew.
    holder.pop_back();
    CHECK(broken({&coordinator, &holder}).empty());
}

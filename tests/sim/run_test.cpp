/// Whole runs in virtual time: the peer code of production over simulated links, with kills and joins.

#include <algorithm>

#include "tests/sim/swarm.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::sim::testing;
using namespace std::chrono_literals;

namespace {

struct outcome {
    core::digest trace;
    std::string problem;
    core::duration took{};
};

/// 16 peers: one joins late, one is killed in the middle.
outcome sixteen_peers(std::uint64_t seed, std::int64_t rounds) {
    swarm s;
    sim::world w(seed);
    for (int i = 0; i < 16; ++i) {
        w.add_node(fmt::format("n{:02}", i), {.up = {50e6}, .down = {100e6}});
    }
    w.set_default_path({.delay = 20ms});
    w["n00"].start(s.main_of("n00", quadratic_run(rounds, 15)));
    for (int i = 1; i < 15; ++i) {
        const auto name = fmt::format("n{:02}", i);
        w.at(1s + i * 10ms, [&w, &s, name] { w[name].start(s.main_of(name, std::nullopt)); });
    }
    const auto at_round = [&](std::uint64_t r) {
        return w.run_while([&w, r] { return newest_round(w["n00"]) < r; }, 1h);
    };
    outcome out;
    if (!at_round(static_cast<std::uint64_t>(rounds) / 4)) {
        out.problem = "the first quarter was not reached\n" + w.report();
        return out;
    }
    w["n15"].start(s.main_of("n15", std::nullopt));
    if (!at_round(static_cast<std::uint64_t>(rounds) / 2)) {
        out.problem = "the kill was not reached\n" + w.report();
        return out;
    }
    w["n07"].kill();
    const auto running = [&w] {
        for (const auto& n : w.nodes()) {
            if (n->running()) return true;
        }
        return false;
    };
    if (w.run_while(running, 1h) == false) out.problem = "the run did not end\n" + w.report();
    for (const auto& n : w.nodes()) {
        if (n->name() == "n07") continue;
        if (!n->outcome() || !*n->outcome()) {
            out.problem +=
                fmt::format("{} ended with: {}\n", n->name(), n->outcome() ? n->outcome()->error().message : "nothing");
        }
        if (newest_round(*n) != static_cast<std::uint64_t>(rounds)) {
            out.problem += fmt::format("{} ended at round {}\n", n->name(), newest_round(*n));
        }
    }
    // It takes part from the round after the one in flight when it had caught up.
    std::size_t merged = 0;
    for (const auto& [at, e] : w["n15"].events()) {
        if (e.name == "round_committed" && std::get<bool>(*e.find("own_merged"))) ++merged;
    }
    if (merged < static_cast<std::size_t>(rounds) * 3 / 4 - 6) {
        out.problem += fmt::format("the late joiner was merged in {} rounds only\n", merged);
    }
    if (!out.problem.empty()) out.problem += errors_of(w["n00"]) + errors_of(w["n15"]);
    for (const auto& sentence : sim::check_invariants(w).broken) out.problem += sentence + "\n";
    out.trace = w.trace_hash();
    out.took = w.now();
    return out;
}

}  // namespace

TEST_CASE("two peers train a quadratic to its end, with equal roots", "[sim]") {
    swarm s;
    sim::world w(1);
    w.add_node("a");
    w.add_node("b");
    w.set_delay("a", "b", 20ms);
    w["a"].start(s.main_of("a", quadratic_run(10, 2)));
    w.at(1s, [&] { w["b"].start(s.main_of("b", std::nullopt)); });
    const auto running = [&w] { return w["a"].running() || w["b"].running() || w.now() < 2s; };
    const bool ended = w.run_while(running, 10min);
    INFO(w.report());
    REQUIRE(ended);
    for (const auto* name : {"a", "b"}) {
        INFO(name);
        REQUIRE(w[name].outcome().has_value());
        if (!*w[name].outcome()) FAIL(w[name].outcome()->error().message);
        CHECK(newest_round(w[name]) == 10);
    }
    CHECK(sim::check_invariants(w).broken.empty());
}

TEST_CASE("once three take part, every node shows three that take part, between two rounds too", "[sim]") {
    small_run r(5);
    r.start(quadratic_run(12, 3), 3, usual_line);
    REQUIRE(r.until_round(2));
    REQUIRE(r.w.run_while(
        [&r] {
            for (const auto& [name, p] : r.s.alive) {
                if (p->status().participating != 3) return false;
            }
            return newest_round(r.w["n0"]) < 11;
        },
        1h));
    CHECK(newest_round(r.w["n0"]) == 11);
    const auto problem = r.finish(12, "");
    INFO(problem);
    CHECK(problem.empty());
}

TEST_CASE("a joiner whose program builds another model is told the first tensor that differs", "[sim]") {
    swarm s;
    s.other_widths["b"] = 65;
    sim::world w(1);
    w.add_node("a");
    w.add_node("b");
    w.set_delay("a", "b", 20ms);
    w["a"].start(s.main_of("a", quadratic_run(1000, 1)));
    w.at(1s, [&] { w["b"].start(s.main_of("b", std::nullopt)); });
    REQUIRE(w.run_while([&w] { return w.now() < 2s || w["b"].running(); }, 1min));
    REQUIRE(w["b"].outcome().has_value());
    REQUIRE_FALSE(*w["b"].outcome());
    const auto& refused = w["b"].outcome()->error();
    CHECK(refused.code == core::errc::run_mismatch);
    const auto layout = [](std::int64_t width) {
        optim::trainer_options t;
        t.model = quadratic_run(1, 1).model;
        t.model.width = width;
        return (*optim::make_quadratic_trainer(t))->manifest();
    };
    const auto difference = layout(65).first_difference(layout(64));
    REQUIRE(difference.find("64") != std::string::npos);
    CHECK(refused.message == "this node's model differs from the run's: " + difference);
    // Nobody was admitted, and the run goes on.
    for (const auto& [at, e] : w["a"].events()) CHECK(e.name != "joined");
    CHECK(w["a"].running());
}

TEST_CASE(
    "sixteen peers, one joins late and one is killed: every round commits, and the same seed gives the same trace",
    "[sim]") {
    const auto first = sixteen_peers(7, 80);
    INFO(first.problem);
    REQUIRE(first.problem.empty());
    const auto second = sixteen_peers(7, 80);
    CHECK(first.trace == second.trace);
    CHECK(first.took == second.took);
}

namespace {

std::uint64_t most_relays(const sim::node& n) {
    std::uint64_t most = 0;
    for (const auto& [at, e] : n.events()) {
        if (e.name == "plan") most = std::max(most, std::get<std::uint64_t>(*e.find("relays")));
    }
    return most;
}

/// What a node last learned of its own reach.
std::optional<std::pair<bool, std::string>> last_reach(const sim::node& n) {
    for (auto it = n.events().rbegin(); it != n.events().rend(); ++it) {
        if (it->event.name != "reach") continue;
        return std::pair(std::get<bool>(*it->event.find("reachable")),
                         std::get<std::string>(*it->event.find("reason")));
    }
    return std::nullopt;
}

}  // namespace

TEST_CASE("everybody dies before the first checkpoint is due: the run goes on", "[sim]") {
    small_run r(6);
    r.start(quadratic_run(12, 3), 3, usual_line);  // a checkpoint every 20 rounds
    REQUIRE(r.until_ordered_by(3));
    REQUIRE(r.until_round(3));
    for (const auto* name : {"n0", "n1", "n2"}) r.w[name].kill();
    r.w.run_for(1s);
    for (const auto* name : {"n0", "n1", "n2"}) r.w[name].restart();
    const auto problem = r.finish(12, "");
    INFO(problem);
    CHECK(problem.empty());
}

TEST_CASE("who is slow does fewer inner steps, so that nobody waits, and gives less weight", "[sim]") {
    const auto play = [](const std::string& pace) {
        auto c = quadratic_run(12, 3);
        c.inner.steps = 12;
        c.peers.pace = pace;
        small_run r(4);
        r.s.step_times = {{"n0", 50ms}, {"n1", 50ms}, {"n2", 150ms}};
        r.start(c, 3, usual_line);
        const auto problem = r.finish(12, "");
        INFO(problem);
        REQUIRE(problem.empty());
        double seconds = 0;
        std::uint64_t steps = 0;
        for (const auto& [at, e] : r.w["n0"].events()) {
            if (e.name == "round_committed") seconds = std::get<double>(*e.find("seconds"));
        }
        for (const auto& [at, e] : r.w["n2"].events()) {
            if (e.name == "inner") steps = std::get<std::uint64_t>(*e.find("steps"));
        }
        return std::pair(seconds, steps);
    };
    // 12 steps of 50 ms are 0.6 s, and of 150 ms 1.8 s.
    const auto equal = play("equal"), own = play("own");
    CHECK(equal.second == 12);
    CHECK(equal.first > 1.8);
    CHECK(own.second == 4);
    CHECK(own.first < 0.9);
}

TEST_CASE("in mode shard a peer, mostly an owner, is killed at any moment: the run goes on with equal roots", "[sim]") {
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
        INFO("seed " << seed);
        auto c = quadratic_run(20, 5);
        c.model.width = 70'000;
        c.exchange.mode = "shard";
        small_run r(seed);
        r.start(c, 5, usual_line);
        REQUIRE(r.until_ordered_by(3));
        core::seeded_entropy random(seed);
        r.w.run_for(core::from_seconds(random.unit() * 0.3));
        const auto dead = fmt::format("n{}", 1 + random.below(4));
        r.w[dead].kill();
        const auto problem = r.finish(20, dead);
        INFO(problem);
        CHECK(problem.empty());
    }
}

TEST_CASE("two peers that cannot be dialled take part, through one that can", "[sim]") {
    auto c = quadratic_run(6, 3);
    c.model.width = 70'000;
    small_run r(3);
    r.start(c, 3, [](int i) {
        auto o = usual_line(i);
        o.reachable = i == 0;
        return o;
    });
    const auto problem = r.finish(6, "");
    INFO(problem);
    CHECK(problem.empty());
    CHECK(most_relays(r.w["n0"]) >= 2);
    for (const auto* name : {"n1", "n2"}) {
        std::size_t merged = 0;
        for (const auto& [at, e] : r.w[name].events()) {
            if (e.name == "round_committed" && std::get<bool>(*e.find("own_merged"))) ++merged;
        }
        CHECK(merged == 6);
    }
}

TEST_CASE("members are asked to connect back, and each node says whether anybody could", "[sim]") {
    small_run r(4);
    r.start(quadratic_run(1'000'000, 3), 3, [](int i) {
        auto o = usual_line(i);
        o.reachable = i == 0;
        return o;
    });
    // Whoever connects back to them gives up after ten seconds.
    r.w.run_until(15s);
    for (const auto& [name, reachable] : {std::pair("n0", true), {"n1", false}, {"n2", false}}) {
        INFO(name);
        const auto v = last_reach(r.w[name]);
        REQUIRE(v);
        CHECK(v->first == reachable);
        const auto why =
            fmt::format("nobody could connect to you from outside: n0 tried (nobody answered at {}:7400 ", name);
        CHECK(v->second.starts_with(why) == !reachable);
    }
}

namespace {

/// Three peers, eight rounds: the founder's line is so slow for a while that a round goes on without its payload.
void miss_a_deadline(small_run& r, const peers::run_config& c) {
    r.start(c, 3, usual_line);
    REQUIRE(r.until_round(2));
    r.w["n0"].set_rates({20e3}, {100e6});
    // First another member sums what the founder could not bring to the others.
    const auto missed = [&r] {
        for (const auto& [at, e] : r.w["n0"].events()) {
            if (e.name != "attempt_failed") continue;
            if (std::get<std::string>(*e.find("reason")).find("deadline passed") != std::string::npos) return true;
        }
        return false;
    };
    REQUIRE(r.w.run_while([&] { return !missed(); }, 30min));
    r.w["n0"].set_rates({50e6}, {100e6});
    const auto problem = r.finish(8, "");
    INFO(problem);
    CHECK(problem.empty());
}

}  // namespace

TEST_CASE("what the founder could not deliver in one round is applied once, in a later one", "[sim]") {
    auto c = quadratic_run(8, 3);
    c.model.width = 70'000;
    small_run r(5);
    miss_a_deadline(r, c);
    std::uint64_t made = 0, missed = 0;
    std::map<std::string, std::uint64_t> applied;
    for (const auto& n : r.w.nodes()) {
        for (const auto& [at, e] : n->events()) {
            if (e.name == "inner") made += std::get<std::uint64_t>(*e.find("tokens"));
            if (e.name != "round_committed") continue;
            applied[n->name()] = std::get<std::uint64_t>(*e.find("tokens"));
            if (n->name() == "n0" && !std::get<bool>(*e.find("own_merged"))) ++missed;
        }
    }
    CHECK(missed >= 1);
    REQUIRE(made > 0);
    for (const auto& [name, tokens] : applied) {
        INFO(name);
        CHECK(tokens == made);
    }
}

namespace {

struct way_seen {
    std::string mode;
    double owned = 0, predicted = 0;
    std::string reason;
};
/// What the latest plan gives that node to do.
way_seen last_way(const sim::node& n) {
    for (auto it = n.events().rbegin(); it != n.events().rend(); ++it) {
        const auto& e = it->event;
        if (e.name != "plan") continue;
        return {std::get<std::string>(*e.find("mode")), std::get<double>(*e.find("owned")),
                std::get<double>(*e.find("predicted_seconds")), std::get<std::string>(*e.find("reason"))};
    }
    return {};
}

/// A quadratic whose pseudo-gradients are a matrix, in a codec that loses most of them.
peers::run_config coarse_run(const char* codec, std::int64_t rounds, std::int64_t members) {
    auto c = quadratic_run(rounds, members);
    c.model.width = 8192;
    c.inner.weight_decay = 0;
    c.outer.optimizer = "sgd";
    c.outer.lr = 1.0;
    c.exchange.codec = codec;
    c.exchange.feedback = "ef";
    c.exchange.beta = 0.95;
    return c;
}

std::vector<double> losses_of(const sim::node& n) {
    std::vector<double> out;
    for (const auto& [at, e] : n.events()) {
        if (e.name == "eval") out.push_back(std::get<double>(*e.find("loss")));
    }
    return out;
}

}  // namespace

TEST_CASE("a line that becomes slow in the middle of an exchange, and fast again: nobody dies, and the plan follows",
          "[sim]") {
    auto c = quadratic_run(12, 4);
    c.model.width = 400'000;
    c.eval.every = 0;
    small_run r(9);
    r.start(c, 4, [](int) {
        sim::node_options o;
        o.up = o.down = {200e6};
        return o;
    });
    auto& slow = r.w["n3"];
    constexpr double payload = 2 * 400'000;  // bf16
    const auto half_a_payload_later = [&] {
        const auto enough = r.w.network().bytes_sent(3) + static_cast<std::uint64_t>(payload / 2);
        return r.w.run_while([&] { return r.w.network().bytes_sent(3) < enough; }, 1min);
    };
    const auto slow_knows_the_plan_after = [&](std::uint64_t round) {
        const auto committed = r.w.run_while([&] { return newest_round(slow) < round; }, 1h);
        r.w.run_for(50ms);
        return committed;
    };
    REQUIRE(slow_knows_the_plan_after(3));
    const auto before = last_way(slow);
    CHECK(before.mode == "shard");
    CHECK(before.owned > 0.15);
    REQUIRE(half_a_payload_later());
    r.w.network().set_trace_factor(3, 5.0 / 200);
    // The exchange in which it falls began fast; the first whole one on the slow line tells the next round, or, if that
    // was opened before it was told, the one after.
    REQUIRE(slow_knows_the_plan_after(6));
    const auto fallen = last_way(slow);
    INFO(fallen.reason);
    CHECK(fallen.owned == 0);
    const double once = payload * 8 / 5e6;
    CHECK(fallen.predicted > 0.97 * once);  // measured over two seconds, in which bytes come in clumps
    CHECK(fallen.predicted < 4 * once);
    REQUIRE(half_a_payload_later());
    r.w.network().set_trace_factor(3, 1);
    // One exchange at its old speed, and it is an owner again.
    REQUIRE(slow_knows_the_plan_after(9));
    const auto again = last_way(slow);
    INFO(again.reason);
    CHECK(again.mode == "shard");
    CHECK(again.owned > 0);
    CHECK(again.predicted < 2 * before.predicted);
    // What was left of that exchange did not fill the line; the next one does.
    REQUIRE(slow_knows_the_plan_after(10));
    INFO(last_way(slow).reason);
    CHECK(last_way(slow).owned > 0.1);
    const auto problem = r.finish(12, "");
    INFO(problem);
    CHECK(problem.empty());
    for (const auto& n : r.w.nodes()) {
        INFO(n->name());
        CHECK(n->count_events("peer_down") == 0);
    }
}

namespace {

/// Forty rounds of which the tenth loses n2: the others' loss falls.
void check_training_through_a_death(small_run& r) {
    REQUIRE(r.until_round(9));
    r.w["n2"].kill();
    const auto problem = r.finish(40, "n2");
    INFO(problem);
    CHECK(problem.empty());
    const auto losses = losses_of(r.w["n0"]);
    REQUIRE(losses.size() >= 3);
    CHECK(losses.back() < 0.95 * losses.front());
}

}  // namespace

TEST_CASE("with feedback the coarse codecs train, while a peer is killed: residuals move with accepted payloads alone",
          "[sim]") {
    for (const auto* codec : {"topk-64/4096", "topk-4/64", "sign2", "sign1"}) {
        INFO(codec);
        small_run r(3);
        r.start(coarse_run(codec, 40, 4), 4, usual_line);
        check_training_through_a_death(r);
        // What stays behind is told, and it is not all that was made.
        for (const auto* name : {"n0", "n1", "n3"}) {
            const auto& last = *std::ranges::find_if(r.w[name].events().rbegin(), r.w[name].events().rend(),
                                                     [](const auto& e) { return e.event.name == "round_committed"; });
            const auto of = [&last](const char* what) { return std::get<double>(*last.event.find(what)); };
            CHECK(of("mass_sent") != 0);
            CHECK(of("mass_residual") != 0);
            CHECK(of("mass_lost") != 0);
            CHECK(of("mass_rounding") < 1);
        }
    }
}

TEST_CASE("EF21 and EControl train through the outer heavy ball, while a peer is killed", "[sim]") {
    for (const auto* feedback : {"ef21", "econtrol"}) {
        INFO(feedback);
        auto c = coarse_run("topk-4/64", 40, 4);
        c.outer.momentum = 0.9;
        c.exchange.feedback = feedback;
        c.exchange.gain = 0.1;
        small_run r(3);
        r.start(c, 4, usual_line);
        check_training_through_a_death(r);
    }
}

TEST_CASE("what receivers hold of a peer is in its checkpoints, and a run of EF21 goes on from them", "[sim]") {
    for (const auto* feedback : {"ef21", "econtrol"}) {
        INFO(feedback);
        auto c = coarse_run("topk-4/64", 20, 3);
        c.outer.momentum = 0.9;
        c.exchange.feedback = feedback;
        c.checkpoint.every = 1;
        small_run r(5);
        r.start(c, 3, usual_line);
        REQUIRE(r.until_round(8));
        for (const auto* name : {"n0", "n1", "n2"}) {
            r.w[name].kill();
            const auto& files = r.w[name].disk().files();
            CHECK(std::ranges::any_of(files, [](const auto& f) { return f.first.ends_with("/said.safetensors"); }));
        }
        r.w.run_for(1s);
        for (const auto* name : {"n0", "n1", "n2"}) r.w[name].restart();
        const auto problem = r.finish(20, "");
        INFO(problem);
        CHECK(problem.empty());
    }
}

TEST_CASE("with feedback a payload that no round took comes whole, with a later one", "[sim]") {
    auto c = coarse_run("topk-64/4096", 8, 3);
    c.model.width = 65'536;
    c.exchange.codec = "int8";  // large enough to miss a deadline
    small_run r(5);
    miss_a_deadline(r, c);
    std::uint64_t made = 0, missed = 0, counted = 0;
    for (const auto& n : r.w.nodes()) {
        for (const auto& [at, e] : n->events()) {
            if (e.name == "inner") made += std::get<std::uint64_t>(*e.find("tokens"));
            if (e.name != "round_committed") continue;
            counted = std::get<std::uint64_t>(*e.find("tokens"));
            if (n->name() == "n0" && !std::get<bool>(*e.find("own_merged"))) ++missed;
        }
    }
    CHECK(missed >= 1);
    CHECK(counted == made);
}

TEST_CASE("an owner with little memory takes part with a window, and a death repeats the exchange", "[sim]") {
    for (std::uint64_t seed = 1; seed <= 2; ++seed) {
        INFO("seed " << seed);
        constexpr std::uint64_t elements = 400'000;
        auto c = quadratic_run(7, 4);
        c.model.width = elements;
        c.eval.every = 0;
        c.exchange.codec = "f32";
        small_run r(seed);
        // Room for the sums and a window a sender, and not for a quarter of all payloads.
        r.s.memory["n1"] = 128 * elements + 1'700'000;
        r.start(c, 4, usual_line);
        REQUIRE(r.until_round(3));
        std::string reason;
        for (const auto& [at, e] : r.w["n0"].events()) {
            if (e.name != "plan") continue;
            CHECK(std::get<std::string>(*e.find("mode")) == "shard");
            reason = std::get<std::string>(*e.find("reason"));
        }
        CHECK(reason.find("a window of chunks a sender at peer 2 of ") != std::string::npos);
        core::seeded_entropy random(seed);
        r.w.run_for(core::from_seconds(random.unit()));
        const auto dead = fmt::format("n{}", 1 + random.below(3));
        r.w[dead].kill();
        const auto problem = r.finish(7, dead);
        INFO(problem);
        CHECK(problem.empty());
    }
}

TEST_CASE("who joins goes by the run's silence limit from then on, also over the link by which it learnt it", "[sim]") {
    auto c = quadratic_run(200, 3);
    c.peers.silence_limit = 2s;
    small_run r(9);
    r.s.step_time = 100ms;
    r.start(c, 3, usual_line);
    REQUIRE(r.until_round(3));
    r.w.cut({"n1"}, {"n0", "n2"});
    const auto cut_at = r.w.now();
    const auto lost = [&r] { return r.w["n1"].count_events("link_lost") >= 2; };
    REQUIRE(r.w.run_while([&] { return !lost(); }, 1min));
    CHECK(r.w.now() - cut_at < 3s);
    r.w.heal();
    // And those who were cut off are dialled at once when one of them is here again.
    const auto healed_at = r.w.now();
    const auto up = r.w["n1"].count_events("peer_up");
    REQUIRE(r.w.run_while([&] { return r.w["n1"].count_events("peer_up") < up + 2; }, 1min));
    CHECK(r.w.now() - healed_at < 4s);
}

/// Who coordinates dies, stops or is cut off, at any instant of a round: the others go on, nobody forks, and it comes
/// back as a follower.

#include <cstdlib>

#include "core/entropy.hpp"
#include "tests/sim/swarm.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::sim::testing;
using namespace std::chrono_literals;

namespace {

/// When faults cease, a round commits within so much (I12): an election after silence, one redial, and a round.
constexpr auto soon = 20s;

/// Rounds of about a second among peers on slow lines, whose exchange takes a tenth of it.
struct failover {
    swarm s;
    sim::world w;
    std::int64_t rounds;
    std::vector<std::string> elected;  ///< who took office, in order

    failover(std::uint64_t seed, std::int64_t count, std::int64_t rounds_in_all) : w(seed), rounds(rounds_in_all) {
        s.step_time = 80ms;
        auto c = quadratic_run(rounds, count);
        c.model.width = 4'000;
        for (int i = 0; i < count; ++i) add(fmt::format("n{}", i));
        w.set_default_path({.delay = 15ms});
        w["n0"].start(s.main_of("n0", c));
        for (int i = 1; i < count; ++i) {
            const auto name = fmt::format("n{}", i);
            w.at(1s + i * 10ms, [this, name] { w[name].start(s.main_of(name, std::nullopt)); });
        }
    }
    void add(const std::string& name) {
        w.add_node(name, {.up = {2.5e6}, .down = {5e6}}).on_event([this, name](const core::event& e) {
            if (e.name == "coordinator" && std::get<bool>(*e.find("self"))) elected.push_back(name);
        });
    }
    std::string coordinator() const { return elected.empty() ? std::string() : elected.back(); }
    bool works(const sim::node& n) const { return n.running() && !n.paused(); }
    /// Of all nodes that run.
    std::uint64_t newest() const {
        std::uint64_t most = 0;
        for (const auto& n : w.nodes()) most = std::max(most, newest_round(*n));
        return most;
    }
    std::uint64_t oldest() const {
        std::uint64_t least = ~std::uint64_t{0};
        for (const auto& n : w.nodes()) {
            if (works(*n)) least = std::min(least, newest_round(*n));
        }
        return least;
    }
    bool until(const std::function<bool()>& condition, core::duration limit) {
        return w.run_while([&condition] { return !condition(); }, limit);
    }
    /// Everybody who works commits so many rounds more.
    bool goes_on(std::uint64_t more = 2, core::duration limit = soon) {
        const auto goal = newest() + more;
        return until([this, goal] { return oldest() >= goal; }, limit);
    }
    /// The first rounds, until those who order records are chosen.
    bool begin() {
        return until([this] { return oldest() >= 2 && w.now() > 10s; }, 2min);
    }
    /// To the end of the run, which everybody who works sees; then what is wrong, if anything.
    std::string finish() {
        const auto ended = [this] {
            return std::ranges::none_of(w.nodes(), [](const auto& n) { return n->running(); });
        };
        std::string problem;
        if (!until(ended, 20min)) problem = "the run did not end\n";
        for (const auto& n : w.nodes()) {
            const auto& end = n->outcome();
            const bool killed = end && !*end && end->error().code == core::errc::cancelled;
            const bool saw_the_end = end && *end && newest_round(*n) == static_cast<std::uint64_t>(rounds);
            if (killed || saw_the_end) continue;
            const std::string how = !end ? "runs" : *end ? "ended" : "failed: " + end->error().message;
            problem += fmt::format("{} {}, its last round is {}\n{}", n->name(), how, newest_round(*n), errors_of(*n));
        }
        for (const auto& sentence : sim::check_invariants(w).broken) problem += sentence + "\n";
        return problem;
    }
};

struct outcome {
    core::digest trace;
    std::string problem;

    /// Of a run that has ended.
    void conclude(failover& f) {
        problem += f.finish();
        if (!problem.empty()) problem += story(f.w);
        trace = f.w.trace_hash();
    }
};

/// The states of a round in which its coordinator may be struck.
enum class moment { committed, opened, training, encoding, exchanging, ready, any };
constexpr std::array moments = {moment::committed,  moment::opened, moment::training, moment::encoding,
                                moment::exchanging, moment::ready,  moment::any};

/// Strikes the coordinator at that moment of one of the next rounds.
bool strike(failover& f, moment when, core::entropy& random, const std::function<void(sim::node&)>& how) {
    auto& victim = f.w[f.coordinator()];
    bool struck = false;
    const auto now = [&] {
        if (struck) return;
        struck = true;
        how(victim);
    };
    // The listener stays with the node, but it strikes once.
    victim.on_event([&f, when, armed = true, now](const core::event& e) mutable {
        if (!armed) return;
        if (e.name == "round_committed" && when == moment::committed) {
            armed = false;
            now();
        } else if (e.name == "round_committed" && when == moment::opened) {
            armed = false;
            f.w.after(16ms, now);  // ROUND is at the voters, its acknowledgement under way
        } else if (e.name == "inner" && when == moment::encoding) {
            armed = false;
            now();
        }
    });
    const auto state = [&f, &victim] {
        const auto it = f.s.alive.find(victim.name());
        return it == f.s.alive.end() ? std::string() : it->second->status().state;
    };
    const auto becomes = [&](std::string_view what) {
        return f.until([&] { return state() != what; }, 10s) && f.until([&] { return state() == what; }, 10s);
    };
    switch (when) {
        case moment::training:
            if (!becomes("training")) return false;
            f.w.run_for(core::from_seconds(0.5 * random.unit()));
            now();
            break;
        case moment::exchanging:
            if (!becomes("exchanging")) return false;
            f.w.run_for(core::from_seconds(0.06 * random.unit()));
            now();
            break;
        case moment::ready:
            if (!becomes("waiting")) return false;
            now();
            break;
        case moment::any:
            f.w.run_for(core::from_seconds(2 * random.unit()));
            now();
            break;
        default:
            if (!f.until([&struck] { return struck; }, 10s)) return false;
    }
    return struck;
}

outcome killed(std::uint64_t seed, moment when) {
    failover f(seed, 5, 30);
    core::seeded_entropy random(seed);
    outcome out;
    if (!f.begin()) out.problem = "the run did not begin\n";
    const auto victim = f.coordinator();
    if (!strike(f, when, random, [](sim::node& n) { n.kill(); })) out.problem += "nothing was struck\n";
    const auto died = f.w.now();
    if (!f.until([&f, &victim] { return f.coordinator() != victim; }, 2s)) out.problem += "nobody took office in 2 s\n";
    if (!f.goes_on()) out.problem += "no round committed without it\n";
    f.w.run_until(died + 3s + core::from_seconds(8 * random.unit()));
    f.w[victim].restart();
    if (!f.until([&] { return newest_round(f.w[victim]) + 1 >= f.newest(); }, soon)) out.problem += "it stays behind\n";
    out.conclude(f);
    return out;
}

/// Each seed twice: an honest simulation repeats itself. FAILOVER_SEED=N plays only that one.
template <typename Play>
void play_twice(std::uint64_t seed, const Play& play) {
    if (const char* only = std::getenv("FAILOVER_SEED"); only != nullptr && std::strtoull(only, nullptr, 10) != seed)
        return;
    const outcome first = play();
    INFO(first.problem);
    REQUIRE(first.problem.empty());
    const outcome second = play();
    CHECK(second.trace == first.trace);
}

}  // namespace

TEST_CASE("the coordinator is killed in each state of a round: the others go on, and it comes back", "[sim]") {
    std::uint64_t seed = 0;
    for (const auto when : moments) {
        ++seed;
        INFO("seed " << seed << ", moment " << static_cast<int>(when));
        play_twice(seed, [&] { return killed(seed, when); });
    }
}

TEST_CASE("the coordinator stands still for a while: the others go on, and it wakes as a follower", "[sim]") {
    const auto stopped = [](std::uint64_t seed, moment when, core::duration pause) {
        failover f(seed, 5, 45);
        core::seeded_entropy random(seed);
        outcome out;
        if (!f.begin()) out.problem = "the run did not begin\n";
        const auto victim = f.coordinator();
        if (!strike(f, when, random, [](sim::node& n) { n.pause(); })) out.problem += "nothing was struck\n";
        const auto stood = f.w.now();
        if (pause > 5s) {
            if (!f.until([&] { return f.coordinator() != victim; }, 5s))
                out.problem += "nobody else took office in 5 s\n";
            if (!f.goes_on()) out.problem += "no round committed without it\n";
        }
        f.w.run_until(std::max(f.w.now(), stood + pause));
        f.w[victim].resume();
        if (!f.goes_on()) out.problem += "no round committed after it woke\n";
        if (pause > 5s && f.coordinator() == victim) out.problem += "it leads at once\n";
        out.conclude(f);
        return out;
    };
    std::uint64_t seed = 0;
    for (const auto when : {moment::opened, moment::exchanging, moment::any}) {
        for (const core::duration pause : {core::duration(900ms), core::duration(8s), core::duration(25s)}) {
            ++seed;
            INFO("seed " << seed << ", moment " << static_cast<int>(when) << ", " << core::format_duration(pause));
            play_twice(seed, [&] { return stopped(seed, when, pause); });
        }
    }
}

TEST_CASE("every coordinator is killed, one after another: five go on, and a newcomer joins by any of them", "[sim]") {
    const auto all_founders = [](std::uint64_t seed) {
        failover f(seed, 8, 100);
        core::seeded_entropy random(seed);
        outcome out;
        if (!f.begin()) out.problem = "the run did not begin\n";
        for (int i = 0; i < 3; ++i) {
            // The first to go is the founder, whose address was in every ticket.
            if (!strike(f, moment::any, random, [](sim::node& n) { n.kill(); })) out.problem += "nothing was struck\n";
            if (!f.goes_on()) out.problem += fmt::format("no round committed after death {}\n", i + 1);
            f.w.run_for(core::from_seconds(12 + 4 * random.unit()));
        }
        std::string survivor;
        for (const auto& n : f.w.nodes()) {
            if (n->running() && n->name() != f.coordinator()) survivor = n->name();
        }
        f.s.ticket = f.s.tickets.at(survivor);
        f.add("late");
        f.w["late"].start(f.s.main_of("late", std::nullopt));
        const auto merged = [&f] {
            return std::ranges::any_of(f.w["late"].events(), [](const auto& e) {
                return e.event.name == "round_committed" && std::get<bool>(*e.event.find("own_merged"));
            });
        };
        if (!f.until(merged, soon)) out.problem += "the newcomer was not merged\n" + errors_of(f.w["late"]);
        out.conclude(f);
        return out;
    };
    for (std::uint64_t seed = 1; seed <= 2; ++seed) {
        INFO("seed " << seed);
        play_twice(seed, [&] { return all_founders(seed); });
    }
}

TEST_CASE("a voter that lost its log does not vote again as itself: it comes back as a newcomer, who is welcome",
          "[sim]") {
    // What of its disk is gone: its log, all of it, or what it wrote since a copy was made.
    enum class loss { log, all, newest };
    const auto lost = [](std::uint64_t seed, loss what) {
        failover f(seed, 5, 60);
        outcome out;
        if (!f.begin()) out.problem = "the run did not begin\n";
        const auto victim = f.coordinator();
        auto& node = f.w[victim];
        const auto copy = node.disk().files();
        if (!f.goes_on(3)) out.problem += "no rounds before it died\n";
        node.kill();
        if (!f.goes_on()) out.problem += "no round committed without it\n";
        const auto files = node.disk().files();
        for (const auto& [path, content] : files) {
            const bool of_log = path.starts_with("raft/");
            if (what == loss::all || of_log) node.disk().erase(path);
        }
        if (what == loss::newest) {
            for (const auto& [path, content] : copy) {
                if (path.starts_with("raft/")) node.disk().write(path, content);
            }
        }
        if (what == loss::all) {
            // What it was is gone, that it founded the run too: it joins by a ticket.
            for (const auto& n : f.w.nodes()) {
                if (n->running()) f.s.ticket = f.s.tickets.at(n->name());
            }
            node.start(f.s.main_of(victim, std::nullopt));
        } else {
            node.restart();
        }
        if (what == loss::all) {
            const auto joined = [&] { return newest_round(node) + 1 >= f.newest() && node.running(); };
            if (!f.until(joined, soon)) out.problem += "without a disk it was not admitted anew\n";
        } else if (what == loss::log) {
            const auto another = [&] {
                return node.count_events("became_another") == 1 && newest_round(node) + 1 >= f.newest();
            };
            if (!f.until(another, soon)) out.problem += "without its log it did not come back as another node\n";
        }
        if (!f.goes_on()) out.problem += "no round committed when it was back\n";
        for (const auto& sentence : sim::check_invariants(f.w).broken) out.problem += sentence + "\n";
        if (!out.problem.empty()) out.problem += story(f.w);
        out.trace = f.w.trace_hash();
        return out;
    };
    std::uint64_t seed = 0;
    for (const auto what : {loss::log, loss::all, loss::newest}) {
        ++seed;
        INFO("seed " << seed << ", loss " << static_cast<int>(what));
        play_twice(seed, [&] { return lost(seed, what); });
    }
}

TEST_CASE("a minority with the coordinator is cut off: the majority goes on, nobody forks, and they meet again",
          "[sim]") {
    const auto split = [](std::uint64_t seed, bool one_way) {
        failover f(seed, 5, 60);
        core::seeded_entropy random(seed);
        outcome out;
        if (!f.begin()) out.problem = "the run did not begin\n";
        const auto lost = f.coordinator();
        std::vector<std::string> minority{lost}, majority;
        for (const auto& n : f.w.nodes()) {
            if (n->name() != lost) majority.push_back(n->name());
        }
        // With it goes one more, which may be one of those who order records.
        const auto other = majority.begin() + static_cast<std::ptrdiff_t>(random.below(majority.size()));
        const bool alone = random.below(2) == 0;
        if (!alone) {
            minority.push_back(*other);
            majority.erase(other);
        }
        f.w.run_for(core::from_seconds(2 * random.unit()));
        if (one_way) {
            f.w.cut_one_way(minority, majority);
        } else {
            f.w.cut(minority, majority);
        }
        const auto at_cut = f.newest();
        const auto went_on = [&] {
            return std::ranges::all_of(majority, [&](const auto& n) { return newest_round(f.w[n]) >= at_cut + 3; });
        };
        // Silence of the minority has to pass before a round goes on without them.
        const auto stuck = !f.until(went_on, 40s);
        // Who orders records may be on both sides so that nobody has a majority: then nobody commits, and that is all.
        if (stuck && alone) out.problem += "the majority committed nothing\n";
        const auto at_heal = f.newest();
        for (const auto& n : minority) {
            if (newest_round(f.w[n]) > at_cut + 1 && !stuck) out.problem += n + " committed in a minority\n";
        }
        f.w.heal();
        if (!f.until([&] { return f.oldest() >= at_heal + 2; }, 3min)) out.problem += "they did not meet again\n";
        out.conclude(f);
        return out;
    };
    for (std::uint64_t seed = 1; seed <= seeds_of(6); ++seed) {
        INFO("seed " << seed);
        play_twice(seed, [&] { return split(seed, seed % 3 == 0); });
    }
}

TEST_CASE("deaths, pauses and cuts at random: nobody forks, and when they cease rounds commit", "[sim]") {
    const auto storm = [](std::uint64_t seed) {
        failover f(seed, 6, 120);
        core::seeded_entropy random(seed + 1000);
        outcome out;
        if (!f.begin()) out.problem = "the run did not begin\n";
        std::string down;
        for (int i = 0; i < 8; ++i) {
            // The coordinator in every third case, as far as anybody knows who that is.
            const auto drawn = fmt::format("n{}", random.below(6));
            const auto who = random.below(3) == 0 ? f.coordinator() : drawn;
            auto& n = f.w[who];
            f.w.run_for(core::from_seconds(3 * random.unit()));
            const auto lasts = core::from_seconds(0.2 + 10 * random.unit());
            std::vector<std::string> others;
            for (const auto& o : f.w.nodes()) {
                if (o->name() != who) others.push_back(o->name());
            }
            switch (random.below(5)) {
                case 0: n.kill(); break;
                case 1: n.vanish(); break;
                case 2: n.pause(); break;
                case 3: f.w.cut({who}, others); break;
                default: f.w.cut_one_way({who}, others); break;
            }
            f.w.run_for(lasts);
            f.w.heal();
            if (n.paused()) n.resume();
            if (!n.running()) n.restart();
        }
        // After a cut of seconds a kernel repeats what it holds within as much again.
        if (!f.goes_on(2, 90s)) out.problem += "no round committed when the faults had ceased\n";
        out.conclude(f);
        return out;
    };
    const char* wanted = std::getenv("FAILOVER_SEEDS");
    const std::uint64_t last = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : seeds_of(3);
    for (std::uint64_t seed = 1; seed <= last; ++seed) {
        INFO("seed " << seed);
        play_twice(seed, [&] { return storm(seed); });
    }
}

TEST_CASE("who came back unheard by the one that coordinates next is admitted again", "[sim]") {
    auto c = quadratic_run(200, 4);
    c.model.width = 1000;
    small_run r(8);
    r.s.step_time = 100ms;
    r.start(c, 4, usual_line);
    REQUIRE(r.until_ordered_by(3));
    REQUIRE(r.until_round(5));
    const auto sees_present = [&r](const std::string& who) {
        return r.s.alive.contains(who) && r.s.alive.at(who)->status().participating == 4;
    };
    REQUIRE(r.w.run_while([&] { return !sees_present("n1"); }, 1min));
    // Only those who do not coordinate hear it say goodbye, and only the one that does sees it come back.
    std::vector<std::string> leaver{"n3"}, leading{"n0"}, others{"n1", "n2"};
    r.w.cut(leaver, leading);
    r.w.run_for(100ms);
    r.s.alive.at("n3")->leave("the test says so");
    REQUIRE(r.w.run_while([&] { return r.w["n3"].running(); }, 1min));
    r.w.run_for(15s);  // until the other one takes it for dead
    r.w.heal();
    r.w.cut(leaver, others);
    r.w["n3"].start(r.s.main_of("n3", std::nullopt));
    const auto starts = r.w["n3"].count_events("started");
    REQUIRE(r.w.run_while([&] { return r.w["n3"].count_events("started") == starts; }, 1min));
    r.w["n0"].kill();
    r.w.run_for(8s);
    r.w.heal();
    r.w["n0"].restart();
    const auto merged = [&r] {
        std::uint64_t last = 0;
        for (const auto& [at, e] : r.w["n3"].events()) {
            if (e.name == "round_committed" && std::get<bool>(*e.find("own_merged")))
                last = std::get<std::uint64_t>(*e.find("round"));
        }
        return last;
    };
    const auto now = newest_round(r.w["n1"]);
    REQUIRE(r.w.run_while([&] { return merged() <= now + 1 && newest_round(r.w["n1"]) < now + 60; }, 5min));
    CHECK(merged() > now + 1);
    const auto problem = r.finish(200, "");
    INFO(problem << story(r.w));
    CHECK(problem.empty());
}

/// The log of a run among simulated nodes: peers/raft_consensus with its disk and clock, over a bus of messages.

#include "peers/raft_consensus.hpp"

#include <deque>

#include "sim/world.hpp"
#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

namespace {

net::peer_key key_of(const std::string& name) { return core::hash(core::as_bytes(name)); }

/// Nodes that hear each other after 5 ms, unless a link is cut.
struct bus {
    struct member {
        raft_consensus* log = nullptr;  ///< while it lives
        std::deque<record> to_propose;
        std::vector<std::pair<record, core::result<void>>> proposed;
        std::size_t applied = 0;
    };
    std::map<std::string, member> members;
    std::set<std::pair<std::string, std::string>> cut;
    sim::world w;

    explicit bus(std::uint64_t seed) : w(seed) {}

    bool linked(const std::string& a, const std::string& b) {
        return members[a].log && members[b].log && !cut.contains({a, b}) && !cut.contains({b, a});
    }
    std::string name_of(const net::peer_key& key) {
        for (const auto& [name, m] : members) {
            if (key_of(name) == key) return name;
        }
        return {};
    }

    void add(const std::string& name) {
        members[name];
        w.add_node(name);
    }
    void start(const std::string& name, bool founds = false) {
        w[name].start([this, name, founds](net::environment& env) { return live(env, name, founds); });
    }
    /// What a process that died leaves is told to the others as their failure detectors would.
    void kill(const std::string& name) {
        members[name].log = nullptr;
        w[name].kill();
        for (auto& [other, m] : members) {
            if (m.log == nullptr || other == name) continue;
            m.log->link_down(key_of(name));
            m.log->dead(key_of(name), 10ms);
        }
    }

    core::task<core::result<void>> live(net::environment& env, std::string name, bool founds) {
        raft_consensus log({.executor = env.executor,
                            .clock = env.clock,
                            .storage = env.storage,
                            .self = key_of(name),
                            .run = digest_of(1),
                            .seed = env.entropy.u64()});
        auto opened = co_await log.open();
        LONGHAUL_CO_TRY(opened);
        if (!*opened && founds) {
            auto founded = co_await log.found();
            LONGHAUL_CO_TRY(founded);
        }
        log.on_applied = [this, name](const record*) { ++members[name].applied; };
        log.send = [this, name](const net::peer_key& to, message m) {
            const auto other = name_of(to);
            const auto life = w[other].lives();
            w.after(5ms, [this, name, other, life, m = std::move(m)] {
                if (linked(name, other) && w[other].lives() == life) hear(name, other, m);
            });
        };
        members[name].log = &log;
        for (auto& [other, m] : members) {
            if (other == name || m.log == nullptr) continue;
            log.link_up(key_of(other));
            m.log->link_up(key_of(name));
        }
        core::scope parts(env.executor);
        parts.spawn("log", log.run());
        parts.spawn("proposals", propose_all(env, name, log));
        auto ended = co_await parts.join();
        if (members[name].log == &log) members[name].log = nullptr;
        co_return ended;
    }

    void hear(const std::string& from, const std::string& to, message m) {
        auto* log = members[to].log;
        const auto visitor = [&](auto&& x) -> core::result<void> {
            using type = std::decay_t<decltype(x)>;
            if constexpr (std::is_same_v<type, raft::message> || std::is_same_v<type, log_request> ||
                          std::is_same_v<type, log_entries> || std::is_same_v<type, log_snapshot> ||
                          std::is_same_v<type, leader_message>) {
                return log->receive(key_of(from), std::forward<decltype(x)>(x));
            } else {
                return core::ok();
            }
        };
        const auto handled = std::visit(visitor, std::move(m));
        if (!handled) FAIL(to << ": " << handled.error().message);
    }

    core::task<core::result<void>> propose_all(net::environment& env, std::string name, raft_consensus& log) {
        for (;;) {
            auto& m = members[name];
            if (!m.to_propose.empty() && log.leads()) {
                const auto r = m.to_propose.front();
                m.to_propose.pop_front();
                auto done = co_await log.propose(r);
                if (!done && done.error().code == errc::cancelled) co_return done;
                m.proposed.emplace_back(r, done);
                continue;
            }
            auto slept = co_await env.clock.sleep_for(10ms);
            LONGHAUL_CO_TRY(slept);
        }
    }

    std::string leader() {
        for (const auto& [name, m] : members) {
            if (m.log != nullptr && m.log->leads()) return name;
        }
        return {};
    }
    bool knows(const std::string& name) { return members[name].log && members[name].log->known(); }
    bool until(const std::function<bool()>& condition, core::duration limit = 30s) {
        return w.run_while([&] { return !condition(); }, limit);
    }
    bool change(const std::string& leader, raft::change::kind what, const std::string& who) {
        return until([&] { return members[leader].log->change({what, {key_of(who)}}).has_value(); });
    }
    /// `names` order records, the first of them leads.
    void make_voters(const std::vector<std::string>& names) {
        for (const auto& n : names) add(n);
        for (const auto& n : names) start(n, n == names.front());
        REQUIRE(until([&] { return leader() == names.front(); }));
        using kind = raft::change::kind;
        for (const auto what : {kind::add_learner, kind::promote}) {
            for (std::size_t i = 1; i < names.size(); ++i) REQUIRE(change(names.front(), what, names[i]));
        }
        REQUIRE(until(
            [&] { return std::ranges::all_of(names, [&](auto& n) { return knows(n) && members[n].log->votes(); }); }));
    }
    /// Has a record of that number proposed, and waits until it is applied everywhere.
    void log_one(const std::string& by, peer_number number) {
        members[by].to_propose.push_back(admit_of(number));
        const auto applied = [&] {
            return std::ranges::all_of(members, [&](const auto& m) {
                return m.second.log == nullptr || m.second.log->state().find(number) != nullptr;
            });
        };
        INFO("record " << number << " by " << by);
        REQUIRE(until(applied));
    }
    void check_equal() {
        const ledger* first = nullptr;
        for (const auto& [name, m] : members) {
            if (m.log == nullptr) continue;
            INFO(name);
            if (first == nullptr) first = &m.log->state();
            CHECK(m.log->state() == *first);
        }
    }
};

}  // namespace

TEST_CASE("who orders records alone begins at once, and goes on from its disk", "[sim]") {
    bus b(1);
    b.add("a");
    b.start("a", true);
    REQUIRE(b.until([&] { return b.leader() == "a"; }, 500ms));
    for (peer_number n = 1; n <= 5; ++n) b.log_one("a", n);
    const auto before = b.members["a"].log->state();
    CHECK(before.voters().voters == std::vector{key_of("a")});
    b.kill("a");
    b.start("a");
    REQUIRE(b.until([&] { return b.leader() == "a"; }, 500ms));
    CHECK(b.members["a"].log->state() == before);
    b.log_one("a", 6);
}

TEST_CASE("proposals at the same time are all logged, and a follower has them in the same order", "[sim]") {
    bus b(2);
    b.make_voters({"a", "b", "c"});
    b.add("reader");
    b.start("reader");
    REQUIRE(b.until([&] { return b.knows("reader"); }));
    for (peer_number n = 1; n <= 20; ++n) b.members["a"].to_propose.push_back(admit_of(n));
    REQUIRE(b.until([&] { return b.members["reader"].log->state().members().size() == 20; }));
    b.w.run_for(1s);
    b.check_equal();
    CHECK(b.members["reader"].log->leader() == key_of("a"));
    CHECK_FALSE(b.members["reader"].log->votes());
}

TEST_CASE("every leader is killed, one after another, and comes back: the log goes on and all have it", "[sim]") {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
        INFO("seed " << seed);
        bus b(seed);
        b.make_voters({"a", "b", "c"});
        b.add("reader");
        b.start("reader");
        REQUIRE(b.until([&] { return b.knows("reader"); }));
        peer_number number = 0;
        for (int i = 0; i < 6; ++i) {
            const auto old = b.leader();
            b.log_one(old, ++number);
            const auto died = b.w.now();
            b.kill(old);
            REQUIRE(b.until([&] { return !b.leader().empty(); }));
            // The failure detector's word, not the silence of an election wait.
            CHECK(b.w.now() - died < 1s);
            b.log_one(b.leader(), ++number);
            b.start(old);
            REQUIRE(b.until([&] { return b.knows(old); }));
            REQUIRE(b.until([&] { return b.members["reader"].log->leader() == key_of(b.leader()); }));
        }
        b.w.run_for(1s);
        b.check_equal();
        CHECK(b.members["reader"].log->state().members().size() == number);
    }
}

TEST_CASE("a leader that is cut off is deposed: what it proposes fails, and it follows when it is back", "[sim]") {
    bus b(3);
    b.make_voters({"a", "b", "c"});
    b.log_one("a", 1);
    b.cut = {{"a", "b"}, {"a", "c"}};
    b.members["a"].to_propose.push_back(admit_of(2, 77));
    REQUIRE(b.until([&] { return !b.members["a"].proposed.empty() && b.members["a"].proposed.size() == 2; }));
    const auto& [what, outcome] = b.members["a"].proposed.back();
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().code == errc::quorum_lost);
    CHECK_FALSE(b.members["a"].log->leads());
    REQUIRE(b.until([&] { return !b.leader().empty(); }));
    CHECK(b.leader() != "a");
    b.members[b.leader()].to_propose.push_back(admit_of(2));
    b.w.run_for(2s);
    b.cut.clear();
    REQUIRE(b.until([&] { return b.members["a"].log->leader() == key_of(b.leader()); }));
    b.w.run_for(1s);
    b.check_equal();
    CHECK(b.members["a"].log->state().find(2)->admitted == admit_of(2));
}

TEST_CASE("a leader hands over before it goes", "[sim]") {
    bus b(4);
    b.make_voters({"a", "b", "c"});
    b.log_one("a", 1);
    bool done = false;
    const auto leave = [](raft_consensus& log, bool& over) -> core::task<core::result<void>> {
        auto handed = co_await log.hand_over();
        over = true;
        co_return handed;
    };
    core::start(b.w["a"].environment().executor, leave(*b.members["a"].log, done), [](core::result<void>) {});
    b.w.run_for(200ms);
    CHECK(done);
    CHECK_FALSE(b.leader().empty());
    CHECK(b.leader() != "a");
}

TEST_CASE("the log is compacted while records come, and a newcomer and a restart see no difference", "[sim]") {
    bus b(5);
    b.make_voters({"a", "b", "c"});
    for (int i = 0; i < 2100; ++i) {
        b.members["a"].to_propose.push_back(run_state_record{static_cast<run_phase>(i % 2), ""});
    }
    REQUIRE(b.until([&] { return b.members["a"].proposed.size() == 2100; }, 5min));
    for (const auto& [r, outcome] : b.members["a"].proposed) REQUIRE(outcome);
    b.kill("c");
    b.log_one("a", 1);
    b.start("c");
    b.add("d");
    b.start("d");
    using kind = raft::change::kind;
    REQUIRE(b.change("a", kind::add_learner, "d"));
    REQUIRE(b.change("a", kind::promote, "d"));
    REQUIRE(b.until([&] { return b.members["d"].log->votes() && b.knows("c"); }));
    b.log_one("a", 2);
    b.w.run_for(1s);
    b.check_equal();
}

// ---- following the log by another node

namespace {

/// A node that follows, with the messages that it sends.
struct follower {
    std::optional<raft_consensus> log;
    std::vector<std::pair<net::peer_key, message>> sent;
    std::vector<bool> applied;  ///< whether a record came with it
    sim::world w{1};            // last: it ends what uses the others

    follower() {
        auto& n = w.add_node("f");
        n.start([this](net::environment& env) -> core::task<core::result<void>> {
            log.emplace(raft_consensus_options{.executor = env.executor,
                                               .clock = env.clock,
                                               .storage = env.storage,
                                               .self = key_of("f"),
                                               .run = digest_of(1)});
            log->send = [this](const net::peer_key& to, message m) { sent.emplace_back(to, std::move(m)); };
            log->on_applied = [this](const record* r) { applied.push_back(r != nullptr); };
            auto ended = co_await log->run();
            log.reset();
            co_return ended;
        });
        w.run_for(1ms);
    }
};

log_entries entries_of(std::uint64_t first, std::vector<record> records) {
    log_entries m;
    m.first = first;
    for (const auto& r : records) m.records.push_back(serialize(r));
    return m;
}

const auto a = key_of("a"), b = key_of("b");

/// A ledger of peers 1 to `count` whose records a and b order.
ledger ordered_ledger(peer_number count) {
    ledger l = ledger::founded_by(a);
    for (peer_number n = 1; n < count; ++n) l.apply(admit_of(n));
    raft::configuration c;
    c.voters = a < b ? std::vector{a, b} : std::vector{b, a};
    l.apply(voters_record{c});
    return l;
}

}  // namespace

TEST_CASE("a follower applies its source's entries in order, once", "[sim]") {
    follower f;
    f.log->link_up(a);
    REQUIRE(f.sent.size() == 1);
    CHECK(f.sent[0].first == a);
    CHECK(std::get<log_request>(f.sent[0].second).after == 0);
    // Before it has a snapshot it takes no entries.
    REQUIRE(f.log->receive(a, entries_of(1, {admit_of(1)})));
    CHECK_FALSE(f.log->known());
    auto l = ordered_ledger(3);
    REQUIRE(f.log->receive(a, log_snapshot{l.snapshot()}));
    CHECK(f.log->known());
    CHECK(f.log->state() == l);
    CHECK(f.applied == std::vector<bool>{false});
    const std::vector<record> more = {admit_of(3), admit_of(4), admit_of(5)};
    REQUIRE(f.log->receive(a, entries_of(4, {more[0], more[1]})));
    for (const auto& r : {more[0], more[1]}) l.apply(r);
    CHECK(f.log->state() == l);
    REQUIRE(f.log->receive(a, entries_of(4, more)));  // two of them again
    l.apply(more[2]);
    CHECK(f.log->state() == l);
    REQUIRE(f.log->receive(a, entries_of(1, more)));  // all of them long ago
    CHECK(f.log->state() == l);
    CHECK(f.applied.size() == 4);
    // A gap: it asks again.
    f.sent.clear();
    REQUIRE(f.log->receive(a, entries_of(9, {admit_of(7)})));
    CHECK(f.log->state() == l);
    REQUIRE(f.sent.size() == 1);
    CHECK(std::holds_alternative<log_request>(f.sent[0].second));
}

TEST_CASE("a follower believes only whom it asked, and goes on by another one when that is gone", "[sim]") {
    follower f;
    f.log->link_up(a);
    const auto l = ordered_ledger(3);
    for (const auto& liar : {b, key_of("stranger")}) {
        REQUIRE(f.log->receive(liar, log_snapshot{ordered_ledger(9).snapshot()}));
        REQUIRE(f.log->receive(liar, leader_message{1, liar}));
    }
    CHECK_FALSE(f.log->known());
    REQUIRE(f.log->receive(a, log_snapshot{l.snapshot()}));
    REQUIRE(f.log->receive(a, leader_message{1, a}));
    CHECK(f.log->leader() == a);
    f.log->link_up(key_of("stranger"));
    f.log->link_up(b);
    f.sent.clear();
    f.log->link_down(a);
    REQUIRE(f.sent.size() == 1);
    CHECK(f.sent[0].first == b);  // who does not order records is not asked
    // The other one may be a moment behind: nothing is forgotten.
    REQUIRE(f.log->receive(b, log_snapshot{ordered_ledger(2).snapshot()}));
    CHECK(f.log->state() == l);
    REQUIRE(f.log->receive(b, entries_of(4, {admit_of(3)})));
    CHECK(f.log->state().find(3) != nullptr);
    REQUIRE(f.log->receive(b, leader_message{2, b}));
    CHECK(f.log->leader() == b);
    // What is damaged is an offence, and changes nothing.
    CHECK_FALSE(f.log->receive(b, log_snapshot{core::byte_vector(20, std::byte{9})}));
    auto bad = entries_of(5, {admit_of(4)});
    bad.records.push_back(core::byte_vector(5, std::byte{9}));
    CHECK_FALSE(f.log->receive(b, bad));
    bad.first = ~std::uint64_t{0};
    CHECK(f.log->receive(b, bad));
}

TEST_CASE("a follower asks again by each new link, and another one when its question was lost", "[sim]") {
    follower f;
    f.log->link_up(a);
    REQUIRE(f.log->receive(a, log_snapshot{ordered_ledger(3).snapshot()}));
    REQUIRE(f.log->receive(a, leader_message{1, a}));
    f.sent.clear();
    f.log->link_up(a);  // the other end was first to see that the link before had ended
    REQUIRE(f.sent.size() == 1);
    CHECK(f.sent[0].first == a);
    CHECK(std::holds_alternative<log_request>(f.sent[0].second));
    f.log->link_up(b);
    f.sent.clear();
    f.w.run_for(5s);
    REQUIRE_FALSE(f.sent.empty());
    CHECK(f.sent[0].first == b);
}

TEST_CASE("a follower passes the log on, and proposes nothing", "[sim]") {
    follower f;
    f.log->link_up(a);
    REQUIRE(f.log->receive(key_of("newcomer"), log_request{}));
    CHECK(f.sent.size() == 1);  // it has nothing to pass on yet
    const auto l = ordered_ledger(3);
    REQUIRE(f.log->receive(a, log_snapshot{l.snapshot()}));
    REQUIRE(f.sent.size() == 3);
    CHECK(std::get<log_snapshot>(f.sent[1].second).ledger == l.snapshot());
    REQUIRE(f.log->receive(a, entries_of(4, {admit_of(3)})));
    CHECK(std::get<log_entries>(f.sent.back().second).first == 4);
    std::optional<core::result<void>> outcome;
    core::start(f.w["f"].environment().executor, f.log->propose(admit_of(4)),
                [&](core::result<void> r) { outcome = std::move(r); });
    f.w.run_for(10ms);
    REQUIRE(outcome);
    CHECK(outcome->error().code == errc::quorum_lost);
}

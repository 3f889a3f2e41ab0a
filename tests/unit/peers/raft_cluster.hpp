#pragma once
/// A few voters and a wire between them, for scenarios told step by step: nothing happens that the test does not ask
/// for. Time stands still unless it is moved, messages wait until `run`, and a disk may be held back.

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "peers/raft.hpp"
#include "tests/test.hpp"

namespace longhaul::peers::raft::testing {

using namespace std::chrono_literals;

inline voter_id id_of(unsigned n) {
    voter_id id;
    id.bytes[0] = static_cast<std::byte>(n);
    return id;
}
inline unsigned number_of(const voter_id& id) { return std::to_integer<unsigned>(id.bytes[0]); }
inline std::vector<voter_id> ids_of(std::initializer_list<unsigned> numbers) {
    std::vector<voter_id> out;
    for (const auto n : numbers) out.push_back(id_of(n));
    return out;
}
/// Nobody but these voters.
inline configuration voters(std::initializer_list<unsigned> numbers) { return {ids_of(numbers), {}}; }
inline core::byte_vector text(std::string_view s) {
    const auto b = core::as_bytes(s);
    return {b.begin(), b.end()};
}
inline entry record_of(std::uint64_t term, std::string_view s) { return {term, entry_kind::record, text(s), {}}; }
inline entry barrier_of(std::uint64_t term) { return {term, entry_kind::barrier, {}, {}}; }
/// A log of barriers with these terms.
inline std::vector<entry> terms(std::initializer_list<std::uint64_t> of) {
    std::vector<entry> out;
    for (const auto t : of) out.push_back(barrier_of(t));
    return out;
}

inline constexpr auto election = 1000ms;
inline constexpr auto heartbeat = 100ms;

struct packet {
    unsigned from = 0, to = 0;
    message what;
};

class cluster {
public:
    struct machine {
        std::optional<server> runs;
        durable_state disk;
        std::uint64_t written_before = 0, life = 0;
        std::deque<disk_write> unsynced;
        bool slow_disk = false;            ///< writes wait for `sync`
        std::vector<std::string> applied;  ///< records, and "barrier", "members", "snapshot DATA"
    };

    cluster() = default;
    /// Voters 1…n, founded and idle.
    explicit cluster(unsigned n) {
        configuration c;
        for (unsigned i = 1; i <= n; ++i) c.voters.push_back(id_of(i));
        for (unsigned i = 1; i <= n; ++i) add(i, c);
    }
    void add(unsigned n, configuration c = {}, std::uint64_t term = 0, std::vector<entry> entries = {}) {
        durable_state d;
        d.base.members = std::move(c);
        d.ballot.term = term;
        d.entries = std::move(entries);
        add(n, std::move(d));
    }
    void add(unsigned n, durable_state d) {
        nodes[n].disk = std::move(d);
        restart(n);
    }
    /// What the disk did not sync is lost.
    void crash(unsigned n) {
        nodes.at(n).runs.reset();
        nodes.at(n).unsynced.clear();
    }
    void restart(unsigned n) {
        crash(n);
        options o;
        o.self = id_of(n);
        o.heartbeat = heartbeat;
        o.election = election;
        o.seed = nodes.at(n).life = n + 100 * ++lives;
        o.max_uncommitted_bytes = max_uncommitted_bytes;
        nodes.at(n).written_before = nodes.at(n).disk.writes;
        nodes.at(n).runs.emplace(o, nodes.at(n).disk, now);
        // Who is there greets it; of its disk they say nothing here.
        for (const auto& [other, m] : nodes) {
            if (other == n || !m.runs || cut.contains({other, n})) continue;
            REQUIRE(step(n, received{id_of(other), {{}, 0, greeting{}, {}, {}}}));
        }
    }

    server& operator[](unsigned n) { return *nodes.at(n).runs; }
    machine& at(unsigned n) { return nodes.at(n); }

    /// One event, and what it wants done; its messages wait on the wire.
    core::result<actions> step(unsigned n, event e) {
        // Made by hand: as if its sender had said it now.
        if (auto* r = std::get_if<received>(&e); r && r->what.own == disk_mark{}) {
            const auto by = nodes.find(number_of(r->from));
            if (by != nodes.end()) r->what.own = {by->second.written_before, by->second.disk.writes, by->second.life};
        }
        auto a = nodes.at(n).runs->step(now, std::move(e));
        if (!a) return a;
        auto out = *a;
        perform(n, std::move(*a));
        return out;
    }
    std::uint64_t propose(unsigned n, std::string_view s) {
        auto a = step(n, raft::propose{text(s)});
        if (!a) FAIL(a.error().message);
        return a->proposed;
    }
    core::result<actions> change(unsigned n, raft::change::kind what, unsigned who) {
        return step(n, raft::change{what, {id_of(who)}});
    }
    /// The next write of a slow disk is done.
    void sync(unsigned n) {
        auto& m = nodes.at(n);
        REQUIRE_FALSE(m.unsynced.empty());
        const auto number = m.unsynced.front().number;
        auto applied = raft::apply(m.disk, m.unsynced.front());
        if (!applied) FAIL(applied.error().message);
        m.unsynced.pop_front();
        const auto done = step(n, durable{number});
        REQUIRE(done);
    }
    void sync_all(unsigned n) {
        while (!nodes.at(n).unsynced.empty()) sync(n);
    }
    void deliver(const packet& p) {
        if (cut.contains({p.from, p.to}) || !nodes.contains(p.to) || !nodes.at(p.to).runs) return;
        if (lose && lose(p)) return;
        auto a = step(p.to, received{id_of(p.from), p.what});
        if (!a) FAIL(a.error().message);
    }
    /// Delivers until nobody has anything to say.
    void run() {
        for (std::size_t n = 0; !wire.empty(); ++n) {
            REQUIRE(n < 100'000);
            const auto p = wire.front();
            wire.pop_front();
            deliver(p);
        }
    }
    /// Time passes for everybody; timers fire, messages arrive.
    void elapse(core::duration d) {
        for (const auto end = now + d; now < end;) {
            now += 10ms;
            for (auto& [n, m] : nodes) {
                if (m.runs && m.runs->wake_at() <= now) REQUIRE(step(n, tick{}));
            }
            run();
        }
    }
    /// The node has heard of no leader for long, and notices; nobody else does.
    void time_out(unsigned n) {
        now = std::max(now + 2 * election, nodes.at(n).runs->wake_at());
        REQUIRE(step(n, tick{}));
    }
    void elect(unsigned n) {
        time_out(n);
        run();
        REQUIRE(nodes.at(n).runs->role() == role::leader);
    }
    void beat(unsigned n) {
        now += heartbeat;
        REQUIRE(step(n, tick{}));
    }
    void isolate(unsigned n) {
        for (const auto& [other, m] : nodes) {
            if (other == n) continue;
            cut.insert({n, other});
            cut.insert({other, n});
        }
    }
    void heal() {
        cut.clear();
        lose = nullptr;
    }
    /// Messages of one kind that wait on the wire.
    template <typename Body>
    std::vector<packet> waiting() const {
        std::vector<packet> out;
        for (const auto& p : wire) {
            if (std::holds_alternative<Body>(p.what.body)) out.push_back(p);
        }
        return out;
    }
    std::vector<std::uint64_t> terms_of(unsigned n) {
        std::vector<std::uint64_t> out;
        const auto& l = nodes.at(n).runs->log();
        for (auto i = l.base().index + 1; i <= l.last_index(); ++i) out.push_back(l.at(i).term);
        return out;
    }
    unsigned leader() {
        unsigned found = 0;
        for (auto& [n, m] : nodes) {
            if (!m.runs || m.runs->role() != role::leader) continue;
            if (found == 0 || m.runs->term() > nodes.at(found).runs->term()) found = n;
        }
        return found;
    }

    core::time_point now{};
    std::map<unsigned, machine> nodes;
    std::deque<packet> wire;
    std::set<std::pair<unsigned, unsigned>> cut;
    std::function<bool(const packet&)> lose;
    std::size_t max_uncommitted_bytes = 1 << 20;
    std::uint64_t lives = 0;

private:
    void perform(unsigned n, actions a) {
        auto& m = nodes.at(n);
        for (auto& o : a.send) wire.push_back({n, number_of(o.to), std::move(o.what)});
        if (a.restore) m.applied.push_back("snapshot " + std::string(core::as_text(a.restore->data)));
        for (const auto& c : a.apply) {
            switch (c.what.kind) {
                case entry_kind::barrier: m.applied.emplace_back("barrier"); break;
                case entry_kind::record: m.applied.emplace_back(core::as_text(c.what.data)); break;
                case entry_kind::membership: m.applied.emplace_back("members"); break;
            }
        }
        if (!a.write) return;
        m.unsynced.push_back(std::move(*a.write));
        if (!m.slow_disk) sync_all(n);
    }
};

inline message say(std::uint64_t term, decltype(message::body) body) { return {{}, term, std::move(body)}; }

template <typename Body>
const Body& body_of(const packet& p) {
    return std::get<Body>(p.what.body);
}

}  // namespace longhaul::peers::raft::testing

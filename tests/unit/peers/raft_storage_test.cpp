// A voter's disk: what was acknowledged survives, and what is not whole is seen.
#include "peers/raft_storage.hpp"

#include "tests/unit/peers/raft_cluster.hpp"
#include "tests/unit/sim/support.hpp"

using namespace longhaul;
using namespace longhaul::peers::raft;
using namespace longhaul::peers::raft::testing;
using longhaul::sim_tests::environment;

namespace {

const auto self = id_of(1);
const core::digest generation = id_of(77);

durable_state founded() {
    durable_state d;
    d.base.members = voters({1});
    return d;
}

/// Writes as a voter makes them, and what each makes of the disk.
class script {
public:
    explicit script(std::uint64_t seed) : random_(seed, "script") { states_.push_back(founded()); }
    disk_write next() {
        auto d = states_.back();
        disk_write w;
        w.number = states_.size();
        const auto end = d.base.index + d.entries.size();
        const auto term = std::max<std::uint64_t>(d.ballot.term, 1);
        const auto what = random_.below(10);
        if (what < 3 || d.ballot.term == 0)
            w.ballot = ballot{term + random_.below(3), id_of(static_cast<unsigned>(1 + random_.below(3)))};
        if (what >= 3 && what < 8) {
            w.first = std::max(d.base.index + 1, end + 1 - std::min<std::uint64_t>(end, random_.below(3)));
            for (auto n = 1 + random_.below(3); n > 0; --n) {
                w.entries.push_back(record_of(term, std::string(random_.below(300), 'r')));
            }
            if (random_.below(5) == 0) w.entries.push_back({term, entry_kind::membership, {}, voters({1, 2})});
        } else if (what == 8 && !d.entries.empty()) {
            w.base = snapshot{d.base.index + 1 + random_.below(d.entries.size()), term, voters({1}), text("compacted")};
        } else if (what == 9) {
            w.base = snapshot{end + 5, term, voters({1, 2, 3}), text("from the leader")};
            w.first = end + 6;
        }
        REQUIRE(apply(d, w));
        states_.push_back(std::move(d));
        return w;
    }
    /// The disk after so many writes.
    const durable_state& after(std::size_t writes) const { return states_.at(writes); }
    std::size_t made() const { return states_.size() - 1; }

private:
    core::seeded_entropy random_;
    std::vector<durable_state> states_;
};

/// Runs one task on the node to its end.
core::result<void> run(sim::world& w, sim::node& n, sim::node::main_function main) {
    n.start(std::move(main));
    w.run_for(100s);
    REQUIRE(n.outcome());
    return *n.outcome();
}

core::result<durable_state> reopened(sim::world& w, sim::node& n, core::digest as = self) {
    core::result<durable_state> found = core::fail(core::errc::internal, "nothing");
    REQUIRE(run(w, n, [&](environment& env) -> core::task<core::result<void>> {
        disk_log log(env.storage, "raft");
        found = co_await log.open(as, generation);
        co_return core::ok();
    }));
    return found;
}

/// A disk with these writes, each acknowledged.
core::result<void> written(sim::world& w, sim::node& n, script& s, std::size_t writes) {
    return run(w, n, [&, writes](environment& env) -> core::task<core::result<void>> {
        disk_log log(env.storage, "raft");
        auto made = co_await log.create(self, generation, founded());
        LONGHAUL_CO_TRY(made);
        for (std::size_t i = 0; i < writes; ++i) {
            std::vector<disk_write> batch;
            batch.push_back(s.next());
            auto done = co_await log.write(std::move(batch));
            LONGHAUL_CO_TRY(done);
        }
        co_return core::ok();
    });
}

std::string log_file(sim::node& n) {
    std::string found;
    for (const auto& [name, content] : n.disk().files()) {
        if (name.starts_with("raft/log-")) found = name;
    }
    return found;
}

/// Writes of the script without snapshots, so that all are in the log.
void fill(sim::world& w, sim::node& n, std::vector<durable_state>& states, std::size_t writes) {
    states.push_back(founded());
    REQUIRE(run(w, n, [&, writes](environment& env) -> core::task<core::result<void>> {
        disk_log log(env.storage, "raft");
        auto made = co_await log.create(self, generation, founded());
        LONGHAUL_CO_TRY(made);
        for (std::size_t i = 0; i < writes; ++i) {
            disk_write next;
            next.ballot = ballot{i + 1, id_of(2)};
            next.first = i + 1;
            next.entries.push_back(record_of(i + 1, "entry"));
            states.push_back(states.back());
            REQUIRE(apply(states.back(), next));
            std::vector<disk_write> batch;
            batch.push_back(std::move(next));
            auto done = co_await log.write(std::move(batch));
            LONGHAUL_CO_TRY(done);
        }
        co_return core::ok();
    }));
}

using disk_files = std::map<std::string, core::byte_vector>;

/// What a voter finds that starts on these files.
core::result<durable_state> reopened(const disk_files& files) {
    sim::world w(1);
    auto& n = w.add_node("a");
    for (const auto& [path, content] : files) n.disk().write(path, content);
    return reopened(w, n);
}

/// A disk whose log has so many writes, each of one size, and the state after each.
struct filled_disk {
    explicit filled_disk(std::size_t writes) {
        sim::world w(1);
        auto& n = w.add_node("a");
        fill(w, n, states, writes);
        files = n.disk().files();
        log = log_file(n);
        bytes = files.at(log).size();
        frame_bytes = (bytes - frame_of({}, 0, {}).size()) / writes;
    }
    std::vector<durable_state> states;
    disk_files files;
    std::string log;
    std::size_t bytes = 0, frame_bytes = 0;  ///< of the log, and of one write in it
};

}  // namespace

TEST_CASE("a voter's disk is what was written to it") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        sim::world w(seed);
        auto& n = w.add_node("a");
        script s(seed);
        REQUIRE(written(w, n, s, 40));
        for (int i = 0; i < 3; ++i) {
            const auto found = reopened(w, n);
            REQUIRE(found);
            REQUIRE(*found == s.after(s.made()));
        }
        // Nothing is left over.
        CHECK(n.disk().files().size() == 2);
    }
}

TEST_CASE("a disk without a voter's log, or with another's") {
    sim::world w(1);
    auto& n = w.add_node("a");
    CHECK(reopened(w, n).error().code == core::errc::not_found);
    script s(1);
    REQUIRE(written(w, n, s, 3));
    CHECK(reopened(w, n, id_of(2)).error().code == core::errc::run_mismatch);
    // It is not founded twice.
    CHECK(written(w, n, s, 0).error().code == core::errc::io);
    CHECK(reopened(w, n));
}

TEST_CASE("after a crash at any instant a voter's disk holds all that was acknowledged, in order, and nothing else") {
    std::size_t more = 0;
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
        sim::world w(seed);
        auto& n = w.add_node("a");
        script s(seed);
        std::size_t acknowledged = 0;
        bool created = false;
        // Several lives, each from what the last one left.
        std::optional<durable_state> start;
        for (int life = 0; life < 3; ++life) {
            const auto at_start = s.made();
            acknowledged = at_start;
            n.start([&, life](environment& env) -> core::task<core::result<void>> {
                disk_log log(env.storage, "raft");
                if (life == 0) {
                    auto made = co_await log.create(self, generation, founded());
                    LONGHAUL_CO_TRY(made);
                    created = true;
                } else {
                    auto found = co_await log.open(self, generation);
                    if (!found && found.error().code == core::errc::not_found && !created) co_return core::ok();
                    if (!found && found.error().code != core::errc::cancelled) FAIL(found.error().message);
                    LONGHAUL_CO_TRY(found);  // cancelled: killed while it reads
                }
                for (;;) {
                    std::vector<disk_write> batch;
                    for (int k = 0; k <= life; ++k) batch.push_back(s.next());
                    auto done = co_await log.write(std::move(batch));
                    LONGHAUL_CO_TRY(done);
                    acknowledged = s.made();
                }
            });
            w.run_for(1ms + 137us * static_cast<std::int64_t>((seed * 7 + static_cast<std::uint64_t>(life)) % 400));
            n.vanish();
            if (!created) break;
            const auto found = reopened(w, n);
            CAPTURE(seed, life, acknowledged, s.made());
            if (!found) FAIL(found.error().message);
            // A crash makes a write whole or nothing; writes of one batch may go together.
            std::size_t at = s.made();
            while (at > acknowledged && *found != s.after(at)) --at;
            REQUIRE(*found == s.after(at));
            more += at > acknowledged;
            if (at != s.made()) break;  // the script goes on from what was kept: only where that is all
        }
    }
    CHECK(more > 20);
}

TEST_CASE("a torn end of a voter's log is cut off, whatever is left of it") {
    const filled_disk disk(4);
    for (const int filling : {-1, 0, 0x5a}) {
        for (std::size_t keep = disk.bytes - disk.frame_bytes; keep < disk.bytes; ++keep) {
            auto torn = disk.files;
            torn[disk.log].resize(keep);
            if (filling >= 0) torn[disk.log].resize(disk.bytes + 40, static_cast<std::byte>(filling));
            const auto found = reopened(torn);
            INFO(keep << " of " << disk.bytes << " bytes, then " << filling);
            if (!found) FAIL(found.error().message);
            REQUIRE(*found == disk.states[3]);
        }
    }
}

TEST_CASE("a voter's log that is damaged before its end is refused, bit by bit") {
    const filled_disk disk(3);
    for (const auto& [path, content] : disk.files) {
        for (std::size_t bit = 0; bit < content.size() * 8; bit += 3) {
            auto damaged = disk.files;
            damaged[path][bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
            const auto found = reopened(damaged);
            INFO(path << " bit " << bit);
            if (path == disk.log && bit / 8 >= disk.bytes - disk.frame_bytes) {
                // The last frame cannot be told from a torn one.
                REQUIRE(found);
                REQUIRE(*found == disk.states[2]);
            } else {
                REQUIRE_FALSE(found);
                REQUIRE(found.error().code == core::errc::malformed);
            }
        }
    }
}

TEST_CASE("a disk that is partly older is refused") {
    sim::world w(1);
    auto& n = w.add_node("a");
    std::vector<durable_state> states;
    fill(w, n, states, 3);
    const auto older = n.disk().files();
    REQUIRE(reopened(w, n));
    // New frames behind the new state.
    REQUIRE(run(w, n, [&](environment& env) -> core::task<core::result<void>> {
        disk_log log(env.storage, "raft");
        auto found = co_await log.open(self, generation);
        LONGHAUL_CO_TRY(found);
        std::vector<disk_write> batch;
        batch.emplace_back().ballot = ballot{9, id_of(3)};
        auto done = co_await log.write(std::move(batch));
        LONGHAUL_CO_TRY(done);
        co_return core::ok();
    }));
    const auto newer = n.disk().files();
    REQUIRE(reopened(newer));
    // An old state before a new log; with its own old log beside it; a new state before an old log, or none.
    auto mixed = newer;
    mixed["raft/state"] = older.at("raft/state");
    CHECK(reopened(mixed).error().code == core::errc::malformed);
    mixed.insert(older.begin(), older.end());
    CHECK(reopened(mixed).error().code == core::errc::malformed);
    mixed = newer;
    mixed[log_file(n)] = older.begin()->second;  // the log: its name is before the state's
    CHECK(reopened(mixed).error().code == core::errc::malformed);
    mixed = newer;
    mixed.erase(log_file(n));
    CHECK(reopened(mixed).error().code == core::errc::malformed);
    // All of it older: only others can know, by the number.
    CHECK(reopened(older));
}

TEST_CASE("what could not be synced is an error, and nothing is written behind it") {
    sim::world w(1);
    auto& n = w.add_node("a");
    script s(5);
    REQUIRE(written(w, n, s, 10));
    const auto kept = s.after(s.made());
    REQUIRE(run(w, n, [&](environment& env) -> core::task<core::result<void>> {
        disk_log log(env.storage, "raft");
        auto found = co_await log.open(self, generation);
        LONGHAUL_CO_TRY(found);
        n.disk().fail_syncs(1);
        std::vector<disk_write> first, second;
        first.emplace_back().ballot = ballot{kept.ballot.term + 1, id_of(2)};
        second.emplace_back().ballot = ballot{kept.ballot.term + 2, id_of(3)};
        auto failed = co_await log.write(std::move(first));
        CHECK(failed.error().code == core::errc::io);
        auto refused = co_await log.write(std::move(second));
        CHECK(refused.error().code == core::errc::io);
        co_return core::ok();
    }));
    // It may or may not have got there; what came behind it did not.
    const auto found = reopened(w, n);
    REQUIRE(found);
    CHECK(found->ballot.term <= kept.ballot.term + 1);
    CHECK(found->entries == kept.entries);
}

TEST_CASE("a full disk loses nothing") {
    sim::world w(1);
    auto& n = w.add_node("a");
    script s(3);
    REQUIRE(written(w, n, s, 10));
    const auto kept = s.after(s.made());
    for (const bool snapshots : {false, true}) {
        REQUIRE(run(w, n, [&, snapshots](environment& env) -> core::task<core::result<void>> {
            disk_log log(env.storage, "raft");
            auto found = co_await log.open(self, generation);
            LONGHAUL_CO_TRY(found);
            n.disk().set_capacity(n.disk().used() + 10);
            std::vector<disk_write> batch;
            auto& write = batch.emplace_back();
            if (snapshots) {
                write.base = snapshot{kept.base.index + 100, 50, voters({1}), text("large")};
                write.first = kept.base.index + 101;
            } else {
                write.ballot = ballot{100, id_of(2)};
            }
            auto full = co_await log.write(std::move(batch));
            CHECK(full.error().code == core::errc::no_space);
            n.disk().set_capacity(0);
            co_return core::ok();
        }));
        const auto found = reopened(w, n);
        REQUIRE(found);
        CHECK(*found == kept);
    }
}

TEST_CASE("a log that is full is begun anew, and one write that is larger than a log is not lost") {
    sim::world w(1);
    auto& n = w.add_node("a");
    auto expected = founded();
    REQUIRE(run(w, n, [&](environment& env) -> core::task<core::result<void>> {
        disk_log log(env.storage, "raft", {.file_bytes = 1 << 20, .log_bytes = 4096});
        auto made = co_await log.create(self, generation, founded());
        LONGHAUL_CO_TRY(made);
        for (std::uint64_t i = 1; i <= 60; ++i) {
            disk_write next;
            next.first = i;
            next.entries.push_back(record_of(1, std::string(i % 20 == 0 ? 5000 : 300, 'r')));
            if (auto a = apply(expected, next); !a) co_return a;
            std::vector<disk_write> batch;
            batch.push_back(std::move(next));
            auto done = co_await log.write(std::move(batch));
            LONGHAUL_CO_TRY(done);
            CHECK(n.disk().files().at(log_file(n)).size() <= 4096);
        }
        co_return core::ok();
    }));
    const auto found = reopened(w, n);
    REQUIRE(found);
    CHECK(*found == expected);
}

TEST_CASE("what would not be read back is not written") {
    sim::world w(1);
    auto& n = w.add_node("a");
    REQUIRE(run(w, n, [&](environment& env) -> core::task<core::result<void>> {
        disk_log log(env.storage, "raft", {.file_bytes = 4096, .log_bytes = 1024});
        auto made = co_await log.create(self, generation, founded());
        LONGHAUL_CO_TRY(made);
        std::vector<disk_write> batch;
        batch.emplace_back().first = 1;
        batch.front().entries.push_back(record_of(1, std::string(5000, 'r')));
        auto refused = co_await log.write(std::move(batch));
        CHECK(refused.error().code == core::errc::limit);
        co_return core::ok();
    }));
    CHECK(*reopened(w, n) == founded());
}

TEST_CASE("a long torn end is cut off without hashing it over and over") {
    // Each byte looks like the beginning of a frame that is as long as what is left, but for its number.
    const core::byte_vector torn(8 << 20, std::byte{0x00});
    CHECK_FALSE(has_frame({}, 1, torn));
    core::byte_vector lengths(8 << 20);
    for (std::size_t i = 0; i < lengths.size(); ++i) lengths[i] = static_cast<std::byte>(i % 4 == 1 ? 0x40 : i % 3);
    CHECK_FALSE(has_frame({}, 1, lengths));
}

#include "peers/single_voter.hpp"

#include "tests/run_task.hpp"
#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

/// A disk whose power fails at a chosen change: before it, after it, or in the middle of an append.
class memory_storage final : public core::storage {
public:
    enum class failure { none, before, after, torn };

    std::map<std::string, core::byte_vector> files;
    failure how = failure::none;
    std::size_t at = 0;            ///< number of the change that fails, from 0
    std::size_t torn_bytes = 0;    ///< what a torn append leaves
    core::byte_vector torn_tail;   ///< and what it leaves behind them
    errc error = errc::cancelled;  ///< a process that is gone sees nothing
    std::size_t changes = 0;
    bool down = false;

    core::task<core::result<core::byte_vector>> read(std::string path, std::uint64_t max_bytes) override {
        if (down) co_return core::fail(error, "down");
        const auto it = files.find(path);
        if (it == files.end()) co_return core::fail(errc::not_found, "{}", path);
        if (it->second.size() > max_bytes) co_return core::fail(errc::limit, "{}", path);
        co_return it->second;
    }
    core::task<core::result<void>> put(std::string path, std::vector<core::const_bytes> pieces) override {
        core::byte_vector all;
        for (const auto& p : pieces) all.insert(all.end(), p.begin(), p.end());
        co_return change([&] { files[path] = all; });
    }
    core::task<core::result<void>> append(std::string path, core::const_bytes data) override {
        if (!down && how == failure::torn && changes == at) {
            auto& f = files[path];
            const auto n = std::min(torn_bytes, data.size());
            f.insert(f.end(), data.begin(), data.begin() + static_cast<std::ptrdiff_t>(n));
            f.insert(f.end(), torn_tail.begin(), torn_tail.end());
        }
        co_return change([&] {
            auto& f = files[path];
            f.insert(f.end(), data.begin(), data.end());
        });
    }
    core::task<core::result<std::vector<std::string>>> list(std::string) override {
        co_return std::vector<std::string>{};
    }
    core::task<core::result<void>> remove(std::string path) override {
        co_return change([&] { files.erase(path); });
    }
    core::task<core::result<void>> rename(std::string, std::string) override {
        co_return core::fail(errc::internal, "nobody renames here");
    }
    /// The same files, after the power came back.
    memory_storage restarted() const {
        memory_storage s;
        s.files = files;
        return s;
    }

private:
    core::result<void> change(const std::function<void()>& make) {
        if (down) return core::fail(error, "down");
        const bool fails = how != failure::none && changes++ == at;
        if (!fails || how == failure::after) make();
        if (!fails) return core::ok();
        down = error == errc::cancelled;
        return core::fail(error, "the power failed");
    }
};

struct runner {
    asio::io_context io;
    template <typename T>
    core::result<T> operator()(core::task<core::result<T>> op) {
        return tests::run_task(io, std::move(op));
    }
};

ledger load(core::storage& s) {
    runner run;
    log_store log(s);
    auto l = run(log.load());
    if (!l) FAIL(l.error().message);
    return *l;
}

errc load_error(core::storage& s) {
    runner run;
    log_store log(s);
    const auto l = run(log.load());
    REQUIRE_FALSE(l);
    return l.error().code;
}

std::string entries_file(const memory_storage& s) {
    for (const auto& [name, content] : s.files) {
        if (name.starts_with("log/entries")) return name;
    }
    FAIL("there are no entries");
    return {};
}

/// A founder's log with these records, and the ledger they make.
ledger write(memory_storage& s, std::size_t records) {
    runner run;
    log_store log(s);
    ledger l;
    REQUIRE(run(log.compact(l)));
    for (peer_number n = 1; n <= records; ++n) {
        const record r = admit_of(n);
        REQUIRE(run(log.append(r)));
        l.apply(r);
    }
    return l;
}

const auto founder = digest_of(1), follower = digest_of(2);

/// What a voter sent.
struct outbox {
    std::vector<std::pair<net::peer_key, message>> sent;
    std::vector<bool> applied;  ///< whether a record came with it
    void attach(single_voter& v) {
        v.send = [this](const net::peer_key& to, message m) { sent.emplace_back(to, std::move(m)); };
        v.on_applied = [this](const record* r) { applied.push_back(r != nullptr); };
    }
};

log_entries entries_of(std::uint64_t first, std::vector<record> records) {
    log_entries m;
    m.first = first;
    for (const auto& r : records) m.records.push_back(serialize(r));
    return m;
}

}  // namespace

TEST_CASE("a log is what was written to it") {
    memory_storage s;
    CHECK(load_error(s) == errc::not_found);
    const auto l = write(s, 5);
    CHECK(load(s) == l);
    CHECK(load(s).members().size() == 5);
    // It goes on after a restart.
    runner run;
    log_store log(s);
    REQUIRE(run(log.load()));
    CHECK(log.entries() == 5);
    REQUIRE(run(log.append(admit_of(6))));
    CHECK(load(s).members().size() == 6);
}

TEST_CASE("a torn last entry is cut off, whatever is left of it, and the log goes on") {
    for (const std::size_t before : {0, 1, 3}) {
        memory_storage whole;
        auto l = write(whole, before);
        const auto after_last = before == 0 ? 0 : whole.files.at(entries_file(whole)).size();
        {
            runner run;
            log_store log(whole);
            REQUIRE(run(log.load()));
            REQUIRE(run(log.append(admit_of(static_cast<peer_number>(before + 1)))));
        }
        const auto name = entries_file(whole);
        const auto size = whole.files.at(name).size();
        for (auto n = after_last; n < size; ++n) {
            INFO(before << " entries before, " << n - after_last << " bytes left");
            memory_storage s = whole.restarted();
            s.files[name].resize(n);
            REQUIRE(load(s) == l);
            // What is written behind it is not lost at the next start.
            runner run;
            log_store log(s);
            REQUIRE(run(log.load()));
            const record next = admit_of(static_cast<peer_number>(before + 1), 50);
            REQUIRE(run(log.append(next)));
            auto expected = l;
            expected.apply(next);
            REQUIRE(load(s) == expected);
        }
    }
}

TEST_CASE("a torn entry may also end in zeros or in what the disk held before") {
    for (const std::byte filling : {std::byte{0}, std::byte{0xff}, std::byte{0x11}}) {
        for (const std::size_t kept : {0, 3, 4, 20}) {
            memory_storage s;
            const auto l = write(s, 2);
            runner run;
            log_store log(s);
            REQUIRE(run(log.load()));
            s.how = memory_storage::failure::torn;
            s.torn_bytes = kept;
            s.torn_tail.assign(200, filling);
            REQUIRE_FALSE(run(log.append(admit_of(3))));
            auto after = s.restarted();
            CHECK(load(after) == l);
        }
    }
}

TEST_CASE("a log that is damaged before its end is refused") {
    memory_storage whole;
    const auto l = write(whole, 4);
    const auto name = entries_file(whole);
    memory_storage shorter;
    write(shorter, 3);
    const auto last = shorter.files.at(entries_file(shorter)).size();
    const auto size = whole.files.at(name).size();
    for (std::size_t bit = 0; bit < size * 8; ++bit) {
        INFO("bit " << bit);
        memory_storage s = whole.restarted();
        s.files[name][bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        if (bit < last * 8) {
            // Acknowledged entries follow: they must not be thrown away.
            REQUIRE(load_error(s) == errc::malformed);
        } else {
            // The last entry cannot be told from a torn one.
            REQUIRE(load(s).members().size() == 3);
        }
    }
}

TEST_CASE("a snapshot with a changed bit, or cut anywhere, is refused") {
    memory_storage s;
    const auto l = write(s, 3);
    {
        runner run;
        log_store log(s);
        REQUIRE(run(log.load()));
        REQUIRE(run(log.compact(l)));
    }
    const auto size = s.files.at("log/snapshot").size();
    for (std::size_t bit = 0; bit < size * 8; ++bit) {
        INFO("bit " << bit);
        memory_storage flipped = s.restarted();
        flipped.files["log/snapshot"][bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        REQUIRE(load_error(flipped) == errc::malformed);
    }
    for (std::size_t left = 0; left < size; ++left) {
        INFO("cut to " << left);
        memory_storage cut = s.restarted();
        cut.files["log/snapshot"].resize(left);
        REQUIRE(load_error(cut) == errc::malformed);
    }
}

TEST_CASE("compaction keeps the ledger, and only what is needed on the disk") {
    memory_storage s;
    const auto l = write(s, 5);
    runner run;
    log_store log(s);
    REQUIRE(run(log.load()));
    REQUIRE(run(log.compact(l)));
    CHECK(log.entries() == 0);
    CHECK(s.files.size() == 1);
    CHECK(load(s) == l);
    REQUIRE(run(log.append(admit_of(6))));
    CHECK(s.files.size() == 2);
    CHECK(load(s).members().size() == 6);
    CHECK(load(s).index() == 6);
}

TEST_CASE("at every point of a crash the log holds all that was acknowledged and at most one record more") {
    using failure = memory_storage::failure;
    const auto script = [](memory_storage& s, std::vector<record>& acknowledged, std::vector<record>& tried) {
        runner run;
        log_store log(s);
        auto loaded = run(log.load());
        if (!loaded && loaded.error().code == errc::not_found) {
            if (!run(log.compact(ledger{}))) return;
            loaded = ledger{};
        }
        if (!loaded) return;
        ledger l = *loaded;
        for (int i = 0; i < 6; ++i) {
            const record r = admit_of(l.next_number());
            tried.push_back(r);
            if (!run(log.append(r))) return;
            acknowledged.push_back(r);
            l.apply(r);
            if (i == 2 && !run(log.compact(l))) return;
        }
    };
    for (const auto how : {failure::before, failure::after, failure::torn}) {
        for (std::size_t at = 0; at < 12; ++at) {
            for (const std::size_t torn : {0, 1, 7, 30, 60}) {
                if (how != failure::torn && torn > 0) continue;
                INFO("failure " << static_cast<int>(how) << " at change " << at << ", " << torn << " bytes");
                memory_storage s;
                s.how = how;
                s.at = at;
                s.torn_bytes = torn;
                std::vector<record> acknowledged, tried;
                script(s, acknowledged, tried);
                auto next = s.restarted();
                if (!next.files.contains("log/snapshot")) {
                    REQUIRE(acknowledged.empty());
                    continue;
                }
                const auto l = load(next);
                REQUIRE(l.index() >= acknowledged.size());
                REQUIRE(l.index() <= tried.size());
                ledger expected;
                for (std::size_t i = 0; i < l.index(); ++i) expected.apply(tried[i]);
                REQUIRE(l == expected);
                // And a second life, with no failure, goes on from there.
                std::vector<record> more, also_tried;
                script(next, more, also_tried);
                REQUIRE(more.size() == 6);
                auto last = next.restarted();
                REQUIRE(load(last).index() == l.index() + 6);
            }
        }
    }
}

TEST_CASE("after an error the log takes no more until it was loaded again") {
    memory_storage s;
    write(s, 2);
    runner run;
    log_store log(s);
    REQUIRE(run(log.load()));
    s.how = memory_storage::failure::torn;
    s.torn_bytes = 10;
    s.error = errc::no_space;
    REQUIRE_FALSE(run(log.append(admit_of(3))));
    const auto refused = run(log.append(admit_of(3)));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::io);
    REQUIRE(run(log.load()));
    REQUIRE(run(log.append(admit_of(3))));
    CHECK(load(s).members().size() == 3);
}

TEST_CASE("after a snapshot that may or may not have been written nothing goes behind the old one") {
    memory_storage s;
    const auto l = write(s, 2);
    runner run;
    log_store log(s);
    REQUIRE(run(log.load()));
    s.how = memory_storage::failure::after;
    s.error = errc::io;  // the new snapshot is in place, and the folder's fsync failed
    REQUIRE_FALSE(run(log.compact(l)));
    CHECK_FALSE(run(log.append(admit_of(3))));
    auto after = s.restarted();
    CHECK(load(after) == l);
}

TEST_CASE("a record that could not be read again is not logged") {
    memory_storage s;
    const auto l = write(s, 1);
    runner run;
    auto log = std::make_unique<log_store>(s);
    REQUIRE(run(log->load()));
    single_voter v(run.io.get_executor(), founder, founder, std::move(log), l);
    outbox out;
    out.attach(v);
    auto r = round_of(l, {1}, {1});
    r.eval_loss = std::numeric_limits<double>::quiet_NaN();
    const auto refused = run(v.propose(r));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::internal);
    auto named = admit_of(2);
    named.name = "a\nb";
    CHECK_FALSE(run(v.propose(named)));
    CHECK(v.state() == l);
    CHECK(out.applied.empty());
    CHECK(load(s) == l);
    // The log is as good as before.
    CHECK(run(v.propose(admit_of(2))));
    CHECK(load(s) == v.state());
}

TEST_CASE("the founder orders records, tells its followers, and goes on from its disk") {
    memory_storage s;
    write(s, 0);
    runner run;
    auto log = std::make_unique<log_store>(s);
    REQUIRE(run(log->load()));
    single_voter v(run.io.get_executor(), founder, founder, std::move(log), ledger{});
    outbox out;
    out.attach(v);
    CHECK(v.leads());
    CHECK(v.leader() == founder);
    REQUIRE(run(v.propose(admit_of(1))));
    CHECK(out.sent.empty());  // nobody follows yet
    REQUIRE(v.receive(follower, log_request{}));
    REQUIRE(out.sent.size() == 1);
    CHECK(out.sent[0].first == follower);
    CHECK(std::get<log_snapshot>(out.sent[0].second).ledger == v.state().snapshot());
    REQUIRE(run(v.propose(admit_of(2))));
    REQUIRE(out.sent.size() == 2);
    CHECK(std::get<log_entries>(out.sent[1].second).first == 2);
    v.link_down(follower);
    REQUIRE(run(v.propose(admit_of(3))));
    CHECK(out.sent.size() == 2);
    CHECK(out.applied == std::vector<bool>{true, true, true});
    CHECK(load(s) == v.state());
    // Nobody tells the founder what its log is.
    CHECK_FALSE(v.receive(founder, entries_of(4, {admit_of(4)})));
    CHECK_FALSE(v.receive(follower, log_snapshot{v.state().snapshot()}));
}

TEST_CASE("proposals at the same time are logged one after another") {
    memory_storage s;
    write(s, 0);
    asio::io_context io;
    runner run;
    auto log = std::make_unique<log_store>(s);
    REQUIRE(run(log->load()));
    single_voter v(io.get_executor(), founder, founder, std::move(log), ledger{});
    outbox out;
    out.attach(v);
    int done = 0;
    for (peer_number n = 1; n <= 20; ++n) {
        core::start(io.get_executor(), v.propose(admit_of(n)), [&](core::result<void> r) { done += r ? 1 : 0; });
    }
    io.run();
    CHECK(done == 20);
    CHECK(v.state().members().size() == 20);
    CHECK(load(s) == v.state());
}

TEST_CASE("the log is compacted while records come, and a restart sees no difference") {
    memory_storage s;
    write(s, 1);
    runner run;
    auto log = std::make_unique<log_store>(s);
    auto state = run(log->load());
    REQUIRE(state);
    auto* const store = log.get();
    single_voter v(run.io.get_executor(), founder, founder, std::move(log), *state);
    outbox out;
    out.attach(v);
    std::size_t most = 0;
    for (int i = 0; i < 2100; ++i) {
        run_state_record r;
        r.state = static_cast<run_phase>(i % 3);
        REQUIRE(run(v.propose(r)));
        most = std::max(most, store->entries());
    }
    CHECK(most < 2100);
    CHECK(s.files.size() == 2);
    CHECK(load(s) == v.state());
    CHECK(v.state().index() == 2101);
}

TEST_CASE("a record counts although the snapshot after it finds the disk full") {
    memory_storage s;
    write(s, 1);
    runner run;
    auto log = std::make_unique<log_store>(s);
    auto state = run(log->load());
    REQUIRE(state);
    single_voter v(run.io.get_executor(), founder, founder, std::move(log), *state);
    outbox out;
    out.attach(v);
    const record r = run_state_record{run_phase::running, ""};
    for (int i = 0; i < 2046; ++i) REQUIRE(run(v.propose(r)));
    s.how = memory_storage::failure::before;
    s.error = errc::no_space;
    s.changes = 0;
    s.at = 1;  // the append succeeds, the snapshot after it does not
    CHECK(run(v.propose(r)));
    CHECK(load(s) == v.state());
    // There is room again: the next record brings the snapshot.
    CHECK(run(v.propose(r)));
    CHECK(load(s) == v.state());
    CHECK(s.files.size() == 1);
}

TEST_CASE("a follower asks for the log of the founder alone, and proposes nothing") {
    runner run;
    single_voter v(run.io.get_executor(), follower, founder, nullptr, ledger{});
    outbox out;
    out.attach(v);
    CHECK_FALSE(v.leads());
    v.link_up(digest_of(9));
    CHECK(out.sent.empty());
    v.link_up(founder);
    REQUIRE(out.sent.size() == 1);
    CHECK(out.sent[0].first == founder);
    CHECK(std::get<log_request>(out.sent[0].second).after == 0);
    const auto r = run(v.propose(admit_of(1)));
    REQUIRE_FALSE(r);
    CHECK(r.error().code == errc::quorum_lost);
    CHECK(v.receive(digest_of(9), log_request{}));  // asked of the wrong node: no answer, no offence
    CHECK(out.sent.size() == 1);
}

TEST_CASE("a follower applies the founder's entries in order, once") {
    runner run;
    single_voter v(run.io.get_executor(), follower, founder, nullptr, ledger{});
    outbox out;
    out.attach(v);
    // Before it has a snapshot it takes no entries.
    REQUIRE(v.receive(founder, entries_of(1, {admit_of(1)})));
    CHECK(v.state() == ledger{});
    CHECK(out.sent.size() == 1);
    auto l = ledger_of(3);
    REQUIRE(v.receive(founder, log_snapshot{l.snapshot()}));
    CHECK(v.state() == l);
    CHECK(out.applied == std::vector<bool>{false});
    const std::vector<record> more = {admit_of(4), admit_of(5), admit_of(6)};
    REQUIRE(v.receive(founder, entries_of(4, {more[0], more[1]})));
    for (const auto& r : {more[0], more[1]}) l.apply(r);
    CHECK(v.state() == l);
    REQUIRE(v.receive(founder, entries_of(4, more)));  // two of them again
    l.apply(more[2]);
    CHECK(v.state() == l);
    REQUIRE(v.receive(founder, entries_of(1, more)));  // all of them long ago
    CHECK(v.state() == l);
    CHECK(out.applied.size() == 4);
    // A gap: it asks again.
    out.sent.clear();
    REQUIRE(v.receive(founder, entries_of(9, {admit_of(7)})));
    CHECK(v.state() == l);
    REQUIRE(out.sent.size() == 1);
    CHECK(std::holds_alternative<log_request>(out.sent[0].second));
    // The answer may have overtaken some.
    auto ahead = l;
    ahead.apply(admit_of(7));
    ahead.apply(admit_of(8));
    REQUIRE(v.receive(founder, log_snapshot{ahead.snapshot()}));
    CHECK(v.state() == ahead);
    REQUIRE(v.receive(founder, entries_of(7, {admit_of(7)})));
    CHECK(v.state() == ahead);
}

TEST_CASE("a follower believes nobody but the founder, and not a log that went back or is damaged") {
    runner run;
    single_voter v(run.io.get_executor(), follower, founder, nullptr, ledger{});
    outbox out;
    out.attach(v);
    const auto l = ledger_of(3);
    for (const auto& liar : {digest_of(9), follower}) {
        CHECK(v.receive(liar, log_snapshot{l.snapshot()}).error().code == errc::protocol);
        CHECK(v.receive(liar, entries_of(1, {admit_of(1)})).error().code == errc::protocol);
    }
    CHECK(v.state() == ledger{});
    REQUIRE(v.receive(founder, log_snapshot{l.snapshot()}));
    CHECK(v.receive(founder, log_snapshot{ledger_of(2).snapshot()}).error().code == errc::protocol);
    CHECK(v.state() == l);
    CHECK_FALSE(v.receive(founder, log_snapshot{core::byte_vector(20, std::byte{9})}));
    log_entries bad;
    bad.first = 4;
    bad.records = {serialize(record(admit_of(4))), core::byte_vector(5, std::byte{9})};
    CHECK_FALSE(v.receive(founder, bad));
    // What was whole counts; the next answer repairs the rest.
    CHECK(v.state().index() == 4);
    bad.first = ~std::uint64_t{0};
    CHECK(v.receive(founder, bad));
    CHECK(v.state().index() == 4);
}

// The disk: durable when it says so, and what a crash may leave.

#include <set>

#include "tests/unit/sim/support.hpp"

using namespace longhaul;
using namespace longhaul::sim_tests;

namespace {

byte_vector text(std::string_view s) {
    const auto b = core::as_bytes(s);
    return {b.begin(), b.end()};
}

/// Runs one task on the node to its end.
void run(sim::world& w, sim::node& n, sim::node::main_function main) {
    n.start(std::move(main));
    w.run_for(10s);
    REQUIRE(n.outcome());
    if (!*n.outcome()) FAIL(n.outcome()->error().message);
}

}  // namespace

TEST_CASE("the storage does what its seam promises") {
    sim::world w(1);
    auto& a = w.add_node("a");
    run(w, a, [](environment& env) -> task<result<void>> {
        const auto hello = text("hello "), world = text("world");
        auto put = co_await env.storage.put("x/one", pieces(hello, world));
        LONGHAUL_CO_TRY(put);
        auto appended = co_await env.storage.append("x/one", hello);
        LONGHAUL_CO_TRY(appended);
        auto also = co_await env.storage.append("y", world);
        LONGHAUL_CO_TRY(also);
        auto one = co_await env.storage.read("x/one", 100);
        LONGHAUL_CO_TRY(one);
        CHECK(core::as_text(*one) == "hello worldhello ");
        auto large = co_await env.storage.read("x/one", 5);
        CHECK(large.error().code == errc::limit);
        auto none = co_await env.storage.read("x/none", 5);
        CHECK(none.error().code == errc::not_found);
        auto bad = co_await env.storage.read("../secret", 5);
        CHECK(bad.error().code == errc::malformed);
        auto top = co_await env.storage.list("");
        LONGHAUL_CO_TRY(top);
        CHECK(*top == std::vector<std::string>{"x/", "y"});
        auto renamed = co_await env.storage.rename("x", "z");
        LONGHAUL_CO_TRY(renamed);
        auto taken = co_await env.storage.rename("y", "z");
        CHECK(taken.error().code == errc::io);
        auto missing = co_await env.storage.rename("x", "q");
        CHECK(missing.error().code == errc::not_found);
        auto inner = co_await env.storage.list("z");
        LONGHAUL_CO_TRY(inner);
        CHECK(*inner == std::vector<std::string>{"one"});
        auto removed = co_await env.storage.remove("z");
        LONGHAUL_CO_TRY(removed);
        auto again = co_await env.storage.remove("z");
        LONGHAUL_CO_TRY(again);
        auto left = co_await env.storage.list("");
        LONGHAUL_CO_TRY(left);
        CHECK(*left == std::vector<std::string>{"y"});
        co_return core::ok();
    });
}

TEST_CASE("operations take their latency and the disk's rate") {
    std::optional<core::duration> done;
    sim::world w(1);
    auto& a = w.add_node("a", {.disk = {.latency = 5ms, .rate = {8e6}}});
    run(w, a, [&](environment& env) -> task<result<void>> {
        const byte_vector data(1'000'000);
        auto put = co_await env.storage.put("f", pieces(data));
        LONGHAUL_CO_TRY(put);
        done = w.now();
        co_return core::ok();
    });
    CHECK(done == 1005ms);
}

TEST_CASE("a restart sees what was durable, and nothing that was not") {
    // A log of records and a document; killed at every 100 µs of it.
    std::set<std::size_t> tails;
    int old_documents = 0, new_documents = 0;
    for (int step = 0; step < 120; ++step) {
        std::uint64_t acknowledged = 0;
        int documents = 0;
        sim::world w(static_cast<std::uint64_t>(step));
        auto& a = w.add_node("a");
        a.start([&](environment& env) -> task<result<void>> {
            for (std::uint64_t i = 0;; ++i) {
                const byte_vector record(100, static_cast<std::byte>(i));
                auto appended = co_await env.storage.append("log", record);
                LONGHAUL_CO_TRY(appended);
                ++acknowledged;
                const byte_vector document(50, static_cast<std::byte>(i));
                auto put = co_await env.storage.put("document", pieces(document));
                LONGHAUL_CO_TRY(put);
                ++documents;
            }
        });
        const bool power = step % 2 == 0;
        w.at(1ms + 100us * step, [&] { power ? a.vanish() : a.kill(); });
        w.run_until(1s);
        const auto written = acknowledged;

        byte_vector log, document;
        run(w, a, [&](environment& env) -> task<result<void>> {
            auto l = co_await env.storage.read("log", 1'000'000);
            if (l) log = *l;
            auto d = co_await env.storage.read("document", 1'000'000);
            if (d) document = *d;
            co_return core::ok();
        });
        CAPTURE(step, written, documents, log.size());
        // All that was acknowledged, then any part of one record.
        REQUIRE(log.size() >= written * 100);
        REQUIRE(log.size() <= (written + 1) * 100);
        for (std::size_t i = 0; i < log.size(); ++i) REQUIRE(log[i] == static_cast<std::byte>(i / 100));
        if (log.size() % 100 != 0) tails.insert(log.size() % 100);
        // The document is a whole one: the last acknowledged or the one after it.
        if (documents > 0) REQUIRE(document.size() == 50);
        if (document.empty()) continue;
        REQUIRE(std::set<std::byte>(document.begin(), document.end()).size() == 1);
        const int version = static_cast<int>(document[0]);
        REQUIRE((version == documents - 1 || version == documents));
        ++(version == documents ? new_documents : old_documents);
    }
    // The crash really ends in many places.
    CHECK(tails.size() > 10);
    CHECK(old_documents > 0);
    CHECK(new_documents > 0);
}

TEST_CASE("a full disk refuses, keeps the old file, and works again when there is room") {
    sim::world w(1);
    auto& a = w.add_node("a", {.disk = {.capacity = 1000}});
    run(w, a, [&](environment& env) -> task<result<void>> {
        const byte_vector small(400, std::byte{1}), large(700, std::byte{2});
        auto put = co_await env.storage.put("f", pieces(small));
        LONGHAUL_CO_TRY(put);
        auto full = co_await env.storage.put("f", pieces(large));
        CHECK(full.error().code == errc::no_space);
        auto append = co_await env.storage.append("f", large);
        CHECK(append.error().code == errc::no_space);
        auto still = co_await env.storage.read("f", 1000);
        LONGHAUL_CO_TRY(still);
        CHECK(*still == small);
        a.disk().set_capacity(0);
        auto now = co_await env.storage.put("f", pieces(large));
        LONGHAUL_CO_TRY(now);
        CHECK(a.disk().used() == 700);
        co_return core::ok();
    });
}

TEST_CASE("a failed sync is an error: a put leaves the old file, an append any part of its bytes") {
    sim::world w(3);
    auto& a = w.add_node("a");
    run(w, a, [&](environment& env) -> task<result<void>> {
        const byte_vector one(100, std::byte{1}), two(100, std::byte{2});
        auto put = co_await env.storage.put("f", pieces(one));
        LONGHAUL_CO_TRY(put);
        a.disk().fail_syncs(2);
        auto failed = co_await env.storage.put("f", pieces(two));
        CHECK(failed.error().code == errc::io);
        CHECK(a.disk().files().at("f") == one);
        auto tail = co_await env.storage.append("f", two);
        CHECK(tail.error().code == errc::io);
        CHECK(a.disk().files().at("f").size() >= 100);
        CHECK(a.disk().files().at("f").size() <= 200);
        co_return co_await env.storage.put("f", pieces(two));
    });
    CHECK(a.disk().files().at("f") == byte_vector(100, std::byte{2}));
}

TEST_CASE("bit rot changes one bit") {
    sim::world w(1);
    auto& a = w.add_node("a");
    a.disk().write("f", byte_vector(10));
    a.disk().flip_bit("f", 13);
    CHECK(a.disk().files().at("f")[1] == std::byte{32});
}

// The trace of one small fixed scenario, as a constant: it must be the same under gcc and clang, with and without
// optimisation and sanitizers, today and next year. If it changes, the simulated world has changed its meaning: seeds
// in old bug reports no longer reproduce. Then change the constant, and say why in the commit.

#include "tests/unit/sim/support.hpp"

using namespace longhaul;
using namespace longhaul::sim_tests;

TEST_CASE("the golden trace") {
    const auto data = pattern(200'000, 42);
    std::optional<core::duration> begun, done;
    byte_vector got(data.size());
    sim::world w(20'251'121);
    auto& a = w.add_node("a", {.up = {7e6}, .down = {30e6}});
    auto& b = w.add_node("b", {.up = {3e6}, .down = {11e6}});
    w.set_paths("a", "b", {.delay = 23ms, .jitter = 5ms, .loss = 0.02});
    b.start([&](environment& env) -> task<result<void>> {
        auto received = co_await receive(env, w, got, done);
        LONGHAUL_CO_TRY(received);
        auto stored = co_await env.storage.put("got", pieces(got));
        LONGHAUL_CO_TRY(stored);
        core::event e("stored");
        e.with("bytes", std::uint64_t{got.size()}).with("seconds", 0.125);
        env.events.emit(e);
        co_return core::ok();
    });
    a.start([&](environment& env) { return transmit(env, w, {"b", 1}, data, begun); });
    w.at(150ms, [&] { w.cut({"a"}, {"b"}); });
    w.at(400ms, [&] { w.heal(); });
    w.run_until(10s);
    REQUIRE(done);
    CHECK(got == data);
    CHECK(w.trace_hash().hex() == "7409d72f74628fae5451074faef0fa15320ca9ebddef8b0a1d1178671fd68b2e");
}

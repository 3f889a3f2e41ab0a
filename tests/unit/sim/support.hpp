#pragma once
/// Small tasks that the tests of the simulated world run on its nodes.

#include <optional>
#include <string>
#include <vector>

#include "core/task.hpp"
#include "net/environment.hpp"
#include "sim/world.hpp"
#include "tests/test.hpp"

namespace longhaul::sim_tests {

using namespace std::chrono_literals;
using core::byte_vector;
using core::errc;
using core::result;
using core::task;
using net::environment;

/// Bytes that differ from place to place.
inline byte_vector pattern(std::size_t n, std::uint64_t seed = 1) {
    core::seeded_entropy random(seed, "pattern");
    byte_vector out(n);
    random.fill(out);
    return out;
}

/// What `put` takes. (g++ 12 cannot compile a braced list inside a co_await expression.)
template <typename... Pieces>
std::vector<core::const_bytes> pieces(const Pieces&... p) {
    return {core::const_bytes(p)...};
}

/// Accepts one stream on `port`.
inline task<result<std::unique_ptr<net::stream>>> accept_one(environment& env, std::uint16_t port) {
    auto listening = env.network.listen({"", port});
    LONGHAUL_CO_TRY(listening);
    co_return co_await (*listening)->accept();
}

/// Accepts one stream and reads `bytes` of it; `done` is when the last came.
inline task<result<void>> receive(environment& env, sim::world& w, byte_vector& into,
                                  std::optional<core::duration>& done) {
    auto s = co_await accept_one(env, 1);
    LONGHAUL_CO_TRY(s);
    auto got = co_await net::read_exact(**s, into);
    LONGHAUL_CO_TRY(got);
    done = w.now();
    co_return core::ok();
}

/// Connects and sends all of `data`, then waits for the other end; `begun` is when the first byte was written.
inline task<result<void>> transmit(environment& env, sim::world& w, net::endpoint to, const byte_vector& data,
                                   std::optional<core::duration>& begun) {
    auto s = co_await env.network.connect(std::move(to), net::stream_purpose::bulk);
    LONGHAUL_CO_TRY(s);
    begun = w.now();
    auto sent = co_await net::write_all(**s, data);
    LONGHAUL_CO_TRY(sent);
    byte_vector end(1);
    auto ended = co_await (*s)->read_some(end);
    LONGHAUL_CO_TRY(ended);
    co_return core::ok();
}

}  // namespace longhaul::sim_tests

#include "net/secure.hpp"

namespace longhaul::net {

using core::errc;
using core::fail;
using core::ok;
using core::result;
using core::task;

task<result<void>> raw_connection::read(core::mutable_bytes out) {
    std::size_t done = 0;
    while (done < out.size()) {
        auto got = co_await stream->read_some(out.subspan(done));
        LONGHAUL_CO_TRY(got);
        if (*got == 0) co_return fail(errc::closed, "{} hung up", stream->remote().text());
        count.received += *got;
        done += *got;
    }
    co_return ok();
}

task<result<void>> raw_connection::write(core::const_bytes data) {
    while (!data.empty()) {
        auto put = co_await stream->write_some(data);
        LONGHAUL_CO_TRY(put);
        count.sent += *put;
        data = data.subspan(*put);
    }
    co_return ok();
}

namespace {

task<result<void>> drain(raw_connection& c) {
    std::array<std::byte, 512> scratch{};
    for (;;) {
        auto got = co_await c.stream->read_some(scratch);
        if (!got || *got == 0) co_return ok();
        c.count.received += *got;
    }
}

task<result<std::unique_ptr<channel>>> secure_bulk(environment& env, raw_connection& c, const core::digest& run,
                                                   const noise::secret_key& exporter, std::uint32_t number) {
    hello mine;
    mine.role = hello_role::bulk;
    mine.connection = number;
    mine.run = run;
    mine.session = session_of(exporter);
    const auto greeted = co_await greet(c, mine);
    LONGHAUL_CO_TRY(greeted);
    bulk_handshake handshake(side::initiator, connection_key(exporter, side::initiator, number), greeted->prologue,
                             env.entropy);
    while (!handshake.done()) {
        auto stepped = co_await step(c, handshake);
        LONGHAUL_CO_TRY(stepped);
    }
    co_return std::make_unique<channel>(std::move(c.stream), handshake.finish(), c.count);
}

}  // namespace

task<result<void>> raw_connection::linger(core::clock& clock, core::duration limit) {
    auto drained = co_await core::with_deadline(clock, drain(*this), clock.now() + limit);
    co_return ok();
}

task<result<greeting>> greet(raw_connection& c, const hello& mine) {
    const auto sent = mine.encode();
    hello_bytes received{};
    auto moved = co_await c.write(sent);
    if (moved) moved = co_await c.read(received);
    if (!moved && moved.error().code == errc::closed) {
        co_return fail(errc::unreachable, "it hung up before it said anything: it may be busy; try again");
    }
    LONGHAUL_CO_TRY(moved);
    const auto theirs = parse_hello(received);
    LONGHAUL_CO_TRY(theirs);
    const auto fits = compare(mine, *theirs, side::initiator);
    LONGHAUL_CO_TRY(fits);
    greeting both;
    both.mine = mine;
    both.theirs = *theirs;
    both.prologue = prologue_of(sent, received);
    co_return both;
}

task<result<greeting>> answer_greeting(raw_connection& c, const core::digest& our_run) {
    hello_bytes received{};
    auto moved = co_await c.read(received);
    LONGHAUL_CO_TRY(moved);
    const auto theirs = parse_hello(received);
    LONGHAUL_CO_TRY(theirs);
    greeting both;
    both.theirs = *theirs;
    both.mine = theirs->answer(our_run);
    const auto sent = both.mine.encode();
    moved = co_await c.write(sent);
    LONGHAUL_CO_TRY(moved);
    both.prologue = prologue_of(received, sent);
    co_return both;
}

task<result<std::unique_ptr<channel>>> dial_bulk(environment& env, endpoint to, core::digest run,
                                                 noise::secret_key exporter, std::uint32_t number,
                                                 core::duration connect_deadline, core::duration handshake_deadline) {
    auto connecting = env.network.connect(std::move(to), stream_purpose::bulk);
    auto connected = co_await core::with_deadline(env.clock, std::move(connecting), env.clock.now() + connect_deadline);
    LONGHAUL_CO_TRY(connected);
    raw_connection raw(std::move(*connected));
    auto securing = secure_bulk(env, raw, run, exporter, number);
    co_return co_await core::with_deadline(env.clock, std::move(securing), env.clock.now() + handshake_deadline);
}

}  // namespace longhaul::net

#pragma once
/// What mesh tests do over and over: dial, listen beside a test, see that a node still serves.

#include "tests/unit/net/link_world.hpp"

namespace longhaul::net::testing {

using dialled = result<std::shared_ptr<link>>;

inline task<dialled> dial(node& from, const endpoint& to) {
    auto dialling = from.net->dial(to);
    co_return co_await std::move(dialling);
}

inline core::digest key_of(int n) {
    core::digest d;
    d.bytes[0] = static_cast<std::byte>(n);
    return d;
}

inline mesh_options with_psk(int n) {
    mesh_options o;
    o.run = key_of(1);
    o.psk = key_of(n);
    return o;
}

inline bool code_is(const dialled& d, errc code) { return !d && d.error().code == code; }

/// That a newcomer still gets in: whatever happened on the port before, the node is alive.
inline task<result<void>> still_serves(world& w, node& at, int psk = 0, int token = 0) {
    auto options = psk > 0 ? with_psk(psk) : mesh_options{};
    if (token > 0) options.token = key_of(token);
    node guest(w, std::move(options));
    auto visit = [](world& in, node& visitor, node& host) -> task<result<void>> {
        auto made = co_await dial(visitor, host.at);
        LONGHAUL_CO_TRY(made);
        auto sending = (*made)->send(text("hello"));
        auto sent = co_await std::move(sending);
        LONGHAUL_CO_TRY(sent);
        co_return co_await eventually(in, [&host, &visitor] { return host.net->find(visitor.self.key()) != nullptr; });
    };
    auto body = visit(w, guest, at);
    std::vector<node*> one{&guest};
    co_return co_await serving(w, std::move(one), std::move(body));
}

using node_body = task<result<void>> (*)(world&, node&);

/// Runs `body` beside a listening node.
inline task<result<void>> listening_body(world& w, node& n, node_body body) {
    MUST(n.listen());
    co_return co_await body(w, n);
}
inline task<result<void>> beside(world& w, node& n, node_body body) {
    auto inner = listening_body(w, n, body);
    std::vector<node*> one{&n};
    co_return co_await serving(w, std::move(one), std::move(inner));
}

inline task<result<std::unique_ptr<stream>>> connect(world& w, const endpoint& to) {
    auto connecting = w.env.network.connect(to, stream_purpose::control);
    co_return co_await std::move(connecting);
}

/// Reads until the other end hangs up.
inline task<result<void>> hung_up(world& w, stream& s) {
    auto draining = [](stream& from) -> task<result<void>> {
        std::array<std::byte, 512> scratch{};
        for (;;) {
            auto got = co_await from.read_some(scratch);
            if (!got || *got == 0) co_return ok();
        }
    };
    co_return co_await core::with_deadline(w.env.clock, draining(s), w.env.clock.now() + 5s);
}

}  // namespace longhaul::net::testing

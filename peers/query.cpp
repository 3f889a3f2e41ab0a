#include "net/mesh.hpp"
#include "peers/messages.hpp"
#include "peers/peer.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

core::task<core::result<std::string>> ask(net::link& link) {
    greeting g;
    g.observer = true;
    auto greeted = co_await link.send(serialize(message(g)));
    LONGHAUL_CO_TRY(greeted);
    auto asked = co_await link.send(serialize(message(status_request{})));
    LONGHAUL_CO_TRY(asked);
    for (;;) {
        auto bytes = co_await link.receive();
        LONGHAUL_CO_TRY(bytes);
        auto m = parse_message(*bytes);
        LONGHAUL_CO_TRY(m);
        if (auto* reply = std::get_if<status_reply>(&*m)) {
            link.close("answered");
            co_return std::move(reply->json);
        }
    }
}

/// Whoever answers first and tells, of those addresses.
core::task<core::result<void>> ask_in_turn(net::mesh& mesh, std::vector<net::endpoint> addresses,
                                           core::result<std::string>& answer) {
    while (!addresses.empty()) {
        auto made = co_await mesh.dial(addresses);
        if (!made) {
            answer = fail(made.error());
            break;
        }
        std::erase(addresses, made->asked);
        answer = co_await ask(*made->link);
        if (answer || answer.error().code == errc::cancelled) break;
    }
    mesh.close("done");
    // Ends the scope, and with it the mesh's own coroutine.
    co_return fail(errc::cancelled, "done");
}

}  // namespace

core::task<core::result<std::string>> query_status(net::environment& env, net::ticket to, core::duration deadline) {
    if (!to.key) {
        core::error last(errc::unreachable, "no address");
        for (const auto& a : to.addresses) {
            auto hello = co_await net::mesh::probe(env, a, deadline);
            if (!hello) {
                last = hello.error();
                continue;
            }
            net::ticket_key key;
            key.run = hello->run;
            to.key = key;
            break;
        }
        if (!to.key) co_return fail(last);
    }
    const auto self = net::identity::generate(env.entropy);
    net::mesh_options o;
    o.run = to.key->run;
    o.psk = to.key->secret.value_or(core::digest{});
    o.token = to.key->token;
    o.name = "observer";
    net::mesh mesh(
        env, self, o, [](const net::remote_peer&, bool) { return core::ok(); }, [](std::shared_ptr<net::link>) {});
    core::result<std::string> answer = fail(errc::unreachable, "nobody answered");
    core::scope both(env.executor);
    both.spawn("mesh", mesh.serve());
    both.spawn("question", ask_in_turn(mesh, to.addresses, answer));
    auto joined = co_await core::with_deadline(env.clock, both.join(), env.clock.now() + deadline);
    if (!joined && joined.error().code == errc::timeout) co_return fail(errc::timeout, "no answer within the deadline");
    co_return answer;
}

}  // namespace longhaul::peers

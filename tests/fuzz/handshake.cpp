/// Any bytes as messages of a control handshake, at either side and each step; and, since random bytes never pass the
/// authentication, any bytes as the payload of a peer whose cryptography is right.
#include "net/handshake.hpp"

#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

namespace {

struct fixed {
    core::seeded_entropy entropy{1};
    net::identity self = net::identity::generate(entropy);
    net::identity peer = net::identity::generate(entropy);
};

fixed& world() {
    static fixed w;
    return w;
}

net::control_handshake ours(net::side s) {
    auto& w = world();
    net::self_description about;
    about.name = "self";
    return {s, w.self, about, {}, {}, {}, w.entropy};
}

net::noise::handshake_state theirs(bool initiator) {
    auto& w = world();
    return {net::noise::xx_psk0,
            initiator,
            {},
            net::noise::key_pair{net::noise::secret_key(w.peer.noise_secret()), w.peer.noise_public().bytes},
            {net::noise::secret_key{}},
            w.entropy};
}

/// The peer's key and a right signature of its static key, as the payload begins.
core::byte_vector signed_head(net::side s) {
    auto& w = world();
    core::byte_writer statement;
    statement.raw(core::digest{}.bytes).raw(w.peer.noise_public().bytes).u8(static_cast<std::uint8_t>(s));
    core::byte_writer head;
    head.raw(w.peer.key().bytes).raw(w.peer.sign("longhaul-static-v1", statement.bytes()));
    return head.take();
}

void check(const net::control_handshake& h, bool read, bool may_have_token) {
    FUZZ_CHECK(h.remote().has_value() == read);
    FUZZ_CHECK(read || (!h.done() && !h.my_turn()));
    if (!read) return;
    const auto& peer = *h.remote();
    FUZZ_CHECK(peer.key == world().peer.key());
    FUZZ_CHECK(net::is_printable_utf8(peer.name, net::max_name_bytes));
    FUZZ_CHECK(peer.advertised.size() <= net::max_advertised);
    for (const auto& at : peer.advertised) FUZZ_CHECK(!at.host.empty() && at.port != 0);
    FUZZ_CHECK(may_have_token || !peer.token);
}

}  // namespace

FUZZ_TARGET(handshake) {
    fuzz_input input(data, size);
    const auto mode = input.byte();
    const bool we_respond = (mode & 1U) != 0;
    auto us = ours(we_respond ? net::side::responder : net::side::initiator);
    auto them = theirs(we_respond);

    core::byte_vector payload;
    if ((mode & 2U) != 0) payload = signed_head(we_respond ? net::side::initiator : net::side::responder);
    const auto rest = input.rest();
    payload.insert(payload.end(), rest.begin(), rest.end());
    if ((mode & 4U) != 0) {
        // Raw bytes, at our first or second read.
        if (we_respond && (mode & 8U) != 0) {
            FUZZ_CHECK(us.read(*them.write({})).has_value());
            FUZZ_CHECK(us.write().has_value());
        } else if (!we_respond) {
            FUZZ_CHECK(us.write().has_value());
        }
        FUZZ_CHECK(!us.read(rest));
        check(us, false, false);
        (void)net::parse_verdict(rest);
        return;
    }
    if (payload.size() > 4096) return;
    if (we_respond) {
        FUZZ_CHECK(us.read(*them.write({})).has_value());
        FUZZ_CHECK(them.read(*us.write()).has_value());
    } else {
        FUZZ_CHECK(them.read(*us.write()).has_value());
    }
    const auto read = us.read(*them.write(payload));
    check(us, read.has_value(), we_respond);
    if (read && !we_respond) FUZZ_CHECK(them.read(*us.write()).has_value());
    if (const auto v = net::parse_verdict(rest)) {
        const auto again = v->encode();
        FUZZ_CHECK(std::ranges::equal(again, rest));
    }
}

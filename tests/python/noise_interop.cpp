/// The C++ end of tests/python/noise_interop.py: one side of a conversation over stdin and stdout.
///
///     noise_interop noise PATTERN SIDE PROLOGUE PSK        plain Noise, and the exporter in the clear at the end
///     noise_interop longhaul SIDE RUN PSK                  PROTOCOL.md §1 to §6: control, then bulk, on the same pipe

#include <cstdio>
#include <cstdlib>
#include <string>

#include "net/handshake.hpp"

namespace {

using namespace longhaul;

[[noreturn]] void die(const std::string& why) {
    std::fprintf(stderr, "noise_interop: %s\n", why.c_str());
    std::exit(1);
}

template <typename T>
T must(core::result<T> r) {
    if (!r) die(r.error().message);
    return std::move(*r);
}
void must(core::result<void> r) {
    if (!r) die(r.error().message);
}
void require(bool holds, const char* what) {
    if (!holds) die(what);
}

core::byte_vector read_bytes(std::size_t n) {
    core::byte_vector out(n);
    require(std::fread(out.data(), 1, n, stdin) == n, "the other side ended early");
    return out;
}
void write_bytes(core::const_bytes bytes) {
    require(std::fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size() && std::fflush(stdout) == 0,
            "the other side is gone");
}
core::byte_vector read_frame(std::size_t max) { return read_bytes(must(net::frame_length(read_bytes(2), max))); }

core::byte_vector unhex(const std::string& text) {
    core::byte_vector out(text.size() / 2);
    must(core::from_hex(text, out));
    return out;
}
core::digest digest_of(const std::string& text) {
    core::digest d;
    must(core::from_hex(text, d.bytes));
    return d;
}
net::side side_of(const std::string& text) { return text == "initiator" ? net::side::initiator : net::side::responder; }
core::byte_vector reversed(core::const_bytes b) { return {b.rbegin(), b.rend()}; }

/// The initiator sends lines and gets each back reversed; after two of them both sides change their keys.
void plain_noise(const std::string& name, bool initiator, core::const_bytes prologue, const core::digest& psk) {
    core::system_entropy entropy;
    const auto what = name == "NNpsk0" ? net::noise::nn_psk0 : net::noise::xx_psk0;
    net::noise::handshake_state state(what, initiator, prologue, net::noise::key_pair::generate(entropy),
                                      {net::noise::secret_key(psk)}, entropy);
    for (int i = 0; !state.complete(); ++i) {
        const auto payload = "handshake payload " + std::to_string(i);
        if (state.my_turn()) {
            write_bytes(net::frame(must(state.write(core::as_bytes(payload)))));
        } else {
            const auto got = must(state.read(read_frame(net::noise::max_message)));
            require(core::as_text(got) == payload, "a handshake payload differs");
        }
    }
    auto session = state.split();
    const auto send = [&session](core::const_bytes text) {
        core::byte_vector sealed(text.size() + net::noise::tag_size);
        must(session.send.encrypt({}, text, sealed));
        write_bytes(net::frame(sealed));
    };
    const auto receive = [&session] {
        const auto sealed = read_frame(net::noise::max_message);
        core::byte_vector text(sealed.size() - net::noise::tag_size);
        must(session.receive.decrypt({}, sealed, text));
        return text;
    };
    for (int i = 0; i < 4; ++i) {
        if (i == 2) {
            session.send.rekey();
            session.receive.rekey();
        }
        if (initiator) {
            const auto text = "transport message " + std::to_string(i);
            send(core::as_bytes(text));
            require(receive() == reversed(core::as_bytes(text)), "an answer differs");
        } else {
            send(reversed(receive()));
        }
    }
    write_bytes(net::frame(session.exporter.view()));
    write_bytes(net::frame(session.hash.bytes));
}

void send_record(net::secured& c, std::uint8_t type, core::const_bytes payload) {
    core::byte_vector out(payload.size() + net::record_overhead);
    must(c.sealer.seal(type, 7, payload, out));
    write_bytes(out);
}
core::byte_vector receive_record(net::secured& c, std::uint8_t type) {
    auto sealed = read_frame(net::max_record_ciphertext);
    const auto r = must(c.opener.open(sealed));
    require(r.type == type, "a record of another type came");
    return {r.payload.begin(), r.payload.end()};
}

/// Exchanges hellos; the prologue.
core::byte_vector greet(net::side mine, const net::hello& ours) {
    if (mine == net::side::initiator) {
        const auto sent = ours.encode();
        write_bytes(sent);
        const auto got = read_bytes(net::hello_size);
        must(net::compare(ours, must(net::parse_hello(got)), mine));
        net::hello_bytes received{};
        std::copy(got.begin(), got.end(), received.begin());
        return net::prologue_of(sent, received);
    }
    const auto got = read_bytes(net::hello_size);
    const auto theirs = must(net::parse_hello(got));
    const auto answer = theirs.answer(ours.run);
    must(net::compare(answer, theirs, mine));
    require(theirs.session == ours.session && theirs.connection == ours.connection, "a hello of another session");
    net::hello_bytes received{};
    std::copy(got.begin(), got.end(), received.begin());
    write_bytes(answer.encode());
    return net::prologue_of(received, answer.encode());
}

template <typename Handshake>
net::secured shake(Handshake& handshake) {
    while (!handshake.done()) {
        if (handshake.my_turn()) {
            write_bytes(net::frame(must(handshake.write())));
        } else {
            must(handshake.read(read_frame(handshake.max_next())));
        }
    }
    return handshake.finish();
}

void whole_protocol(net::side mine, const core::digest& run, const core::digest& psk) {
    const bool initiator = mine == net::side::initiator;
    core::system_entropy entropy;
    const auto self = net::identity::generate(entropy);
    net::hello hello;
    hello.run = run;
    const auto prologue = greet(mine, hello);
    net::self_description about{
        41, 6, "the C++ end ✓", {{"192.0.2.7", 7400}, {"::1", 1}}, digest_of(std::string(64, '5'))};
    net::control_handshake handshake(mine, self, about, run, prologue, psk, entropy);
    auto control = shake(handshake);
    const auto& peer = *handshake.remote();
    require(peer.name == "the Python end ✓" && peer.incarnation == 17 && peer.features == 9, "a description differs");
    require(peer.advertised == std::vector<net::endpoint>{{"node.example.org", 65535}}, "an address differs");
    require(peer.token.has_value() != initiator, "a token is where none belongs");
    if (initiator) {
        const auto verdict = must(net::parse_verdict(receive_record(control, 2)));
        require(verdict.code == net::refusal::busy && verdict.sentence == "only trying", "a verdict differs");
    } else {
        send_record(control, 2, net::verdict{net::refusal::busy, "only trying"}.encode());
    }
    send_record(control, 16, peer.key.bytes);  // each tells the other what it took the other for
    require(receive_record(control, 16) == core::byte_vector(self.key().bytes.begin(), self.key().bytes.end()),
            "the other side knows us under another key");
    write_bytes(must(control.sealer.seal_end("control is over")));
    require(core::as_text(receive_record(control, 1)) == "control is over", "an end differs");

    hello.role = net::hello_role::bulk;
    hello.connection = 3;
    hello.session = net::session_of(control.exporter);
    const auto bulk_prologue = greet(mine, hello);
    net::bulk_handshake further(mine, net::connection_key(control.exporter, net::side::initiator, 3), bulk_prologue,
                                entropy);
    auto bulk = shake(further);
    const core::byte_vector data(100, std::byte{0x5A});
    core::byte_vector sealed(data.size() + net::data_overhead);
    must(bulk.sealer.seal_data(data, sealed));
    write_bytes(sealed);
    const auto received = read_frame(net::max_record_ciphertext);
    core::byte_vector destination(received.size() - net::noise::tag_size);
    must(bulk.opener.open_data(received, destination));
    require(destination == data, "data differ");
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.size() == 5 && arguments[0] == "noise") {
        plain_noise(arguments[1], arguments[2] == "initiator", unhex(arguments[3]), digest_of(arguments[4]));
    } else if (arguments.size() == 4 && arguments[0] == "longhaul") {
        whole_protocol(side_of(arguments[1]), digest_of(arguments[2]), digest_of(arguments[3]));
    } else {
        die("usage: noise_interop noise PATTERN SIDE PROLOGUE PSK | longhaul SIDE RUN PSK");
    }
    return 0;
}

/// What goes over the wire, byte by byte: a change of format cannot pass unnoticed.
#include <fstream>

#include "net/handshake.hpp"
#include "net/ticket.hpp"
#include "tests/source_dir.hpp"
#include "tests/test.hpp"
#include "tests/unit/net/fixtures.hpp"

namespace longhaul::net {
namespace {

using namespace testing;

core::byte_vector counting(unsigned char first, std::size_t n) {
    core::byte_vector out;
    for (std::size_t i = 0; i < n; ++i) out.push_back(static_cast<std::byte>(first + i));
    return out;
}

core::digest digest_of(core::const_bytes bytes) {
    core::digest d;
    std::ranges::copy(bytes, d.bytes.begin());
    return d;
}

/// "name hexadecimal" lines, in the order in which they were added.
class transcript {
public:
    void add(const std::string& name, core::const_bytes bytes) { add_text(name, core::to_hex(bytes)); }
    void add_text(const std::string& name, const std::string& value) { text_ += name + " " + value + "\n"; }
    void add_record(const std::string& name, record_sealer& sealer, std::uint8_t type, std::string_view payload) {
        core::byte_vector out(payload.size() + record_overhead);
        REQUIRE(sealer.seal(type, 0, core::as_bytes(payload), out));
        add(name, out);
    }
    const std::string& text() const { return text_; }

private:
    std::string text_;
};

std::string make() {
    transcript t;
    const auto init_id = *identity::parse(counting(1, 64));
    const auto resp_id = *identity::parse(counting(101, 64));
    const auto run = digest_of(counting(0, 32));
    const auto secret = digest_of(counting(32, 32));
    scripted_entropy init_entropy(counting(10, 64));
    scripted_entropy resp_entropy(counting(80, 64));

    hello h;
    h.run = run;
    const auto control_hello = h.encode();
    t.add("hello.control", control_hello);
    h = {};
    h.role = hello_role::probe;
    t.add("hello.probe", h.encode());

    self_description about{
        7, 0x0102, "initiator", {{"192.0.2.1", 7400}, {"2001:db8::1", 80}}, digest_of(counting(64, 32))};
    control_handshake init(side::initiator, init_id, about, run, prologue_of(control_hello, control_hello), secret,
                           init_entropy);
    about = {8, 0, "responder", {}, std::nullopt};
    control_handshake resp(side::responder, resp_id, about, run, prologue_of(control_hello, control_hello), secret,
                           resp_entropy);
    for (int i = 0; i < 3; ++i) {
        auto& writer = i % 2 == 0 ? init : resp;
        const auto message = writer.write();
        REQUIRE(message);
        t.add(fmt::format("control.message{}", i + 1), frame(*message));
        REQUIRE((i % 2 == 0 ? resp : init).read(*message));
    }
    auto dialled = init.finish();
    auto answered = resp.finish();
    t.add("control.transcript", dialled.transcript.bytes);
    t.add("control.exporter", dialled.exporter.view());
    t.add("verdict.accepted", verdict{}.encode());
    t.add("verdict.refused", verdict{refusal::not_admitted, "no"}.encode());
    t.add_record("record.verdict", answered.sealer, static_cast<std::uint8_t>(record_type::verdict), "\x01\x02no");
    t.add_record("record.first", dialled.sealer, 16, "first");
    t.add_record("record.empty", dialled.sealer, 16, "");
    t.add("record.end", *dialled.sealer.seal_end("bye"));

    h = {};
    h.role = hello_role::bulk;
    h.run = run;
    h.connection = 2;
    h.session = session_of(dialled.exporter);
    const auto bulk_hello = h.encode();
    t.add("hello.bulk", bulk_hello);
    const auto key = connection_key(dialled.exporter, side::responder, 2);
    t.add("bulk.key", key.view());
    bulk_handshake bulk_init(side::initiator, key, prologue_of(bulk_hello, bulk_hello), init_entropy);
    bulk_handshake bulk_resp(side::responder, key, prologue_of(bulk_hello, bulk_hello), resp_entropy);
    const auto first = bulk_init.write();
    REQUIRE(first);
    REQUIRE(bulk_resp.read(*first));
    const auto second = bulk_resp.write();
    REQUIRE(second);
    REQUIRE(bulk_init.read(*second));
    t.add("bulk.message1", frame(*first));
    t.add("bulk.message2", frame(*second));

    // The key changes before every second record here, to show REKEY; the protocol's interval is in record_test.cpp.
    record_sealer sealer(noise::cipher_state(noise::secret_key(run)), 2);
    for (int i = 0; i < 5; ++i) {
        core::byte_vector out(4 + data_overhead);
        REQUIRE(sealer.seal_data(core::as_bytes("data"), out));
        t.add(fmt::format("record.data{}", i), out);
    }
    t.add("identity.signature", init_id.sign("purpose", core::as_bytes("message")));
    ticket invite{{{"192.0.2.1", 7400}, {"::1", 7401}}, "my-run", ticket_key{run, secret, digest_of(counting(64, 32))}};
    t.add_text("ticket", invite.text());
    return t.text();
}

TEST_CASE("the bytes on the wire are those of tests/golden/wire_v1.txt") {
    const auto path = longhaul::tests::source_dir() + "/tests/golden/wire_v1.txt";
    std::ifstream in(path);
    const std::string golden{std::istreambuf_iterator<char>(in), {}};
    const auto made = make();
    if (made != golden) {
        std::ofstream("wire_v1.made.txt") << made;
        FAIL(
            "the wire format changed: if it is meant to, the wire version changes too, and the new file is "
            "wire_v1.made.txt in the working directory");
    }
    CHECK(std::ranges::count(golden, '\n') == 24);
}

}  // namespace
}  // namespace longhaul::net

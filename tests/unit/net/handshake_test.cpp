#include "net/handshake.hpp"

#include <set>

#include "tests/test.hpp"
#include "tests/unit/net/fixtures.hpp"

namespace longhaul::net {
namespace {

using namespace testing;

core::digest digest_of(unsigned char fill) {
    core::digest d;
    d.bytes.fill(static_cast<std::byte>(fill));
    return d;
}

struct setting {
    std::uint64_t seed = 1;
    self_description init{
        3, 5, "dialler", {{"192.0.2.1", 7400}, {"::1", 1}, {"node.example.org", 65535}}, digest_of(9)};
    self_description resp{4, 6, "räsponder", {}, std::nullopt};
    core::digest init_run = digest_of(1), resp_run = digest_of(1);
    core::digest init_psk = digest_of(2), resp_psk = digest_of(2);
    std::string init_prologue = "hellos", resp_prologue = "hellos";
    bool same_identity = false;
};

/// Both ends of one control handshake.
struct pair_of_ends {
    core::seeded_entropy entropy;
    identity init_id, resp_id;
    control_handshake init, resp;
    explicit pair_of_ends(const setting& s = {})
        : entropy(s.seed),
          init_id(identity::generate(entropy)),
          resp_id(s.same_identity ? init_id : identity::generate(entropy)),
          init(side::initiator, init_id, s.init, s.init_run, core::as_bytes(s.init_prologue), s.init_psk, entropy),
          resp(side::responder, resp_id, s.resp, s.resp_run, core::as_bytes(s.resp_prologue), s.resp_psk, entropy) {}
    control_handshake& writer(std::size_t i) { return i % 2 == 0 ? init : resp; }
    control_handshake& reader(std::size_t i) { return i % 2 == 0 ? resp : init; }
    core::result<void> pass(std::size_t from, std::size_t to) {
        for (std::size_t i = from; i < to; ++i) {
            REQUIRE(writer(i).my_turn());
            LONGHAUL_TRY_ASSIGN(const auto m, writer(i).write());
            CHECK(m.size() <= reader(i).max_next());
            LONGHAUL_TRY(reader(i).read(m));
        }
        return core::ok();
    }
};

void check_ciphers(secured& a, secured& b) {
    for (auto [from, to] : {std::pair{&a, &b}, std::pair{&b, &a}}) {
        core::byte_vector wire(3 + record_overhead);
        REQUIRE(from->sealer.seal(20, 0, core::as_bytes("abc"), wire));
        const auto r = to->opener.open(std::span(wire).subspan(record_prefix));
        REQUIRE(r);
        CHECK(core::as_text(r->payload) == "abc");
    }
}

TEST_CASE("a control handshake tells each end who the other is") {
    const setting s;
    pair_of_ends e(s);
    CHECK(e.resp.max_next() == 48);
    REQUIRE(e.pass(0, 2));
    REQUIRE(e.init.remote());
    CHECK_FALSE(e.resp.remote());  // the responder learns nothing before message 3
    CHECK_FALSE(e.init.done());
    REQUIRE(e.pass(2, 3));
    REQUIRE(e.init.done());
    REQUIRE(e.resp.done());
    const auto& seen = *e.resp.remote();
    CHECK(seen.key == e.init_id.key());
    CHECK(seen.incarnation == 3);
    CHECK(seen.features == 5);
    CHECK(seen.name == "dialler");
    CHECK(seen.advertised == s.init.advertised);
    CHECK(seen.token == s.init.token);
    CHECK(seen.observed == endpoint{});
    CHECK(e.init.remote()->key == e.resp_id.key());
    CHECK(e.init.remote()->incarnation == 4);
    CHECK(e.init.remote()->name == "räsponder");
    CHECK(e.init.remote()->advertised.empty());
    CHECK_FALSE(e.init.remote()->token);

    auto a = e.init.finish();
    auto b = e.resp.finish();
    CHECK(a.transcript == b.transcript);
    CHECK(std::ranges::equal(a.exporter.view(), b.exporter.view()));
    CHECK(session_of(a.exporter) == session_of(b.exporter));
    check_ciphers(a, b);
}

TEST_CASE("a responder keeps its token") {
    setting s;
    s.resp.token = digest_of(7);
    pair_of_ends e(s);
    REQUIRE(e.pass(0, 3));
    CHECK_FALSE(e.init.remote()->token);
}

TEST_CASE("the largest description fits, and larger ones are refused before anything is sent") {
    setting s;
    s.init.name = std::string(max_name_bytes, 'n');
    const std::string label(63, 'a');
    s.init.advertised.assign(max_advertised, {label + "." + label + "." + label + "." + std::string(61, 'b'), 1});
    REQUIRE(s.init.advertised.front().host.size() == max_host_bytes);
    s.resp = s.init;
    REQUIRE(pair_of_ends(s).pass(0, 3));

    const auto refused = [](auto change) {
        setting wrong;
        change(wrong.init);
        pair_of_ends e(wrong);
        const auto m = e.init.write();
        REQUIRE_FALSE(m);
        CHECK(m.error().code == core::errc::limit);
    };
    refused([](self_description& d) { d.name = std::string(max_name_bytes + 1, 'n'); });
    refused([](self_description& d) { d.name = "a\nb"; });
    refused([](self_description& d) { d.name = "\xff"; });
    refused([](self_description& d) { d.advertised.assign(max_advertised + 1, {"a", 1}); });
    refused([](self_description& d) { d.advertised = {{"a", 0}}; });
    refused([](self_description& d) { d.advertised = {{"", 1}}; });
    refused([](self_description& d) { d.advertised = {{"a b", 1}}; });
    refused([](self_description& d) { d.advertised = {{"/run/socket", 1}}; });
}

TEST_CASE("every flipped bit, every truncation of every message is refused, and the failure is final") {
    for (std::size_t target = 0; target < 3; ++target) {
        std::size_t size = 1;
        for (std::size_t bit = 0; bit < size * 8; ++bit) {
            pair_of_ends e;
            REQUIRE(e.pass(0, target));
            const auto m = e.writer(target).write();
            REQUIRE(m);
            size = m->size();
            auto& reader = e.reader(target);
            const auto read = reader.read(flipped(*m, bit));
            REQUIRE_FALSE(read);
            CHECK(read.error().code == (target == 0 ? core::errc::not_admitted : core::errc::protocol));
            CHECK_FALSE(reader.done());
            CHECK_FALSE(reader.my_turn());
            CHECK_FALSE(reader.remote());
            REQUIRE_FALSE(reader.read(*m));
        }
        for (std::size_t n = 0; n < size; n += 7) {
            pair_of_ends e;
            REQUIRE(e.pass(0, target));
            auto m = *e.writer(target).write();
            m.resize(n);
            REQUIRE_FALSE(e.reader(target).read(m));
        }
        pair_of_ends e;
        REQUIRE(e.pass(0, target));
        auto m = *e.writer(target).write();
        m.push_back(std::byte{0});
        REQUIRE_FALSE(e.reader(target).read(m));
    }
}

TEST_CASE("another run secret is not admitted at message 1") {
    setting s;
    s.init_psk = digest_of(3);
    pair_of_ends e(s);
    const auto passed = e.pass(0, 3);
    REQUIRE_FALSE(passed);
    CHECK(passed.error().code == core::errc::not_admitted);
    CHECK_FALSE(e.resp.done());
}

TEST_CASE("tampered hellos fail the handshake") {
    setting s;
    s.resp_prologue = "hellos of another version";
    CHECK_FALSE(pair_of_ends(s).pass(0, 3));
}

TEST_CASE("a static key signed for another run, or by another end, is refused") {
    // The prologue agrees here (a relay that forges it would), so only the signature stands in the way.
    setting s;
    s.resp_run = digest_of(5);
    const auto passed = pair_of_ends(s).pass(0, 3);
    REQUIRE_FALSE(passed);
    CHECK(passed.error().code == core::errc::protocol);
    CHECK(passed.error().message.find("did not sign") != std::string::npos);
}

TEST_CASE("a node refuses itself") {
    setting s;
    s.same_identity = true;
    const auto passed = pair_of_ends(s).pass(0, 3);
    REQUIRE_FALSE(passed);
    CHECK(passed.error().code == core::errc::protocol);
    CHECK(passed.error().message.find("this node itself") != std::string::npos);
}

/// A payload as a hostile initiator may write it in message 3, through a handshake of plain Noise.
struct hostile {
    core::seeded_entropy entropy{1};
    identity victim = identity::generate(entropy);
    identity attacker = identity::generate(entropy);

    core::byte_vector head(std::uint8_t signed_side = 0, bool right_static = true) {
        core::byte_writer text;
        text.raw(digest_of(1).bytes).raw(right_static ? attacker.noise_public().bytes : victim.noise_public().bytes);
        text.u8(signed_side);
        core::byte_writer out;
        out.raw(attacker.key().bytes).raw(attacker.sign("longhaul-static-v1", text.bytes())).u64(1).u64(0);
        return out.take();
    }
    core::result<void> send(core::const_bytes payload) {
        control_handshake resp(side::responder, victim, {}, digest_of(1), {}, digest_of(2), entropy);
        noise::handshake_state init(
            noise::xx_psk0, true, {},
            noise::key_pair{noise::secret_key(attacker.noise_secret()), attacker.noise_public().bytes},
            {noise::secret_key(digest_of(2))}, entropy);
        LONGHAUL_TRY(resp.read(*init.write({})));
        REQUIRE(init.read(*resp.write()));
        auto read = resp.read(*init.write(payload));
        CHECK(resp.done() == read.has_value());
        CHECK(resp.remote().has_value() == read.has_value());
        return read;
    }
    /// head ‖ rest
    core::result<void> send_rest(std::initializer_list<std::string> rest) {
        auto payload = head();
        for (const auto& part : rest) {
            const auto bytes = core::as_bytes(part);
            payload.insert(payload.end(), bytes.begin(), bytes.end());
        }
        return send(payload);
    }
};

TEST_CASE("payloads that a hostile but authenticated peer may send are checked") {
    using namespace std::string_literals;
    CHECK(hostile().send_rest({"\0\0\0"s}));
    CHECK(hostile().send_rest({"\4name"s, "\1\1a\1\0"s, "\1"s, std::string(32, 't')}));
    const std::vector<std::vector<std::string>> wrong = {
        {""s},
        {"\0"s},
        {"\0\0"s},
        {"\0\0\0x"s},                              // trailing bytes
        {"\0\0\2"s, std::string(32, 't')},         // no such token flag
        {"\0\0\1"s, std::string(31, 't')},         // token cut
        {"\0\0\1"s, std::string(33, 't')},         // token too long
        {"\4na"s},                                 // name cut
        {"\1\n\0\0"s},                             // name not printable
        {"\x41"s, std::string(65, 'n'), "\0\0"s},  // name too long
        {"\0\1\0\1\0\0"s},                         // empty host
        {"\0\1\1a\0\0\0"s},                        // port 0
        {"\0\1\1/\1\0\0"s},                        // no host
        {"\0\1\3a b\1\0\0"s},                      // no host
        {"\0\1\7"
         "1.2.3.4\1"s},                                                                          // cut in the port
        {"\0\x09"s, "\1a\1\0\1a\1\0\1a\1\0\1a\1\0\1a\1\0\1a\1\0\1a\1\0\1a\1\0\1a\1\0"s, "\0"s},  // nine addresses
        {"\0\1\xfe"s, std::string(254, 'a'), "\1\0\0"s},                                         // host too long
    };
    for (std::size_t i = 0; i < wrong.size(); ++i) {
        INFO("case " << i);
        hostile h;
        auto payload = h.head();
        for (const auto& part : wrong[i]) {
            for (const auto c : part) payload.push_back(static_cast<std::byte>(c));
        }
        CHECK_FALSE(h.send(payload));
    }
    const auto ending = [](core::byte_vector head) {
        head.insert(head.end(), 3, std::byte{0});
        return head;
    };
    hostile h;
    REQUIRE(h.send(ending(h.head())));
    CHECK_FALSE(h.send(ending(h.head(1))));         // signed for the other end: a reflected statement
    CHECK_FALSE(h.send(ending(h.head(0, false))));  // signed somebody else's static key
    for (std::size_t bit = 0; bit < 96 * 8; ++bit) REQUIRE_FALSE(h.send(ending(flipped(h.head(), bit))));
}

TEST_CASE("a responder may not send a token, nor a statement of an initiator") {
    // The payload of message 2, through plain Noise.
    const auto answer = [](std::uint8_t signed_side, std::initializer_list<std::uint8_t> rest) {
        hostile h;
        control_handshake init(side::initiator, h.victim, {}, digest_of(1), {}, digest_of(2), h.entropy);
        noise::handshake_state resp(
            noise::xx_psk0, false, {},
            noise::key_pair{noise::secret_key(h.attacker.noise_secret()), h.attacker.noise_public().bytes},
            {noise::secret_key(digest_of(2))}, h.entropy);
        REQUIRE(resp.read(*init.write()));
        auto payload = h.head(signed_side);
        for (const auto b : rest) payload.push_back(static_cast<std::byte>(b));
        if (payload.back() == std::byte{1}) payload.insert(payload.end(), 32, std::byte{7});
        const auto read = init.read(*resp.write(payload));
        CHECK(init.remote().has_value() == read.has_value());
        CHECK(init.my_turn() == read.has_value());
        return read.has_value();
    };
    CHECK(answer(1, {0, 0, 0}));
    CHECK_FALSE(answer(1, {0, 0, 1}));
    CHECK_FALSE(answer(0, {0, 0, 0}));
}

TEST_CASE("a first message with a payload is refused") {
    core::seeded_entropy entropy(1);
    const auto id = identity::generate(entropy);
    control_handshake resp(side::responder, id, {}, {}, {}, {}, entropy);
    noise::handshake_state init(noise::nn_psk0, true, {}, std::nullopt, {noise::secret_key{}}, entropy);
    CHECK(resp.read(*init.write(core::as_bytes("x"))).error().code == core::errc::protocol);
}

struct bulk_ends {
    core::seeded_entropy entropy{4};
    bulk_handshake init, resp;
    bulk_ends(const noise::secret_key& a, const noise::secret_key& b, std::string_view pa = "p",
              std::string_view pb = "p")
        : init(side::initiator, a, core::as_bytes(pa), entropy),
          resp(side::responder, b, core::as_bytes(pb), entropy) {}
    core::result<void> pass() {
        LONGHAUL_TRY_ASSIGN(const auto first, init.write());
        CHECK(first.size() == 48);
        CHECK(resp.max_next() == 48);
        LONGHAUL_TRY(resp.read(first));
        LONGHAUL_TRY_ASSIGN(const auto second, resp.write());
        CHECK(second.size() == 48);
        return init.read(second);
    }
};

TEST_CASE("a bulk handshake needs the session, the dialler and the number") {
    const noise::secret_key exporter(digest_of(1));
    const noise::secret_key other_exporter(digest_of(2));
    const auto key = connection_key(exporter, side::initiator, 1);
    bulk_ends good(key, key);
    REQUIRE(good.pass());
    REQUIRE(good.init.done());
    REQUIRE(good.resp.done());
    auto a = good.init.finish();
    auto b = good.resp.finish();
    CHECK(a.transcript == b.transcript);
    check_ciphers(a, b);

    for (const auto& wrong :
         {connection_key(other_exporter, side::initiator, 1), connection_key(exporter, side::responder, 1),
          connection_key(exporter, side::initiator, 2), connection_key(exporter, side::initiator, 0x01000000)}) {
        CHECK_FALSE(bulk_ends(key, wrong).pass());
    }
    CHECK_FALSE(bulk_ends(key, key, "p", "q").pass());

    for (std::size_t target = 0; target < 2; ++target) {
        for (std::size_t bit = 0; bit < 48 * 8; ++bit) {
            bulk_ends e(key, key);
            auto m = *e.init.write();
            if (target == 1) {
                REQUIRE(e.resp.read(m));
                m = *e.resp.write();
            }
            REQUIRE_FALSE((target == 0 ? e.resp : e.init).read(flipped(m, bit)));
        }
    }
}

TEST_CASE("a session's derived values are all different, and say nothing of one another") {
    std::set<std::string> seen;
    for (const unsigned char e : {'\1', '\2'}) {
        const noise::secret_key exporter(digest_of(e));
        seen.insert(core::to_hex(session_of(exporter)));
        for (const auto s : {side::initiator, side::responder}) {
            for (std::uint32_t n = 0; n < 50; ++n) seen.insert(core::to_hex(connection_key(exporter, s, n).view()));
        }
    }
    CHECK(seen.size() == 202);
}

TEST_CASE("frames") {
    CHECK(core::to_hex(frame(core::as_bytes("abc"))) == "0300616263");
    CHECK(frame_length(unhex("0300"), 10) == 3);
    CHECK(frame_length(unhex("0a00"), 10) == 10);
    for (const auto* wrong : {"0000", "0b00", "ffff", "00", ""}) {
        CHECK_FALSE(frame_length(unhex(wrong), 10));
    }
}

TEST_CASE("verdicts parse back and become results") {
    CHECK(core::to_hex(verdict{}.encode()) == "0000");
    CHECK(parse_verdict(verdict{}.encode())->accepted());
    CHECK(parse_verdict(verdict{}.encode())->as_result());
    const std::pair<refusal, core::errc> codes[] = {{refusal::not_admitted, core::errc::not_admitted},
                                                    {refusal::run_mismatch, core::errc::run_mismatch},
                                                    {refusal::busy, core::errc::limit},
                                                    {refusal::duplicate, core::errc::cancelled},
                                                    {refusal::closing, core::errc::closed}};
    for (const auto& [code, error] : codes) {
        const auto parsed = parse_verdict(verdict{code, "because\x1b " + std::string(300, 'y')}.encode());
        REQUIRE(parsed);
        CHECK(parsed->code == code);
        CHECK(parsed->sentence.size() == max_refusal_sentence);
        const auto r = parsed->as_result();
        REQUIRE_FALSE(r);
        CHECK(r.error().code == error);
        CHECK(r.error().message.find("because? yyy") != std::string::npos);
    }
    CHECK(core::to_hex(verdict{refusal::busy, "full"}.encode()) == "030466756c6c");
    for (const auto* wrong : {"", "00", "0001", "000161", "0600", "ff00", "0105616263",
                              "01026162"
                              "63",
                              "01011b", "0101ff"}) {
        INFO(wrong);
        CHECK(parse_verdict(unhex(wrong)).error().code == core::errc::protocol);
    }
    core::byte_writer long_one;
    long_one.u8(1).u8(201).raw(core::as_bytes(std::string(201, 'x')));
    CHECK_FALSE(parse_verdict(long_one.bytes()));
}

}  // namespace
}  // namespace longhaul::net

#include "net/noise.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/source_dir.hpp"
#include "tests/test.hpp"
#include "tests/unit/net/fixtures.hpp"

namespace longhaul::net {
namespace {

using namespace testing;
using noise::handshake_state;
using noise::key_pair;
using noise::pattern;
using noise::secret_key;

secret_key key_of(const core::byte_vector& bytes) {
    secret_key key;
    REQUIRE(bytes.size() == noise::key_size);
    std::ranges::copy(bytes, key.writable().begin());
    return key;
}

/// The pattern of a protocol name, if it is one of ours.
std::optional<pattern> pattern_of(const std::string& protocol_name) {
    for (const auto base : {pattern::base_pattern::nn, pattern::base_pattern::xx}) {
        for (unsigned bits = 0; bits < (base == pattern::base_pattern::nn ? 8U : 16U); ++bits) {
            const pattern p{base, static_cast<std::uint8_t>(bits)};
            if (p.protocol_name() == protocol_name) return p;
        }
    }
    return std::nullopt;
}

/// Plays one vector with both ends; every ciphertext and payload must be the vector's.
void play(const nlohmann::json& v, const pattern& what) {
    const auto text = [&v](const std::string& name) { return v.value(name, std::string{}); };
    const auto make = [&](const std::string& who, core::entropy& entropy) {
        std::optional<key_pair> statics;
        if (v.contains(who + "_static")) statics = key_pair::from_secret(key_of(unhex(text(who + "_static"))));
        std::vector<secret_key> psks;
        for (const auto& psk : v.value(who + "_psks", std::vector<std::string>{})) psks.push_back(key_of(unhex(psk)));
        return handshake_state(what, who == "init", unhex(text(who + "_prologue")), statics, psks, entropy);
    };
    scripted_entropy init_entropy(unhex(text("init_ephemeral")));
    scripted_entropy resp_entropy(unhex(text("resp_ephemeral")));
    auto init = make("init", init_entropy);
    auto resp = make("resp", resp_entropy);

    std::optional<noise::session> init_session;
    std::optional<noise::session> resp_session;
    const auto rekey_before = v.value("rekey_before_message", std::size_t{1000});
    std::size_t index = 0;
    for (const auto& message : v.at("messages")) {
        INFO("message " << index);
        const auto payload = unhex(message.at("payload").get<std::string>());
        const auto expected = message.at("ciphertext").get<std::string>();
        const bool by_init = index % 2 == 0;
        if (!init.complete() && !init_session) {
            auto& writer = by_init ? init : resp;
            auto& reader = by_init ? resp : init;
            REQUIRE(writer.my_turn());
            REQUIRE_FALSE(reader.my_turn());
            REQUIRE(writer.message_size(payload.size()) == expected.size() / 2);
            const auto written = writer.write(payload);
            REQUIRE(written);
            CHECK(core::to_hex(*written) == expected);
            const auto read = reader.read(unhex(expected));
            REQUIRE(read);
            CHECK(*read == payload);
            if (init.complete()) {
                REQUIRE(resp.complete());
                if (what.base == pattern::base_pattern::xx) {
                    CHECK(resp.remote_static()->bytes ==
                          key_pair::from_secret(key_of(unhex(text("init_static")))).public_key);
                    CHECK(init.remote_static()->bytes ==
                          key_pair::from_secret(key_of(unhex(text("resp_static")))).public_key);
                }
                init_session.emplace(init.split());
                resp_session.emplace(resp.split());
                CHECK(init_session->hash == resp_session->hash);
                if (v.contains("handshake_hash")) CHECK(init_session->hash.hex() == text("handshake_hash"));
                CHECK(core::to_hex(init_session->exporter.view()) == core::to_hex(resp_session->exporter.view()));
                if (v.contains("exporter")) CHECK(core::to_hex(init_session->exporter.view()) == text("exporter"));
            }
        } else {
            if (index == rekey_before) {
                for (auto* session : {&*init_session, &*resp_session}) {
                    session->send.rekey();
                    session->receive.rekey();
                }
            }
            auto& sender = by_init ? init_session->send : resp_session->send;
            auto& receiver = by_init ? resp_session->receive : init_session->receive;
            core::byte_vector sealed(payload.size() + noise::tag_size);
            REQUIRE(sender.encrypt({}, payload, sealed));
            CHECK(core::to_hex(sealed) == expected);
            core::byte_vector opened(payload.size());
            REQUIRE(receiver.decrypt({}, sealed, opened));
            CHECK(opened == payload);
        }
        ++index;
    }
    CHECK(index > 3);
}

/// Plays all vectors of our patterns in a file; the names that were played.
std::multiset<std::string> play_file(const std::filesystem::path& path) {
    std::ifstream in(path);
    REQUIRE(in);
    std::multiset<std::string> played;
    const auto file = nlohmann::json::parse(in);
    for (const auto& v : file.at("vectors")) {
        const auto name = v.at("protocol_name").get<std::string>();
        const auto what = pattern_of(name);
        if (!what) continue;  // IK is not ours
        INFO(name << " of " << v.at("source").get<std::string>());
        play(v, *what);
        played.insert(name);
    }
    return played;
}

/// Two ends of a pattern with fixed keys.
struct ends {
    core::seeded_entropy entropy;
    key_pair init_static, resp_static;
    handshake_state init, resp;

    explicit ends(const pattern& what, std::uint64_t seed = 1, const core::digest& init_psk = {},
                  const core::digest& resp_psk = {}, std::string_view init_prologue = "p",
                  std::string_view resp_prologue = "p")
        : entropy(seed),
          init_static(key_pair::generate(entropy)),
          resp_static(key_pair::generate(entropy)),
          init(what, true, core::as_bytes(init_prologue), init_static, {secret_key(init_psk)}, entropy),
          resp(what, false, core::as_bytes(resp_prologue), resp_static, {secret_key(resp_psk)}, entropy) {}
    handshake_state& writer(std::size_t message) { return message % 2 == 0 ? init : resp; }
    handshake_state& reader(std::size_t message) { return message % 2 == 0 ? resp : init; }
    /// Passes messages until `count` went by.
    void pass(std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            const auto m = writer(i).write(core::as_bytes("payload"));
            REQUIRE(m);
            REQUIRE(reader(i).read(*m));
        }
    }
};

constexpr pattern xx_psk3{pattern::base_pattern::xx, 8};

TEST_CASE("public Noise vectors: NN and XX with all psk modifiers") {
    const char* named = std::getenv("LONGHAUL_SHARED");
    const auto shared =
        named ? std::filesystem::path(named) : std::filesystem::path(longhaul::tests::source_dir()) / ".." / "shared";
    const auto path = shared / "data" / "noise_vectors.json";
    if (!std::filesystem::exists(path)) {
        WARN("skipped: no " << path << " (set LONGHAUL_SHARED)");
        return;
    }
    const auto played = play_file(path);
    for (const auto* name : {"NN", "XX", "NNpsk0", "NNpsk2", "XXpsk3", "NNpsk0+psk2", "XXpsk0+psk1", "XXpsk0+psk2",
                             "XXpsk0+psk3", "XXpsk0+psk1+psk2+psk3"}) {
        CHECK(played.count("Noise_" + std::string(name) + "_25519_ChaChaPoly_SHA256") >= 1);
    }
}

TEST_CASE("XXpsk0 as noiseprotocol computes it, with rekey and exporter") {
    const auto played =
        play_file(std::filesystem::path(longhaul::tests::source_dir()) / "tests/golden/noise_xxpsk0.json");
    CHECK(played == std::multiset<std::string>{"Noise_XXpsk0_25519_ChaChaPoly_SHA256"});
}

TEST_CASE("every flipped bit of every handshake message fails, and the failure is final") {
    for (const auto& what : {noise::xx_psk0, noise::nn_psk0, xx_psk3}) {
        const std::size_t messages = what.base == pattern::base_pattern::nn ? 2 : 3;
        for (std::size_t target = 0; target < messages; ++target) {
            // A flip in a message that nothing authenticates yet (XXpsk3's first) is found by the end of the handshake.
            const bool authenticated = what.psk_bits == 1 || target > 0;
            std::size_t bits = 1;
            for (std::size_t bit = 0; bit < bits; ++bit) {
                ends e(what);
                e.pass(target);
                const auto message = e.writer(target).write(core::as_bytes("payload"));
                REQUIRE(message);
                bits = message->size() * 8;
                INFO(what.protocol_name() << " message " << target << " bit " << bit);
                // X25519 ignores the top bit of a public key, but the hash of the transcript does not.
                auto read = e.reader(target).read(flipped(*message, bit));
                if (authenticated) {
                    REQUIRE_FALSE(read);
                    CHECK(read.error().code == core::errc::protocol);
                    CHECK(e.reader(target).failed());
                    CHECK_FALSE(e.reader(target).my_turn());
                    CHECK_FALSE(e.reader(target).read(*message));
                    CHECK_FALSE(e.reader(target).write({}));
                } else if (read) {
                    const auto next = e.reader(target).write({});
                    REQUIRE((!next || !e.writer(target).read(*next)));
                }
            }
            CHECK(bits > 100);
        }
    }
}

TEST_CASE("truncated and extended messages fail") {
    for (const auto& what : {noise::xx_psk0, noise::nn_psk0}) {
        for (std::size_t target = 0; target < (what == noise::nn_psk0 ? 2U : 3U); ++target) {
            ends first(what);
            first.pass(target);
            const auto whole = first.writer(target).write(core::as_bytes("payload"));
            REQUIRE(whole);
            for (std::size_t n = 0; n <= whole->size() + 1; ++n) {
                if (n == whole->size()) continue;
                ends e(what);
                e.pass(target);
                auto message = *e.writer(target).write(core::as_bytes("payload"));
                message.resize(n);
                REQUIRE_FALSE(e.reader(target).read(message));
            }
        }
    }
}

TEST_CASE("a wrong psk fails at message 1 with psk0, at message 3 with psk3") {
    const core::digest other{{std::byte{1}}};
    for (const auto& what : {noise::xx_psk0, noise::nn_psk0}) {
        ends e(what, 1, core::digest{}, other);
        CHECK_FALSE(e.resp.read(*e.init.write({})));
    }
    ends e(xx_psk3, 1, core::digest{}, other);
    e.pass(2);
    CHECK_FALSE(e.resp.read(*e.init.write({})));
}

TEST_CASE("another prologue fails at the first authenticated message") {
    ends e(noise::xx_psk0, 1, {}, {}, "version 1", "version 2");
    CHECK_FALSE(e.resp.read(*e.init.write({})));
}

TEST_CASE("a key of small order is refused") {
    // 0, 1, an order-8 point, p - 1, p, p + 1: RFC 7748 and libsodium's blacklist.
    for (const auto* text : {"0000000000000000000000000000000000000000000000000000000000000000",
                             "0100000000000000000000000000000000000000000000000000000000000000",
                             "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
                             "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
                             "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
                             "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"}) {
        core::seeded_entropy entropy(1);
        handshake_state resp({pattern::base_pattern::nn, 0}, false, {}, std::nullopt, {}, entropy);
        REQUIRE(resp.read(unhex(text)));
        const auto answer = resp.write({});
        REQUIRE_FALSE(answer);
        CHECK(answer.error().code == core::errc::protocol);
        CHECK(resp.failed());
    }
}

TEST_CASE("messages are bounded") {
    ends e(noise::xx_psk0);
    CHECK(e.init.write(core::byte_vector(noise::max_message - 48)).value().size() == noise::max_message);
    ends f(noise::xx_psk0);
    const auto too_large = f.init.write(core::byte_vector(noise::max_message - 47));
    REQUIRE_FALSE(too_large);
    CHECK(too_large.error().code == core::errc::limit);
    CHECK_FALSE(f.resp.read(core::byte_vector(noise::max_message + 1)));
}

TEST_CASE("two handshakes with the same statics and psk share no keys") {
    ends a(noise::xx_psk0, 1);
    a.pass(3);
    core::seeded_entropy again(2);
    handshake_state init(noise::xx_psk0, true, core::as_bytes("p"), a.init_static, {secret_key{}}, again);
    handshake_state resp(noise::xx_psk0, false, core::as_bytes("p"), a.resp_static, {secret_key{}}, again);
    REQUIRE(resp.read(*init.write({})));
    REQUIRE(init.read(*resp.write({})));
    REQUIRE(resp.read(*init.write({})));
    auto first = a.init.split();
    auto second = init.split();
    CHECK(first.hash != second.hash);
    CHECK(core::to_hex(first.exporter.view()) != core::to_hex(second.exporter.view()));
    CHECK(core::to_hex(first.exporter.view()) != first.hash.hex());
    const std::array zeros{std::byte{0}};
    std::set<std::string> sealed;
    for (auto* cipher : {&first.send, &first.receive, &second.send, &second.receive}) {
        core::byte_vector out(17);
        REQUIRE(cipher->encrypt({}, zeros, out));
        sealed.insert(core::to_hex(out));
    }
    CHECK(sealed.size() == 4);
}

TEST_CASE("a secret that was moved from is wiped") {
    core::seeded_entropy entropy(1);
    secret_key a{entropy.key()};
    secret_key b = std::move(a);
    CHECK(core::to_hex(a.view()) == std::string(64, '0'));  // NOLINT(bugprone-use-after-move): what this tests
    CHECK(core::to_hex(b.view()) != std::string(64, '0'));
    a = std::move(b);
    CHECK(core::to_hex(b.view()) == std::string(64, '0'));  // NOLINT(bugprone-use-after-move): what this tests
}

TEST_CASE("a cipher is never copied, and is dead after it was moved from") {
    STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<noise::cipher_state>);
    STATIC_REQUIRE_FALSE(std::is_copy_assignable_v<noise::cipher_state>);
    STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<handshake_state>);
    STATIC_REQUIRE_FALSE(std::is_move_constructible_v<handshake_state>);
    noise::cipher_state a{secret_key{}};
    core::byte_vector out(1 + noise::tag_size);
    REQUIRE(a.encrypt({}, core::as_bytes("x"), out));
    noise::cipher_state b = std::move(a);
    CHECK(b.counter() == 1);
    const auto after = a.encrypt({}, core::as_bytes("x"), out);  // NOLINT(bugprone-use-after-move): what this tests
    REQUIRE_FALSE(after);
    CHECK(after.error().code == core::errc::limit);
    noise::cipher_state c{secret_key{}};
    c = std::move(b);
    CHECK(c.counter() == 1);
    CHECK_FALSE(b.encrypt({}, core::as_bytes("x"), out));  // NOLINT(bugprone-use-after-move): what this tests
}

}  // namespace
}  // namespace longhaul::net

#include "peers/run_manifest.hpp"

#include "core/hash.hpp"
#include "tests/test.hpp"

using namespace longhaul;

namespace {

struct fixture {
    core::seeded_entropy entropy{7};
    net::identity founder = net::identity::generate(entropy);

    peers::run_manifest manifest() {
        peers::run_manifest m;
        m.config.name = "test-run";
        m.config.inner.lr = 0.1;
        m.tensors =
            *core::tensor_manifest::make({{.name = "wte.weight", .shape = {256, 64}},
                                          {.name = "bn.mean", .shape = {64}, .role = core::tensor_role::buffer}});
        m.data_hash = entropy.key();
        m.data_description = "Python 3.11.2's standard library, 4194304 bytes";
        m.nonce = entropy.key();
        m.token_hash = entropy.key();
        return m;
    }
    peers::signed_manifest signed_manifest() { return peers::sign_manifest(manifest(), founder).value(); }
};

std::string canonical_text(peers::run_config c) {
    core::config_binder binder;
    peers::bind(binder, c);
    return binder.canonical();
}

}  // namespace

TEST_CASE("a signed manifest reads back as it was made") {
    fixture f;
    const auto m = f.manifest();
    const auto s = peers::sign_manifest(m, f.founder);
    REQUIRE(s.has_value());
    CHECK(s->run_id == core::hash(s->bytes));
    const auto read = peers::parse_manifest(s->bytes, s->run_id);
    REQUIRE(read.has_value());
    CHECK(read->bytes == s->bytes);
    CHECK(read->run_id == s->run_id);
    CHECK(canonical_text(read->manifest.config) == canonical_text(m.config));
    CHECK(read->manifest.tensors == m.tensors);
    CHECK(read->manifest.data_hash == m.data_hash);
    CHECK(read->manifest.data_description == m.data_description);
    CHECK(read->manifest.founder == f.founder.key());
    CHECK(read->manifest.nonce == m.nonce);
    CHECK(read->manifest.token_hash == m.token_hash);
}

TEST_CASE("every flipped bit of a manifest is refused, with the old and with the new run id") {
    fixture f;
    const auto s = f.signed_manifest();
    auto bytes = s.bytes;
    for (std::size_t i = 0; i < bytes.size() * 8; ++i) {
        const auto mask = std::byte(1u << (i % 8));
        bytes[i / 8] ^= mask;
        const auto old_id = peers::parse_manifest(bytes, s.run_id);
        const auto new_id = peers::parse_manifest(bytes, core::hash(bytes));
        bytes[i / 8] ^= mask;
        INFO("bit " << i);
        REQUIRE_FALSE(old_id.has_value());
        REQUIRE(old_id.error().code == core::errc::run_mismatch);
        // A flip in the signed part, the key or the signature: whoever chose the run id cannot have signed this.
        REQUIRE_FALSE(new_id.has_value());
    }
    CHECK(peers::parse_manifest(bytes, s.run_id).has_value());
}

TEST_CASE("every truncation of a manifest is refused") {
    fixture f;
    const auto s = f.signed_manifest();
    for (std::size_t n = 0; n < s.bytes.size(); ++n) {
        const auto part = core::const_bytes(s.bytes).first(n);
        REQUIRE_FALSE(peers::parse_manifest(part, core::hash(part)).has_value());
    }
}

TEST_CASE("random bytes are refused") {
    fixture f;
    for (int i = 0; i < 2000; ++i) {
        core::byte_vector bytes(f.entropy.below(400));
        f.entropy.fill(bytes);
        REQUIRE_FALSE(peers::parse_manifest(bytes, core::hash(bytes)).has_value());
    }
}

TEST_CASE("a founder's path never leaves its machine") {
    fixture f;
    auto m = f.manifest();
    m.config.data.kind = "text";
    m.config.data.path = "/home/ada/secret.txt";
    const auto s = peers::sign_manifest(m, f.founder);
    REQUIRE(s.has_value());
    CHECK(s->manifest.config.data.path.empty());
    CHECK(core::as_text(s->bytes).find("secret") == std::string_view::npos);
}

TEST_CASE("a manifest that others would refuse is not signed") {
    fixture f;
    const auto refused = [&](const peers::run_manifest& m) {
        const auto s = peers::sign_manifest(m, f.founder);
        REQUIRE_FALSE(s.has_value());
        return s.error();
    };
    auto m = f.manifest();
    m.config.name = "not a name";
    CHECK(refused(m).code == core::errc::config);
    m = f.manifest();
    m.tensors = {};
    CHECK(refused(m).code == core::errc::malformed);
    m = f.manifest();
    m.token_hash.reset();  // but peers.admission is "invite"
    CHECK(refused(m).code == core::errc::malformed);
    m = f.manifest();
    m.data_description = std::string(257, 'x');
    CHECK(refused(m).code == core::errc::malformed);
    m = f.manifest();
    m.data_description = "clear\x1b[2J";
    CHECK(refused(m).code == core::errc::malformed);
    m = f.manifest();
    std::vector<core::tensor_spec> specs;
    for (int i = 0; i < 5000; ++i) specs.push_back({.name = std::string(300, 'n') + std::to_string(i), .shape = {1}});
    m.tensors = *core::tensor_manifest::make(std::move(specs));
    CHECK(refused(m).code == core::errc::limit);
}

TEST_CASE("an open run has no token") {
    fixture f;
    auto m = f.manifest();
    m.config.peers.admission = "open";
    m.token_hash.reset();
    const auto s = peers::sign_manifest(m, f.founder);
    REQUIRE(s.has_value());
    CHECK_FALSE(s->manifest.invite());
    CHECK(peers::parse_manifest(s->bytes, s->run_id).has_value());
}

TEST_CASE("two runs of one configuration have different ids") {
    fixture f;
    const auto a = f.signed_manifest();
    const auto b = f.signed_manifest();
    CHECK(a.run_id != b.run_id);
}

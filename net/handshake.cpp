#include "net/handshake.hpp"

#include <algorithm>

#include "core/sodium.hpp"
#include "net/ticket.hpp"

namespace longhaul::net {

namespace {

constexpr std::string_view static_purpose = "longhaul-static-v1";
constexpr std::size_t endpoint_limit = 1 + max_host_bytes + 2;
constexpr std::size_t payload_limit =
    32 + 64 + 8 + 8 + 1 + max_name_bytes + 1 + max_advertised * endpoint_limit + 1 + 32;

/// What the Ed25519 key signs: this X25519 key is mine, in this run, at this end.
core::byte_vector statement(const core::digest& run, const core::digest& noise_static, side whose) {
    core::byte_writer out;
    out.raw(run.bytes).raw(noise_static.bytes).u8(static_cast<std::uint8_t>(whose));
    return out.take();
}

core::result<void> check(const self_description& d) {
    if (!is_printable_utf8(d.name, max_name_bytes)) {
        return core::fail(core::errc::limit, "a node's name is at most {} bytes of printable text", max_name_bytes);
    }
    if (d.advertised.size() > max_advertised) {
        return core::fail(core::errc::limit, "{} addresses exceed the {} that a node may advertise",
                          d.advertised.size(), max_advertised);
    }
    for (const auto& at : d.advertised) {
        if (!is_host(at.host) || at.port == 0) {
            return core::fail(core::errc::limit, "'{}' is no address that others could dial",
                              to_printable_utf8(at.text(), max_host_bytes));
        }
    }
    return core::ok();
}

secured secure(noise::session session) {
    return {record_sealer(std::move(session.send)), record_opener(std::move(session.receive)),
            std::move(session.exporter), session.hash};
}

void wipe(core::byte_vector& bytes) { sodium_memzero(bytes.data(), bytes.size()); }

}  // namespace

core::byte_vector frame(core::const_bytes message) {
    LONGHAUL_ENSURE(!message.empty() && message.size() <= noise::max_message, "a handshake message fits a frame");
    core::byte_writer out;
    out.u16(static_cast<std::uint16_t>(message.size())).raw(message);
    return out.take();
}

core::result<std::size_t> frame_length(core::const_bytes prefix, std::size_t max) {
    core::byte_reader in(prefix);
    LONGHAUL_TRY_ASSIGN(const std::size_t length, in.u16());
    if (length == 0 || length > max) {
        return core::fail(core::errc::protocol, "a handshake message announces {} bytes, not 1 to {}", length, max);
    }
    return length;
}

control_handshake::control_handshake(side mine, const identity& self, self_description description,
                                     const core::digest& run, core::const_bytes prologue, const core::digest& psk,
                                     core::entropy& entropy)
    : mine_(mine),
      self_(self),
      description_(std::move(description)),
      run_(run),
      noise_(noise::xx_psk0, mine == side::initiator, prologue,
             noise::key_pair{noise::secret_key(self.noise_secret()), self.noise_public().bytes},
             {noise::secret_key(psk)}, entropy) {}

std::size_t control_handshake::max_next() const {
    const bool first = !noise_.complete() && messages_read_ == 0 && (mine_ == side::responder || noise_.my_turn());
    return noise_.message_size(first ? 0 : payload_limit);
}

core::result<core::byte_vector> control_handshake::write() {
    LONGHAUL_TRY(check(description_));
    if (mine_ == side::initiator && messages_read_ == 0) return noise_.write({});
    auto payload = encode_payload();
    auto message = noise_.write(payload);
    wipe(payload);
    return message;
}

core::result<void> control_handshake::read(core::const_bytes message) {
    auto read = read_message(message);
    if (!read) noise_.abandon();
    return read;
}

core::result<void> control_handshake::read_message(core::const_bytes message) {
    LONGHAUL_TRY(check(description_));
    const bool first = mine_ == side::responder && messages_read_ == 0;
    if (message.size() > max_next()) {
        return core::fail(core::errc::protocol, "a handshake message has {} bytes, more than {}", message.size(),
                          max_next());
    }
    auto payload = noise_.read(message);
    if (!payload && first) {
        return core::fail(core::errc::not_admitted,
                          "the other side's first message does not open: it has another run secret (another ticket)");
    }
    if (!payload) {
        return core::fail(core::errc::protocol, "the other side's handshake does not authenticate: {}",
                          payload.error().message);
    }
    ++messages_read_;
    if (first) return core::ok();
    auto parsed = parse_payload(*payload);
    wipe(*payload);
    LONGHAUL_TRY_ASSIGN(remote_, std::move(parsed));
    return core::ok();
}

secured control_handshake::finish() {
    LONGHAUL_ENSURE(done() && !noise_.failed(), "only a complete handshake can be finished");
    return secure(noise_.split());
}

core::byte_vector control_handshake::encode_payload() const {
    core::byte_writer out;
    out.raw(self_.key().bytes).raw(self_.sign(static_purpose, statement(run_, self_.noise_public(), mine_)));
    out.u64(description_.incarnation).u64(description_.features);
    out.u8(static_cast<std::uint8_t>(description_.name.size())).raw(core::as_bytes(description_.name));
    out.u8(static_cast<std::uint8_t>(description_.advertised.size()));
    for (const auto& at : description_.advertised) {
        out.u8(static_cast<std::uint8_t>(at.host.size())).raw(core::as_bytes(at.host)).u16(at.port);
    }
    const bool token = mine_ == side::initiator && description_.token.has_value();
    out.u8(token ? 1 : 0);
    if (token) out.raw(description_.token->bytes);
    return out.take();
}

core::result<remote_peer> control_handshake::parse_payload(core::const_bytes payload) const {
    core::byte_reader in(payload);
    remote_peer peer;
    signature signed_static{};
    LONGHAUL_TRY(in.copy_to(peer.key.bytes));
    LONGHAUL_TRY(in.copy_to(signed_static));
    LONGHAUL_TRY_ASSIGN(peer.incarnation, in.u64());
    LONGHAUL_TRY_ASSIGN(peer.features, in.u64());
    LONGHAUL_TRY_ASSIGN(const auto name_length, in.u8());
    LONGHAUL_TRY_ASSIGN(const auto name, in.take(name_length));
    if (!is_printable_utf8(core::as_text(name), max_name_bytes)) {
        return core::fail(core::errc::protocol, "the other side's name is not at most {} bytes of printable text",
                          max_name_bytes);
    }
    peer.name = core::as_text(name);
    LONGHAUL_TRY_ASSIGN(const auto addresses, in.u8());
    if (addresses > max_advertised) {
        return core::fail(core::errc::protocol, "the other side advertises {} addresses, more than {}", addresses,
                          max_advertised);
    }
    for (unsigned i = 0; i < addresses; ++i) {
        endpoint at;
        LONGHAUL_TRY_ASSIGN(const auto host_length, in.u8());
        LONGHAUL_TRY_ASSIGN(const auto host, in.take(host_length));
        LONGHAUL_TRY_ASSIGN(at.port, in.u16());
        at.host = core::as_text(host);
        if (!is_host(at.host) || at.port == 0) {
            return core::fail(core::errc::protocol, "the other side advertises an address that nobody could dial");
        }
        peer.advertised.push_back(std::move(at));
    }
    LONGHAUL_TRY_ASSIGN(const auto has_token, in.u8());
    if (has_token > (mine_ == side::responder ? 1 : 0)) {
        return core::fail(core::errc::protocol, "the other side sends a token where there is none");
    }
    if (has_token == 1) LONGHAUL_TRY(in.copy_to(peer.token.emplace().bytes));
    LONGHAUL_TRY(in.end());

    const auto& noise_static = *noise_.remote_static();
    if (peer.key == self_.key() || noise_static == self_.noise_public()) {
        return core::fail(core::errc::protocol,
                          "that address is this node itself, or another node uses a copy of its "
                          "identity: remove the copied identity file there");
    }
    if (!verify(peer.key, static_purpose, statement(run_, noise_static, other(mine_)), signed_static)) {
        return core::fail(core::errc::protocol, "the other side's key {} did not sign its handshake key",
                          peer.key.brief());
    }
    return peer;
}

session_id session_of(const noise::secret_key& exporter) {
    std::array<noise::secret_key, 1> out;
    noise::hkdf(exporter.view(), core::as_bytes("longhaul-session"), out);
    session_id session{};
    std::copy_n(out[0].view().begin(), session.size(), session.begin());
    return session;
}

noise::secret_key connection_key(const noise::secret_key& exporter, side dialler, std::uint32_t connection) {
    core::byte_writer info;
    info.raw(core::as_bytes("longhaul-bulk")).u8(static_cast<std::uint8_t>(dialler)).u32(connection);
    std::array<noise::secret_key, 1> out;
    noise::hkdf(exporter.view(), info.bytes(), out);
    return std::move(out[0]);
}

bulk_handshake::bulk_handshake(side mine, const noise::secret_key& connection_key, core::const_bytes prologue,
                               core::entropy& entropy)
    : noise_(noise::nn_psk0, mine == side::initiator, prologue, std::nullopt, {connection_key}, entropy) {}

core::result<core::byte_vector> bulk_handshake::write() { return noise_.write({}); }

core::result<void> bulk_handshake::read(core::const_bytes message) {
    if (message.size() > max_next()) {
        noise_.abandon();
        return core::fail(core::errc::protocol, "a bulk handshake message has {} bytes: it is too long",
                          message.size());
    }
    LONGHAUL_TRY(noise_.read(message));
    return core::ok();
}

secured bulk_handshake::finish() { return secure(noise_.split()); }

core::byte_vector verdict::encode() const {
    const auto text = accepted() ? std::string{} : to_printable_utf8(sentence, max_refusal_sentence);
    core::byte_writer out;
    out.u8(static_cast<std::uint8_t>(code)).u8(static_cast<std::uint8_t>(text.size())).raw(core::as_bytes(text));
    return out.take();
}

core::result<void> verdict::as_result() const {
    switch (code) {
        case refusal::none: return core::ok();
        case refusal::not_admitted: return core::fail(core::errc::not_admitted, "the other side refuses: {}", sentence);
        case refusal::run_mismatch: return core::fail(core::errc::run_mismatch, "the other side refuses: {}", sentence);
        case refusal::busy: return core::fail(core::errc::limit, "the other side refuses: {}", sentence);
        case refusal::duplicate: return core::fail(core::errc::cancelled, "the other side refuses: {}", sentence);
        case refusal::closing: return core::fail(core::errc::closed, "the other side refuses: {}", sentence);
    }
    return core::fail(core::errc::protocol, "the other side refuses for an unknown reason: {}", sentence);
}

core::result<verdict> parse_verdict(core::const_bytes payload) {
    core::byte_reader in(payload);
    const auto code = in.u8();
    const auto length = in.u8();
    const auto sentence = length ? in.take(*length) : core::result<core::const_bytes>(core::fail(length.error()));
    if (!code || !sentence || !in.end()) {
        return core::fail(core::errc::protocol, "the other side's verdict of {} bytes does not parse", payload.size());
    }
    verdict v{static_cast<refusal>(*code), std::string(core::as_text(*sentence))};
    if (*code > static_cast<std::uint8_t>(refusal::closing) || !is_printable_utf8(v.sentence, max_refusal_sentence) ||
        (v.accepted() && !v.sentence.empty())) {
        return core::fail(core::errc::protocol, "the other side's verdict has code {} and {} bytes of text", *code,
                          v.sentence.size());
    }
    return v;
}

}  // namespace longhaul::net

#include "peers/payload.hpp"

#include <cmath>

#include "core/hash.hpp"
#include "optim/aggregate.hpp"
#include "peers/wire_convert.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {
constexpr std::string_view purpose = "longhaul-payload-v1";
}

core::const_bytes payload::body() const { return core::const_bytes(*bytes).subspan(body_offset); }

payload make_payload(payload_header header, core::const_bytes body, const net::identity& author) {
    header.bytes = body.size();
    header.root = core::hash(body);
    wire::PayloadHeader p;
    p.set_run(text_of(header.run));
    p.set_generation(header.generation);
    p.set_round(header.round);
    p.set_author(header.author);
    p.set_codec(header.codec);
    p.set_bytes(header.bytes);
    p.set_root(text_of(header.root));
    p.set_tokens(header.tokens);
    p.set_steps(header.steps);
    p.set_loss(header.loss);
    const auto signed_part = to_bytes(p);
    const auto signature = author.sign(purpose, signed_part);
    core::byte_writer out;
    out.u16(static_cast<std::uint16_t>(signed_part.size())).raw(signed_part).raw(signature);
    payload made;
    made.body_offset = out.bytes().size();
    out.raw(body);
    made.bytes = std::make_shared<const core::byte_vector>(out.take());
    made.id = core::hash(*made.bytes);
    made.header = std::move(header);
    return made;
}

core::result<payload> open_payload(std::shared_ptr<const core::byte_vector> bytes, const net::peer_key& author) {
    core::byte_reader in(*bytes);
    LONGHAUL_TRY_ASSIGN(const auto size, in.u16());
    if (size > max_payload_header - 66) return fail(errc::limit, "a payload's header of {} bytes", size);
    LONGHAUL_TRY_ASSIGN(const auto signed_part, in.take(size));
    net::signature signature{};
    LONGHAUL_TRY(in.copy_to(signature));
    if (!net::verify(author, purpose, signed_part, signature)) {
        return fail(errc::protocol, "a payload's signature is not its author's");
    }
    LONGHAUL_TRY_ASSIGN(auto p, proto_from<wire::PayloadHeader>(signed_part, max_payload_header, "payload header"));
    payload opened;
    auto& h = opened.header;
    LONGHAUL_TRY_ASSIGN(h.run, digest_from(p.run(), "a run id"));
    LONGHAUL_TRY_ASSIGN(h.root, digest_from(p.root(), "a payload's root"));
    LONGHAUL_TRY_ASSIGN(h.codec, line_from(p.codec(), 32, "a codec's name"));
    h.generation = p.generation();
    h.round = p.round();
    h.author = p.author();
    h.bytes = p.bytes();
    h.tokens = p.tokens();
    h.steps = p.steps();
    h.loss = p.loss();
    if (h.bytes != in.remaining() || !std::isfinite(h.loss) || h.tokens == 0 || h.steps == 0 ||
        h.tokens > optim::max_contribution_tokens) {
        return fail(errc::malformed, "a payload of peer {} announces what it does not carry", h.author);
    }
    opened.body_offset = bytes->size() - in.remaining();
    opened.bytes = std::move(bytes);
    if (core::hash(opened.body()) != h.root) return fail(errc::malformed, "a payload of peer {} is damaged", h.author);
    opened.id = core::hash(*opened.bytes);
    return opened;
}

}  // namespace longhaul::peers

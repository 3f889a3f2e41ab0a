#include "peers/replica.hpp"

#include <cstring>

#include "core/hash.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {
constexpr std::uint64_t state_header = 4 * 8;
}

core::digest root_of(const model_state& s) {
    core::byte_writer head;
    head.u64(s.round).u64(s.position).u64(s.tokens);
    core::hasher h;
    h.update(head.bytes()).update(core::bytes_of(s.anchor)).update(core::bytes_of(s.momentum));
    return h.finish();
}

shared_state apply_round(const core::tensor_manifest& manifest, const model_state& before, const round_plan& plan,
                         const commit_record& commit, std::span<const float> aggregate) {
    auto after = std::make_shared<model_state>(before);
    after->round = commit.round;
    after->position += plan.inner_steps;
    for (const auto& c : commit.contributions) after->tokens += c.tokens;
    // A round without contributors moves nothing, momentum included.
    if (!commit.contributions.empty()) {
        optim::outer_step(manifest, plan.nesterov, plan.outer_lr, plan.outer_momentum, after->anchor, after->momentum,
                          aggregate);
    }
    after->root = root_of(*after);
    return after;
}

shared_state in_generation(const model_state& s, std::uint64_t generation) {
    auto copy = std::make_shared<model_state>(s);
    copy->generation = generation;
    return copy;
}

std::uint64_t state_bytes(const core::tensor_manifest& manifest) {
    return state_header + 2 * manifest.elements() * sizeof(float);
}

core::byte_vector serialize(const model_state& s) {
    core::byte_writer out;
    out.u64(s.generation).u64(s.round).u64(s.position).u64(s.tokens);
    out.raw(core::bytes_of(s.anchor)).raw(core::bytes_of(s.momentum));
    return out.take();
}

core::result<shared_state> parse_state(const core::tensor_manifest& manifest, core::const_bytes bytes) {
    if (bytes.size() != state_bytes(manifest)) {
        return fail(errc::malformed, "a state of {} bytes instead of {}", bytes.size(), state_bytes(manifest));
    }
    core::byte_reader in(bytes);
    auto s = std::make_shared<model_state>();
    LONGHAUL_TRY_ASSIGN(s->generation, in.u64());
    LONGHAUL_TRY_ASSIGN(s->round, in.u64());
    LONGHAUL_TRY_ASSIGN(s->position, in.u64());
    LONGHAUL_TRY_ASSIGN(s->tokens, in.u64());
    s->anchor.resize(manifest.elements());
    s->momentum.resize(manifest.elements());
    LONGHAUL_TRY(in.copy_to(std::as_writable_bytes(std::span(s->anchor))));
    LONGHAUL_TRY(in.copy_to(std::as_writable_bytes(std::span(s->momentum))));
    s->root = root_of(*s);
    return s;
}

}  // namespace longhaul::peers

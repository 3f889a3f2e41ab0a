#include "peers/exchange.hpp"

#include <cmath>
#include <cstring>

#include "compress/codec.hpp"
#include "core/hash.hpp"
#include "optim/aggregate.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

core::digest root_of(const std::vector<contribution>& contributions, std::span<const float> values) {
    core::byte_writer head;
    head.u64(contributions.size());
    for (const auto& c : contributions) {
        head.u32(c.number).u64(c.tokens).u32(c.steps).u64(std::bit_cast<std::uint64_t>(c.loss)).raw(c.payload.bytes);
    }
    core::hasher h;
    h.update(head.bytes()).update(core::bytes_of(values));
    return h.finish();
}

core::result<shared_aggregate> sum(const core::tensor_manifest& manifest, const std::vector<payload>& payloads) {
    auto out = std::make_shared<aggregate>();
    out->values.assign(manifest.elements(), 0.0F);
    std::vector<optim::contribution_weight> weights;
    for (const auto& p : payloads) {
        out->generation = p.header.generation;
        out->round = p.header.round;
        out->contributions.push_back({p.header.author, p.header.tokens, p.header.steps, p.header.loss, p.id});
        weights.push_back({p.header.tokens, p.header.steps});
    }
    LONGHAUL_TRY_ASSIGN(auto mean, optim::aggregator::begin(manifest, weights));
    core::flat_buffer decoded(manifest.elements());
    for (std::size_t i = 0; i < payloads.size(); ++i) {
        const auto& h = payloads[i].header;
        LONGHAUL_TRY_ASSIGN(const auto* codec, compress::find_codec(h.codec));
        if (auto done = codec->decode(manifest, payloads[i].body(), decoded); !done) {
            return fail(done.error().within(fmt::format("the payload of peer {}", h.author)));
        }
        LONGHAUL_TRY(mean.add(i, decoded));
    }
    mean.finish(out->values);
    out->root = root_of(out->contributions, out->values);
    return shared_aggregate(std::move(out));
}

core::result<shared_aggregate> parse_aggregate(const core::tensor_manifest& manifest, std::uint64_t generation,
                                               const commit_record& commit, core::const_bytes bytes) {
    if (bytes.size() != manifest.elements() * sizeof(float)) {
        return fail(errc::malformed, "an aggregate of {} bytes instead of {}", bytes.size(), manifest.elements() * 4);
    }
    auto out = std::make_shared<aggregate>();
    out->generation = generation;
    out->round = commit.round;
    out->contributions = commit.contributions;
    out->values.resize(manifest.elements());
    std::memcpy(out->values.data(), bytes.data(), bytes.size());
    out->root = root_of(out->contributions, out->values);
    if (out->root != commit.aggregate_root) {
        return fail(errc::protocol, "the aggregate of round {} does not match its commit", commit.round);
    }
    return shared_aggregate(std::move(out));
}

void exchange::open(std::uint64_t generation, std::uint64_t round) {
    if (generation == now_.generation && round == now_.round) return;
    before_ = std::exchange(now_, collection{generation, round, {}});
}

exchange::collection* exchange::of(std::uint64_t generation, std::uint64_t round) {
    for (auto* c : {&now_, &before_}) {
        if (c->generation == generation && c->round == round) return c;
    }
    return nullptr;
}

core::result<void> exchange::add(payload p) {
    auto* collected = of(p.header.generation, p.header.round);
    if (collected == nullptr) return core::ok();
    const auto author = p.header.author;
    const auto id = p.id;
    const auto [it, fresh] = collected->payloads.try_emplace(author, std::move(p));
    if (!fresh && it->second.id != id) {
        return fail(errc::protocol, "peer {} signed two payloads for round {}", author, collected->round);
    }
    return core::ok();
}

const payload* exchange::find(peer_number author) const { return find(now_.generation, now_.round, author); }

const payload* exchange::find(std::uint64_t generation, std::uint64_t round, peer_number author) const {
    for (const auto* c : {&now_, &before_}) {
        if (c->generation != generation || c->round != round) continue;
        const auto it = c->payloads.find(author);
        return it == c->payloads.end() ? nullptr : &it->second;
    }
    return nullptr;
}

std::vector<peer_number> exchange::authors() const {
    std::vector<peer_number> out;
    for (const auto& [author, p] : now_.payloads) out.push_back(author);
    return out;
}

std::uint64_t exchange::bytes() const {
    std::uint64_t total = 0;
    for (const auto& [author, p] : now_.payloads) total += p.bytes->size();
    return total;
}

std::vector<payload> exchange::complete(const std::vector<peer_number>& contributors) const {
    std::vector<payload> out;
    for (const auto c : contributors) {
        const auto* p = find(c);
        if (p == nullptr) return {};
        out.push_back(*p);
    }
    return out;
}

void exchange::retain(shared_aggregate a) {
    aggregates_.push_back(std::move(a));
    if (aggregates_.size() > retained) aggregates_.pop_front();
}

shared_aggregate exchange::find_aggregate(std::uint64_t generation, std::uint64_t round) const {
    for (const auto& a : aggregates_) {
        if (a->generation == generation && a->round == round) return a;
    }
    return nullptr;
}

}  // namespace longhaul::peers

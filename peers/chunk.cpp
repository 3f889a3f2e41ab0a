#include "peers/chunk.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "core/hash.hpp"
#include "optim/aggregate.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

constexpr std::string_view chunk_purpose = "longhaul-chunk-v1";
constexpr std::uint64_t most_elements = 256 * 1024;
constexpr std::uint64_t fewest_elements = 16 * 1024;
/// A model is cut into about so many chunks, within the limits above.
constexpr std::uint64_t wanted_chunks = 64;

void put_stream(core::byte_writer& out, const chunk_header& h) {
    const auto& s = h.stream;
    out.raw(h.run.bytes).u64(s.generation).u64(s.round).u32(s.step).u8(static_cast<std::uint8_t>(s.kind));
    out.u32(s.attempt).u32(s.shard).u32(s.author).u16(h.codec);
    out.u64(h.work.tokens).u32(h.work.steps).u64(std::bit_cast<std::uint64_t>(h.work.loss));
}

core::result<chunk_header> parse_header(core::const_bytes bytes) {
    core::byte_reader in(bytes);
    chunk_header h;
    LONGHAUL_TRY(in.copy_to(h.run.bytes));
    auto& s = h.stream;
    LONGHAUL_TRY_ASSIGN(s.generation, in.u64());
    LONGHAUL_TRY_ASSIGN(s.round, in.u64());
    LONGHAUL_TRY_ASSIGN(s.step, in.u32());
    LONGHAUL_TRY_ASSIGN(const auto kind, in.u8());
    LONGHAUL_TRY_ASSIGN(s.attempt, in.u32());
    LONGHAUL_TRY_ASSIGN(s.shard, in.u32());
    LONGHAUL_TRY_ASSIGN(s.author, in.u32());
    LONGHAUL_TRY_ASSIGN(h.codec, in.u16());
    LONGHAUL_TRY_ASSIGN(h.work.tokens, in.u64());
    LONGHAUL_TRY_ASSIGN(h.work.steps, in.u32());
    LONGHAUL_TRY_ASSIGN(const auto loss, in.u64());
    LONGHAUL_TRY_ASSIGN(h.index, in.u32());
    LONGHAUL_TRY(in.copy_to(h.hash.bytes));
    LONGHAUL_TRY(in.copy_to(h.root.bytes));
    LONGHAUL_TRY(in.end());
    h.work.loss = std::bit_cast<double>(loss);
    s.kind = static_cast<stream_kind>(kind);
    const bool contributes = s.kind == stream_kind::contribution;
    const bool works = h.work.tokens > 0 && h.work.steps > 0 && h.work.tokens <= optim::max_contribution_tokens;
    if ((!contributes && s.kind != stream_kind::reduced) || (contributes ? !works : h.work != work_done{}) ||
        !std::isfinite(h.work.loss)) {
        return fail(errc::malformed, "a chunk of peer {} claims {} tokens in {} steps", s.author, h.work.tokens,
                    h.work.steps);
    }
    return h;
}

}  // namespace

chunk_grid chunk_grid::of(std::uint64_t total_elements) {
    chunk_grid g;
    g.total = total_elements;
    g.elements = std::clamp(std::bit_floor(std::max<std::uint64_t>(total_elements / wanted_chunks, 1)), fewest_elements,
                            most_elements);
    return g;
}

chunk_grid chunk_grid::of(std::uint64_t total_elements, const compress::codec& codec) {
    auto g = of(total_elements);
    if (codec.wants_feedback()) g.elements *= coarse;
    return g;
}

std::string tag_of(const stream_name& name, std::uint32_t attempt) {
    return fmt::format("x/{}/{}/{}/{}/{}/{}/{}/{}", name.generation, name.round, name.step,
                       static_cast<unsigned>(name.kind), name.attempt, name.shard, name.author, attempt);
}

core::result<stream_offer> parse_stream_tag(const std::string& tag) {
    const auto bad = [&tag] { return fail(errc::malformed, "'{}' is no stream", tag.substr(0, 40)); };
    if (!tag.starts_with("x/")) return bad();
    std::array<std::uint64_t, 8> part{};
    std::size_t at = 2;
    for (std::size_t i = 0; i < part.size(); ++i) {
        const auto end = i + 1 < part.size() ? tag.find('/', at) : tag.size();
        if (end == std::string::npos || end <= at || end - at > 19) return bad();
        for (; at < end; ++at) {
            if (tag[at] < '0' || tag[at] > '9') return bad();
            part[i] = part[i] * 10 + static_cast<std::uint64_t>(tag[at] - '0');
        }
        ++at;
        if (i >= 2 && part[i] > ~std::uint32_t{0}) return bad();
    }
    if (part[3] != 1 && part[3] != 2) return bad();
    stream_offer o;
    o.name.generation = part[0];
    o.name.round = part[1];
    o.name.step = static_cast<std::uint32_t>(part[2]);
    o.name.kind = static_cast<stream_kind>(part[3]);
    o.name.attempt = static_cast<std::uint32_t>(part[4]);
    o.name.shard = static_cast<std::uint32_t>(part[5]);
    o.name.author = static_cast<peer_number>(part[6]);
    o.attempt = static_cast<std::uint32_t>(part[7]);
    if (tag_of(o.name, o.attempt) != tag) return bad();  // leading zeros
    return o;
}

void seal_chunk(const chunk_header& h, core::mutable_bytes frame, const net::identity& author) {
    core::byte_writer out;
    put_stream(out, h);
    out.u32(h.index).raw(h.hash.bytes).raw(h.root.bytes);
    const auto signature = author.sign(chunk_purpose, out.bytes());
    LONGHAUL_ENSURE(out.bytes().size() + signature.size() == chunk_header_bytes && frame.size() > chunk_header_bytes,
                    "a frame has room for its header");
    std::ranges::copy(out.bytes(), frame.begin());
    std::ranges::copy(signature, frame.begin() + static_cast<std::ptrdiff_t>(out.bytes().size()));
}

core::result<chunk_header> open_chunk(core::const_bytes frame, const net::peer_key& author) {
    if (frame.size() <= chunk_header_bytes) return fail(errc::malformed, "a chunk of {} bytes", frame.size());
    net::signature signature{};
    const auto signed_part = frame.first(chunk_header_bytes - signature.size());
    std::ranges::copy(frame.subspan(signed_part.size(), signature.size()), signature.begin());
    if (!net::verify(author, chunk_purpose, signed_part, signature)) {
        return fail(errc::protocol, "a chunk's signature is not its author's");
    }
    LONGHAUL_TRY_ASSIGN(auto h, parse_header(signed_part));
    if (core::hash(frame.subspan(chunk_header_bytes)) != h.hash) {
        return fail(errc::malformed, "chunk {} of peer {} is damaged", h.index, h.stream.author);
    }
    return h;
}

core::digest root_of_stream(const chunk_header& any_chunk, std::span<const core::digest> hashes) {
    core::byte_writer head;
    put_stream(head, any_chunk);
    head.u64(hashes.size());
    for (const auto& h : hashes) head.raw(h.bytes);
    return core::hash(head.bytes());
}

compress::range range_of_chunk(const core::tensor_manifest& manifest, const compress::codec& codec,
                               std::uint32_t chunk) {
    const auto grid = chunk_grid::of(manifest.elements(), codec);
    return {manifest, grid.first(chunk), grid.size(chunk)};
}

std::uint64_t payload_bytes(const core::tensor_manifest& manifest, const compress::codec& codec) {
    std::uint64_t n = 0;
    const auto chunks = chunk_grid::of(manifest.elements(), codec).count();
    for (std::uint32_t i = 0; i < chunks; ++i)
        n += chunk_header_bytes + codec.range_bytes(range_of_chunk(manifest, codec, i));
    return n;
}

stream_layout::stream_layout(std::uint32_t first, const std::vector<std::size_t>& sizes, std::size_t table)
    : first_(first), count_(static_cast<std::uint32_t>(sizes.size())) {
    for (const auto n : sizes) offsets_.push_back(offsets_.back() + chunk_header_bytes + n);
    if (table > 0) offsets_.push_back(offsets_.back() + chunk_header_bytes + table);
}

stream_layout stream_layout::of(const core::tensor_manifest& manifest, const compress::codec& codec,
                                std::uint32_t first, std::uint32_t count, std::size_t table) {
    std::vector<std::size_t> sizes(count);
    for (std::uint32_t i = 0; i < count; ++i) sizes[i] = codec.range_bytes(range_of_chunk(manifest, codec, first + i));
    return {first, sizes, table};
}

std::uint64_t stream_layout::largest() const {
    std::uint64_t most = 0;
    for (std::size_t f = 0; f + 1 < offsets_.size(); ++f) most = std::max(most, offsets_[f + 1] - offsets_[f]);
    return most;
}

std::uint32_t stream_layout::frame_at(std::uint64_t at) const {
    return static_cast<std::uint32_t>(std::ranges::upper_bound(offsets_, at) - offsets_.begin() - 1);
}

}  // namespace longhaul::peers

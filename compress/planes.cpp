#include "compress/planes.hpp"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <limits>

namespace longhaul::compress {

using core::errc;
using core::fail;

namespace {

constexpr std::size_t planes = sizeof(float);
constexpr std::uint8_t way_plain = 0, way_planes = 1;
/// zstd's fastest level that still has an entropy stage: of planes there is little else to gain.
constexpr int level = 1;
/// So much of a plane tells whether it is worth it, which is as much as to save one part in so many.
constexpr std::size_t sample_bytes = 16 * 1024, worth = 20;

bool pays(std::size_t packed, std::size_t bytes) { return packed < bytes - bytes / worth; }

/// Appends the plane to `out`, compressed if that pays; how many bytes it took.
std::size_t append(core::byte_vector& out, core::const_bytes plane) {
    const auto begin = out.size();
    const auto compressed = [&](core::const_bytes part) -> std::size_t {
        const auto bound = ZSTD_compressBound(part.size());
        out.resize(begin + bound);
        const auto made = ZSTD_compress(out.data() + begin, bound, part.data(), part.size(), level);
        return ZSTD_isError(made) != 0 ? part.size() : made;
    };
    const auto sample = plane.first(std::min(plane.size(), sample_bytes));
    // From the middle: a tensor's beginning may be unlike the rest.
    const auto middle = plane.subspan((plane.size() - sample.size()) / 2, sample.size());
    if (pays(compressed(middle), sample.size())) {
        if (const auto made = compressed(plane); made < plane.size()) {
            out.resize(begin + made);
            return made;
        }
    }
    out.resize(begin);
    out.insert(out.end(), plane.begin(), plane.end());
    return plane.size();
}

}  // namespace

core::byte_vector pack(core::const_bytes values) {
    const auto count = values.size() / planes;
    core::byte_writer head;
    if (count > 0 && values.size() % planes == 0 && count <= std::numeric_limits<std::uint32_t>::max()) {
        core::byte_vector split(values.size());
        for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t p = 0; p < planes; ++p) split[p * count + i] = values[i * planes + p];
        }
        core::byte_vector body;
        head.u8(way_planes);
        for (std::size_t p = 0; p < planes; ++p) {
            head.u32(static_cast<std::uint32_t>(append(body, core::const_bytes(split).subspan(p * count, count))));
        }
        if (pays(head.bytes().size() + body.size(), values.size())) return head.raw(body).take();
    }
    return core::byte_writer().u8(way_plain).raw(values).take();
}

core::result<void> unpack(core::const_bytes packed, core::mutable_bytes values) {
    core::byte_reader in(packed);
    LONGHAUL_TRY_ASSIGN(const auto way, in.u8());
    if (way == way_plain) {
        if (in.remaining() != values.size())
            return fail(errc::malformed, "{} bytes of values where {} belong", in.remaining(), values.size());
        return in.copy_to(values);
    }
    const auto count = values.size() / planes;
    if (way != way_planes || count == 0 || values.size() % planes != 0)
        return fail(errc::malformed, "{} bytes of values packed in way {}", values.size(), way);
    std::array<std::uint32_t, planes> sizes{};
    for (auto& size : sizes) {
        LONGHAUL_TRY_ASSIGN(size, in.u32());
    }
    core::byte_vector opened;
    std::array<core::const_bytes, planes> all;
    opened.resize(values.size());
    for (std::size_t p = 0; p < planes; ++p) {
        if (sizes[p] > count) return fail(errc::malformed, "a plane of {} bytes for {} values", sizes[p], count);
        LONGHAUL_TRY_ASSIGN(all[p], in.take(sizes[p]));
        if (sizes[p] == count) continue;
        const auto room = core::mutable_bytes(opened).subspan(p * count, count);
        const auto made = ZSTD_decompress(room.data(), room.size(), all[p].data(), all[p].size());
        if (ZSTD_isError(made) != 0 || made != count)
            return fail(errc::malformed, "a plane that does not open to {} bytes", count);
        all[p] = room;
    }
    LONGHAUL_TRY(in.end());
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t p = 0; p < planes; ++p) values[i * planes + p] = all[p][i];
    }
    return core::ok();
}

}  // namespace longhaul::compress

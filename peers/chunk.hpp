#pragma once
/// Chunks: what is signed, checked, summed and forwarded. A stream is one author's bytes of one shard, cut into chunks
/// that all replicas cut in the same way; each travels in a frame, behind a header that its author signed. So a chunk
/// can be used before the rest has come, anybody may pass it on, and whoever signs two versions has signed the proof.

#include <algorithm>
#include <compare>
#include <span>
#include <vector>

#include "compress/codec.hpp"
#include "net/identity.hpp"
#include "peers/records.hpp"

namespace longhaul::peers {

/// How a model is cut: parts of equal length, at most 1 MiB of f32 and for small models less, so that a pipeline has
/// something to overlap. A function of the model alone; but a codec of two bits an element or less cuts parts that are
/// `coarse` times as long, so that headers do not weigh more than what is behind them.
struct chunk_grid {
    static constexpr std::uint64_t coarse = 8;
    std::uint64_t total = 0;     ///< elements of the model
    std::uint64_t elements = 1;  ///< of a chunk; the last may be shorter
    /// Of the model: what roots are made of.
    static chunk_grid of(std::uint64_t total_elements);
    /// Of payloads in that codec.
    static chunk_grid of(std::uint64_t total_elements, const compress::codec& codec);
    std::uint32_t count() const { return static_cast<std::uint32_t>((total + elements - 1) / elements); }
    std::uint64_t first(std::uint32_t chunk) const { return chunk * elements; }
    std::uint64_t size(std::uint32_t chunk) const { return std::min(elements, total - first(chunk)); }
};

enum class stream_kind : std::uint8_t {
    contribution = 1,  ///< a contributor's payload
    reduced = 2,       ///< the owner's sum of a shard
};

/// Names a stream in a run.
struct stream_name {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    std::uint32_t step = 0;  ///< of a step-wise schedule
    stream_kind kind = stream_kind::contribution;
    std::uint32_t attempt = 0;  ///< 0 for contributions: they stay the same through all attempts
    std::uint32_t shard = 0;
    peer_number author = 0;
    auto operator<=>(const stream_name&) const = default;
};

/// The tag of a transfer of that stream, offered under the plan of `attempt`: a receiver that has not heard of that
/// attempt yet lets it wait.
std::string tag_of(const stream_name& name, std::uint32_t attempt);
struct stream_offer {
    stream_name name;
    std::uint32_t attempt = 0;
};
/// errc::malformed for anything that `tag_of` does not make.
core::result<stream_offer> parse_stream_tag(const std::string& tag);

/// What a contribution stands for; zero in reduced streams.
struct work_done {
    std::uint64_t tokens = 0;
    std::uint32_t steps = 0;
    double loss = 0;
    bool operator==(const work_done&) const = default;
};

struct chunk_header {
    core::digest run;
    stream_name stream;
    std::uint32_t index = 0;  ///< in the codec's grid; the table of a reduced stream follows its last chunk
    std::uint16_t codec = 0;  ///< wire id
    work_done work;
    core::digest hash;  ///< of the bytes behind the header
    core::digest root;  ///< of the stream, in its last chunk; zero in the others
};

/// Bytes of a signed header, always the same.
inline constexpr std::size_t chunk_header_bytes = 32 + 8 + 8 + 4 + 1 + 4 + 4 + 4 + 4 + 2 + 8 + 4 + 8 + 32 + 32 + 64;

/// Signs what lies behind the header's place in `frame`, and writes the header; `h.hash` must be its hash.
void seal_chunk(const chunk_header& h, core::mutable_bytes frame, const net::identity& author);
/// The header of a stranger's frame, with signature and hash checked. errc::malformed, errc::protocol.
core::result<chunk_header> open_chunk(core::const_bytes frame, const net::peer_key& author);
/// One hash for a whole stream: what it stands for and all that is in it.
core::digest root_of_stream(const chunk_header& any_chunk, std::span<const core::digest> hashes);

/// A chunk's elements.
compress::range range_of_chunk(const core::tensor_manifest& manifest, const compress::codec& codec,
                               std::uint32_t chunk);
/// What a payload takes on the wire, all chunks with their headers.
std::uint64_t payload_bytes(const core::tensor_manifest& manifest, const compress::codec& codec);

/// Where the frames of a stream lie in its bytes.
class stream_layout {
public:
    stream_layout() = default;
    /// Chunks first, first + 1 …, whose data have `sizes` bytes, and behind them a table of `table` bytes (0: none).
    stream_layout(std::uint32_t first, const std::vector<std::size_t>& sizes, std::size_t table);
    static stream_layout of(const core::tensor_manifest& manifest, const compress::codec& codec, std::uint32_t first,
                            std::uint32_t count, std::size_t table);

    bool operator==(const stream_layout&) const = default;
    std::uint32_t first() const { return first_; }  ///< chunk
    std::uint32_t count() const { return count_; }  ///< chunks
    std::uint32_t frames() const { return static_cast<std::uint32_t>(offsets_.size() - 1); }
    std::size_t data_bytes(std::uint32_t frame) const { return offset(frame + 1) - offset(frame) - chunk_header_bytes; }
    std::uint64_t offset(std::uint32_t frame) const { return offsets_[frame]; }
    std::uint64_t total() const { return offsets_.back(); }
    std::uint64_t largest() const;  ///< bytes of the longest frame
    /// The frame that holds byte `at`, which is below the total.
    std::uint32_t frame_at(std::uint64_t at) const;

private:
    std::uint32_t first_ = 0, count_ = 0;
    std::vector<std::uint64_t> offsets_{0};  ///< of each frame, and the total
};

}  // namespace longhaul::peers

#pragma once
/// The two things that the exchange keeps: streams and attempts. For peers/exchange*.cpp alone.

#include "compress/codec.hpp"
#include "peers/exchange.hpp"

namespace longhaul::peers {

/// Where a stream is under way.
struct carrier {
    std::weak_ptr<net::link> link;
    std::string tag;
};

/// A stream as it is made or arrives. Frames never change once they are verified; a stream that broke off begins anew
/// as another object, so that whoever reads the old one is not disturbed.
struct exchange::stream {
    explicit stream(const asio::any_io_executor& executor) : to_look(executor) {}
    stream_name name;
    net::peer_key author;  ///< of one that arrives, as its number was known when it was taken
    stream_layout layout;
    std::uint16_t codec = 0;
    std::shared_ptr<core::byte_vector> bytes;  ///< all of it, or a window: byte `at` lies at `at` modulo its size
    std::vector<core::byte_vector> joined;     ///< frames that the end of the window cuts in two, put together
    std::uint32_t used = 0;                    ///< frames in front that are summed and gone (a window's)
    std::uint32_t freed = 0;                   ///< of them, those that no job reads any more
    std::optional<std::uint32_t> in_check;     ///< the first frame that a job reads now
    std::shared_ptr<std::uint64_t> ready = std::make_shared<std::uint64_t>(0);  ///< bytes of verified frames in front
    std::vector<std::uint64_t> arrived;                                         ///< bytes, of each frame
    std::vector<char> verified;
    std::vector<core::digest> hashes;
    std::uint32_t prefix = 0;  ///< verified frames in front
    std::vector<std::uint32_t> to_check;
    std::optional<work_done> work;
    core::digest root;  ///< zero until its last frame is verified
    bool own = false;
    bool complete = false;
    bool dropped = false;                          ///< nobody is to use it any more
    std::map<peer_number, std::uint32_t> pushing;  ///< to whom, under which attempt
    std::vector<carrier> to_others;
    carrier from;          ///< while it arrives
    core::wakeup to_look;  ///< a frame is to be checked, or the stream was dropped

    bool is_window() const { return bytes->size() < layout.total(); }
    core::mutable_bytes frame(std::uint32_t f) {
        if (is_window() && !joined[f].empty()) return joined[f];
        const auto at = is_window() ? layout.offset(f) % bytes->size() : layout.offset(f);
        return core::mutable_bytes(*bytes).subspan(at, chunk_header_bytes + layout.data_bytes(f));
    }
    /// Puts a frame together that has arrived and is cut in two.
    void join(std::uint32_t f);
    core::mutable_bytes data(std::uint32_t f) { return frame(f).subspan(chunk_header_bytes); }
    /// Verified frames from `first` on, at most `most`.
    std::uint32_t run_from(std::uint32_t first, std::uint32_t most) const {
        std::uint32_t n = 0;
        while (n < most && first + n < layout.count() && verified[first + n]) ++n;
        return n;
    }
};

/// What one contributor put into one shard.
struct shard_input {
    work_done work;
    core::digest root;
};

/// This node's part in an attempt: what it sums and collects.
struct exchange::attempt_state {
    exchange_terms terms;
    const compress::codec* codec = nullptr;
    bool over = false;  ///< another one has begun
    std::shared_ptr<aggregate> out = std::make_shared<aggregate>();
    std::vector<std::vector<shard_input>> inputs;  ///< of each shard or exchange, of each contributor
    std::uint32_t shards_left = 0;
    shared_aggregate result;
};

/// Bytes of one line of a reduced stream's table: u32 number, u64 tokens, u32 steps, u64 loss, 32 root.
inline constexpr std::size_t table_line = 4 + 8 + 4 + 8 + 32;

}  // namespace longhaul::peers

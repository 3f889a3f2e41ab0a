#pragma once
/// A codec turns a range of a model into bytes and back. One small file a family. docs/COMPRESSION.md has the formats.

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "compress/range.hpp"

namespace longhaul::compress {

/// How values are rounded to what the wire can say.
struct rounding {
    bool stochastic = false;   ///< up or down at random, so that the mean is right; to the nearest otherwise
    std::uint64_t seed = 0;    ///< of the random numbers: a pure function of it and of the element's place
    core::const_bytes before;  ///< what this range was encoded to in the last payload that was accepted; empty: nothing
};

/// What a contribution is multiplied by before it is added (optim/aggregate).
struct factors {
    float parameters = 1;
    float buffers = 1;
};

/// What an encoding does not say, for error feedback.
struct remainder {
    std::span<float> left;  ///< in: the values; out: minus what they decode to, each rounded once
    double sent = 0;        ///< out: sum of what they decode to is added to it
    /// Unless empty: makes the values first … first + count, and `left`, just before they are read, part by part and in
    /// order. What was just made is still in the cache.
    std::function<void(std::size_t first, std::size_t count)> make;
};

/// Nanoseconds an element takes on one core, as docs/COMPRESSION.md has measured it: what plans reckon with.
struct effort {
    double encode = 0.5, add = 0.5;
};

/// Stateless; safe to use from any thread. A range of the same model takes the same number of bytes whatever is in it,
/// so receivers have made room before there is a byte, and no length has to be believed. The bytes have no header: they
/// travel behind one that names the run, the codec's wire id and the range (peers/chunk.hpp). They depend on the values
/// and the rounding alone, not on threads or on the machine.
class codec {
public:
    codec(std::string_view name, std::uint16_t wire_id, const compress::effort& effort = {})
        : name_(name), wire_id_(wire_id), effort_(effort) {}
    codec(const codec&) = delete;
    codec& operator=(const codec&) = delete;
    virtual ~codec() = default;

    /// As in configuration and events.
    std::string_view name() const { return name_; }
    /// Never reused once released: another format is another codec.
    std::uint16_t wire_id() const { return wire_id_; }
    const compress::effort& effort() const { return effort_; }
    /// The wire bytes are the values' own, bit for bit.
    virtual bool lossless() const { return false; }
    /// Fit for sums too: an owner may encode what it summed once more (exchange mode shard).
    virtual bool fits_sums() const { return false; }
    /// Loses so much that training needs what it lost to be sent later (compress/feedback).
    virtual bool wants_feedback() const { return false; }

    /// Encodes better when it knows what the range was encoded to before (rounding::before).
    virtual bool goes_on() const { return false; }

    /// Bytes of a range on the wire.
    std::uint64_t range_bytes(const range& r) const;
    /// Encodes r.size() values into exactly range_bytes(r) bytes. errc::limit when a value is not finite or too large
    /// for the codec: the sentence names the tensor, and `rest` is in any state.
    core::result<void> encode(const range& r, std::span<const float> values, const rounding& how,
                              core::mutable_bytes out, remainder* rest = nullptr) const;
    /// Whether hostile bytes are an encoding of this range: errc::malformed if not. All numbers in it are finite then.
    core::result<void> check(const range& r, core::const_bytes in) const;
    /// Checks and decodes. On an error `out` is unchanged.
    core::result<void> decode(const range& r, core::const_bytes in, std::span<float> out) const;
    /// Checks, and adds each value times its factor to `sum`: the bits of decoding, multiplying and adding one after
    /// another. On an error `sum` is unchanged.
    core::result<void> add(const range& r, core::const_bytes in, const factors& by, std::span<float> sum) const;

protected:
    /// What encode hands to each piece.
    struct encode_hints {
        const std::uint64_t* key = nullptr;  ///< of the random numbers; null for rounding to nearest
        const std::byte* before = nullptr;   ///< the piece's last encoding, unless null
    };

    // One piece of a tensor, never empty; sizes are right and, but for check_piece, so is the content.
    virtual std::size_t piece_bytes(const piece& p) const = 0;
    /// Calls `rest->make` itself. Otherwise the whole piece is made before it is encoded.
    virtual bool makes_parts() const { return false; }
    /// False when there is a value that cannot be carried; `rest`, of the piece, may be null.
    virtual bool encode_piece(const piece& p, std::span<const float> values, const encode_hints& how, std::byte* out,
                              remainder* rest) const = 0;
    virtual bool check_piece(const piece& p, const std::byte* in) const = 0;
    virtual void decode_piece(const piece& p, const std::byte* in, std::span<float> out) const = 0;
    virtual void add_piece(const piece& p, const std::byte* in, float factor, std::span<float> sum) const = 0;

private:
    /// Calls visit(codec, piece, offset in the bytes) for each piece, in order, while it returns true.
    template <typename Visit>
    void each_piece(const range& r, Visit visit) const;

    std::string_view name_;
    std::uint16_t wire_id_;
    compress::effort effort_;
};

/// The codec of that name, or errc::config naming the nearest. The object lives for ever.
core::result<const codec*> find_codec(std::string_view name);
std::vector<std::string> codec_names();

}  // namespace longhaul::compress

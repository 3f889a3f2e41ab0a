#pragma once
/// Batches for trainers: which rows a peer reads at which step, as a pure function of (seed, shard, position), and a
/// validation split that training never touches.

#include <cstdint>
#include <span>

#include "optim/config.hpp"
#include "optim/idx.hpp"
#include "optim/tokens.hpp"

namespace longhaul::optim {

/// The tokens that `data` names. `path` is this node's copy; when empty, data.path, and without that the default text.
/// A run on the default text also takes a copy of it as a file. errc::config or errc::malformed in a sentence.
core::result<token_source> open_token_data(const data_config& data, const std::string& path);
/// The images that `data` names.
core::result<image_set> open_image_data(const data_config& data, const std::string& path);

/// Draws items for the rows of a peer's batches. Shard s has the items ≡ s (mod shards). A peer starts with its own
/// shard and moves to the next one after reading as many rows as make one pass, so that peers at one position read
/// disjoint items and each sees everything in time, whoever else comes and goes.
class shard_sampler {
public:
    /// `items` ≥ `shards` ≥ 1, items/shards < 2³²; `rows_per_pass` ≥ 1.
    shard_sampler(std::uint64_t items, std::uint64_t shards, std::uint64_t rows_per_pass);
    void assign(std::uint64_t shard, std::uint64_t seed) {
        shard_ = shard;
        seed_ = seed;
    }
    struct pick {
        std::uint64_t item = 0;  ///< below `items`
        std::uint64_t key = 0;   ///< for a random_below of the caller's, at counter 0
    };
    /// Row `row` of the batch of `batch` rows at `position`.
    pick row(std::uint64_t position, std::uint64_t batch, std::uint64_t row) const;
    /// The shard that is read at `position`.
    std::uint64_t shard_at(std::uint64_t position, std::uint64_t batch) const;

private:
    std::uint64_t items_, shards_, rows_per_pass_;
    std::uint64_t shard_ = 0, seed_ = 0;
};

/// Next-token batches. The training split is cut into blocks, blocks are dealt to the shards in turn, and a window lies
/// inside one block.
class text_batches {
public:
    /// errc::config when there are too few tokens for the shards and the context, or a token is not below `vocab`.
    static core::result<text_batches> make(token_source source, const data_config& data, std::uint64_t context,
                                           std::uint64_t vocab, std::uint64_t batch);
    void assign(std::uint64_t shard, std::uint64_t seed, std::uint64_t position);
    std::uint64_t position() const { return position_; }
    void seek(std::uint64_t position) { position_ = position; }
    /// The next training batch: inputs and targets, each batch × context, row-major; targets are one token later.
    void next(std::span<std::int64_t> inputs, std::span<std::int64_t> targets);
    /// Held-out batch i, below data.eval_batches: windows spread evenly, the same for every peer.
    void validation(std::uint64_t i, std::span<std::int64_t> inputs, std::span<std::int64_t> targets) const;
    /// First token of the window of a row of the batch at `position`.
    std::uint64_t window_start(std::uint64_t position, std::uint64_t row) const;
    std::uint64_t validation_start(std::uint64_t i, std::uint64_t row) const;
    const token_source& source() const { return source_; }
    /// Tokens before this index are for training.
    std::uint64_t training_tokens() const { return training_; }

private:
    text_batches(token_source source, shard_sampler sampler) : source_(std::move(source)), sampler_(sampler) {}
    void window(std::uint64_t start, std::span<std::int64_t> inputs, std::span<std::int64_t> targets) const;
    token_source source_;
    shard_sampler sampler_;
    std::uint64_t training_ = 0, block_ = 0, context_ = 0, batch_ = 0, eval_windows_ = 0;
    std::uint64_t position_ = 0;
};

/// Batches of labelled images, as floats with MNIST's mean 0.1307 and deviation 0.3081 taken out.
class image_batches {
public:
    /// errc::config when there are too few images for the shards.
    static core::result<image_batches> make(image_set set, const data_config& data, std::uint64_t batch);
    void assign(std::uint64_t shard, std::uint64_t seed, std::uint64_t position);
    std::uint64_t position() const { return position_; }
    void seek(std::uint64_t position) { position_ = position; }
    /// The next training batch: batch × rows × columns, and batch labels.
    void next(std::span<float> pixels, std::span<std::int64_t> labels);
    /// Held-out batch i, below data.eval_batches, spread evenly.
    void validation(std::uint64_t i, std::span<float> pixels, std::span<std::int64_t> labels) const;
    const image_set& set() const { return set_; }
    std::uint64_t training_images() const { return training_; }

private:
    image_batches(image_set set, shard_sampler sampler) : set_(std::move(set)), sampler_(sampler) {}
    void copy(std::uint64_t image, std::span<float> pixels) const;
    image_set set_;
    shard_sampler sampler_;
    std::uint64_t training_ = 0, batch_ = 0, eval_rows_ = 0;
    std::uint64_t position_ = 0;
};

}  // namespace longhaul::optim

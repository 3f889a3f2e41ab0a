#include "optim/data.hpp"

#include <algorithm>

#include "core/counter_random.hpp"

namespace longhaul::optim {
namespace {

/// Blocks are this many contexts long where the text allows it: long enough that few windows are lost at their ends,
/// short enough that every shard is a fair sample of the text.
constexpr std::uint64_t contexts_per_block = 64;
constexpr std::uint64_t blocks_per_shard = 4;

/// How many of `total` train; the rest, at least one, is held out.
std::uint64_t training_share(std::uint64_t total, double validation) {
    const auto held_out = static_cast<std::uint64_t>(static_cast<double>(total) * validation);
    return total - std::clamp<std::uint64_t>(held_out, 1, total);
}

/// The i-th of `n` places spread evenly over [0, room].
std::uint64_t spread(std::uint64_t i, std::uint64_t n, std::uint64_t room) {
    if (n < 2) return 0;
    return static_cast<std::uint64_t>(static_cast<double>(room) * static_cast<double>(i) / static_cast<double>(n - 1));
}

}  // namespace

core::result<token_source> open_token_data(const data_config& data, const std::string& path) {
    const auto& file = path.empty() ? data.path : path;
    if (data.kind == "tokens") {
        if (file.empty())
            return core::fail(core::errc::config,
                              "data.kind is \"tokens\": name the token file with data.path or --data");
        return token_source::open_tokens(file);
    }
    if (data.kind == "text") {
        if (file.empty())
            return core::fail(core::errc::config, "data.kind is \"text\": name the text with data.path or --data");
        return token_source::open_text(file);
    }
    if (data.kind == "stdlib") return file.empty() ? token_source::open_stdlib() : token_source::open_text(file);
    LONGHAUL_TRY_ASSIGN(const auto kind, detect_data_kind(file));
    if (data.kind != "auto" || kind == "mnist")
        return core::fail(core::errc::config, "this model reads text or tokens, not {} data ('{}')",
                          data.kind == "auto" ? kind : data.kind, file);
    if (kind == "stdlib") return token_source::open_stdlib();
    return kind == "tokens" ? token_source::open_tokens(file) : token_source::open_text(file);
}

core::result<image_set> open_image_data(const data_config& data, const std::string& path) {
    const auto& folder = path.empty() ? data.path : path;
    if ((data.kind != "mnist" && data.kind != "auto") || folder.empty())
        return core::fail(core::errc::config,
                          "this model reads images: set data.kind = \"mnist\" and name the folder of idx files with "
                          "data.path or --data");
    return read_mnist_folder(folder);
}

shard_sampler::shard_sampler(std::uint64_t items, std::uint64_t shards, std::uint64_t rows_per_pass)
    : items_(items), shards_(shards), rows_per_pass_(rows_per_pass) {
    LONGHAUL_ENSURE(shards >= 1 && items >= shards && items / shards < (std::uint64_t{1} << 32) && rows_per_pass >= 1,
                    "every shard has an item");
}

std::uint64_t shard_sampler::shard_at(std::uint64_t position, std::uint64_t batch) const {
    return (shard_ % shards_ + position * batch / rows_per_pass_) % shards_;
}

shard_sampler::pick shard_sampler::row(std::uint64_t position, std::uint64_t batch, std::uint64_t row) const {
    const auto shard = shard_at(position, batch);
    const auto in_shard = (items_ - shard + shards_ - 1) / shards_;
    const auto key =
        core::combine_key(core::combine_key(core::combine_key(core::combine_key(seed_, shard), position), row), 0);
    return {shard + shards_ * core::random_below(key, 0, in_shard), core::combine_key(key, 1)};
}

core::result<text_batches> text_batches::make(token_source source, const data_config& data, std::uint64_t context,
                                              std::uint64_t vocab, std::uint64_t batch) {
    LONGHAUL_ENSURE(context >= 1 && batch >= 1 && data.shards >= 1, "configuration was checked");
    if (source.largest() >= vocab)
        return core::fail(core::errc::config, "{} has tokens up to {}: set model.vocab to at least {} (it is {})",
                          source.description(), source.largest(), source.largest() + 1, vocab);
    const auto shards = static_cast<std::uint64_t>(data.shards);
    const auto total = source.size();
    const auto training = training_share(total, data.validation);
    const auto wanted = std::min(contexts_per_block * context, training / (blocks_per_shard * shards));
    const auto block = std::max(wanted, context + 1);
    if (training / block < shards || total - training < context + 1)
        return core::fail(
            core::errc::config,
            "{} is too short: {} tokens to train on for {} shards of windows of {}, and {} held out; take "
            "more data, or fewer data.shards, or a smaller model.context",
            source.description(), training, shards, context + 1, total - training);
    if (training / block / shards >= (std::uint64_t{1} << 32))
        return core::fail(core::errc::config, "{} is too long for {} shards: raise data.shards", source.description(),
                          shards);
    const auto rows_per_pass = std::max<std::uint64_t>(1, training / shards / context);
    text_batches out(std::move(source), shard_sampler(training / block, shards, rows_per_pass));
    out.training_ = training;
    out.block_ = block;
    out.context_ = context;
    out.batch_ = batch;
    out.eval_windows_ = static_cast<std::uint64_t>(data.eval_batches) * batch;
    return out;
}

void text_batches::assign(std::uint64_t shard, std::uint64_t seed, std::uint64_t position) {
    sampler_.assign(shard, seed);
    position_ = position;
}

std::uint64_t text_batches::window_start(std::uint64_t position, std::uint64_t row) const {
    const auto pick = sampler_.row(position, batch_, row);
    return pick.item * block_ + core::random_below(pick.key, 0, block_ - context_);
}

std::uint64_t text_batches::validation_start(std::uint64_t i, std::uint64_t row) const {
    const auto room = source_.size() - training_ - (context_ + 1);
    return training_ + spread(i * batch_ + row, eval_windows_, room);
}

void text_batches::window(std::uint64_t start, std::span<std::int64_t> inputs, std::span<std::int64_t> targets) const {
    source_.copy(start, inputs);
    source_.copy(start + 1, targets);
}

void text_batches::next(std::span<std::int64_t> inputs, std::span<std::int64_t> targets) {
    LONGHAUL_ENSURE(inputs.size() == batch_ * context_ && targets.size() == inputs.size(), "batch × context");
    for (std::uint64_t r = 0; r < batch_; ++r)
        window(window_start(position_, r), inputs.subspan(r * context_, context_),
               targets.subspan(r * context_, context_));
    ++position_;
}

void text_batches::validation(std::uint64_t i, std::span<std::int64_t> inputs, std::span<std::int64_t> targets) const {
    LONGHAUL_ENSURE(inputs.size() == batch_ * context_ && targets.size() == inputs.size(), "batch × context");
    for (std::uint64_t r = 0; r < batch_; ++r)
        window(validation_start(i, r), inputs.subspan(r * context_, context_), targets.subspan(r * context_, context_));
}

core::result<image_batches> image_batches::make(image_set set, const data_config& data, std::uint64_t batch) {
    LONGHAUL_ENSURE(batch >= 1 && data.shards >= 1, "configuration was checked");
    const auto shards = static_cast<std::uint64_t>(data.shards);
    const auto training = training_share(set.count, data.validation);
    if (training < shards)
        return core::fail(core::errc::config, "{} images to train on are too few for {} shards: lower data.shards",
                          training, shards);
    image_batches out(std::move(set), shard_sampler(training, shards, training / shards));
    out.training_ = training;
    out.batch_ = batch;
    out.eval_rows_ = static_cast<std::uint64_t>(data.eval_batches) * batch;
    return out;
}

void image_batches::assign(std::uint64_t shard, std::uint64_t seed, std::uint64_t position) {
    sampler_.assign(shard, seed);
    position_ = position;
}

void image_batches::copy(std::uint64_t image, std::span<float> pixels) const {
    const auto* from = set_.pixels.data() + image * pixels.size();
    for (std::size_t k = 0; k < pixels.size(); ++k)
        pixels[k] = (static_cast<float>(from[k]) / 255.0F - 0.1307F) / 0.3081F;
}

void image_batches::next(std::span<float> pixels, std::span<std::int64_t> labels) {
    const auto size = std::size_t{set_.rows} * set_.columns;
    LONGHAUL_ENSURE(labels.size() == batch_ && pixels.size() == batch_ * size, "batch × pixels");
    for (std::uint64_t r = 0; r < batch_; ++r) {
        const auto image = sampler_.row(position_, batch_, r).item;
        copy(image, pixels.subspan(r * size, size));
        labels[r] = set_.labels[image];
    }
    ++position_;
}

void image_batches::validation(std::uint64_t i, std::span<float> pixels, std::span<std::int64_t> labels) const {
    const auto size = std::size_t{set_.rows} * set_.columns;
    LONGHAUL_ENSURE(labels.size() == batch_ && pixels.size() == batch_ * size, "batch × pixels");
    for (std::uint64_t r = 0; r < batch_; ++r) {
        const auto image = training_ + spread(i * batch_ + r, eval_rows_, set_.count - training_ - 1);
        copy(image, pixels.subspan(r * size, size));
        labels[r] = set_.labels[image];
    }
}

}  // namespace longhaul::optim

#include "peers/memory.hpp"

#include <algorithm>

#include "compress/codec.hpp"
#include "core/units.hpp"
#include "optim/trainer.hpp"
#include "peers/exchange.hpp"

namespace longhaul::peers {

core::result<declared_memory> memory_needed(const core::tensor_manifest& tensors, const run_config& config,
                                            std::uint64_t limit) {
    // Two states of anchor and momentum while one is made from the other, one that a checkpoint is written of, and
    // those that are kept for joiners; the pseudo-gradient and the carry or residual; the retained aggregates, the one
    // being made and the one before; a checkpoint's copy of what is carried, and its file that is read back; and what
    // the trainer keeps. Then the own payloads of the open round and of the one before.
    const std::uint64_t states = 3 + max_kept_states;
    const std::uint64_t words =
        2 * states + 2 + (retained_aggregates(tensors.elements()) + 2) + 2 + optim::trainer_buffers(config.model.kind);
    LONGHAUL_TRY_ASSIGN(const auto feedback, feedback_of(config));
    // What this round's steps and the next ones began from, and the trainer's parameters while it evaluates.
    std::uint64_t late = may_have_delay(config) ? 3 : config.exchange.fragments > 1 ? 1 : 0;
    // Where everybody is between the exchanges of a round and what was said in them; and means that are waited for.
    if (config.exchange.every > 0) late = 4 + most_staleness(config) + 1;
    // What feedback keeps beside a residual: momentum, or what was said (a checkpoint's copy too) and the residual's
    // next value.
    const std::uint64_t kept = feedback.momentum > 0 ? 1 : feedback.repeats > 0 ? 3 : 0;
    const auto others = static_cast<std::uint64_t>(std::max<std::int64_t>(2, config.peers.min)) - 1;
    std::uint64_t fixed = 0, whole = 0, least = 0;
    // Whichever codec a round has.
    for (const auto& name : config.codecs()) {
        LONGHAUL_TRY_ASSIGN(const auto* codec, compress::find_codec(name));
        // Of all exchanges of a round.
        const auto exchanges = configured_plan(config, *codec).exchanges();
        const auto payload = exchanges * payload_bytes(tensors, *codec);
        // And what a codec goes on from, twice.
        auto own = (words + late + kept) * 4 * tensors.elements() + (codec->goes_on() ? 4 : 2) * payload;
        // A chunk of all contributors, decoded.
        if (aggregation_of(config) != optim::aggregation::mean) {
            own += (others + 1) * 4 * chunk_grid::of(tensors.elements(), *codec).elements;
        }
        // At best the payloads of all others, of two rounds; at least the sums, and windows of one chunk.
        const auto all = own + 2 * others * payload;
        auto sharded = all;
        if (codec->fits_sums() && config.exchange.mode != "gather" && config.exchange.every == 0) {
            const auto a_chunk = payload / chunk_grid::of(tensors.elements(), *codec).count() + chunk_header_bytes;
            sharded = std::min(all, own + 2 * payload + others * window_bytes(a_chunk, 1));
        }
        fixed = std::max(fixed, own);
        whole = std::max(whole, all);
        least = std::max(least, sharded);
    }
    if (limit != 0 && least > limit) {
        return core::fail(core::errc::config,
                          "a model of {} parameters needs {} of memory with {} members; this node may use {}: raise "
                          "node.memory (--memory), or take a smaller model",
                          tensors.elements(), core::format_bytes(least), others + 1, core::format_bytes(limit));
    }
    if (limit == 0) return declared_memory{whole, 0};
    return declared_memory{std::min(whole, limit), limit - fixed};
}

}  // namespace longhaul::peers

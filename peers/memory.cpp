#include "peers/memory.hpp"

#include <algorithm>

#include "compress/codec.hpp"
#include "core/units.hpp"
#include "peers/exchange.hpp"

namespace longhaul::peers {

core::result<std::uint64_t> memory_needed(const core::tensor_manifest& tensors, const run_config& config,
                                          std::uint64_t limit) {
    // Two states of anchor and momentum while one is made from the other; the pseudo-gradient and the carry or
    // residual; the retained aggregates, the one being made and the one before; and the trainer's parameters, gradients
    // and two moments. Then the payloads of the open round and of the one before.
    const std::uint64_t words = 4 + 2 + (exchange::retained + 2) + 4;
    LONGHAUL_TRY_ASSIGN(const auto* codec, compress::find_codec(config.exchange.codec));
    const auto members = static_cast<std::uint64_t>(std::max<std::int64_t>(2, config.peers.min));
    LONGHAUL_TRY_ASSIGN(const auto feedback, feedback_of(config.exchange));
    // And what a codec goes on from, twice; and the momentum that feedback keeps.
    const auto payloads = 2 * members + (codec->goes_on() ? 2 : 0);
    const auto sum =
        (words + (feedback.momentum > 0 ? 1 : 0)) * 4 * tensors.elements() + payloads * payload_bytes(tensors, *codec);
    if (limit != 0 && sum > limit) {
        return core::fail(core::errc::config,
                          "a model of {} parameters needs {} of memory with {} members; this node may use {}: raise "
                          "node.memory (--memory), or take a smaller model",
                          tensors.elements(), core::format_bytes(sum), members, core::format_bytes(limit));
    }
    return sum;
}

}  // namespace longhaul::peers

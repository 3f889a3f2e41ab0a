#include "compress/quantize.hpp"

#include "compress/kernel_codec.hpp"

namespace longhaul::compress {

namespace {

/// Scales of all blocks, then codes; a block's codes fill whole bytes.
template <std::size_t Bits, std::size_t Scales>
std::size_t block_bytes(std::size_t n) {
    constexpr std::size_t per_byte = 8 / Bits;
    const auto tail = n % block_elements;
    const auto blocks = n / block_elements + (tail > 0 ? 1 : 0);
    return blocks * Scales * 2 + n / block_elements * (block_elements / per_byte) + (tail + per_byte - 1) / per_byte;
}

}  // namespace

const codec& int8_codec() {
    static constexpr kernel_codec_traits traits{"int8", 3, block_bytes<8, 1>, &kernels::int8, false, true};
    static const kernel_codec instance(traits);
    return instance;
}

const codec& int4_codec() {
    static constexpr kernel_codec_traits traits{"int4", 4, block_bytes<4, 1>, &kernels::int4};
    static const kernel_codec instance(traits);
    return instance;
}

const codec& e3m0_codec() {
    static constexpr kernel_codec_traits traits{"e3m0", 5, block_bytes<4, 1>, &kernels::e3m0};
    static const kernel_codec instance(traits);
    return instance;
}

std::size_t sign2_bytes(std::size_t count) { return block_bytes<2, 2>(count); }

const codec& sign2_codec() {
    static constexpr kernel_codec_traits traits{"sign2", 6, sign2_bytes, &kernels::sign2, false, false, true};
    static const kernel_codec instance(traits);
    return instance;
}

const codec& sign1_codec() {
    static constexpr kernel_codec_traits traits{"sign1", 7, block_bytes<1, 1>, &kernels::sign1, false, false, true};
    static const kernel_codec instance(traits);
    return instance;
}

}  // namespace longhaul::compress

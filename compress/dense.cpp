#include "compress/dense.hpp"

#include "compress/kernel_codec.hpp"

namespace longhaul::compress {

const codec& f32_codec() {
    static constexpr kernel_codec_traits traits{"f32",         1,    [](std::size_t n) { return 4 * n; },
                                                &kernels::f32, true, true};
    static const kernel_codec instance(traits);
    return instance;
}

const codec& bf16_codec() {
    static constexpr kernel_codec_traits traits{"bf16",         2,     [](std::size_t n) { return 2 * n; },
                                                &kernels::bf16, false, true};
    static const kernel_codec instance(traits);
    return instance;
}

}  // namespace longhaul::compress

#include "compress/kept_values.hpp"

#include <cmath>

#include "compress/bf16.hpp"

namespace longhaul::compress {

void kept_values::encode(std::span<const float> values, std::byte* out) const {
    std::fill(out + codes_at(), out + bytes(), std::byte{0});
    for (std::size_t first = 0; first < count_; first += group_)
        encode_group(values.subspan(first, std::min(group_, count_ - first)), first, out + first / group_ * means_bytes,
                     out + codes_at());
}

void kept_values::encode_group(std::span<const float> values, std::size_t first, std::byte* means,
                               std::byte* codes) const {
    double sum = 0, above = 0;
    for (const float v : values) sum += static_cast<double>(std::abs(v));
    const double mean = sum / static_cast<double>(values.size());
    std::size_t n = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto m = static_cast<double>(std::abs(values[i]));
        const bool up = m > mean;
        if (up) {
            above += m;
            ++n;
        }
        const auto code = (up ? 1U : 0U) | (std::signbit(values[i]) ? 2U : 0U);
        codes[(first + i) / per_byte] |= static_cast<std::byte>(code << (first + i) % per_byte * 2);
    }
    const auto others = values.size() - n;
    store_bf16(others == 0 ? 0.0F : static_cast<float>((sum - above) / static_cast<double>(others)), means);
    store_bf16(n == 0 ? 0.0F : static_cast<float>(above / static_cast<double>(n)), means + 2);
}

bool kept_values::check(const std::byte* in) const {
    for (std::size_t i = 0; i < codes_at(); i += 2)
        if (load_bf16(in + i) > largest_bf16) return false;
    const auto used = count_ % per_byte;
    return used == 0 || std::to_integer<unsigned>(in[bytes() - 1]) >> (2 * used) == 0;
}

kept_values::group kept_values::group_of(const std::byte* in, std::size_t i) const {
    const auto* means = in + i / group_ * means_bytes;
    return {from_bf16(load_bf16(means)), from_bf16(load_bf16(means + 2)), in + codes_at()};
}

}  // namespace longhaul::compress

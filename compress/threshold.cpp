#include "compress/threshold.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <memory>
#include <vector>

#include "compress/elias_fano.hpp"
#include "compress/kernels.hpp"
#include "compress/quantize.hpp"
#include "core/counter_random.hpp"

namespace longhaul::compress {

namespace {

constexpr std::size_t most_sampled = 16384;

std::uint32_t magnitude(float v) { return std::bit_cast<std::uint32_t>(v) & 0x7fffffffU; }

/// A magnitude that, as a sample of the values says, somewhat more than k of them reach. It decides how long the
/// selection takes, and nothing else.
std::uint32_t guess_limit(std::span<const float> values, std::size_t k) {
    const auto stride = std::max<std::size_t>(1, values.size() / most_sampled);
    std::vector<std::uint32_t> sample(values.size() / stride);
    for (std::size_t i = 0; i < sample.size(); ++i) sample[i] = magnitude(values[i * stride + core::mix64(i) % stride]);
    // A quarter more, and a few for luck in small samples.
    const auto rank = std::min(sample.size() - 1, sample.size() * k / values.size() * 5 / 4 + 16);
    const auto at = sample.begin() + static_cast<std::ptrdiff_t>(rank);
    std::ranges::nth_element(sample, at, std::greater{});
    return *at;
}

/// Places of the k largest magnitudes, ascending; of equal ones the first. False when a value is not finite.
bool select_largest(std::span<const float> values, std::size_t k, std::vector<std::uint32_t>& places) {
    const auto& run = best_kernels();
    // Room for the worst case, of which little is touched.
    const auto found = std::make_unique_for_overwrite<std::uint32_t[]>(values.size() + 64);
    std::size_t count = 0;
    // Where the guess was too high, half its bits are about the square root: a few passes reach zero, and all values.
    for (auto limit = guess_limit(values, k); count < k; limit /= 2)
        if (!run.collect(values.data(), values.size(), limit, found.get(), &count)) return false;
    std::vector<std::uint32_t> close(count);
    for (std::size_t i = 0; i < count; ++i) close[i] = magnitude(values[found[i]]);
    auto sorted = close;
    const auto last = sorted.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::ranges::nth_element(sorted, last, std::greater{});
    const auto least = *last;
    auto equal = k - static_cast<std::size_t>(std::count_if(sorted.begin(), last, [&](auto m) { return m > least; }));
    places.clear();
    for (std::size_t i = 0; i < count; ++i) {
        if (close[i] < least || (close[i] == least && equal == 0)) continue;
        if (close[i] == least) --equal;
        places.push_back(found[i]);
    }
    return true;
}

class threshold_codec final : public codec {
public:
    threshold_codec(std::string_view name, std::uint16_t wire_id, std::size_t one_of)
        : codec(name, wire_id, {0.6, 0.2}), one_of_(one_of) {}
    bool wants_feedback() const override { return true; }

protected:
    std::size_t piece_bytes(const piece& p) const override { return layout(*this, p.count).bytes(); }
    bool encode_piece(const piece& p, std::span<const float> values, const encode_hints& /*how*/, std::byte* out,
                      remainder* rest) const override {
        const layout l(*this, p.count);
        std::vector<std::uint32_t> places;
        if (!select_largest(values, l.kept, places)) return false;
        std::vector<float> picked(l.kept);
        for (std::size_t i = 0; i < l.kept; ++i) picked[i] = values[places[i]];
        const auto& sign2 = best_kernels().sign2;
        if (!sign2.encode(picked.data(), l.kept, nullptr, wire(out))) return false;
        l.places.encode(places, {out + l.value_bytes, l.places.bytes()});
        if (rest == nullptr) return true;
        sign2.decode(wire(out), l.kept, picked.data());
        for (std::size_t i = 0; i < l.kept; ++i) {
            rest->left[places[i]] -= picked[i];
            rest->sent += static_cast<double>(picked[i]);
        }
        return true;
    }
    bool check_piece(const piece& p, const std::byte* in) const override {
        const layout l(*this, p.count);
        std::vector<std::uint32_t> places(l.kept);
        return best_kernels().sign2.check(wire(in), l.kept) &&
               l.places.decode({in + l.value_bytes, l.places.bytes()}, places);
    }
    void decode_piece(const piece& p, const std::byte* in, std::span<float> out) const override {
        std::ranges::fill(out, 0.0F);
        each_value(p, in, [&out](std::size_t i, float v) { out[i] = v; });
    }
    void add_piece(const piece& p, const std::byte* in, float factor, std::span<float> sum) const override {
        each_value(p, in, [&sum, factor](std::size_t i, float v) { sum[i] += factor * v; });
    }

private:
    /// The kept values as sign2 codes them, and behind them their places.
    struct layout {
        layout(const threshold_codec& c, std::size_t count)
            : kept((count + c.one_of_ - 1) / c.one_of_), value_bytes(sign2_bytes(kept)), places(count, kept) {}
        std::size_t bytes() const { return value_bytes + places.bytes(); }
        std::size_t kept, value_bytes;
        elias_fano places;
    };
    static unsigned char* wire(std::byte* b) { return reinterpret_cast<unsigned char*>(b); }
    static const unsigned char* wire(const std::byte* b) { return reinterpret_cast<const unsigned char*>(b); }
    /// Calls take(place, value) for each kept one.
    template <typename Take>
    void each_value(const piece& p, const std::byte* in, Take take) const {
        const layout l(*this, p.count);
        std::vector<std::uint32_t> places(l.kept);
        LONGHAUL_ENSURE(l.places.decode({in + l.value_bytes, l.places.bytes()}, places), "it was checked");
        std::vector<float> values(l.kept);
        best_kernels().sign2.decode(wire(in), l.kept, values.data());
        for (std::size_t i = 0; i < l.kept; ++i) take(places[i], values[i]);
    }

    std::size_t one_of_;
};

}  // namespace

const codec& topk_1_percent_codec() {
    static const threshold_codec instance("topk-1%", 15, 100);
    return instance;
}

const codec& topk_1_per_mille_codec() {
    static const threshold_codec instance("topk-0.1%", 16, 1000);
    return instance;
}

}  // namespace longhaul::compress

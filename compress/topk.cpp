#include "compress/topk.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "compress/kernels.hpp"
#include "compress/subset_coder.hpp"

namespace longhaul::compress {

namespace {

/// Elements whose kept values share two means.
constexpr std::size_t group_elements = 16384;
constexpr std::size_t means_bytes = 4;
constexpr std::size_t values_per_byte = 4;
constexpr std::uint16_t largest_bf16 = 0x7f7f;

std::uint16_t load_bf16(const std::byte* at) {
    std::uint16_t w;
    std::memcpy(&w, at, sizeof w);
    return w;
}
float from_bf16(std::uint16_t w) { return std::bit_cast<float>(static_cast<std::uint32_t>(w) << 16U); }
/// A finite magnitude to the nearest finite bf16, ties to even.
void store_bf16(double v, std::byte* at) {
    const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(v));
    const auto near = (bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U;
    const auto w = static_cast<std::uint16_t>(std::min<std::uint32_t>(near, largest_bf16));
    std::memcpy(at, &w, sizeof w);
}

class topk_codec final : public codec {
public:
    topk_codec(std::string_view name, std::uint16_t wire_id, std::uint32_t keep, std::uint32_t of)
        : codec(name, wire_id), keep_(keep), run_(of) {}
    bool wants_feedback() const override { return true; }

protected:
    std::size_t piece_bytes(std::size_t count) const override { return count == 0 ? 0 : layout(*this, count).bytes; }
    bool encode_piece(std::span<const float> values, const std::uint64_t* /*key*/, std::byte* out,
                      remainder* rest) const override {
        const auto& run = best_kernels();
        const layout l(*this, values.size());
        std::vector<std::uint16_t> places(l.kept);
        std::vector<float> picked(l.kept);
        bool finite = true;
        l.each_run([&](std::size_t first, const subset_shape& s, std::size_t at) {
            finite = finite && run.select(values.data() + first, s.places, s.chosen, places.data() + at);
            if (!finite) return;
            for (auto i = at; i < at + s.chosen; ++i) picked[i] = values[first + places[i]];
        });
        if (!finite) return false;
        std::fill(out + l.values_at, out + l.subsets_at, std::byte{0});
        for (std::size_t g = 0; g * l.group_kept < l.kept; ++g) {
            const auto from = g * l.group_kept;
            encode_values(std::span(picked).subspan(from, std::min(l.group_kept, l.kept - from)), from,
                          out + g * means_bytes, out + l.values_at);
        }
        encode_subsets(l.whole_runs, l.shape, l.last, places, l.subsets(out));
        if (rest != nullptr) {
            each_kept(out, l, places, [rest](std::size_t i, float v) {
                rest->left[i] -= v;
                rest->sent += static_cast<double>(v);
            });
        }
        return true;
    }
    bool check_piece(const std::byte* in, std::size_t count) const override {
        const layout l(*this, count);
        std::vector<std::uint16_t> places(l.kept);
        return sound(in, l, places);
    }
    void decode_piece(const std::byte* in, std::span<float> out) const override {
        std::ranges::fill(out, 0.0F);
        each_value(in, out.size(), [&out](std::size_t i, float v) { out[i] = v; });
    }
    void add_piece(const std::byte* in, float factor, std::span<float> sum) const override {
        each_value(in, sum.size(), [&sum, factor](std::size_t i, float v) { sum[i] += factor * v; });
    }

private:
    /// Where the parts of a piece are: means of each group, values of 2 bits, the kept places.
    struct layout {
        layout(const topk_codec& c, std::size_t count)
            : run(c.run_), whole_runs(count / c.run_), shape(subset_shape::of(c.run_, c.keep_)) {
            const auto rest = static_cast<std::uint32_t>(count % c.run_);
            if (rest > 0) last = subset_shape::of(rest, (rest * c.keep_ + c.run_ - 1) / c.run_);
            kept = whole_runs * c.keep_ + last.chosen;
            group_kept = group_elements / c.run_ * c.keep_;
            values_at = (kept + group_kept - 1) / group_kept * means_bytes;
            subsets_at = values_at + (kept + values_per_byte - 1) / values_per_byte;
            bytes = subsets_at + subset_bytes(whole_runs, shape, last);
        }
        /// Calls visit(first element, shape, first kept) for each run.
        template <typename Visit>
        void each_run(Visit visit) const {
            for (std::size_t i = 0; i < whole_runs; ++i) visit(i * run, shape, i * shape.chosen);
            if (last.places > 0) visit(whole_runs * run, last, whole_runs * shape.chosen);
        }
        core::mutable_bytes subsets(std::byte* piece) const { return {piece + subsets_at, bytes - subsets_at}; }
        core::const_bytes subsets(const std::byte* piece) const { return {piece + subsets_at, bytes - subsets_at}; }

        std::size_t run, whole_runs;
        subset_shape shape, last;
        std::size_t kept = 0, group_kept = 0, values_at = 0, subsets_at = 0, bytes = 0;
    };

    /// Values `first` … of the piece's kept ones. Sums are in double and in order: the same everywhere.
    static void encode_values(std::span<const float> values, std::size_t first, std::byte* means, std::byte* codes) {
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
            codes[(first + i) / values_per_byte] |= static_cast<std::byte>(code << (first + i) % values_per_byte * 2);
        }
        const auto others = values.size() - n;
        store_bf16(others == 0 ? 0 : (sum - above) / static_cast<double>(others), means);
        store_bf16(n == 0 ? 0 : above / static_cast<double>(n), means + 2);
    }

    static bool sound(const std::byte* in, const layout& l, std::span<std::uint16_t> places) {
        for (std::size_t i = 0; i < l.values_at; i += 2)
            if (load_bf16(in + i) > largest_bf16) return false;
        const auto rest = l.kept % values_per_byte;
        if (rest > 0 && std::to_integer<unsigned>(in[l.subsets_at - 1]) >> (2 * rest) != 0) return false;
        return decode_subsets(l.whole_runs, l.shape, l.last, l.subsets(in), places);
    }

    template <typename Take>
    void each_value(const std::byte* in, std::size_t count, Take take) const {
        const layout l(*this, count);
        std::vector<std::uint16_t> places(l.kept);
        LONGHAUL_ENSURE(decode_subsets(l.whole_runs, l.shape, l.last, l.subsets(in), places), "it was checked");
        each_kept(in, l, places, take);
    }
    template <typename Take>
    static void each_kept(const std::byte* in, const layout& l, std::span<const std::uint16_t> places, Take take) {
        l.each_run([&](std::size_t first, const subset_shape& s, std::size_t at) {
            const auto* means = in + at / l.group_kept * means_bytes;
            const float low = from_bf16(load_bf16(means)), high = from_bf16(load_bf16(means + 2));
            for (auto i = at; i < at + s.chosen; ++i) {
                const auto byte = std::to_integer<unsigned>(in[l.values_at + i / values_per_byte]);
                const auto code = byte >> i % values_per_byte * 2;
                const float m = (code & 1U) != 0 ? high : low;
                take(first + places[i], (code & 2U) != 0 ? -m : m);
            }
        });
    }

    std::uint32_t keep_, run_;
};

}  // namespace

const codec& topk_64_4096_codec() {
    static const topk_codec instance("topk-64/4096", 8, 64, 4096);
    return instance;
}

const codec& topk_4_64_codec() {
    static const topk_codec instance("topk-4/64", 9, 4, 64);
    return instance;
}

}  // namespace longhaul::compress

#include "compress/topk.hpp"

#include <algorithm>
#include <vector>

#include "compress/kept_values.hpp"
#include "compress/kernels.hpp"
#include "compress/subset_coder.hpp"

namespace longhaul::compress {

namespace {

/// Elements whose kept values share two means.
constexpr std::size_t group_elements = 16384;

class topk_codec final : public codec {
public:
    topk_codec(std::string_view name, std::uint16_t wire_id, std::uint32_t keep, std::uint32_t of)
        : codec(name, wire_id), keep_(keep), run_(of) {}
    bool wants_feedback() const override { return true; }

protected:
    std::size_t piece_bytes(const piece& p) const override { return layout(*this, p.count).bytes; }
    bool encode_piece(const piece& /*p*/, std::span<const float> values, const encode_hints& /*how*/, std::byte* out,
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
        l.values().encode(picked, out);
        encode_subsets(l.whole_runs, l.shape, l.last, places, l.subsets(out));
        if (rest != nullptr) {
            each_kept(out, l, places, [rest](std::size_t i, float v) {
                rest->left[i] -= v;
                rest->sent += static_cast<double>(v);
            });
        }
        return true;
    }
    bool check_piece(const piece& p, const std::byte* in) const override {
        const layout l(*this, p.count);
        std::vector<std::uint16_t> places(l.kept);
        return l.values().check(in) && decode_subsets(l.whole_runs, l.shape, l.last, l.subsets(in), places);
    }
    void decode_piece(const piece& /*p*/, const std::byte* in, std::span<float> out) const override {
        std::ranges::fill(out, 0.0F);
        each_value(in, out.size(), [&out](std::size_t i, float v) { out[i] = v; });
    }
    void add_piece(const piece& /*p*/, const std::byte* in, float factor, std::span<float> sum) const override {
        each_value(in, sum.size(), [&sum, factor](std::size_t i, float v) { sum[i] += factor * v; });
    }

private:
    /// Where the parts of a piece are: the kept values, their places.
    struct layout {
        layout(const topk_codec& c, std::size_t count)
            : run(c.run_), whole_runs(count / c.run_), shape(subset_shape::of(c.run_, c.keep_)) {
            const auto rest = static_cast<std::uint32_t>(count % c.run_);
            if (rest > 0) last = subset_shape::of(rest, (rest * c.keep_ + c.run_ - 1) / c.run_);
            kept = whole_runs * c.keep_ + last.chosen;
            group_kept = group_elements / c.run_ * c.keep_;
            subsets_at = values().bytes();
            bytes = subsets_at + subset_bytes(whole_runs, shape, last);
        }
        /// Calls visit(first element, shape, first kept) for each run.
        template <typename Visit>
        void each_run(Visit visit) const {
            for (std::size_t i = 0; i < whole_runs; ++i) visit(i * run, shape, i * shape.chosen);
            if (last.places > 0) visit(whole_runs * run, last, whole_runs * shape.chosen);
        }
        kept_values values() const { return {kept, group_kept}; }
        core::mutable_bytes subsets(std::byte* piece) const { return {piece + subsets_at, bytes - subsets_at}; }
        core::const_bytes subsets(const std::byte* piece) const { return {piece + subsets_at, bytes - subsets_at}; }

        std::size_t run, whole_runs;
        subset_shape shape, last;
        std::size_t kept = 0, group_kept = 0, subsets_at = 0, bytes = 0;
    };

    template <typename Take>
    void each_value(const std::byte* in, std::size_t count, Take take) const {
        const layout l(*this, count);
        std::vector<std::uint16_t> places(l.kept);
        LONGHAUL_ENSURE(decode_subsets(l.whole_runs, l.shape, l.last, l.subsets(in), places), "it was checked");
        each_kept(in, l, places, take);
    }
    template <typename Take>
    static void each_kept(const std::byte* in, const layout& l, std::span<const std::uint16_t> places, Take take) {
        const auto values = l.values();
        l.each_run([&](std::size_t first, const subset_shape& s, std::size_t at) {
            const auto group = values.group_of(in, at);
            for (auto i = at; i < at + s.chosen; ++i) take(first + places[i], group.at(i));
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

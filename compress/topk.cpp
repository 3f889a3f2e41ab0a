#include "compress/topk.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "compress/gap_coder.hpp"
#include "compress/kernels.hpp"
#include "compress/quantize.hpp"
#include "compress/subset_coder.hpp"

namespace longhaul::compress {

namespace {

/// Kept values that are coded together: a block of sign2.
constexpr std::size_t group_kept = block_elements;

/// How places are told.
struct place_code {
    decltype(&subset_bytes) bytes;
    decltype(&encode_subsets) encode;
    decltype(&decode_subsets) decode;
};

class topk_codec final : public codec {
public:
    topk_codec(std::string_view name, std::uint16_t wire_id, std::uint32_t keep, std::uint32_t of,
               const place_code& code, const compress::effort& effort)
        : codec(name, wire_id, effort), keep_(keep), run_(of), code_(code) {}
    bool wants_feedback() const override { return true; }

protected:
    bool makes_parts() const override { return true; }
    std::size_t piece_bytes(const piece& p) const override { return layout(*this, p.count).bytes; }
    bool encode_piece(const piece& /*p*/, std::span<const float> values, const encode_hints& /*how*/, std::byte* out,
                      remainder* rest) const override {
        const auto& run = best_kernels();
        const layout l(*this, values.size());
        std::vector<std::uint16_t> places(l.kept);
        bool fine = true;
        l.each_group([&](const group& g) {
            if (!fine) return;
            if (rest != nullptr && rest->make) rest->make(g.first, g.count);
            std::array<float, group_kept> kept;
            l.each_run(g, [&](std::size_t first, const subset_shape& s, std::size_t at) {
                fine = fine && run.select(values.data() + first, s.places, s.chosen, places.data() + at);
                for (std::size_t i = at; fine && i < at + s.chosen; ++i)
                    kept[i - g.first_kept] = values[first + places[i]];
            });
            fine = fine && run.sign2.encode(kept.data(), g.kept, nullptr, wire(out) + g.at);
            if (!fine || rest == nullptr) return;
            double sent = 0;
            each_kept(out, l, g, places, [rest, &sent](std::size_t i, float v) {
                rest->left[i] -= v;
                sent += static_cast<double>(v);
            });
            rest->sent += sent;
        });
        if (fine) code_.encode(l.whole_runs, l.shape, l.last, places, l.subsets(out));
        return fine;
    }
    bool check_piece(const piece& p, const std::byte* in) const override {
        const layout l(*this, p.count);
        bool fine = true;
        l.each_group([&](const group& g) { fine = fine && best_kernels().sign2.check(wire(in) + g.at, g.kept); });
        std::vector<std::uint16_t> places(l.kept);
        return fine && code_.decode(l.whole_runs, l.shape, l.last, l.subsets(in), places);
    }
    void decode_piece(const piece& /*p*/, const std::byte* in, std::span<float> out) const override {
        std::ranges::fill(out, 0.0F);
        each_value(in, out.size(), [&out](std::size_t i, float v) { out[i] = v; });
    }
    void add_piece(const piece& /*p*/, const std::byte* in, float factor, std::span<float> sum) const override {
        each_value(in, sum.size(), [&sum, factor](std::size_t i, float v) { sum[i] += factor * v; });
    }

private:
    /// Runs whose kept values are coded together.
    struct group {
        std::size_t first, count;      ///< elements
        std::size_t first_kept, kept;  ///< of the piece's kept values
        std::size_t at;                ///< of the piece's bytes
    };
    /// Where the parts of a piece are: the groups' kept values, and all places.
    struct layout {
        layout(const topk_codec& c, std::size_t n)
            : count(n), run(c.run_), whole_runs(n / c.run_), shape(subset_shape::of(c.run_, c.keep_)) {
            const auto rest = static_cast<std::uint32_t>(n % c.run_);
            if (rest > 0) last = subset_shape::of(rest, (rest * c.keep_ + c.run_ - 1) / c.run_);
            kept = whole_runs * c.keep_ + last.chosen;
            subsets_at = kept / group_kept * sign2_bytes(group_kept) + sign2_bytes(kept % group_kept);
            bytes = subsets_at + c.code_.bytes(whole_runs, shape, last);
        }
        template <typename Visit>
        void each_group(Visit visit) const {
            const auto elements = group_kept / shape.chosen * run;
            for (std::size_t i = 0; i * elements < count; ++i)
                visit(group{i * elements, std::min(elements, count - i * elements), i * group_kept,
                            std::min(group_kept, kept - i * group_kept), i * sign2_bytes(group_kept)});
        }
        /// Calls visit(first element, shape, first kept) for each of a group's runs.
        template <typename Visit>
        void each_run(const group& g, Visit visit) const {
            for (auto i = g.first / run; i * run < g.first + g.count; ++i)
                visit(i * run, i < whole_runs ? shape : last, i * shape.chosen);
        }
        core::mutable_bytes subsets(std::byte* piece) const { return {piece + subsets_at, bytes - subsets_at}; }
        core::const_bytes subsets(const std::byte* piece) const { return {piece + subsets_at, bytes - subsets_at}; }

        std::size_t count, run, whole_runs;
        subset_shape shape, last;
        std::size_t kept = 0, subsets_at = 0, bytes = 0;
    };
    static unsigned char* wire(std::byte* b) { return reinterpret_cast<unsigned char*>(b); }
    static const unsigned char* wire(const std::byte* b) { return reinterpret_cast<const unsigned char*>(b); }

    template <typename Take>
    void each_value(const std::byte* in, std::size_t count, Take take) const {
        const layout l(*this, count);
        std::vector<std::uint16_t> places(l.kept);
        LONGHAUL_ENSURE(code_.decode(l.whole_runs, l.shape, l.last, l.subsets(in), places), "it was checked");
        l.each_group([&](const group& g) { each_kept(in, l, g, places, take); });
    }
    /// Calls take(element, value) for each kept one of a group.
    template <typename Take>
    static void each_kept(const std::byte* in, const layout& l, const group& g, std::span<const std::uint16_t> places,
                          Take take) {
        std::array<float, group_kept> values;
        best_kernels().sign2.decode(wire(in) + g.at, g.kept, values.data());
        l.each_run(g, [&](std::size_t first, const subset_shape& s, std::size_t at) {
            for (auto i = at; i < at + s.chosen; ++i) take(first + places[i], values[i - g.first_kept]);
        });
    }

    std::uint32_t keep_, run_;
    place_code code_;
};

}  // namespace

const codec& topk_64_4096_codec() {
    static const topk_codec instance("topk-64/4096", 13, 64, 4096, {gaps_bytes, encode_gaps, decode_gaps}, {1.2, 0.7});
    return instance;
}

const codec& topk_4_64_codec() {
    static const topk_codec instance("topk-4/64", 14, 4, 64, {subset_bytes, encode_subsets, decode_subsets}, {4, 5});
    return instance;
}

}  // namespace longhaul::compress

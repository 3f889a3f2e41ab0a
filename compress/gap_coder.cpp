#include "compress/gap_coder.hpp"

#include <array>
#include <cmath>

#include "compress/rans.hpp"

namespace longhaul::compress {

namespace {

/// The gaps below it have a symbol each; it stands for so many places that are not chosen.
constexpr std::uint32_t escape = 256;

/// Frequencies, and the most bits that gaps can take. They are products of doubles alone, which IEEE 754 fixes.
class gap_tables {
public:
    static const gap_tables& get() {
        static const gap_tables t;
        return t;
    }
    const rans::symbol& symbol(std::uint32_t what) const { return symbols_[what]; }
    /// The next gap, or `escape`.
    std::uint32_t take(rans::reader<>& r) const {
        const auto slot = r.slot();
        std::uint32_t what = guess_[slot / guess_step];
        while (start_[what + 1] <= slot) ++what;
        r.take(start_[what], start_[what + 1] - start_[what]);
        return what;
    }
    /// Of a subset, in 1/65536 bit.
    std::uint64_t most_bits(const subset_shape& s) const {
        return s.chosen * chosen_bits_ + (s.places - s.chosen) * passed_bits_;
    }

private:
    gap_tables() {
        double share = rans::scale / 64.0;
        for (std::uint32_t g = 0; g < escape; ++g, share *= 63.0 / 64.0)
            add(static_cast<std::uint32_t>(std::lround(share)));
        add(rans::scale - start_.back());
        // An escape passes 256 places; a place that is chosen costs what its gap costs beyond the places it passes.
        passed_bits_ = (cost(escape) + escape - 1) / escape;
        for (std::uint32_t g = 0; g < escape; ++g)
            if (const auto c = cost(g); c > g * passed_bits_)
                chosen_bits_ = std::max(chosen_bits_, c - g * passed_bits_);
        for (std::uint32_t what = 0, i = 0; i < guess_.size(); ++i) {
            while (start_[what + 1] <= i * guess_step) ++what;
            guess_[i] = static_cast<std::uint16_t>(what);
        }
    }
    void add(std::uint32_t frequency) {
        symbols_.emplace_back(start_.back(), frequency);
        start_.push_back(start_.back() + frequency);
    }
    std::uint64_t cost(std::uint32_t what) const { return rans::most_bits(start_[what + 1] - start_[what]); }

    static constexpr std::uint32_t guess_step = 64;
    std::vector<rans::symbol> symbols_;
    std::vector<std::uint32_t> start_ = {0};                       ///< cumulated frequencies
    std::array<std::uint16_t, rans::scale / guess_step> guess_{};  ///< the symbol of every 64th slot
    std::uint64_t chosen_bits_ = 0, passed_bits_ = 0;
};

}  // namespace

std::size_t gaps_bytes(std::size_t count, const subset_shape& shape, const subset_shape& last) {
    const auto& t = gap_tables::get();
    std::uint64_t bits = count > 0 ? count * t.most_bits(shape) : 0;
    if (last.places > 0) bits += t.most_bits(last);
    return rans::bytes_for(bits);
}

void encode_gaps(std::size_t count, const subset_shape& shape, const subset_shape& last,
                 std::span<const std::uint16_t> places, core::mutable_bytes out) {
    const auto& t = gap_tables::get();
    rans::writer<> to(out.size());
    const auto take = [&](const subset_shape& s, const std::uint16_t* first) {
        for (auto i = s.chosen; i-- > 0;) {
            const std::uint32_t gap = i == 0 ? first[0] : first[i] - first[i - 1] - 1U;
            to.push(t.symbol(gap % escape));
            for (auto left = gap / escape; left > 0; --left) to.push(t.symbol(escape));
        }
    };
    if (last.places > 0) take(last, places.data() + count * shape.chosen);
    for (auto i = count; i-- > 0;) take(shape, places.data() + i * shape.chosen);
    to.finish(out);
}

bool decode_gaps(std::size_t count, const subset_shape& shape, const subset_shape& last, core::const_bytes in,
                 std::span<std::uint16_t> places) {
    if (in.size() < rans::state_bytes) return false;
    const auto& t = gap_tables::get();
    rans::reader<> from(in);
    if (!from.sound()) return false;
    auto* at = places.data();
    for (std::size_t i = 0; i <= count; ++i) {
        const auto& s = i < count ? shape : last;
        std::uint32_t next = 0;  // the first place that may be chosen
        for (std::uint32_t k = 0; k < s.chosen; ++k) {
            auto what = t.take(from);
            for (; what == escape && next < s.places; what = t.take(from)) next += escape;
            next += what;
            if (next >= s.places) return false;
            *at++ = static_cast<std::uint16_t>(next++);
        }
    }
    return from.at_end();
}

}  // namespace longhaul::compress

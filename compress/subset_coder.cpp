#include "compress/subset_coder.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace longhaul::compress {

namespace {

constexpr unsigned most_levels = 12;
constexpr std::uint32_t most_chosen = 64;
constexpr unsigned scale_bits = 16;
constexpr std::uint32_t scale = 1U << scale_bits;
/// The state stays in [2³¹, 2⁶³) and moves 32 bits at a time.
constexpr std::uint64_t least_state = std::uint64_t{1} << 31U;
constexpr std::size_t state_bytes = 8, word_bytes = 4;

/// log₂ of f in 1/65536, rounded down; in integers, so that all machines agree on sizes.
std::uint32_t log2_fixed(std::uint32_t f) {
    const auto whole = static_cast<std::uint32_t>(std::bit_width(f)) - 1;
    std::uint64_t m = std::uint64_t{f} << (31U - whole);
    std::uint32_t fraction = 0;
    for (int bit = 15; bit >= 0; --bit) {
        m = (m * m) >> 31U;
        if (m >= (std::uint64_t{1} << 32U)) {
            m >>= 1U;
            fraction |= 1U << static_cast<unsigned>(bit);
        }
    }
    return whole * 65536 + fraction;
}

double binomial(std::uint32_t n, std::uint32_t k) {
    double c = 1;
    for (std::uint32_t i = 0; i < k; ++i) c = c * static_cast<double>(n - i) / static_cast<double>(i + 1);
    return c;
}

/// The distribution of how many of `chosen` places lie in the left half: `first` of them at least.
struct counts {
    std::uint32_t first = 0;
    std::vector<std::uint32_t> start;  ///< cumulated frequencies; one more than outcomes
};

/// Frequencies of every kind of part, and the most bits that a part can take. They are computed from products and
/// quotients of doubles alone, which IEEE 754 fixes.
class tables {
public:
    static const tables& get() {
        static const tables t;
        return t;
    }
    const counts& of(unsigned level, std::uint32_t chosen) const { return counts_[level][chosen]; }
    /// In 1/65536 bit.
    std::uint64_t most_bits(unsigned level, std::uint32_t chosen) const { return most_[level][chosen]; }

private:
    tables() {
        for (unsigned level = 0; level <= most_levels; ++level) {
            const std::uint32_t places = 1U << level;
            if (level > 0) most_[level][1] = level * 65536 + 1;
            for (std::uint32_t k = 2; k <= std::min(most_chosen, places - (level > 0 ? 1 : 0)); ++k)
                if (k < places) fill(level, k);
        }
    }
    void fill(unsigned level, std::uint32_t k) {
        const std::uint32_t half = 1U << (level - 1);
        auto& c = counts_[level][k];
        c.first = k > half ? k - half : 0;
        const auto last = std::min(k, half);
        const double all = binomial(2 * half, k);
        std::vector<std::uint32_t> frequency;
        std::uint32_t sum = 0;
        for (auto j = c.first; j <= last; ++j) {
            const double p = binomial(half, j) * binomial(half, k - j) / all;
            frequency.push_back(std::max(1U, static_cast<std::uint32_t>(std::lround(p * scale))));
            sum += frequency.back();
        }
        // The most frequent outcome makes the sum right.
        *std::ranges::max_element(frequency) += scale - sum;
        std::uint64_t most = 0;
        c.start.push_back(0);
        for (auto j = c.first; j <= last; ++j) {
            const auto f = frequency[j - c.first];
            c.start.push_back(c.start.back() + f);
            // Three 65536ths are what rounding in the state can cost a symbol: log₂(1 + 2⁻¹⁵).
            const std::uint64_t cost = scale_bits * 65536 - log2_fixed(f) + 3;
            most = std::max(most, cost + most_[level - 1][j] + most_[level - 1][k - j]);
        }
        most_[level][k] = most;
    }
    std::array<std::array<counts, most_chosen + 1>, most_levels + 1> counts_;
    std::array<std::array<std::uint64_t, most_chosen + 1>, most_levels + 1> most_{};
};

/// A step of the state: an outcome with `size` of 2^bits, or (size 1) `bits` raw bits.
struct symbol {
    std::uint32_t start = 0;
    std::uint32_t size = 0;
    std::uint32_t bits = 0;
};

/// The tree of one subset, in the order of decoding. `from` … `to` are its places; part = [base, base + 2^level).
void list_symbols(const tables& t, unsigned level, std::uint32_t base, const std::uint16_t* from,
                  const std::uint16_t* to, std::vector<symbol>& out) {
    for (;;) {
        const auto k = static_cast<std::uint32_t>(to - from);
        if (k == 0 || k == (1U << level)) return;
        if (k == 1) {
            out.push_back({*from - base, 1, level});
            return;
        }
        --level;
        const auto middle = base + (1U << level);
        const auto* split = from;
        while (split != to && *split < middle) ++split;
        const auto& c = t.of(level + 1, k);
        const auto j = static_cast<std::uint32_t>(split - from) - c.first;
        if (c.start.size() > 2) out.push_back({c.start[j], c.start[j + 1] - c.start[j], scale_bits});
        list_symbols(t, level, base, from, split, out);
        from = split;
        base = middle;
    }
}

struct reader {
    const tables& t;
    std::uint64_t state;
    const std::byte* at;
    const std::byte* end;

    void refill() {
        if (state >= least_state) return;
        std::uint32_t word = 0;
        if (at != end) {
            std::memcpy(&word, at, word_bytes);
            at += word_bytes;
        } else {
            state = 0;  // stays below what a state must have: the end is refused
            return;
        }
        state = (state << 32U) | word;
    }
    std::uint32_t take(const counts& c) {
        const auto slot = static_cast<std::uint32_t>(state & (scale - 1));
        const auto* start = c.start.data();
        std::size_t low = 0, n = c.start.size() - 1;
        while (n > 1) {
            const auto half = n / 2;
            low += start[low + half] <= slot ? half : 0;
            n -= half;
        }
        state = (start[low + 1] - start[low]) * (state >> scale_bits) + slot - start[low];
        refill();
        return c.first + static_cast<std::uint32_t>(low);
    }
    std::uint32_t take_raw(unsigned bits) {
        const auto v = static_cast<std::uint32_t>(state & ((1U << bits) - 1));
        state >>= bits;
        refill();
        return v;
    }
    std::uint16_t* subset(unsigned level, std::uint32_t base, std::uint32_t k, std::uint16_t* out) {
        for (;;) {
            if (k == 0) return out;
            if (k == (1U << level)) {
                for (std::uint32_t i = 0; i < k; ++i) *out++ = static_cast<std::uint16_t>(base + i);
                return out;
            }
            if (k == 1) {
                *out++ = static_cast<std::uint16_t>(base + take_raw(level));
                return out;
            }
            const auto& c = t.of(level, k);
            --level;
            const auto left = c.start.size() > 2 ? take(c) : c.first;
            out = subset(level, base, left, out);
            base += 1U << level;
            k -= left;
        }
    }
};

}  // namespace

subset_shape subset_shape::of(std::uint32_t places, std::uint32_t chosen) {
    LONGHAUL_ENSURE(
        places >= 1 && places <= (1U << most_levels) && chosen >= 1 && chosen <= std::min(most_chosen, places),
        "a subset has a shape that the tables know");
    return {static_cast<unsigned>(std::bit_width(places - 1)), places, chosen};
}

std::size_t subset_bytes(std::size_t count, const subset_shape& shape, const subset_shape& last) {
    const auto& t = tables::get();
    std::uint64_t bits = count > 0 ? count * t.most_bits(shape.levels, shape.chosen) : 0;
    if (last.places > 0) bits += t.most_bits(last.levels, last.chosen);
    return state_bytes + bits / 65536 / 32 * word_bytes;
}

void encode_subsets(std::size_t count, const subset_shape& shape, const subset_shape& last,
                    std::span<const std::uint16_t> places, core::mutable_bytes out) {
    const auto& t = tables::get();
    std::vector<symbol> symbols;
    symbols.reserve(places.size() * 3);
    const auto* at = places.data();
    for (std::size_t i = 0; i < count; ++i, at += shape.chosen)
        list_symbols(t, shape.levels, 0, at, at + shape.chosen, symbols);
    if (last.places > 0) list_symbols(t, last.levels, 0, at, at + last.chosen, symbols);

    // The state takes the last symbol first, so that it gives the first one first; so do the words.
    std::uint64_t state = least_state;
    std::vector<std::uint32_t> words((out.size() - state_bytes) / word_bytes);
    auto front = words.size();
    for (auto s = symbols.rbegin(); s != symbols.rend(); ++s) {
        if (state >= (std::uint64_t{s->size} << (63U - s->bits))) {
            LONGHAUL_ENSURE(front > 0, "no subset is longer than its bound");
            words[--front] = static_cast<std::uint32_t>(state);
            state >>= 32U;
        }
        state = ((state / s->size) << s->bits) + state % s->size + s->start;
    }
    std::memcpy(out.data(), &state, state_bytes);
    const auto used = (words.size() - front) * word_bytes;
    if (used > 0) std::memcpy(out.data() + state_bytes, words.data() + front, used);
    std::ranges::fill(out.subspan(state_bytes + used), std::byte{0});
}

bool decode_subsets(std::size_t count, const subset_shape& shape, const subset_shape& last, core::const_bytes in,
                    std::span<std::uint16_t> places) {
    if (in.size() < state_bytes) return false;
    reader r{tables::get(), 0, in.data() + state_bytes, in.data() + in.size()};
    std::memcpy(&r.state, in.data(), state_bytes);
    if (r.state < least_state || r.state >= (std::uint64_t{1} << 63U)) return false;
    auto* at = places.data();
    for (std::size_t i = 0; i <= count; ++i) {
        const auto& s = i < count ? shape : last;
        if (s.places == 0) continue;
        at = r.subset(s.levels, 0, s.chosen, at);
        if (at[-1] >= s.places) return false;
    }
    return r.state == least_state && std::all_of(r.at, r.end, [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace longhaul::compress

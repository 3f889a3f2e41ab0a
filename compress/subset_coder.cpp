#include "compress/subset_coder.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "compress/rans.hpp"

namespace longhaul::compress {

namespace {

using rans::scale;
using rans::symbol;

constexpr unsigned most_levels = 12;
constexpr std::uint32_t most_words = 64;
constexpr std::uint32_t most_chosen = 64;
double binomial(std::uint32_t n, std::uint32_t k) {
    double c = 1;
    for (std::uint32_t i = 0; i < k; ++i) c = c * static_cast<double>(n - i) / static_cast<double>(i + 1);
    return c;
}

/// The distribution of one of several outcomes.
struct outcomes {
    std::uint32_t first = 0;           ///< what the first one stands for
    std::vector<std::uint32_t> start;  ///< cumulated frequencies; one more than outcomes
    std::vector<symbol> symbols;

    void add(std::uint32_t frequency) {
        if (start.empty()) start.push_back(0);
        symbols.emplace_back(start.back(), frequency);
        start.push_back(start.back() + frequency);
    }
    bool certain() const { return symbols.size() < 2; }
    const symbol* of(std::uint32_t what) const { return &symbols[what - first]; }
};

/// Parts of 64 places are words: a single place in one is told in six bits, and two of them as one of the 2,016 pairs.
constexpr unsigned word_levels = 6;
constexpr std::uint32_t word_places = 1U << word_levels;
constexpr std::uint32_t pairs = word_places * (word_places - 1) / 2;
constexpr std::uint32_t pair_number(std::uint32_t low, std::uint32_t high) { return high * (high - 1) / 2 + low; }

/// Frequencies of every kind of part, and the most bits that a part can take. They are computed from products and
/// quotients of doubles alone, which IEEE 754 fixes.
class tables {
public:
    static const tables& get() {
        static const tables t;
        return t;
    }
    /// How many of `chosen` places lie in the left half of a part.
    const outcomes& counts(unsigned level, std::uint32_t chosen) const { return counts_[level][chosen]; }
    /// Where the one place of a part is.
    const outcomes& place(unsigned level) const { return place_[level]; }
    /// Which pair of a word.
    const outcomes& pair() const { return pair_; }
    /// Of a part, in 1/65536 bit.
    std::uint64_t most_bits(unsigned level, std::uint32_t chosen) const { return most_[level][chosen]; }

private:
    tables() {
        for (unsigned level = 1; level <= word_levels; ++level) {
            for (std::uint32_t i = 0; i < (1U << level); ++i) place_[level].add(scale >> level);
            most_[level][1] = rans::most_bits(scale >> level);
        }
        for (std::uint32_t i = 0; i < pairs; ++i) pair_.add((i + 1) * scale / pairs - i * scale / pairs);
        for (unsigned level = 1; level <= most_levels; ++level) {
            for (std::uint32_t k = level > word_levels ? 1 : 2; k <= std::min(most_chosen, (1U << level) - 1); ++k)
                fill(level, k);
            if (level == word_levels) most_[level][2] = rans::most_bits(scale / pairs);
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
        if (frequency.size() < 2) return;
        std::uint64_t most = 0;
        for (auto j = c.first; j <= last; ++j) {
            const auto f = frequency[j - c.first];
            c.add(f);
            most = std::max(most, rans::most_bits(f) + most_[level - 1][j] + most_[level - 1][k - j]);
        }
        most_[level][k] = most;
    }
    std::array<std::array<outcomes, most_chosen + 1>, most_levels + 1> counts_;
    std::array<outcomes, word_levels + 1> place_;
    outcomes pair_;
    std::array<std::array<std::uint64_t, most_chosen + 1>, most_levels + 1> most_{};
};

/// One subset's symbols, in the order of decoding; many times what there can be.
using symbol_list = std::array<const symbol*, 1024>;

/// A part of a word with more than two chosen places: halves, in the order of decoding. Part = [base, base + 2^level).
const symbol** list_part(const tables& t, unsigned level, std::uint32_t base, const std::uint16_t* from,
                         const std::uint16_t* to, const symbol** out) {
    const auto k = static_cast<std::uint32_t>(to - from);
    if (k == 0 || k == (1U << level)) return out;
    if (k == 1) {
        *out++ = t.place(level).of(*from - base);
        return out;
    }
    const auto middle = base + (1U << (level - 1));
    const auto* split = from;
    while (split != to && *split < middle) ++split;
    const auto& c = t.counts(level, k);
    if (!c.certain()) *out++ = c.of(static_cast<std::uint32_t>(split - from));
    out = list_part(t, level - 1, base, from, split, out);
    return list_part(t, level - 1, middle, split, to, out);
}

/// A subset: counts of the halves of halves, level by level, down to words; then what is in each word.
const symbol** list_subset(const tables& t, const subset_shape& shape, const std::uint16_t* places, symbol_list& list) {
    const std::uint32_t words = shape.words();
    // A heap: part i has the halves 2i and 2i + 1, and the words are the last level.
    std::array<std::uint32_t, 2 * most_words> chosen;
    std::fill_n(chosen.begin() + words, words, 0U);
    for (std::uint32_t i = 0; i < shape.chosen; ++i) ++chosen[words + places[i] / word_places];
    for (std::uint32_t i = words - 1; i > 0; --i) chosen[i] = chosen[2 * i] + chosen[2 * i + 1];
    const symbol** out = list.data();
    unsigned level = shape.levels;
    for (std::uint32_t begin = 1; begin < words; begin *= 2, --level) {
        for (std::uint32_t i = begin; i < 2 * begin; ++i) {
            const auto& c = t.counts(level, std::max(chosen[i], 1U));
            *out = c.of(chosen[2 * i]);
            out += chosen[i] > 0 ? 1 : 0;
        }
    }
    const auto* at = places;
    for (std::uint32_t w = 0; w < words; ++w) {
        const auto k = chosen[words + w];
        const auto base = w * word_places;
        if (k == 1) {
            *out++ = t.place(word_levels).of(*at - base);
        } else if (k == 2) {
            *out++ = t.pair().of(pair_number(at[0] - base, at[1] - base));
        } else if (k > 2) {
            out = list_part(t, word_levels, base, at, at + k, out);
        }
        at += k;
    }
    return out;
}

struct subset_reader {
    const tables& t;
    rans::reader<> from;

    std::uint32_t take(const outcomes& c) {
        if (c.certain()) return c.first;
        const auto slot = from.slot();
        const auto* start = c.start.data();
        std::size_t low = 0, n = c.symbols.size();
        while (n > 1) {
            const auto half = n / 2;
            low += start[low + half] <= slot ? half : 0;
            n -= half;
        }
        from.take(start[low], start[low + 1] - start[low]);
        return c.first + static_cast<std::uint32_t>(low);
    }
    std::uint16_t* part(unsigned level, std::uint32_t base, std::uint32_t k, std::uint16_t* out) {
        if (k == 0) return out;
        if (k == (1U << level)) {
            for (std::uint32_t i = 0; i < k; ++i) *out++ = static_cast<std::uint16_t>(base + i);
            return out;
        }
        if (k == 1) {
            *out++ = static_cast<std::uint16_t>(base + take(t.place(level)));
            return out;
        }
        const auto left = take(t.counts(level, k));
        out = part(level - 1, base, left, out);
        return part(level - 1, base + (1U << (level - 1)), k - left, out);
    }
    std::uint16_t* subset(const subset_shape& shape, std::uint16_t* out) {
        const std::uint32_t words = shape.words();
        std::array<std::uint32_t, 2 * most_words> chosen{};
        chosen[1] = shape.chosen;
        unsigned level = shape.levels;
        for (std::uint32_t begin = 1; begin < words; begin *= 2, --level) {
            for (std::uint32_t i = begin; i < 2 * begin; ++i) {
                if (chosen[i] == 0) continue;
                chosen[2 * i] = take(t.counts(level, chosen[i]));
                chosen[2 * i + 1] = chosen[i] - chosen[2 * i];
            }
        }
        for (std::uint32_t w = 0; w < words; ++w) {
            const auto k = chosen[words + w];
            const auto base = w * word_places;
            if (k != 2) {
                out = part(word_levels, base, k, out);
                continue;
            }
            const auto number = take(t.pair());
            std::uint32_t high = 1;
            while (pair_number(0, high + 1) <= number) ++high;
            *out++ = static_cast<std::uint16_t>(base + number - pair_number(0, high));
            *out++ = static_cast<std::uint16_t>(base + high);
        }
        return out;
    }
};

}  // namespace

subset_shape subset_shape::of(std::uint32_t places, std::uint32_t chosen) {
    LONGHAUL_ENSURE(
        places >= 1 && places <= (1U << most_levels) && chosen >= 1 && chosen <= std::min(most_chosen, places),
        "a subset has a shape that the tables know");
    return {std::max(word_levels, static_cast<unsigned>(std::bit_width(places - 1))), places, chosen};
}

std::size_t subset_bytes(std::size_t count, const subset_shape& shape, const subset_shape& last) {
    const auto& t = tables::get();
    std::uint64_t bits = count > 0 ? count * t.most_bits(shape.levels, shape.chosen) : 0;
    if (last.places > 0) bits += t.most_bits(last.levels, last.chosen);
    return rans::bytes_for(bits);
}

void encode_subsets(std::size_t count, const subset_shape& shape, const subset_shape& last,
                    std::span<const std::uint16_t> places, core::mutable_bytes out) {
    const auto& t = tables::get();
    // A subset's symbols are listed, and taken before those of the one in front of it.
    symbol_list symbols{};
    rans::writer<> to(out.size());
    const auto take = [&](const subset_shape& s, const std::uint16_t* at) {
        const symbol** const end = list_subset(t, s, at, symbols);
        for (const symbol** i = end; i-- != symbols.data();) to.push(**i);
    };
    if (last.places > 0) take(last, places.data() + count * shape.chosen);
    for (auto i = count; i > 0; --i) take(shape, places.data() + (i - 1) * shape.chosen);
    to.finish(out);
}

bool decode_subsets(std::size_t count, const subset_shape& shape, const subset_shape& last, core::const_bytes in,
                    std::span<std::uint16_t> places) {
    if (in.size() < rans::state_bytes) return false;
    subset_reader r{tables::get(), rans::reader<>(in)};
    if (!r.from.sound()) return false;
    auto* at = places.data();
    for (std::size_t i = 0; i <= count; ++i) {
        const auto& s = i < count ? shape : last;
        if (s.places == 0) continue;
        at = r.subset(s, at);
        if (at[-1] >= s.places) return false;
    }
    return r.from.at_end();
}

}  // namespace longhaul::compress

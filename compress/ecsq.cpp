#include "compress/ecsq.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "compress/bf16.hpp"
#include "compress/kernels.hpp"
#include "compress/rans.hpp"

namespace longhaul::compress {

namespace {

constexpr std::size_t lanes = 4;
/// Steps up to here may have an outcome of their own; larger ones are an escape and 24 bits.
constexpr std::uint32_t most_step = 95;
/// Frequencies are multiples of 1/4096, so that a reader's table of slots is small.
constexpr std::uint32_t slots = 4096, grain = rans::scale / slots;
constexpr std::size_t spreads = 16;  ///< of a block's steps; 0: all are zero
constexpr std::uint64_t one_bit = 65536;

/// What steps of one spread cost, and how they are coded.
class spread_table {
public:
    /// Of a logistic distribution; `half` is e^(−1/2s) for its scale s in steps. Products and quotients of doubles
    /// alone, which IEEE 754 fixes.
    explicit spread_table(double half) {
        std::array<double, most_step + 2> tail{};  // the share above q + ½, on one side
        for (double w = half; auto& t : tail) {
            t = w / (1 + w);
            w *= half * half;
        }
        std::vector<std::uint32_t> frequency{0};  // of q = 0, 1, … on one side
        std::uint32_t taken = 0;
        for (; frequency.size() <= most_step; taken += 2 * frequency.back()) {
            const auto q = frequency.size();
            const double share = (tail[q - 1] - tail[q]) * slots;
            if (share < 0.75) break;
            frequency.push_back(static_cast<std::uint32_t>(std::lround(share)));
        }
        most_ = static_cast<std::uint32_t>(frequency.size()) - 1;
        const auto escapes = std::max(1U, static_cast<std::uint32_t>(std::lround(2 * tail[most_] * slots)));
        frequency[0] = slots - taken - escapes;
        for (std::uint32_t i = 0; i <= 2 * most_; ++i) add(frequency[i < most_ ? most_ - i : i - most_]);
        add(escapes);
        for (std::uint32_t q = 0; q < cost_.size(); ++q)
            cost_[q] = static_cast<std::uint32_t>(q <= most_ ? rans::most_bits(frequency[q] * grain)
                                                             : rans::most_bits(escapes * grain) + 2 * half_cost);
        for (std::uint32_t q = 1; q <= most_; ++q) mean_ += 2.0 * q * frequency[q] / slots;
        mean_ += static_cast<double>(most_ + 1) * escapes / slots;
    }

    /// Of a step's magnitude, at most most_step + 1; in 1/65536 bit.
    std::uint32_t cost(std::uint32_t magnitude) const { return cost_[magnitude]; }
    double mean() const { return mean_; }

    void push(rans::writer<lanes>& to, int q, std::size_t lane) const {
        const auto i = static_cast<std::uint32_t>(q + static_cast<int>(most_));
        if (i <= 2 * most_) return to.push(symbols_[i], lane);
        const auto beyond = static_cast<std::uint32_t>(std::abs(q)) - most_ - 1;
        const auto word = beyond << 1U | (q < 0 ? 1U : 0U);
        to.push(half_word(word % slots), lane);
        to.push(half_word(word / slots % slots), lane);
        to.push(symbols_.back(), lane);
    }
    int take(rans::reader<lanes>& from, std::size_t lane) const {
        const auto& s = slots_[from.slot(lane) / grain];
        from.take(s.start * grain, s.frequency * grain, lane);
        if (s.outcome <= 2 * most_) return static_cast<int>(s.outcome) - static_cast<int>(most_);
        std::uint32_t word = 0;
        for (int half = 0; half < 2; ++half) {
            const auto part = from.slot(lane) / grain;
            from.take(part * grain, grain, lane);
            word = word * slots + part;
        }
        const auto q = static_cast<int>((word >> 1U) + most_ + 1);
        return word % 2 != 0 ? -q : q;
    }

private:
    static constexpr std::uint64_t half_cost = rans::most_bits(grain);
    static rans::symbol half_word(std::uint32_t value) { return {value * grain, grain}; }
    void add(std::uint32_t frequency) {
        const auto outcome = static_cast<std::uint16_t>(symbols_.size());
        symbols_.emplace_back(used_ * grain, frequency * grain);
        for (std::uint32_t i = 0; i < frequency; ++i)
            slots_[used_ + i] = {static_cast<std::uint16_t>(used_), static_cast<std::uint16_t>(frequency), outcome};
        used_ += frequency;
    }

    struct slot {
        std::uint16_t start = 0, frequency = 0, outcome = 0;
    };
    std::uint32_t most_ = 0, used_ = 0;
    double mean_ = 0;
    std::vector<rans::symbol> symbols_;
    std::array<slot, slots> slots_{};
    std::array<std::uint32_t, most_step + 2> cost_{};
};

/// Scales 12, 12/√2, 6, … 12/√2¹⁴ steps.
class spread_tables {
public:
    static const spread_tables& get() {
        static const spread_tables t;
        return t;
    }
    /// Of a spread from 1 on.
    const spread_table& of(std::size_t spread) const { return tables_[spread - 1]; }
    /// What fits steps with that sum of magnitudes best.
    std::uint8_t spread(std::uint64_t sum, std::size_t count) const {
        if (sum == 0) return 0;
        const double mean = static_cast<double>(sum) / static_cast<double>(count);
        const auto at = std::ranges::find_if(limits_, [mean](double l) { return mean <= l; });
        return static_cast<std::uint8_t>(1 + (at - limits_.begin()));
    }

private:
    spread_tables() {
        std::array<double, spreads - 1> half{};  // each the square of the one two places behind
        half[spreads - 2] = 0.9591894571091382;  // e^(−1/24)
        half[spreads - 3] = 0.942776942053872;   // e^(−√2/24)
        for (std::size_t i = spreads - 3; i-- > 0;) half[i] = half[i + 2] * half[i + 2];
        for (const double h : half) tables_.emplace_back(h);
        for (std::size_t i = 0; i < limits_.size(); ++i)
            limits_[i] = std::sqrt(tables_[i].mean() * tables_[i + 1].mean());
    }
    std::vector<spread_table> tables_;
    std::array<double, spreads - 2> limits_{};
};

constexpr std::uint16_t signs_alone = 0x8000;  ///< of the step: each element is plus or minus it, one bit each
constexpr int codes_an_octave = 128;           ///< of positive bf16 numbers, whose order is that of their bits
/// A block's steps stay below 2²², with which kernels and escapes can work.
constexpr float least_share = 0x1p-20F;
constexpr float smallest = 0x1p-100F;  ///< pieces below it are sent as zeros

float value_of(float step, int q) {
    constexpr float most = std::numeric_limits<float>::max();
    return std::clamp(step * static_cast<float>(q), -most, most);
}

/// Where the parts of a piece are: the step (bf16; its sign: signs_alone), a spread for each block in four bits, and
/// the outcomes.
struct layout {
    layout(std::size_t n, std::size_t bits)
        : count(n),
          blocks((n + block_elements - 1) / block_elements),
          stream_at(2 + (blocks + 1) / 2),
          bytes(stream_at + rans::bytes_for(n * bits * one_bit, lanes)),
          most_bits((n * bits / 32 + 1) * 32 * one_bit - 1) {}
    std::size_t block_size(std::size_t b) const { return std::min(block_elements, count - b * block_elements); }

    std::size_t count, blocks, stream_at, bytes;
    std::uint64_t most_bits;  ///< that outcomes may cost, in 1/65536
};

/// A piece with one step: what each block is like, and what all of it costs.
struct quantized {
    std::uint16_t code = 0;            ///< the step
    std::vector<std::uint8_t> spread;  ///< of each block
    bool fits = true;
    std::uint64_t bits = 0;  ///< of outcomes, in 1/65536
    std::size_t elements = 0;
    double missed = 0, magnitudes = 0, squares = 0;  ///< in steps
    float step() const { return from_bf16(code); }
    double bits_an_element() const {
        return static_cast<double>(bits) / one_bit / static_cast<double>(std::max<std::size_t>(elements, 1));
    }
};

quantized zeros(const layout& l) {
    quantized q;
    q.spread.assign(l.blocks, 0);
    return q;
}

class quantizer {
public:
    quantizer(std::span<const float> values, const std::uint64_t* key, std::size_t bits)
        : values_(values), key_(key), bits_(bits), layout_(values.size(), bits) {}

    /// The finest step with which the piece fits, nearly; a coarse one where none does.
    quantized best(float largest) const {
        if (largest < smallest) return zeros(layout_);
        const int least = to_bf16(largest * least_share) + 1;
        int code = std::clamp<int>(guess(largest, least), least, largest_bf16), too_fine = least - 1;
        quantized best;
        best.fits = false;
        for (int tries = 0; tries < most_tries && code <= largest_bf16; ++tries) {
            auto q = with(static_cast<std::uint16_t>(code), 1);
            const double excess = q.bits_an_element() -
                                  static_cast<double>(layout_.most_bits) / one_bit / static_cast<double>(layout_.count);
            // A bit an octave where steps are fine, fewer codes where they are not: it takes a few tries.
            const int move = std::max(1, static_cast<int>(std::abs(excess) * codes_an_octave));
            if (q.bits > layout_.most_bits) {
                q.fits = false;
                if (best.fits) break;
                best = std::move(q);
                too_fine = code;
                code += std::max(move + move / 4, 1 << std::min(tries, 12));
            } else {
                best = std::move(q);
                if (code - too_fine <= near_enough || move <= near_enough || tries >= few_tries) break;
                code = std::max(code - move, too_fine + 1);
            }
        }
        return best;
    }
    /// Steps of block b, as `with` has seen them.
    step_sums steps_of(std::size_t b, float step, int* out) const {
        return run_.to_steps(values_.data() + b * block_elements, layout_.block_size(b), 1 / step, key_, b, out);
    }

private:
    static constexpr int most_tries = 24, few_tries = 4, near_enough = 2;

    /// With that step; looks at every `stride`-th block.
    quantized with(std::uint16_t code, std::size_t stride) const {
        const auto& tables = spread_tables::get();
        quantized q;
        q.code = code;
        q.spread.assign(layout_.blocks, 0);
        std::array<int, block_elements> steps;
        for (std::size_t b = 0; b < layout_.blocks; b += stride) {
            const auto n = layout_.block_size(b);
            const auto sums = steps_of(b, q.step(), steps.data());
            q.missed += static_cast<double>(sums.missed);
            q.magnitudes += static_cast<double>(sums.magnitudes);
            q.squares += static_cast<double>(sums.squares);
            std::array<std::uint8_t, block_elements> size;
            std::uint32_t sum = 0;
            for (std::size_t i = 0; i < n; ++i) {
                size[i] = static_cast<std::uint8_t>(std::min<int>(std::abs(steps[i]), most_step + 1));
                sum += size[i];
            }
            q.elements += n;
            q.spread[b] = tables.spread(sum, n);
            if (q.spread[b] == 0) continue;
            const auto& table = tables.of(q.spread[b]);
            std::uint64_t bits = 0;
            for (std::size_t i = 0; i < n; ++i) bits += table.cost(size[i]);
            q.bits += bits;
        }
        return q;
    }
    /// By a few blocks: where to begin, not below `least`.
    int guess(float largest, int least) const {
        constexpr std::size_t sampled = 16;
        const auto stride = std::max<std::size_t>(1, layout_.blocks / sampled);
        const int coarse = to_bf16(largest * (1 / 64.0F));
        const auto first = with(static_cast<std::uint16_t>(coarse), stride);
        const double mean = first.magnitudes / static_cast<double>(first.elements) * static_cast<double>(first.step());
        if (!(mean > 0)) return coarse;
        // Right for normal numbers.
        const double fine = std::min<double>(mean * 5.1 / (1U << bits_), from_bf16(largest_bf16));
        int code = std::max<int>(to_bf16(static_cast<float>(fine)), least);
        if (stride == 1) return code;
        for (int tries = 0; tries < few_tries; ++tries) {
            const auto q = with(static_cast<std::uint16_t>(code), stride);
            const int move = static_cast<int>((q.bits_an_element() - static_cast<double>(bits_)) * codes_an_octave);
            code = std::clamp<int>(code + move, least, largest_bf16);
            if (std::abs(move) <= near_enough) break;
        }
        return code;
    }

    std::span<const float> values_;
    const std::uint64_t* key_;
    std::size_t bits_;
    layout layout_;
    const kernels& run_ = best_kernels();
};

class ecsq_codec final : public codec {
public:
    ecsq_codec(std::string_view name, std::uint16_t wire_id, std::size_t bits)
        : codec(name, wire_id, {8, 6}), bits_(bits) {}
    bool wants_feedback() const override { return bits_ <= 2; }

protected:
    std::size_t piece_bytes(const piece& p) const override { return layout(p.count, bits_).bytes; }
    bool encode_piece(const piece& /*p*/, std::span<const float> values, const encode_hints& how, std::byte* out,
                      remainder* rest) const override {
        const auto& run = best_kernels();
        const auto largest = std::bit_cast<float>(run.largest(values.data(), values.size()));
        if (!std::isfinite(largest)) return false;
        const layout l(values.size(), bits_);
        const quantizer steps(values, how.key, bits_);
        const auto q = steps.best(largest);
        // Signs and one magnitude never miss all: what they miss is Σy² − (Σ|y|)²/n.
        const double n = static_cast<double>(values.size());
        const bool signs = !q.fits || q.squares - q.magnitudes * q.magnitudes / n < q.missed;
        std::fill_n(out, l.bytes, std::byte{0});
        const auto said = rest == nullptr ? std::span<float>() : rest->left;
        if (signs && how.key == nullptr)
            encode_signs(l, q, values, out, said);
        else
            encode_steps(l, q.fits ? q : zeros(l), steps, out, said);
        if (rest == nullptr) return true;
        rest->sent += run.take_away(values.data(), values.size(), rest->left.data());
        return true;
    }
    bool check_piece(const piece& p, const std::byte* in) const override {
        const layout l(p.count, bits_);
        const auto code = load_bf16(in);
        // Outcomes that nobody coded are some finite numbers, too: who made them up signed for them.
        const bool odd = l.blocks % 2 != 0 && (std::to_integer<unsigned>(in[l.stream_at - 1]) >> 4U) != 0;
        if ((code & ~signs_alone) > largest_bf16 || odd) return false;
        return (code & signs_alone) != 0 || rans::reader<lanes>({in + l.stream_at, l.bytes - l.stream_at}).sound();
    }
    void decode_piece(const piece& p, const std::byte* in, std::span<float> out) const override {
        each_block(p.count, in, [out](std::size_t first, std::span<const float> values) {
            std::ranges::copy(values, out.begin() + static_cast<std::ptrdiff_t>(first));
        });
    }
    void add_piece(const piece& p, const std::byte* in, float factor, std::span<float> sum) const override {
        each_block(p.count, in, [sum, factor](std::size_t first, std::span<const float> values) {
            for (std::size_t i = 0; i < values.size(); ++i) sum[first + i] += factor * values[i];
        });
    }

private:
    // `said`, unless empty, gets what is decoded.
    static void encode_signs(const layout& l, const quantized& q, std::span<const float> values, std::byte* out,
                             std::span<float> said) {
        const double mean = q.magnitudes / static_cast<double>(values.size()) * static_cast<double>(q.step());
        store_bf16(-static_cast<float>(mean), out);
        for (std::size_t i = 0; i < values.size(); ++i)
            if (std::signbit(values[i])) out[l.stream_at + i / 8] |= std::byte{1} << (i % 8);
        const float step = from_bf16(static_cast<std::uint16_t>(load_bf16(out) & ~signs_alone));
        for (std::size_t i = 0; i < said.size(); ++i) said[i] = std::copysign(step, values[i]);
    }
    static void encode_steps(const layout& l, const quantized& q, const quantizer& steps, std::byte* out,
                             std::span<float> said) {
        store_bf16(q.step(), out);
        for (std::size_t b = 0; b < l.blocks; ++b)
            out[2 + b / 2] |= static_cast<std::byte>(q.spread[b] << (4 * (b % 2)));
        rans::writer<lanes> to(l.bytes - l.stream_at);
        std::array<int, block_elements> some;
        for (auto b = l.blocks; b-- > 0;) {
            const auto n = l.block_size(b);
            const auto part = said.empty() ? said : said.subspan(b * block_elements, n);
            if (q.spread[b] == 0) {
                std::ranges::fill(part, 0.0F);
                continue;
            }
            const auto& table = spread_tables::get().of(q.spread[b]);
            steps.steps_of(b, q.step(), some.data());
            for (auto i = n; i-- > 0;) table.push(to, some[i], i % lanes);
            for (std::size_t i = 0; i < part.size(); ++i) part[i] = value_of(q.step(), some[i]);
        }
        to.finish({out + l.stream_at, l.bytes - l.stream_at});
    }
    /// Calls take(first element, values) for each block.
    template <typename Take>
    void each_block(std::size_t count, const std::byte* in, Take take) const {
        const layout l(count, bits_);
        const auto code = load_bf16(in);
        const auto step = from_bf16(static_cast<std::uint16_t>(code & ~signs_alone));
        std::array<float, block_elements> values;
        rans::reader<lanes> from({in + l.stream_at, l.bytes - l.stream_at});
        for (std::size_t b = 0; b < l.blocks; ++b) {
            const auto n = l.block_size(b), first = b * block_elements;
            if ((code & signs_alone) != 0) {
                for (std::size_t i = 0; i < n; ++i) {
                    const auto bit = std::to_integer<unsigned>(in[l.stream_at + (first + i) / 8]) >> ((first + i) % 8);
                    values[i] = bit % 2 != 0 ? -step : step;
                }
            } else if (const auto spread = std::to_integer<unsigned>(in[2 + b / 2]) >> (4 * (b % 2)) & 15U;
                       spread == 0) {
                std::fill_n(values.begin(), n, 0.0F);
            } else {
                const auto& table = spread_tables::get().of(spread);
                std::size_t i = 0;
                for (; i + lanes <= n; i += lanes)
                    for (std::size_t lane = 0; lane < lanes; ++lane)
                        values[i + lane] = value_of(step, table.take(from, lane));
                for (; i < n; ++i) values[i] = value_of(step, table.take(from, i % lanes));
            }
            take(first, std::span<const float>(values).first(n));
        }
    }

    std::size_t bits_;
};

}  // namespace

const codec& ecsq_4_codec() {
    static const ecsq_codec instance("ecsq-4", 17, 4);
    return instance;
}

const codec& ecsq_3_codec() {
    static const ecsq_codec instance("ecsq-3", 18, 3);
    return instance;
}

const codec& ecsq_2_codec() {
    static const ecsq_codec instance("ecsq-2", 19, 2);
    return instance;
}

const codec& ecsq_1_codec() {
    static const ecsq_codec instance("ecsq-1", 20, 1);
    return instance;
}

}  // namespace longhaul::compress

#pragma once
/// A range coder's state (rANS: Duda, arXiv 1311.2540) that takes one of several outcomes at a time, each with a
/// frequency in 1/65536, and gives them back in the opposite order. For compress/*.cpp alone.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/bytes.hpp"
#include "core/result.hpp"

namespace longhaul::compress::rans {

inline constexpr unsigned scale_bits = 16;
inline constexpr std::uint32_t scale = 1U << scale_bits;
/// The state stays in [2³¹, 2⁶³) and moves 32 bits at a time.
inline constexpr std::uint64_t least_state = std::uint64_t{1} << 31U;
inline constexpr std::size_t state_bytes = 8, word_bytes = 4;

/// log₂ of f in 1/65536, rounded down; in integers, so that all machines agree on sizes.
constexpr std::uint32_t log2_fixed(std::uint32_t f) {
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

/// The most that an outcome of this frequency can take, in 1/65536 bit. Three of them are for the state's rounding:
/// log₂(1 + 2⁻¹⁵).
constexpr std::uint64_t most_bits(std::uint32_t frequency) { return scale_bits * 65536 - log2_fixed(frequency) + 3; }

/// Bytes that outcomes of so many 1/65536 bits take at most.
constexpr std::size_t bytes_for(std::uint64_t bits) { return state_bytes + bits / 65536 / 32 * word_bytes; }

/// One outcome, as a step of the state. Division by its frequency is a multiplication (Alverson; as in ryg_rans), right
/// for all states below 2⁶³.
struct symbol {
    std::uint64_t reciprocal = 0;
    std::uint32_t others = 0;  ///< scale minus its frequency
    std::uint32_t bias = 0;
    std::uint32_t shift = 0;

    symbol(std::uint32_t start, std::uint32_t frequency) : others(scale - frequency), bias(start) {
        if (frequency == 1) {
            reciprocal = ~std::uint64_t{0};
            bias += scale - 1;
            return;
        }
        const auto bits = static_cast<std::uint32_t>(std::bit_width(frequency - 1));
        const auto top = std::uint64_t{1} << (bits + 31);
        reciprocal = ((top / frequency) << 32U) + (((top % frequency) << 32U) + frequency - 1) / frequency;
        shift = bits - 1;
    }
    /// A larger state must give its lower half away first.
    std::uint64_t limit() const { return std::uint64_t{scale - others} << (63U - scale_bits); }
    std::uint64_t push(std::uint64_t state) const {
        __extension__ using wide = unsigned __int128;
        const auto quotient = static_cast<std::uint64_t>((wide{state} * reciprocal) >> 64U) >> shift;
        return state + bias + quotient * others;
    }
};

/// Takes the last outcome first, so that the reader meets the first one first; so do the words.
class writer {
public:
    /// For a range of so many bytes.
    explicit writer(std::size_t bytes) : words_((bytes - state_bytes) / word_bytes), front_(words_.size()) {}
    void push(const symbol& s) {
        if (state_ >= s.limit()) {
            LONGHAUL_ENSURE(front_ > 0, "no code is longer than its bound");
            words_[--front_] = static_cast<std::uint32_t>(state_);
            state_ >>= 32U;
        }
        state_ = s.push(state_);
    }
    /// The state, the words, and zeros.
    void finish(core::mutable_bytes out) const {
        std::memcpy(out.data(), &state_, state_bytes);
        const auto used = (words_.size() - front_) * word_bytes;
        if (used > 0) std::memcpy(out.data() + state_bytes, words_.data() + front_, used);
        std::ranges::fill(out.subspan(state_bytes + used), std::byte{0});
    }

private:
    std::uint64_t state_ = least_state;
    std::vector<std::uint32_t> words_;
    std::size_t front_;
};

/// Of hostile bytes.
class reader {
public:
    /// `in` has at least state_bytes.
    explicit reader(core::const_bytes in) : at_(in.data() + state_bytes), end_(in.data() + in.size()) {
        std::memcpy(&state_, in.data(), state_bytes);
    }
    /// Whether the state is one that a writer can leave.
    bool sound() const { return state_ >= least_state && state_ < (std::uint64_t{1} << 63U); }
    /// In which outcome's share of 65536 the state is.
    std::uint32_t slot() const { return static_cast<std::uint32_t>(state_ & (scale - 1)); }
    /// Takes the outcome that has the slot.
    void take(std::uint32_t start, std::uint32_t frequency) {
        state_ = frequency * (state_ >> scale_bits) + slot() - start;
        if (state_ >= least_state) return;
        if (at_ == end_) {
            state_ = 0;  // stays below what a state must have: the end is refused
            return;
        }
        std::uint32_t word = 0;
        std::memcpy(&word, at_, word_bytes);
        at_ += word_bytes;
        state_ = (state_ << 32U) | word;
    }
    /// Whether all was taken: the state is the one that a writer begins with, and zeros are left.
    bool at_end() const {
        return state_ == least_state && std::all_of(at_, end_, [](std::byte b) { return b == std::byte{0}; });
    }

private:
    std::uint64_t state_ = 0;
    const std::byte *at_, *end_;
};

}  // namespace longhaul::compress::rans

#pragma once
/// A range coder's state (rANS: Duda, arXiv 1311.2540) that takes one of several outcomes at a time, each with a
/// frequency in 1/65536, and gives them back in the opposite order. For compress/*.cpp alone.

#include <algorithm>
#include <array>
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

/// Bytes that outcomes of so many 1/65536 bits take at most, with so many states.
constexpr std::size_t bytes_for(std::uint64_t bits, std::size_t lanes = 1) {
    return lanes * state_bytes + bits / 65536 / 32 * word_bytes;
}

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

/// Takes the last outcome first, so that the reader meets the first one first; so do the words. Several states, the
/// lanes, share the words: a processor works on one while it waits for another.
template <std::size_t Lanes = 1>
class writer {
public:
    /// For a range of so many bytes.
    explicit writer(std::size_t bytes) : words_((bytes - Lanes * state_bytes) / word_bytes), front_(words_.size()) {
        states_.fill(least_state);
    }
    void push(const symbol& s, std::size_t lane = 0) {
        auto state = states_[lane];
        if (state >= s.limit()) {
            LONGHAUL_ENSURE(front_ > 0, "no code is longer than its bound");
            words_[--front_] = static_cast<std::uint32_t>(state);
            state >>= 32U;
        }
        states_[lane] = s.push(state);
    }
    /// The states, the words, and zeros.
    void finish(core::mutable_bytes out) const {
        std::memcpy(out.data(), states_.data(), Lanes * state_bytes);
        const auto used = (words_.size() - front_) * word_bytes;
        if (used > 0) std::memcpy(out.data() + Lanes * state_bytes, words_.data() + front_, used);
        std::ranges::fill(out.subspan(Lanes * state_bytes + used), std::byte{0});
    }

private:
    std::array<std::uint64_t, Lanes> states_;
    std::vector<std::uint32_t> words_;
    std::size_t front_;
};

/// Of hostile bytes.
template <std::size_t Lanes = 1>
class reader {
public:
    /// `in` has at least a state for each lane.
    explicit reader(core::const_bytes in) : at_(in.data() + Lanes * state_bytes), end_(in.data() + in.size()) {
        std::memcpy(states_.data(), in.data(), Lanes * state_bytes);
    }
    /// Whether the states are such as a writer can leave.
    bool sound() const {
        return std::ranges::all_of(states_, [](auto s) { return s >= least_state && s < (std::uint64_t{1} << 63U); });
    }
    /// In which outcome's share of 65536 the state is.
    std::uint32_t slot(std::size_t lane = 0) const { return static_cast<std::uint32_t>(states_[lane] & (scale - 1)); }
    /// Takes the outcome that has the slot.
    void take(std::uint32_t start, std::uint32_t frequency, std::size_t lane = 0) {
        auto state = frequency * (states_[lane] >> scale_bits) + slot(lane) - start;
        if (state < least_state) {
            if (at_ == end_) {
                state = 0;  // stays below what a state must have: the end is refused
            } else {
                std::uint32_t word = 0;
                std::memcpy(&word, at_, word_bytes);
                at_ += word_bytes;
                state = (state << 32U) | word;
            }
        }
        states_[lane] = state;
    }
    /// Whether all was taken: the states are those that a writer begins with, and zeros are left.
    bool at_end() const {
        return std::ranges::all_of(states_, [](auto s) { return s == least_state; }) &&
               std::all_of(at_, end_, [](std::byte b) { return b == std::byte{0}; });
    }

private:
    std::array<std::uint64_t, Lanes> states_;
    const std::byte *at_, *end_;
};

}  // namespace longhaul::compress::rans

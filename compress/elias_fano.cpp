#include "compress/elias_fano.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace longhaul::compress {

namespace {

/// Bits from the lowest of the first byte on.
class bit_writer {
public:
    explicit bit_writer(std::byte* to) : to_(to) {}
    void put(std::uint64_t value, unsigned bits) {
        kept_ |= value << count_;
        count_ += bits;
        for (; count_ >= 8; count_ -= 8, kept_ >>= 8U) *to_++ = static_cast<std::byte>(kept_);
    }
    void finish() {
        if (count_ > 0) *to_ = static_cast<std::byte>(kept_);
    }

private:
    std::byte* to_;
    std::uint64_t kept_ = 0;
    unsigned count_ = 0;
};

std::uint64_t load_word(core::const_bytes in, std::size_t at) {
    std::uint64_t w = 0;
    std::memcpy(&w, in.data() + at, std::min<std::size_t>(8, in.size() - at));
    return w;
}

}  // namespace

elias_fano::elias_fano(std::uint64_t places_, std::uint64_t chosen) : places(places_) {
    low_bits = static_cast<unsigned>(std::bit_width(places / chosen) - 1);
    upper_at = (chosen * low_bits + 7) / 8;
    upper_bits = chosen + ((places - 1) >> low_bits);
}

void elias_fano::encode(std::span<const std::uint32_t> chosen_places, core::mutable_bytes out) const {
    bit_writer low(out.data());
    auto* upper = out.data() + upper_at;
    std::fill(upper, out.data() + bytes(), std::byte{0});
    for (std::size_t i = 0; i < chosen_places.size(); ++i) {
        const std::uint64_t place = chosen_places[i];
        low.put(place & ((std::uint64_t{1} << low_bits) - 1), low_bits);
        const auto bit = (place >> low_bits) + i;
        upper[bit / 8] |= static_cast<std::byte>(1U << bit % 8);
    }
    low.finish();
}

bool elias_fano::decode(core::const_bytes in, std::span<std::uint32_t> out) const {
    // Bits behind the last ones are zero.
    const auto low_used = out.size() * low_bits % 8, upper_used = upper_bits % 8;
    if (low_used > 0 && std::to_integer<unsigned>(in[upper_at - 1]) >> low_used != 0) return false;
    if (upper_used > 0 && std::to_integer<unsigned>(in[bytes() - 1]) >> upper_used != 0) return false;
    const auto upper = in.subspan(upper_at, bytes() - upper_at);
    const auto mask = (std::uint64_t{1} << low_bits) - 1;
    std::size_t n = 0;
    std::uint64_t next = 0;  // the least that the next place may be
    for (std::size_t at = 0; at < upper.size(); at += 8) {
        for (auto word = load_word(upper, at); word != 0; word &= word - 1, ++n) {
            if (n == out.size()) return false;
            const auto high = at * 8 + static_cast<std::size_t>(std::countr_zero(word)) - n;
            const auto bit = n * low_bits;
            const auto low = load_word(in.first(upper_at), bit / 8) >> bit % 8 & mask;
            const auto place = (static_cast<std::uint64_t>(high) << low_bits) | low;
            if (place < next || place >= places) return false;
            out[n] = static_cast<std::uint32_t>(place);
            next = place + 1;
        }
    }
    return n == out.size();
}

}  // namespace longhaul::compress

#include "core/entropy.hpp"

#include <algorithm>

#include "core/hash.hpp"
#include "core/sodium.hpp"

namespace longhaul::core {

std::uint64_t entropy::u64() {
    std::array<std::byte, 8> drawn{};
    fill(drawn);
    std::uint64_t v = 0;
    for (std::size_t i = 0; i < drawn.size(); ++i) v |= std::to_integer<std::uint64_t>(drawn[i]) << (8 * i);
    return v;
}

std::uint64_t entropy::below(std::uint64_t bound) {
    LONGHAUL_ENSURE(bound >= 1, "nothing is below zero");
    // Draws below 2^64 mod bound would make the small remainders more likely: draw again.
    const std::uint64_t uneven = (0 - bound) % bound;
    for (;;) {
        const auto v = u64();
        if (v >= uneven) return v % bound;
    }
}

double entropy::unit() { return static_cast<double>(u64() >> 11U) * 0x1p-53; }

void system_entropy::fill(mutable_bytes out) {
    ensure_sodium();
    randombytes_buf(out.data(), out.size());
}

seeded_entropy::seeded_entropy(std::uint64_t seed) : seeded_entropy(seed, "") {}

seeded_entropy::seeded_entropy(std::uint64_t seed, std::string_view purpose) {
    byte_writer input;
    input.raw(as_bytes("longhaul seeded entropy")).u64(seed).raw(as_bytes(purpose));
    key_ = hash(input.bytes()).bytes;
}

void seeded_entropy::fill(mutable_bytes out) {
    const auto buffered = std::min(out.size(), buffer_.size() - used_);
    std::copy_n(buffer_.begin() + static_cast<std::ptrdiff_t>(used_), buffered, out.begin());
    used_ += buffered;
    out = out.subspan(buffered);

    const auto generate = [this](mutable_bytes blocks) {
        std::ranges::fill(blocks, std::byte{0});
        constexpr std::array<unsigned char, crypto_stream_chacha20_NONCEBYTES> nonce{};
        auto* p = reinterpret_cast<unsigned char*>(blocks.data());
        crypto_stream_chacha20_xor_ic(p, p, blocks.size(), nonce.data(), block_,
                                      reinterpret_cast<const unsigned char*>(key_.data()));
        block_ += blocks.size() / 64;
    };
    if (const auto whole = out.size() / 64 * 64; whole > 0) {
        generate(out.first(whole));
        out = out.subspan(whole);
    }
    if (!out.empty()) {
        generate(buffer_);
        std::copy_n(buffer_.begin(), out.size(), out.begin());
        used_ = out.size();
    }
}

}  // namespace longhaul::core

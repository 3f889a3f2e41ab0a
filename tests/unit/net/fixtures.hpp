#pragma once
/// Small helpers of the net tests.

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/bytes.hpp"
#include "core/entropy.hpp"

namespace longhaul::net::testing {

inline core::byte_vector unhex(const std::string& text) {
    core::byte_vector out(text.size() / 2);
    LONGHAUL_ENSURE(core::from_hex(text, out).has_value(), "a test's hexadecimal parses");
    return out;
}

inline core::byte_vector bytes_of(std::string_view text) {
    const auto b = core::as_bytes(text);
    return {b.begin(), b.end()};
}

inline core::byte_vector copy(core::const_bytes b) { return {b.begin(), b.end()}; }

/// Gives fixed bytes, then fails: how a test fixes a handshake's ephemeral key.
class scripted_entropy final : public core::entropy {
public:
    explicit scripted_entropy(core::byte_vector script) : script_(std::move(script)) {}
    void fill(core::mutable_bytes out) override {
        LONGHAUL_ENSURE(out.size() <= script_.size() - used_, "the scripted entropy is used up");
        std::copy_n(script_.begin() + static_cast<std::ptrdiff_t>(used_), out.size(), out.begin());
        used_ += out.size();
    }

private:
    core::byte_vector script_;
    std::size_t used_ = 0;
};

/// `bytes` with bit `bit` turned over.
inline core::byte_vector flipped(core::byte_vector bytes, std::size_t bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    return bytes;
}

}  // namespace longhaul::net::testing

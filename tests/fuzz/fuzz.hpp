#pragma once
/// What every fuzz target includes: its body is a function of the input, which libFuzzer calls.

#include <cstdint>

#include "core/bytes.hpp"

/// Stops with a report: the property does not hold for this input.
#define FUZZ_CHECK(condition) LONGHAUL_ENSURE(condition, "a property that must hold for every input")

/// Cuts an input into pieces and small numbers; when it is used up it gives zeros.
class fuzz_input {
public:
    fuzz_input(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const std::byte*>(data), size) {}
    bool empty() const { return rest_.empty(); }
    std::uint8_t byte() {
        if (rest_.empty()) return 0;
        const auto v = std::to_integer<std::uint8_t>(rest_.front());
        rest_ = rest_.subspan(1);
        return v;
    }
    longhaul::core::const_bytes take(std::size_t n) {
        const auto front = rest_.first(n < rest_.size() ? n : rest_.size());
        rest_ = rest_.subspan(front.size());
        return front;
    }
    longhaul::core::const_bytes rest() { return take(rest_.size()); }

private:
    longhaul::core::const_bytes rest_;
};

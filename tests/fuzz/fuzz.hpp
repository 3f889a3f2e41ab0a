#pragma once
/// What every fuzz target includes. FUZZ_TARGET(name) { … } is a function of `data` and `size`: a libFuzzer program in
/// the fuzzers' build, in every other one a test case that replays the target's corpus, tests/fuzz/corpus/<name>.

#include <cstdint>

#include "core/bytes.hpp"

#ifdef LONGHAUL_FUZZ_REPLAY

#include "tests/test.hpp"

/// Calls the target with each file of its corpus; a folder without files fails.
void replay_corpus(const char* name, void (*target)(const std::uint8_t* data, std::size_t size));

#define FUZZ_TARGET(name)                                                    \
    static void fuzz_##name(const std::uint8_t* data, std::size_t size);     \
    TEST_CASE("the corpus of " #name) { replay_corpus(#name, fuzz_##name); } \
    static void fuzz_##name([[maybe_unused]] const std::uint8_t* data, [[maybe_unused]] std::size_t size)

#else

#define FUZZ_TARGET(name)                                                               \
    static void fuzz_##name(const std::uint8_t* data, std::size_t size);                \
    extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
        fuzz_##name(data, size);                                                        \
        return 0;                                                                       \
    }                                                                                   \
    static void fuzz_##name([[maybe_unused]] const std::uint8_t* data, [[maybe_unused]] std::size_t size)

#endif

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

// Payloads that a peer damaged or made up, in numbers: what fuzzers find by coverage, this covers by count. A night
// runs ten million (scripts/test nightly) with the sanitizers of the preset dev; everything else a few.

#include <algorithm>
#include <cstdlib>
#include <string>

#include "compress/codec.hpp"
#include "core/entropy.hpp"
#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

std::uint64_t wanted_mutations() {
    const char* wish = std::getenv("MUTATIONS");
    return wish == nullptr ? 40'000 : std::stoull(wish);
}

/// A few bits, bytes or stretches are others; now and then the length is, too.
void mutate(byte_vector& wire, seeded_entropy& random) {
    const auto any = [&random](std::size_t n) { return static_cast<std::size_t>(random.below(n)); };
    for (auto times = 1 + any(4); times > 0 && !wire.empty(); --times) {
        auto& byte = wire[any(wire.size())];
        switch (any(6)) {
            case 0:
            case 1: byte ^= static_cast<std::byte>(1U << any(8)); break;
            case 2: byte = static_cast<std::byte>(any(256)); break;
            case 3: byte = any(2) == 0 ? std::byte{0} : std::byte{0xff}; break;
            case 4: {
                const auto from = any(wire.size()), to = any(wire.size());
                const auto n = any(std::min<std::size_t>(16, wire.size() - std::max(from, to)) + 1);
                std::copy_n(byte_vector(wire).begin() + static_cast<std::ptrdiff_t>(from), n,
                            wire.begin() + static_cast<std::ptrdiff_t>(to));
                break;
            }
            default: random.fill(std::span(wire).subspan(any(wire.size()))); break;
        }
    }
    if (any(64) == 0) wire.resize(wire.size() + any(9) - std::min<std::size_t>(4, wire.size()));
    wire.shrink_to_fit();  // so that the sanitizer sees the first byte behind
}

}  // namespace

TEST_CASE("damaged payloads of every codec are refused and change nothing, or are read as finite numbers") {
    const auto model = *tensor_manifest::make({{"a", {90, 64}}, {"bias", {9}}, {"b", {100, 80}}});
    seeded_entropy random(std::getenv("MUTATIONS_SEED") == nullptr ? 1 : std::stoull(std::getenv("MUTATIONS_SEED")));
    const auto names = codec_names();
    std::uint64_t refused = 0, read = 0;
    constexpr std::uint64_t of_one = 100;  // mutations of one payload
    for (std::uint64_t done = 0; done < wanted_mutations(); done += of_one) {
        const auto& c = **find_codec(names[done / of_one % names.size()]);
        // Mostly short ranges, which are quick; some of all that there is.
        const auto longest = random.below(16) == 0 ? model.elements() : std::uint64_t{600};
        const auto first = random.below(model.elements());
        const range r(model, first, 1 + random.below(std::min(longest, model.elements() - first)));
        const auto values = some_values(r.size(), random.u64());
        byte_vector whole(c.range_bytes(r));
        REQUIRE(c.encode(r, values, {}, whole));
        for (std::uint64_t i = 0; i < of_one; ++i) {
            auto wire = whole;
            mutate(wire, random);
            flat_buffer out(r.size(), 7.0F), sum(r.size(), 0.0F);
            const bool fine = c.decode(r, wire, out).has_value();
            (fine ? read : refused) += 1;
            if (c.check(r, wire).has_value() != fine || c.add(r, wire, {}, sum).has_value() != fine)
                FAIL(c.name() << ": check, decode and add do not agree");
            const bool sound = fine ? std::ranges::all_of(out, [](float v) { return std::isfinite(v); }) && sum == out
                                    : std::ranges::all_of(out, [](float v) { return v == 7.0F; }) &&
                                          std::ranges::all_of(sum, [](float v) { return v == 0.0F; });
            if (!sound) FAIL(c.name() << ", elements " << r.first() << " + " << r.size() << ": " << to_hex(wire));
        }
    }
    // Both happen, or the test looks at one side alone.
    CHECK(refused > read / 20);
    CHECK(read > refused / 20);
}

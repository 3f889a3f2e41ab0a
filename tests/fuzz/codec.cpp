// Any bytes as a range of a model: refused, and then nothing was written; or decoded to finite numbers, which adding to
// zeros gives too.
#include "compress/codec.hpp"

#include <cmath>

#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

FUZZ_TARGET(codec) {
    static const auto manifest = *core::tensor_manifest::make({{"a", {2, 3}}, {"b", {64, 80}}, {"c", {9}}});
    static const auto names = compress::codec_names();
    fuzz_input in(data, size);
    const auto& codec = **compress::find_codec(names[in.byte() % names.size()]);
    const std::uint64_t first = in.byte() * 41U % manifest.elements();
    const auto wish = in.byte() * 41U;
    const compress::range range(manifest, first, wish % (manifest.elements() - first + 1));
    // A fuzzer does not guess a length: most of the time it is made right, with zeros behind.
    const bool exact = in.byte() % 8 == 0;
    const auto bytes = in.rest();
    core::byte_vector wire(bytes.begin(), bytes.end());
    if (!exact) wire.resize(codec.range_bytes(range));

    core::flat_buffer out(range.size(), 7.0F), sum(range.size(), 0.0F);
    if (codec.decode(range, wire, out)) {
        FUZZ_CHECK(codec.check(range, wire));
        FUZZ_CHECK(codec.add(range, wire, {}, sum));
        for (std::size_t i = 0; i < out.size(); ++i) FUZZ_CHECK(std::isfinite(out[i]) && sum[i] == out[i]);
    } else {
        FUZZ_CHECK(!codec.add(range, wire, {}, sum));
        for (std::size_t i = 0; i < out.size(); ++i) FUZZ_CHECK(out[i] == 7.0F && sum[i] == 0.0F);
    }
}

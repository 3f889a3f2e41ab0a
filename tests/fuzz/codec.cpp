// Any bytes as a payload: an error leaves the output alone, a success gives finite numbers that encode again.
#include <cmath>

#include "compress/codec.hpp"
#include "compress/payload.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

FUZZ_TARGET(codec) {
    static const auto manifest = *core::tensor_manifest::make({{"a", {3, 2}}, {"b", {2}}});
    const core::const_bytes input(reinterpret_cast<const std::byte*>(data), size);
    for (const auto& name : compress::codec_names()) {
        const auto* codec = *compress::find_codec(name);
        for (const bool with_header : {false, true}) {
            // Half of the time behind a valid header: a fuzzer does not guess a fingerprint.
            auto payload = core::byte_vector(input.begin(), input.end());
            if (with_header) {
                payload = compress::make_payload(codec->wire_id(), manifest, 0);
                payload.insert(payload.end(), input.begin(), input.end());
            }
            core::flat_buffer out(manifest.elements(), 7.0F);
            if (codec->decode(manifest, payload, out)) {
                const auto again = codec->encode(manifest, out);
                FUZZ_CHECK(again && *again == payload);
            } else {
                for (const float v : out) FUZZ_CHECK(v == 7.0F);
            }
        }
    }
}

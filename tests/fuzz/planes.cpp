// Any bytes as packed values: refused, and then nothing was written; or opened, and what is packed anew opens to the
// same.
#include "compress/planes.hpp"

#include <algorithm>

#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

FUZZ_TARGET(planes) {
    fuzz_input in(data, size);
    const auto sixteens = in.byte(), rest = in.byte();
    core::byte_vector values(sixteens * 16U + rest % 8U, std::byte{7});
    const auto before = values;
    const auto packed = in.rest();
    if (!compress::unpack(packed, values)) {
        FUZZ_CHECK(values == before);
        return;
    }
    auto again = before;
    FUZZ_CHECK(compress::unpack(compress::pack(values), again));
    FUZZ_CHECK(again == values);
}

// Any bytes as a control message: refused, or a message that says the same after another journey.
#include "peers/messages.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto m = peers::parse_message({reinterpret_cast<const std::byte*>(data), size});
    if (!m) return 0;
    const auto bytes = peers::serialize(*m);
    const auto again = peers::parse_message(bytes);
    FUZZ_CHECK(again && again->index() == m->index() && peers::serialize(*again) == bytes);
    return 0;
}

// Any bytes as a control message: refused, or a message that says the same after another journey.
#include "peers/messages.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

FUZZ_TARGET(peer_message) {
    const auto m = peers::parse_message({reinterpret_cast<const std::byte*>(data), size});
    if (!m) return;
    const auto bytes = peers::serialize(*m);
    const auto again = peers::parse_message(bytes);
    FUZZ_CHECK(again && again->index() == m->index() && peers::serialize(*again) == bytes);
}

// Any bytes as one of the link's own control messages: refused, or a message that says the same after another journey.
#include "net/wire.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

FUZZ_TARGET(link_message) {
    const auto m = net::wire::parse_control({reinterpret_cast<const std::byte*>(data), size});
    if (!m) return;
    const auto bytes = net::wire::serialize(*m);
    const auto again = net::wire::parse_control(bytes);
    FUZZ_CHECK(again && again->index() == m->index() && net::wire::serialize(*again) == bytes);
}

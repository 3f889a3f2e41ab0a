/// Any bytes as a hello: refused, or the very bytes that its fields encode to; comparing never fails to answer.
#include "net/hello.hpp"

#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

FUZZ_TARGET(hello) {
    fuzz_input input(data, size);
    const auto bytes = input.take(net::hello_size);
    const auto parsed = net::parse_hello(bytes);
    if (!parsed) return;
    const bool known = parsed->wire_min <= net::wire_version_max && parsed->wire_max >= net::wire_version_min;
    const auto again = parsed->encode();
    FUZZ_CHECK(std::equal(again.begin(), again.begin() + (known ? net::hello_size : 12U), bytes.begin()));

    core::digest run;
    run.bytes[0] = static_cast<std::byte>(input.byte());
    const auto answer = parsed->answer(run);
    const auto version = net::compare(answer, *parsed, net::side::responder);
    if (version) {
        FUZZ_CHECK(known && *version >= parsed->wire_min && *version <= parsed->wire_max);
        FUZZ_CHECK(parsed->run.is_zero() || parsed->run == run);
        // The initiator comes to the same version.
        FUZZ_CHECK(net::compare(*parsed, answer, net::side::initiator) == *version);
        FUZZ_CHECK(net::parse_hello(answer.encode()) == answer);
    }
}

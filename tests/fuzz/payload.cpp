// Any bytes as a payload: refused, unless they are what the author signed. Half of the time the body is the fuzzer's
// and the signature is right: a fuzzer does not forge one.
#include <algorithm>

#include "peers/payload.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static core::seeded_entropy random(1);
    static const auto author = net::identity::generate(random);
    const core::const_bytes input(reinterpret_cast<const std::byte*>(data), size);
    // Nobody but the author makes what verifies.
    const auto raw = std::make_shared<const core::byte_vector>(input.begin(), input.end());
    FUZZ_CHECK(!peers::open_payload(raw, author.key()));

    // Any header that is signed: refused, or within its bounds.
    core::byte_writer out;
    const auto header = input.first(std::min<std::size_t>(size, 400));
    const auto signature = author.sign("longhaul-payload-v1", header);
    out.u16(static_cast<std::uint16_t>(header.size())).raw(header).raw(signature).raw(input.subspan(header.size()));
    const auto opened = peers::open_payload(std::make_shared<const core::byte_vector>(out.take()), author.key());
    FUZZ_CHECK(!opened || (opened->header.bytes == opened->body().size() && opened->header.tokens > 0));

    // Made by the author: it opens, and with one bit changed it does not.
    peers::payload_header h;
    h.author = 1;
    h.codec = "f32";
    h.tokens = h.steps = 1;
    const auto made = peers::make_payload(h, input, author);
    const auto again = peers::open_payload(made.bytes, author.key());
    FUZZ_CHECK(again && again->id == made.id && std::ranges::equal(again->body(), input));
    auto damaged = *made.bytes;
    const std::size_t bit = (size == 0 ? 0 : std::to_integer<std::size_t>(input[0]) * 37 + size) % (damaged.size() * 8);
    damaged[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    FUZZ_CHECK(!peers::open_payload(std::make_shared<const core::byte_vector>(std::move(damaged)), author.key()));
    return 0;
}

// Any bytes as a chunk: refused, unless they are what the author signed. Half of the time the header is the fuzzer's
// and the signature is right: a fuzzer does not forge one. And any text as a stream's tag.
#include "peers/chunk.hpp"

#include <algorithm>

#include "core/hash.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

FUZZ_TARGET(chunk) {
    static core::seeded_entropy random(1);
    static const auto author = net::identity::generate(random);
    const core::const_bytes input(reinterpret_cast<const std::byte*>(data), size);
    FUZZ_CHECK(!peers::open_chunk(input, author.key()));

    const auto offer = peers::parse_stream_tag(std::string(core::as_text(input)));
    FUZZ_CHECK(!offer || peers::tag_of(offer->name, offer->attempt) == core::as_text(input));

    // Any header that is signed: refused, or within its bounds.
    constexpr std::size_t signed_bytes = peers::chunk_header_bytes - 64;
    if (size <= signed_bytes) return;
    core::byte_writer out;
    const auto signature = author.sign("longhaul-chunk-v1", input.first(signed_bytes));
    out.raw(input.first(signed_bytes)).raw(signature).raw(input.subspan(signed_bytes));
    const auto opened = peers::open_chunk(out.bytes(), author.key());
    FUZZ_CHECK(!opened || opened->hash == core::hash(input.subspan(signed_bytes)));

    // Made by the author: it opens, and with one bit changed it does not.
    peers::chunk_header h;
    h.stream.author = 1;
    h.work = {1, 1, 0};
    core::byte_vector frame(peers::chunk_header_bytes + size);
    std::ranges::copy(input, frame.begin() + peers::chunk_header_bytes);
    h.hash = core::hash(input);
    peers::seal_chunk(h, frame, author);
    FUZZ_CHECK(peers::open_chunk(frame, author.key()));
    const std::size_t bit = (std::to_integer<std::size_t>(input[0]) * 37 + size) % (frame.size() * 8);
    frame[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    FUZZ_CHECK(!peers::open_chunk(frame, author.key()));
}

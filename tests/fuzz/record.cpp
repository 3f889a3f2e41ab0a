/// Any bytes in any pieces as records: the buffer never yields what was not fed, the opener never opens what was not
/// sealed. Then real records with one change: only an unchanged prefix of them opens.
#include "net/record.hpp"

#include <algorithm>

#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

namespace {

constexpr std::uint64_t rekey_every = 3;

net::noise::cipher_state cipher() { return net::noise::cipher_state(net::noise::secret_key{}); }

/// Feeds `wire` in pieces of the sizes that `pieces` says; the number of records that opened.
std::size_t open_all(core::const_bytes wire, core::const_bytes pieces) {
    net::record_buffer buffer;
    net::record_opener opener(cipher(), rekey_every);
    std::size_t fed = 0;
    std::size_t taken = 0;
    std::size_t opened = 0;
    for (std::size_t i = 0; fed < wire.size(); ++i) {
        const auto space = buffer.space();
        FUZZ_CHECK(!space.empty());
        const std::size_t piece =
            pieces.empty() ? wire.size() : 1 + 8 * std::to_integer<std::size_t>(pieces[i % pieces.size()]);
        const auto n = std::min({piece, space.size(), wire.size() - fed});
        std::copy_n(wire.begin() + static_cast<std::ptrdiff_t>(fed), n, space.begin());
        buffer.commit(n);
        fed += n;
        for (;;) {
            auto next = buffer.next();
            if (!next) return opened;
            if (!*next) break;
            const auto ciphertext = **next;
            FUZZ_CHECK(std::ranges::equal(ciphertext, wire.subspan(taken + net::record_prefix, ciphertext.size())));
            taken += net::record_prefix + ciphertext.size();
            const auto record = opener.open(ciphertext);
            if (!record) {
                FUZZ_CHECK(opener.poisoned() || opener.ended());
                return opened;
            }
            FUZZ_CHECK(!opener.ended() || record->is(net::record_type::end));
            ++opened;
        }
        FUZZ_CHECK(buffer.pending() == fed - taken);
    }
    return opened;
}

}  // namespace

FUZZ_TARGET(record) {
    fuzz_input input(data, size);
    const auto mode = input.byte();
    const auto pieces = input.take(4);
    if (mode % 2 == 0) {
        FUZZ_CHECK(open_all(input.rest(), pieces) == 0);
        return;
    }
    const auto at = static_cast<std::size_t>(input.byte()) << 8U | input.byte();
    const auto change = input.byte();
    net::record_sealer sealer(cipher(), rekey_every);
    core::byte_vector wire;
    std::vector<std::size_t> ends;
    while (!input.empty() && ends.size() < 8) {
        const auto type = static_cast<std::uint8_t>(input.byte() | net::first_channel_record_type);
        const auto payload = input.take(input.byte());
        core::byte_vector out(payload.size() + net::record_overhead);
        const auto n = sealer.seal(type, input.byte(), payload, out);
        FUZZ_CHECK(n == out.size());
        wire.insert(wire.end(), out.begin(), out.end());
        ends.push_back(wire.size());
    }
    std::size_t untouched = ends.size();
    if (at < wire.size() && change != 0) {
        wire[at] ^= static_cast<std::byte>(change);
        untouched = static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), at) - ends.begin());
    }
    FUZZ_CHECK(open_all(wire, pieces) == untouched);
}

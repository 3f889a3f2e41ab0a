#include "net/record.hpp"

#include <set>

#include "tests/test.hpp"
#include "tests/unit/net/fixtures.hpp"

namespace longhaul::net {
namespace {

using namespace testing;

noise::cipher_state cipher(unsigned char key = 1) {
    core::digest d;
    d.bytes.fill(static_cast<std::byte>(key));
    return noise::cipher_state(noise::secret_key(d));
}

core::byte_vector random_bytes(core::entropy& entropy, std::size_t n) {
    core::byte_vector out(n);
    entropy.fill(out);
    return out;
}

core::byte_vector sealed(record_sealer& s, std::uint8_t type, std::uint8_t flags, core::const_bytes payload) {
    core::byte_vector out(payload.size() + record_overhead);
    const auto n = s.seal(type, flags, payload, out);
    REQUIRE(n);
    REQUIRE(*n == out.size());
    return out;
}

core::byte_vector sealed_data(record_sealer& s, core::const_bytes plain) {
    core::byte_vector out(plain.size() + data_overhead);
    const auto n = s.seal_data(plain, out);
    REQUIRE(n);
    REQUIRE(*n == out.size());
    return out;
}

/// The ciphertext of a sealed record.
core::byte_vector body(core::byte_vector whole) {
    whole.erase(whole.begin(), whole.begin() + record_prefix);
    return whole;
}

TEST_CASE("records pass through any fragmentation") {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        core::seeded_entropy entropy(seed);
        record_sealer sealer(cipher(), 5);
        record_opener opener(cipher(), 5);
        struct sent {
            bool data;
            std::uint8_t type, flags;
            core::byte_vector payload;
        };
        std::vector<sent> all;
        core::byte_vector wire;
        for (int i = 0; i < 30; ++i) {
            sent r{entropy.below(2) == 0,
                   static_cast<std::uint8_t>(2 + entropy.below(254)),
                   static_cast<std::uint8_t>(entropy.below(256)),
                   {}};
            const std::size_t sizes[] = {0, 1, 100, entropy.below(70000), max_record_payload, max_data_payload};
            auto size = std::min(sizes[entropy.below(6)], r.data ? max_data_payload : max_record_payload);
            if (r.data) size = std::max<std::size_t>(size, 1);
            r.payload = random_bytes(entropy, size);
            const auto bytes = r.data ? sealed_data(sealer, r.payload) : sealed(sealer, r.type, r.flags, r.payload);
            CHECK(bytes.size() == r.payload.size() + (r.data ? data_overhead : record_overhead));
            wire.insert(wire.end(), bytes.begin(), bytes.end());
            all.push_back(std::move(r));
        }
        const auto end = sealer.seal_end("done");
        REQUIRE(end);
        wire.insert(wire.end(), end->begin(), end->end());

        record_buffer buffer;
        std::size_t fed = 0;
        std::size_t got = 0;
        while (fed < wire.size()) {
            const auto space = buffer.space();
            REQUIRE_FALSE(space.empty());
            const std::size_t pieces[] = {1, 1 + entropy.below(50), 1 + entropy.below(70000), space.size()};
            const auto n = std::min(
                {pieces[seed < 2 && wire.size() - fed < 2000 ? 0 : entropy.below(4)], space.size(), wire.size() - fed});
            std::copy_n(wire.begin() + static_cast<std::ptrdiff_t>(fed), n, space.begin());
            buffer.commit(n);
            fed += n;
            for (;;) {
                auto next = buffer.next();
                REQUIRE(next);
                if (!*next) break;
                if (got == all.size()) {
                    const auto last = opener.open(**next);
                    REQUIRE(last);
                    CHECK(last->is(record_type::end));
                    CHECK(core::as_text(last->payload) == "done");
                } else if (all[got].data) {
                    core::byte_vector destination((*next)->size() - noise::tag_size);
                    REQUIRE(opener.open_data(**next, destination));
                    REQUIRE(destination == all[got].payload);
                } else {
                    const auto r = opener.open(**next);
                    REQUIRE(r);
                    CHECK(r->type == all[got].type);
                    CHECK(r->flags == all[got].flags);
                    REQUIRE(std::ranges::equal(r->payload, all[got].payload));
                }
                ++got;
            }
        }
        CHECK(got == all.size() + 1);
        CHECK(buffer.pending() == 0);
        CHECK(opener.ended());
        CHECK(opener.count() == sealer.count());
    }
}

TEST_CASE("every flipped bit of a record is refused, and the refusal is final") {
    for (const bool data : {false, true}) {
        record_sealer sealer(cipher());
        const auto good = body(data ? sealed_data(sealer, core::as_bytes("some payload"))
                                    : sealed(sealer, 20, 3, core::as_bytes("some payload")));
        for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
            record_opener opener(cipher());
            auto wrong = flipped(good, bit);
            core::byte_vector destination(good.size() - noise::tag_size);
            const auto open = [&](core::byte_vector& bytes) {
                return data ? opener.open_data(bytes, destination).has_value() : opener.open(bytes).has_value();
            };
            REQUIRE_FALSE(open(wrong));
            CHECK(opener.poisoned());
            auto again = good;
            REQUIRE_FALSE(open(again));
            CHECK(opener.count() == 0);
        }
    }
}

TEST_CASE("a flipped bit of a prefix never yields a record") {
    record_sealer sealer(cipher());
    core::byte_vector wire = sealed(sealer, 20, 0, core::byte_vector(300));
    const auto second = sealed(sealer, 21, 0, core::byte_vector(300));
    wire.insert(wire.end(), second.begin(), second.end());
    for (std::size_t bit = 0; bit < 16; ++bit) {
        record_opener opener(cipher());
        record_buffer buffer;
        const auto wrong = flipped(wire, bit);
        std::ranges::copy(wrong, buffer.space().begin());
        buffer.commit(wrong.size());
        const auto next = buffer.next();
        if (next && *next) REQUIRE_FALSE(opener.open(**next));
    }
}

TEST_CASE("a prefix that announces less than a tag and a byte is refused") {
    for (unsigned length = 0; length <= 17; ++length) {
        record_buffer buffer;
        buffer.space()[0] = static_cast<std::byte>(length);
        buffer.space()[1] = std::byte{0};
        buffer.commit(2);
        const auto next = buffer.next();
        CHECK(next.has_value() == (length > noise::tag_size));
        if (!next) CHECK(next.error().code == core::errc::protocol);
    }
    for (std::size_t n = 0; n < noise::tag_size + 2; ++n) {
        record_opener opener(cipher());
        core::byte_vector bytes(n);
        CHECK(opener.open(bytes).error().code == core::errc::protocol);
        CHECK(opener.poisoned());
    }
}

TEST_CASE("reordered, repeated and missing records are refused") {
    const auto three = [] {
        record_sealer sealer(cipher());
        std::vector<core::byte_vector> all;
        for (const auto* text : {"one", "two", "three"})
            all.push_back(body(sealed(sealer, 20, 0, core::as_bytes(text))));
        return all;
    };
    const std::vector<std::vector<std::size_t>> orders = {{1}, {0, 0}, {0, 2}, {0, 1, 1}, {0, 1, 0}, {2}};
    for (const auto& order : orders) {
        record_opener opener(cipher());
        for (std::size_t i = 0; i < order.size(); ++i) {
            auto bytes = three()[order[i]];
            CHECK(opener.open(bytes).has_value() == (i + 1 < order.size()));
        }
        auto next = three()[order.size() - 1];
        CHECK_FALSE(opener.open(next));
    }
}

TEST_CASE("a typed record does not pass for data, nor data for a typed one") {
    record_sealer sealer(cipher());
    auto typed = body(sealed(sealer, 20, 0, core::as_bytes("abc")));
    record_opener first(cipher());
    core::byte_vector destination(5);
    CHECK_FALSE(first.open_data(typed, destination));
    record_sealer second_sealer(cipher());
    auto data = body(sealed_data(second_sealer, core::as_bytes("abcde")));
    record_opener second(cipher());
    CHECK_FALSE(second.open(data));
}

TEST_CASE("a data record of another length than announced is refused") {
    for (const std::size_t announced : {0U, 4U, 6U}) {
        record_sealer sealer(cipher());
        const auto data = body(sealed_data(sealer, core::as_bytes("abcde")));
        record_opener opener(cipher());
        core::byte_vector destination(announced);
        const auto opened = opener.open_data(data, destination);
        REQUIRE_FALSE(opened);
        CHECK(opened.error().code == core::errc::protocol);
        CHECK(opener.poisoned());
    }
}

TEST_CASE("nothing follows the end") {
    record_sealer sealer(cipher());
    record_opener opener(cipher());
    auto end = body(*sealer.seal_end("going\thome " + std::string(300, 'x')));
    core::byte_vector out(100);
    CHECK(sealer.seal(20, 0, {}, out).error().code == core::errc::closed);
    CHECK(sealer.seal_data(core::as_bytes("x"), out).error().code == core::errc::closed);
    CHECK(sealer.seal_end("again").error().code == core::errc::closed);
    const auto opened = opener.open(end);
    REQUIRE(opened);
    CHECK(opened->is(record_type::end));
    CHECK(opened->payload.size() == max_end_reason);
    CHECK(core::as_text(opened->payload).starts_with("going?home xxx"));
    CHECK(opener.ended());
    CHECK_FALSE(opener.poisoned());
    CHECK(opener.open(end).error().code == core::errc::closed);
    CHECK(opener.open_data(end, out).error().code == core::errc::closed);
}

TEST_CASE("an end that no sealer makes is refused") {
    for (const auto& [flags, reason] : std::vector<std::pair<int, std::string>>{
             {1, "fine"}, {0, "\x1b[2J"}, {0, "\xff"}, {0, std::string(max_end_reason + 1, 'x')}}) {
        record_sealer sealer(cipher());
        record_opener opener(cipher());
        auto bytes = body(sealed(sealer, 1, static_cast<std::uint8_t>(flags), core::as_bytes(reason)));
        CHECK(opener.open(bytes).error().code == core::errc::protocol);
        CHECK_FALSE(opener.ended());
        CHECK(opener.poisoned());
    }
}

TEST_CASE("payloads and buffers of wrong size spend nothing") {
    record_sealer sealer(cipher());
    core::byte_vector big(max_record_ciphertext + 100);
    core::byte_vector room(100000);
    CHECK(sealer.seal(20, 0, std::span(big).first(max_record_payload + 1), room).error().code == core::errc::limit);
    CHECK(sealer.seal_data(std::span(big).first(max_data_payload + 1), room).error().code == core::errc::limit);
    CHECK(sealer.seal_data({}, big).error().code == core::errc::limit);
    core::byte_vector small(record_overhead + 3);
    CHECK(sealer.seal(20, 0, core::as_bytes("abcd"), small).error().code == core::errc::limit);
    CHECK(sealer.seal_data(core::as_bytes("abcdef"), small).error().code == core::errc::limit);
    CHECK(sealer.count() == 0);
    CHECK(sealer.seal(20, 0, core::as_bytes("abc"), small) == small.size());
    CHECK(max_record_payload == 65517);
    CHECK(max_data_payload == 65519);
}

TEST_CASE("both ends change the key after the same records, and only then") {
    constexpr std::uint64_t every = 4;
    record_sealer sealer(cipher(), every);
    record_sealer never(cipher());
    record_opener opener(cipher(), every);
    record_opener wrong(cipher(), every + 1);
    for (std::uint64_t i = 0; i < 5 * every; ++i) {
        const auto payload = core::as_bytes("same");
        const auto bytes = sealed(sealer, 20, 0, payload);
        CHECK((bytes == sealed(never, 20, 0, payload)) == (i < every));
        auto a = body(bytes);
        auto b = a;
        REQUIRE(opener.open(a));
        CHECK(wrong.open(b).has_value() == (i < every));
    }
    // The same keys as Noise's REKEY gives, at the records number 4, 8 …
    auto by_hand = cipher();
    record_sealer again(cipher(), every);
    for (std::uint64_t i = 0; i < 3 * every; ++i) {
        if (i != 0 && i % every == 0) by_hand.rekey();
        core::byte_vector expected(1 + noise::tag_size);
        const std::array data_ad{std::byte{1}};
        REQUIRE(by_hand.encrypt(data_ad, core::as_bytes("x"), expected));
        CHECK(body(sealed_data(again, core::as_bytes("x"))) == expected);
    }
}

TEST_CASE("the real interval: the key changes at record 2^18 and never before") {
    record_sealer sealer(cipher());
    record_sealer never(cipher(), rekey_interval * 4);
    core::byte_vector a(1 + data_overhead);
    core::byte_vector b(1 + data_overhead);
    for (std::uint64_t i = 0; i <= rekey_interval; ++i) {
        REQUIRE(sealer.seal_data(core::as_bytes("x"), a));
        REQUIRE(never.seal_data(core::as_bytes("x"), b));
        if ((a == b) != (i < rekey_interval)) FAIL("at record " << i);
    }
}

TEST_CASE("no key and counter are used twice") {
    // Equal plaintexts give equal ciphertexts exactly when key and nonce repeat.
    std::set<std::string> seen;
    std::size_t made = 0;
    for (const unsigned char key : {'\1', '\2'}) {
        record_sealer sealer(cipher(key), 16);
        for (int i = 0; i < 400; ++i) {
            seen.insert(core::to_hex(body(sealed(sealer, 20, 0, core::as_bytes("the same payload")))));
            ++made;
            CHECK(sealer.count() == static_cast<std::uint64_t>(i) + 1);
        }
    }
    CHECK(seen.size() == made);
}

TEST_CASE("the buffer bounds what it holds") {
    record_buffer buffer;
    record_sealer sealer(cipher());
    const auto full = sealed(sealer, 20, 0, core::byte_vector(max_record_payload));
    const auto capacity = buffer.space().size();
    CHECK(capacity == 2 * full.size());
    std::ranges::copy(full, buffer.space().begin());
    buffer.commit(full.size());
    std::ranges::copy(std::span(full).first(full.size() - 1), buffer.space().begin());
    buffer.commit(full.size() - 1);
    REQUIRE((*buffer.next()).has_value());
    REQUIRE_FALSE((*buffer.next()).has_value());
    CHECK(buffer.pending() == full.size() - 1);
    CHECK(buffer.space().size() == capacity - (full.size() - 1));
    buffer.space()[0] = full.back();
    buffer.commit(1);
    const auto second = buffer.next();
    REQUIRE(second->has_value());
    CHECK(std::ranges::equal(**second, std::span(full).subspan(2)));
    CHECK(buffer.pending() == 0);
}

}  // namespace
}  // namespace longhaul::net

#include "compress/planes.hpp"

#include "core/entropy.hpp"
#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

/// The packed bytes, which were seen to open to the same values.
byte_vector there_and_back(const_bytes values) {
    auto packed = pack(values);
    CHECK(packed.size() <= values.size() + packed_overhead);
    byte_vector out(values.size(), std::byte{7});
    const auto opened = unpack(packed, out);
    if (!opened) FAIL(opened.error().message);
    CHECK(std::ranges::equal(out, values));
    return packed;
}

byte_vector random_bytes(std::size_t n, std::uint64_t seed) {
    seeded_entropy random(seed, "planes");
    byte_vector out(n);
    random.fill(out);
    return out;
}

}  // namespace

TEST_CASE("whatever bytes are packed, the same come out") {
    for (const std::size_t n : {0U, 1U, 3U, 4U, 5U, 8U, 400U, 4000U, 4001U, 1U << 20}) {
        INFO(n << " bytes");
        there_and_back(random_bytes(n, n));
        there_and_back(byte_vector(n, std::byte{0}));
        there_and_back(byte_vector(n, std::byte{0xff}));  // not a number
    }
    // Where one or more planes shrink, but hardly more than what says so.
    for (std::size_t n = 4; n <= 400; n += 4) {
        for (std::size_t same = 1; same <= 3; ++same) {
            auto values = random_bytes(n, n);
            for (std::size_t i = 0; i < n; ++i) {
                if (i % 4 < same) values[i] = std::byte{0};
            }
            INFO(n << " bytes, " << same << " planes of zeros");
            there_and_back(values);
        }
    }
}

TEST_CASE("what training makes shrinks: weights by their exponents, sparse sums by their zeros, coarse ones by both") {
    auto values = some_values(1 << 18);
    const auto bytes = static_cast<double>(values.size() * sizeof(float));
    const auto share = [&] { return static_cast<double>(there_and_back(bytes_of(values)).size()) / bytes; };
    // Of a value's 8 bits of sign and exponent some 3 are news, and of random digits all.
    const auto dense = share();
    CHECK(dense < 0.87);
    CHECK(dense > 0.70);
    auto sparse = values;
    for (std::size_t i = 0; i < sparse.size(); ++i) {
        if (i % 100 != 17) sparse[i] = 0;
    }
    std::swap(values, sparse);
    CHECK(share() < 0.04);
    values = sparse;
    for (auto& v : values) v = std::round(v * 100) / 128;
    CHECK(share() < 0.40);
}

TEST_CASE("foreign bytes are refused or open to values, and a refusal leaves those that are there alone") {
    auto values = some_values(3000);
    for (std::size_t i = 0; i < values.size(); i += 2) values[i] = 0;
    const auto packed = pack(bytes_of(values));
    REQUIRE(packed.size() < values.size() * sizeof(float));
    const byte_vector before(values.size() * sizeof(float), std::byte{7});
    const auto refused = [&](const_bytes bytes, std::size_t room) {
        auto out = before;
        out.resize(room, std::byte{7});
        const auto expected = out;
        const bool was = !unpack(bytes, out);
        if (was) CHECK(out == expected);
        return was;
    };
    CHECK_FALSE(refused(packed, before.size()));
    CHECK(refused(packed, before.size() - 4));
    CHECK(refused(packed, before.size() + 4));
    CHECK(refused(packed, 0));
    for (std::size_t keep = 0; keep < packed.size(); keep += 7)
        CHECK(refused(const_bytes(packed).first(keep), before.size()));
    auto longer = packed;
    longer.push_back(std::byte{0});
    CHECK(refused(longer, before.size()));
    for (const unsigned way : {2U, 3U, 255U}) {
        auto other = packed;
        other[0] = static_cast<std::byte>(way);
        CHECK(refused(other, before.size()));
    }
    // A plane that says that it is longer than the values, and one that opens to more than there is room for.
    byte_writer large;
    large.u8(1).u32(4).u32(1).u32(1).u32(1).raw(byte_vector(7));
    CHECK(refused(large.bytes(), 4));
    const auto bomb = pack(byte_vector(1 << 22));
    REQUIRE(bomb.size() < 2000);
    CHECK(refused(bomb, 1 << 12));
    // Bits that flip: refused, or other values; nothing else happens.
    for (std::size_t bit = 0; bit < packed.size() * 8; bit += 11) {
        auto damaged = packed;
        damaged[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
        refused(damaged, before.size());
    }
}

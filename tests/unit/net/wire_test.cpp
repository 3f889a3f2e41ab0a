#include "net/wire.hpp"

#include "net/link.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::net;
using core::errc;

namespace {

template <typename Message>
Message round_trip(const Message& m) {
    auto parsed = wire::parse_control(wire::serialize(m));
    REQUIRE(parsed);
    REQUIRE(std::holds_alternative<Message>(*parsed));
    return std::get<Message>(*parsed);
}

/// Whether the message, as encoded by an end that does not check, is refused.
bool refused(const wire::control& m) {
    const auto parsed = wire::parse_control(wire::serialize(m));
    return !parsed && parsed.error().code == errc::protocol;
}

core::byte_vector bytes(std::initializer_list<int> values) {
    core::byte_vector out;
    for (const int v : values) out.push_back(static_cast<std::byte>(v));
    return out;
}

}  // namespace

TEST_CASE("link messages survive their encoding") {
    CHECK(round_trip(wire::heartbeat{42}).sequence == 42);
    CHECK(round_trip(wire::heartbeat{0}).sequence == 0);
    CHECK(round_trip(wire::heartbeat_echo{~0ULL, 7}).sequence == ~0ULL);
    CHECK(round_trip(wire::heartbeat_echo{7, ~0ULL}).heard_us == ~0ULL);
    std::string tag(max_transfer_tag, '\xff');
    const auto offer = round_trip(wire::transfer_offer{3, tag, max_transfer_bytes});
    CHECK((offer.id == 3 && offer.tag == tag && offer.bytes == max_transfer_bytes));
    CHECK(round_trip(wire::transfer_accept{3, 77}).credit == 77);
    CHECK(round_trip(wire::transfer_refuse{3, "no room"}).reason == "no room");
    const wire::transfer_progress p{5, {{0, 4}, {9, 1}}};
    CHECK(round_trip(p).ranges == p.ranges);
    CHECK(round_trip(wire::transfer_done{8}).id == 8);
    CHECK(round_trip(wire::transfer_abandon{9}).id == 9);
    CHECK(round_trip(wire::transfer_withdraw{10}).id == 10);
}

TEST_CASE("link messages with a wrong field are refused") {
    CHECK(refused(wire::transfer_offer{0, "t", 1}));
    CHECK(refused(wire::transfer_offer{1, "", 1}));
    CHECK(refused(wire::transfer_offer{1, std::string(max_transfer_tag + 1, 'x'), 1}));
    CHECK(refused(wire::transfer_offer{1, "t", max_transfer_bytes + 1}));
    CHECK(refused(wire::transfer_accept{0, 1}));
    CHECK(refused(wire::transfer_accept{1, max_transfer_bytes + 1}));
    CHECK(refused(wire::transfer_refuse{0, ""}));
    CHECK(refused(wire::transfer_progress{1, {}}));
    CHECK(refused(wire::transfer_progress{1, {{0, 0}}}));
    CHECK(refused(wire::transfer_progress{1, {{~0ULL, 2}}}));
    CHECK(refused(wire::transfer_progress{1, {{0, ~0ULL}}}));
    CHECK(refused(wire::transfer_progress{
        1, std::vector<std::pair<std::uint64_t, std::uint64_t>>(wire::max_progress_ranges + 1, {1, 1})}));
    CHECK(refused(wire::transfer_progress{1, {{4, 2}, {5, 1}}}));  // overlapping
    CHECK(refused(wire::transfer_progress{1, {{4, 2}, {0, 1}}}));  // out of order
    CHECK(refused(wire::transfer_done{0}));
    CHECK(refused(wire::transfer_abandon{0}));
    CHECK(refused(wire::transfer_withdraw{0}));
}

TEST_CASE("bytes that are no link message are refused") {
    CHECK_FALSE(wire::parse_control({}));                                        // no body
    CHECK_FALSE(wire::parse_control(bytes({0xff, 0xff, 0xff})));                 // no field
    CHECK_FALSE(wire::parse_control(bytes({0x0a, 0x7f, 0x08})));                 // a length beyond the end
    CHECK_FALSE(wire::parse_control(bytes({0xfa, 0x07, 0x00})));                 // an unknown body
    CHECK_FALSE(wire::parse_control(bytes({0x32, 0x05, 0x08, 1, 0x12, 1, 1})));  // half a pair
    CHECK_FALSE(wire::parse_control(core::byte_vector(wire::max_control_bytes + 1)));
    const auto reason =
        wire::parse_control(bytes({0x2a, 0x05, 0x08, 0x01, 0x12, 0x01, 0xc0}));  // not UTF-8: shown, not believed
    REQUIRE(reason);
    CHECK(std::get<wire::transfer_refuse>(*reason).reason == "?");
    // Every truncation of a message either fails or is another valid one; none of them may crash.
    const auto whole = wire::serialize(wire::transfer_offer{300, "a tag", 1 << 30});
    for (std::size_t n = 0; n < whole.size(); ++n) CHECK_FALSE(wire::parse_control(core::const_bytes(whole).first(n)));
}

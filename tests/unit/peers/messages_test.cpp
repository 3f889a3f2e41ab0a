#include "peers/messages.hpp"

#include <algorithm>
#include <limits>

#include "net/link.hpp"
#include "peers/wire_convert.hpp"
#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

constexpr double no_number = std::numeric_limits<double>::quiet_NaN();

ready_message some_ready() {
    ready_message m;
    m.generation = 2;
    m.round = 3;
    m.attempt = 4;
    m.aggregate_root = digest_of(5);
    m.state_root = digest_of(6);
    m.contributions = {{1, 10, 5, 2.0, digest_of(1)}, {9, 20, 6, -1.5, digest_of(2)}};
    return m;
}

raft::configuration some_voters() {
    raft::configuration c{{digest_of(1), digest_of(2), digest_of(3)}, {digest_of(4)}};
    std::ranges::sort(c.voters);
    return c;
}

raft::append_request some_append() {
    const core::byte_vector data(3, std::byte{9});
    return {3, 2, 1, {{4, raft::entry_kind::record, data, {}}, {4, raft::entry_kind::membership, {}, some_voters()}}};
}

/// What a voter says in term 4.
template <typename Body>
raft::message said(Body body) {
    return {digest_of(7), 4, std::move(body)};
}

/// One of each kind, with every field set.
std::vector<message> all_messages() {
    log_snapshot snapshot;
    snapshot.ledger = ledger_of(2).snapshot();
    return {greeting{3, 41, true, digest_of(1), true, std::uint64_t{1} << 52, 77},
            manifest_request{},
            manifest_reply{core::byte_vector(10, std::byte{7})},
            join_request{"näme", {{"example.org", 7400}, {"::1", 65535}}, digest_of(77)},
            join_reply{true, "welcome", {{"10.0.0.1", 1}}, digest_of(2)},
            log_request{77},
            log_entries{5, {serialize(record(admit_of(1))), core::byte_vector{}, serialize(record(admit_of(2)))}},
            snapshot,
            some_ready(),
            progress_message{2, 3, 17, 1'000'000'000'000, {1, 5, 1024}, 4, true, {5}},
            applied_message{2, 3, 2, 1.625, 500},
            fetch_message{fetch_kind::aggregate_index, 1, 2},
            fetch_refused{{fetch_kind::aggregate_index, 1, 2}, "not here"},
            leaving_message{"asked to"},
            status_request{},
            status_reply{R"({"round":3})"},
            lines_message{1.5e6, 2.5e6, {{1, 50'000}, {7, 0}}, 3'000'000},
            reach_request{7401},
            reach_reply{net::endpoint{"192.0.2.1", 7401}, "why not"},
            said(some_append()),
            leader_message{4, digest_of(2)}};
}

std::vector<record> all_records() {
    auto l = ledger_of(3);
    auto r = round_of(l, {1, 2, 3}, {1, 3});
    r.eval_round = 0;
    r.eval_loss = 1.25;
    r.reason = "because";
    auto a = admit_of(3);
    a.token_hash = digest_of(8);
    commit_record c;
    c.round = 9;
    c.attempt = 2;
    c.aggregate_root = digest_of(1);
    c.state_root = digest_of(2);
    c.contributions = some_ready().contributions;
    return {a,
            depart_record{2, "gone", true},
            r,
            c,
            generation_record{2, 3, 4, 5, digest_of(6), "lost"},
            run_state_record{run_phase::stopped, "enough"},
            voters_record{some_voters()},
            dissolved_record{std::uint64_t{1} << 40, "more there", digest_of(4)}};
}

template <typename T>
bool refused(const T& m) {
    return !parse_message(serialize(message(m)));
}
bool refused(const record& r) { return !parse_record(serialize(r)); }

template <typename T>
T reparsed(const T& m) {
    const auto again = parse_message(serialize(message(m)));
    if (!again) FAIL(again.error().message);
    REQUIRE(std::holds_alternative<T>(*again));
    return std::get<T>(*again);
}

/// Damaged bytes parse to something that is stable, or are refused; they never crash.
template <typename Parse>
void survives_damage(const core::byte_vector& good, Parse parse) {
    const auto look = [&](const core::byte_vector& bytes) {
        if (const auto r = parse(bytes)) {
            const auto once = serialize(*r);
            const auto again = parse(once);
            REQUIRE(again);
            REQUIRE(serialize(*again) == once);
        }
    };
    for (std::size_t n = 0; n < good.size(); ++n) look({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)});
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
        auto bytes = good;
        bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        look(bytes);
    }
}

}  // namespace

TEST_CASE("every kind of message arrives as it was sent") {
    const auto all = all_messages();
    CHECK(all.size() == std::variant_size_v<message>);
    for (std::size_t i = 0; i < all.size(); ++i) {
        INFO("kind " << i);
        REQUIRE(all[i].index() == i);
        const auto bytes = serialize(all[i]);
        const auto again = parse_message(bytes);
        if (!again) FAIL(again.error().message);
        CHECK(again->index() == i);
        CHECK(serialize(*again) == bytes);
    }
    const auto g = reparsed(std::get<greeting>(all[0]));
    CHECK(g.generation == 3);
    CHECK(g.applied == 41);
    CHECK(g.caught_up);
    CHECK(g.coordinator == digest_of(1));
    CHECK(g.observer);
    CHECK(g.log_generation == std::uint64_t{1} << 52);
    CHECK(g.tokens == 77);
    const auto j = reparsed(std::get<join_request>(all[3]));
    CHECK(j.name == "näme");
    CHECK(j.token == digest_of(77));
    CHECK(j.addresses == std::vector<net::endpoint>{{"example.org", 7400}, {"::1", 65535}});
    const auto reply = reparsed(std::get<join_reply>(all[4]));
    CHECK(reply.admitted);
    CHECK(reply.coordinator_key == digest_of(2));
    const auto e = reparsed(std::get<log_entries>(all[6]));
    CHECK(e.first == 5);
    CHECK(e.records == std::get<log_entries>(all[6]).records);
    CHECK(reparsed(std::get<log_snapshot>(all[7])).ledger == ledger_of(2).snapshot());
    const auto r = reparsed(some_ready());
    CHECK(r.attempt == 4);
    CHECK(r.aggregate_root == digest_of(5));
    CHECK(r.state_root == digest_of(6));
    CHECK(r.contributions == some_ready().contributions);
    const auto p = reparsed(std::get<progress_message>(all[9]));
    CHECK(p.steps == 17);
    CHECK(p.verified_bytes == 1'000'000'000'000);
    CHECK(p.payloads == std::vector<peer_number>{1, 5, 1024});
    CHECK(p.behind == std::vector<peer_number>{5});
    CHECK(p.attempt == 4);
    CHECK(p.restarted);
    CHECK(reparsed(std::get<applied_message>(all[10])).eval_loss == 1.625);
    CHECK(reparsed(std::get<applied_message>(all[10])).tokens == 500);
    const auto f = reparsed(std::get<fetch_message>(all[11]));
    CHECK(f.kind == fetch_kind::aggregate_index);
    CHECK(f.round == 2);
    CHECK(reparsed(std::get<fetch_refused>(all[12])).reason == "not here");
    CHECK(reparsed(std::get<status_reply>(all[15])).json == R"({"round":3})");
    const auto l = reparsed(std::get<lines_message>(all[16]));
    CHECK(l.up == 1.5e6);
    CHECK(l.down == 2.5e6);
    CHECK(l.room == 3'000'000);
    CHECK(l.links == std::get<lines_message>(all[16]).links);
    CHECK(reparsed(std::get<reach_request>(all[17])).port == 7401);
    const auto reach = reparsed(std::get<reach_reply>(all[18]));
    CHECK(reach.reached == net::endpoint{"192.0.2.1", 7401});
    CHECK(reach.reason == "why not");
    CHECK_FALSE(reparsed(reach_reply{}).reached);
    const auto leader = reparsed(std::get<leader_message>(all[20]));
    CHECK(leader.term == 4);
    CHECK(leader.leader == digest_of(2));
}

TEST_CASE("every kind of voter's message arrives as it was sent") {
    const std::vector<raft::message> all = {
        said(raft::vote_request{7, 2, true, false}),
        said(raft::vote_response{true, true}),
        said(some_append()),
        said(raft::append_response{false, 7, 6, 2}),
        said(raft::snapshot_request{{5, 2, some_voters(), core::byte_vector(2, std::byte{1})}}),
        said(raft::campaign_request{}),
        said(raft::greeting{}),
    };
    CHECK(all.size() == std::variant_size_v<decltype(raft::message::body)>);
    for (auto m : all) {
        CHECK(reparsed(m) == m);
        m.own = {3, 7, 11};
        m.seen = {5, 9, 13};
        CHECK(reparsed(m) == m);
        m.own = {8, 7};
        CHECK(refused(m));
    }
}

TEST_CASE("every kind of record is logged as it was decided") {
    const auto all = all_records();
    CHECK(all.size() == std::variant_size_v<record>);
    for (const auto& r : all) {
        const auto again = parse_record(serialize(r));
        if (!again) FAIL(again.error().message);
        CHECK(*again == r);
    }
}

TEST_CASE("damaged messages and records are refused or are other ones") {
    for (const auto& m : all_messages()) survives_damage(serialize(m), parse_message);
    for (const auto& r : all_records()) survives_damage(serialize(r), parse_record);
    CHECK_FALSE(parse_message({}));
    CHECK_FALSE(parse_record({}));
}

TEST_CASE("messages and records have a largest size") {
    core::byte_vector huge(net::max_control_message + 1);
    CHECK(parse_message(huge).error().code == errc::limit);
    huge.resize(max_record_bytes + 1);
    CHECK(parse_record(huge).error().code == errc::limit);
}

TEST_CASE("texts are bounded lines of printable UTF-8") {
    CHECK_FALSE(refused(join_request{std::string(max_name, 'x'), {}, {}}));
    CHECK(refused(join_request{std::string(max_name + 1, 'x'), {}, {}}));
    for (const auto* bad :
         {"a\nb", "a\x1b[2J", "a\x7f", "a\t", "\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "a\xc2\x9b", "a\xe2\x80\xae"}) {
        INFO(bad);
        CHECK(refused(join_request{bad, {}, {}}));
        CHECK(refused(leaving_message{bad}));
        CHECK(refused(join_reply{false, bad, {}, {}}));
        CHECK(refused(fetch_refused{{fetch_kind::aggregate_index, 1, 1}, bad}));
        CHECK(refused(record(depart_record{1, bad, false})));
        CHECK(refused(record(run_state_record{run_phase::paused, bad})));
        auto a = admit_of(1);
        a.name = bad;
        CHECK(refused(record(a)));
        auto l = ledger_of(1);
        auto r = round_of(l, {1}, {1});
        r.reason = bad;
        CHECK(refused(record(r)));
        r.reason.clear();
        r.plan.codec = bad;
        CHECK(refused(record(r)));
    }
    CHECK(refused(join_request{std::string("a\0b", 3), {}, {}}));
    CHECK(refused(leaving_message{std::string(max_reason + 1, 'x')}));
    CHECK_FALSE(refused(leaving_message{std::string(max_reason, 'x')}));
    CHECK(refused(record(depart_record{1, std::string(100'000, 'x'), false})));
}

TEST_CASE("addresses are bounded and name no local socket") {
    const auto with = [](std::vector<net::endpoint> addresses) {
        auto a = admit_of(1);
        a.addresses = std::move(addresses);
        return record(a);
    };
    CHECK_FALSE(refused(with({})));
    CHECK(refused(with({{"", 1}})));
    CHECK(refused(with({{"host", 0}})));
    CHECK(refused(with({{"/tmp/socket", 1}})));
    CHECK(refused(with({{std::string(256, 'h'), 1}})));
    CHECK_FALSE(refused(with(std::vector<net::endpoint>(max_addresses, {"host", 1}))));
    CHECK(refused(with(std::vector<net::endpoint>(max_addresses + 1, {"host", 1}))));
    CHECK_FALSE(refused(with({{std::string(200, 'a'), 1}, {std::string(200, 'b'), 1}})));
    CHECK(refused(with({{std::string(200, 'a'), 1}, {std::string(201, 'b'), 1}})));
}

TEST_CASE("whatever a node is told to advertise, its admission is valid") {
    const auto admission = [](std::vector<net::endpoint> wanted, net::endpoint bound) {
        auto a = admit_of(1);
        a.addresses = admissible_addresses(std::move(wanted), bound);
        CHECK_FALSE(refused(record(a)));
        return a.addresses;
    };
    using list = std::vector<net::endpoint>;
    CHECK(admission({}, {"10.0.0.1", 7400}) == list{{"10.0.0.1", 7400}});
    CHECK(admission({}, {"", 7400}) == list{{"0.0.0.0", 7400}});  // the coordinator puts in what it sees
    CHECK(admission({{"example.org", 0}, {"10.0.0.1", 9}}, {"", 7400}) == list{{"example.org", 7400}, {"10.0.0.1", 9}});
    CHECK(admission(list(16, {"host", 0}), {"", 7400}) == list(max_addresses, {"host", 7400}));
    const std::string long_name(253, 'a');
    CHECK(admission({{long_name, 1}, {long_name, 2}}, {"", 7400}) == list{{long_name, 1}});
}

TEST_CASE("lists of peers are sorted, without repetition, and no longer than a run can be") {
    const auto refused_list = [](std::vector<peer_number> numbers) {
        progress_message p;
        p.payloads = numbers;
        const bool progress_refused = refused(p);
        if (numbers.empty()) return progress_refused;
        auto l = ledger_of(1);
        REQUIRE(refused(record(round_of(l, numbers, {}))) == progress_refused);
        REQUIRE(refused(record(round_of(l, {1}, numbers))) == progress_refused);
        return progress_refused;
    };
    CHECK_FALSE(refused_list({}));
    CHECK_FALSE(refused_list({1, 2, 1024}));
    CHECK(refused_list({0, 1}));
    CHECK(refused_list({2, 1}));
    CHECK(refused_list({1, 1}));
    CHECK(refused_list({1, 1025}));
    CHECK(refused_list({~peer_number{0}}));
    std::vector<peer_number> many;
    for (peer_number n = 1; n <= 10'000; ++n) many.push_back(n);
    CHECK(refused_list(many));
    many.resize(max_members);
    CHECK_FALSE(refused_list(many));
}

TEST_CASE("contributions are finite, of existing peers, and of some work") {
    const auto refused_with = [](auto change) {
        auto m = some_ready();
        change(m.contributions[1]);
        commit_record c;
        c.round = c.attempt = 1;
        c.contributions = m.contributions;
        REQUIRE(refused(m) == refused(record(c)));
        return refused(m);
    };
    CHECK_FALSE(refused_with([](contribution&) {}));
    CHECK(refused_with([](contribution& c) { c.loss = no_number; }));
    CHECK(refused_with([](contribution& c) { c.loss = std::numeric_limits<double>::infinity(); }));
    CHECK(refused_with([](contribution& c) { c.number = 0; }));
    CHECK(refused_with([](contribution& c) { c.number = max_members + 1; }));
    CHECK(refused_with([](contribution& c) { c.tokens = 0; }));
    CHECK(refused_with([](contribution& c) { c.tokens = ~std::uint64_t{0}; }));
    CHECK(refused_with([](contribution& c) { c.steps = 0; }));
    auto m = some_ready();
    m.contributions.assign(10'000, m.contributions[0]);
    CHECK(refused(m));
}

TEST_CASE("numbers out of range are refused") {
    auto l = ledger_of(1);
    const auto refused_round = [&](auto change) {
        auto r = round_of(l, {1}, {1});
        change(r);
        return refused(record(r));
    };
    CHECK_FALSE(refused_round([](round_record&) {}));
    CHECK(refused_round([](round_record& r) { r.round = 0; }));
    CHECK(refused_round([](round_record& r) { r.attempt = 0; }));
    CHECK(refused_round([](round_record& r) { r.members.clear(); }));
    CHECK(refused_round([](round_record& r) { r.eval_loss = no_number; }));
    CHECK_FALSE(refused_round([](round_record& r) { r.own_steps = {{r.members.front(), 1}}; }));
    CHECK(refused_round([](round_record& r) { r.own_steps = {{r.members.front(), 0}}; }));
    CHECK(refused_round([](round_record& r) { r.own_steps = {{0, 1}}; }));
    CHECK(refused_round([](round_record& r) { r.own_steps = {{max_members + 1, 1}}; }));
    CHECK(refused_round([](round_record& r) { r.own_steps = {{r.members.front(), 1}, {r.members.front(), 1}}; }));
    CHECK(refused_round([](round_record& r) {
        r.own_steps = {{r.members.front(), static_cast<std::uint32_t>(2 * r.plan.inner_steps + 1)}};
    }));
    CHECK(refused_round([](round_record& r) { r.plan.inner_steps = 0; }));
    CHECK(refused_round([](round_record& r) { r.plan.inner_steps = 10'000'001; }));
    CHECK_FALSE(refused_round([](round_record& r) { r.plan.delay = 1; }));
    CHECK(refused_round([](round_record& r) { r.plan.delay = 2; }));
    CHECK(refused_round([](round_record& r) { r.plan.inner_steps = 1001, r.plan.exchange_every = 1; }));
    CHECK(refused_round([](round_record& r) { r.plan.staleness = 1; }));
    const auto in_turn = [](round_record& r) {
        r = round_record{};
        r.round = r.attempt = 1;
        r.members = r.contributors = {1, 2};
        r.plan.nesterov = false;
        r.plan.outer_momentum = 0;
        r.plan.exchange_every = r.plan.staleness = 1;
    };
    CHECK_FALSE(refused_round(in_turn));
    const auto in_turn_with = [&](const auto& change) {
        return refused_round([&](round_record& r) {
            in_turn(r);
            change(r);
        });
    };
    CHECK(in_turn_with([](round_record& r) { r.plan.delay = 1; }));
    CHECK(in_turn_with([](round_record& r) { r.plan.outer_momentum = 0.5F; }));
    CHECK(in_turn_with([](round_record& r) { r.own_steps = {{1, 20}}; }));
    CHECK(in_turn_with([](round_record& r) { r.exchange.shards = {{1, 1, 0}}; }));
    CHECK(refused_round([](round_record& r) { r.plan.outer_lr = std::numeric_limits<float>::infinity(); }));
    CHECK(refused_round([](round_record& r) { r.plan.outer_momentum = std::numeric_limits<float>::quiet_NaN(); }));
    CHECK(refused_round([](round_record& r) { r.plan.mode = std::string(33, 'm'); }));
    CHECK(refused(record(commit_record{0, 1, {}, {}, {}})));
    CHECK(refused(record(commit_record{1, 0, {}, {}, {}})));
    CHECK(refused(record(admit_of(max_members + 1))));
    auto nobody = admit_of(1);
    nobody.number = 0;
    CHECK(refused(record(nobody)));
    CHECK(refused(record(run_state_record{static_cast<run_phase>(3), ""})));
    CHECK(refused(applied_message{1, 1, 1, no_number}));
    CHECK(refused(lines_message{-1, 1, {}}));
    CHECK(refused(lines_message{1, no_number, {}}));
    CHECK(refused(lines_message{1, 1, {{2, 1}, {2, 1}}}));
    CHECK(refused(reach_request{0}));
    CHECK(refused(reach_reply{net::endpoint{"/run/socket", 1}, ""}));
    CHECK(refused(reach_reply{std::nullopt, "a\nb"}));
    CHECK(refused(fetch_message{static_cast<fetch_kind>(0), 1, 1}));
    CHECK(refused(fetch_message{static_cast<fetch_kind>(2), 1, 1}));
    CHECK(refused(fetch_message{static_cast<fetch_kind>(6), 1, 1}));
    CHECK_FALSE(refused(fetch_message{fetch_kind::aggregate_chunks, 1, 1, 7, 1}));
    CHECK(refused(fetch_message{fetch_kind::aggregate_chunks, 1, 1, 7, 0}));
    CHECK_FALSE(refused(fetch_message{fetch_kind::state_index, 1, 0}));
    CHECK_FALSE(refused(fetch_message{fetch_kind::state_chunks, 1, 1, 7, max_fetched_chunks}));
    CHECK(refused(fetch_message{fetch_kind::state_chunks, 1, 1, 7, max_fetched_chunks + 1}));
    CHECK(refused(fetch_message{fetch_kind::state_chunks, 1, 1, 7, 0}));
    CHECK(refused(fetch_message{fetch_kind::aggregate_index, 1, 1, 7, 1}));
    log_entries many;
    many.records.resize(4097);
    CHECK(refused(many));
    many.records.resize(4096);
    CHECK_FALSE(refused(many));
}

TEST_CASE("digests have 32 bytes") {
    for (const std::size_t n : {0, 31, 33}) {
        wire::Message p;
        auto* r = p.mutable_ready();
        r->set_aggregate_root(std::string(n, 'a'));
        r->set_state_root(std::string(32, 'a'));
        CHECK_FALSE(parse_message(to_bytes(p)));
        wire::Message g;
        g.mutable_greeting()->set_coordinator(std::string(n, 'a'));
        CHECK_FALSE(parse_message(to_bytes(g)));
        wire::Record a;
        a.mutable_admit()->set_key(std::string(n, 'a'));
        a.mutable_admit()->set_token_hash(std::string(32, 'a'));
        a.mutable_admit()->set_number(1);
        CHECK_FALSE(parse_record(to_bytes(a)));
    }
}

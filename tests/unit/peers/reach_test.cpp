#include "peers/reach.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::peers;

namespace {

constexpr std::uint16_t port = 7400;

net::peer_key key_of(int n) {
    net::peer_key k;
    k.bytes[0] = static_cast<std::byte>(n);
    return k;
}

reach_witness says(std::string name, std::optional<net::endpoint> reached, std::string reason = {}) {
    reach_reply reply;
    reply.reached = std::move(reached);
    reply.reason = std::move(reason);
    return {std::move(name), {}, reply};
}

}  // namespace

TEST_CASE("before anybody has tried nothing is known, and nothing is advised") {
    reach_knowledge k;
    k.witnesses[key_of(1)] = {"anna", {}, std::nullopt};
    const auto v = judge_reach(k, port);
    CHECK_FALSE(v.reachable);
    CHECK(v.seen == "nobody has tried to connect to you yet");
    CHECK(v.advice.empty());
}

TEST_CASE("when all who tried failed, it says who, why, what it means and what to do") {
    reach_knowledge k;
    k.witnesses[key_of(1)] = says("anna", std::nullopt, "nobody answered at 10.0.0.2:7400 within 10 s");
    k.witnesses[key_of(2)] = says("bert", std::nullopt, "nobody answered at 192.0.2.9:7400 within 10 s");
    const auto v = judge_reach(k, port);
    CHECK(v.reachable == false);
    CHECK(v.seen ==
          "nobody could connect to you from outside: anna, bert tried (nobody answered at 192.0.2.9:7400 within 10 s); "
          "you take part over connections that you opened, and exchange through a third with others who are like you");
    CHECK(v.advice == "open port 7400 to the outside, or name an address that leads here with --advertise");
}

TEST_CASE("one who came through is enough, and an address that nobody advertises is told") {
    reach_knowledge k;
    k.advertised = {{"10.0.0.2", port}};
    k.witnesses[key_of(1)] = says("anna", net::endpoint{"10.0.0.2", port});
    auto v = judge_reach(k, port);
    CHECK(v.reachable == true);
    CHECK(v.seen == "anna could connect to you at 10.0.0.2:7400");
    CHECK(v.advice.empty());
    k.witnesses[key_of(2)] = says("bert", std::nullopt, "no route");
    v = judge_reach(k, port);
    CHECK(v.reachable == true);
    CHECK(v.seen == "anna could connect to you at 10.0.0.2:7400, and bert could not (no route)");
    k.witnesses[key_of(1)] = says("anna", net::endpoint{"203.0.113.5", port});
    v = judge_reach(k, port);
    CHECK(v.advice == "others will not try that address: name it with --advertise 203.0.113.5:7400");
}

TEST_CASE("a connection that came in says more than one that did not") {
    reach_knowledge k;
    k.connected_by = "carl";
    k.witnesses[key_of(1)] = says("anna", std::nullopt, "no route");
    const auto v = judge_reach(k, port);
    CHECK(v.reachable == true);
    CHECK(v.seen == "carl has connected to you, and anna could not (no route)");
}

TEST_CASE("only who was asked is heard, once each time, and its word counts until the next") {
    reach_knowledge k;
    const core::time_point now{};
    ask_witness(k, key_of(1), "anna", now);
    CHECK_FALSE(hear_witness(k, key_of(2), reach_reply{}));
    CHECK(k.witnesses.size() == 1);
    reach_reply reply;
    reply.reached = net::endpoint{"10.0.0.2", port};
    CHECK(hear_witness(k, key_of(1), reply));
    CHECK(judge_reach(k, port).reachable == true);
    CHECK_FALSE(hear_witness(k, key_of(1), reach_reply{}));
    CHECK(judge_reach(k, port).reachable == true);
    // Asked again.
    ask_witness(k, key_of(1), "anna", now + reach_asked_again);
    CHECK(judge_reach(k, port).reachable == true);
    CHECK(hear_witness(k, key_of(1), reach_reply{}));
    CHECK(judge_reach(k, port).reachable == false);
    // Twice in vain.
    ask_witness(k, key_of(1), "anna", now + 2 * reach_asked_again);
    CHECK(judge_reach(k, port).reachable == false);
    ask_witness(k, key_of(1), "anna", now + 3 * reach_asked_again);
    CHECK_FALSE(judge_reach(k, port).reachable);
}

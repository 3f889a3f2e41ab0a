#include "net/ticket.hpp"

#include "tests/test.hpp"
#include "tests/unit/net/fixtures.hpp"

namespace longhaul::net {
namespace {

using namespace testing;

const std::string run_key(43, 'A');                                          // a run id of zeros
const std::string invite_key = std::string(42, 'A') + std::string(86, '_');  // 96 bytes

std::string random_label(core::entropy& entropy) {
    static constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    std::string label;
    for (auto n = 1 + entropy.below(20); n > 0; --n) label += letters[entropy.below(letters.size())];
    if (label.front() == '-') label.front() = 'x';
    if (label.back() == '-' || (label.back() >= '0' && label.back() <= '9')) label.back() = 'y';
    return label;
}

endpoint random_endpoint(core::entropy& entropy) {
    endpoint at;
    at.port = static_cast<std::uint16_t>(1 + entropy.below(65535));
    switch (entropy.below(3)) {
        case 0:
            at.host = fmt::format("{}.{}.{}.{}", entropy.below(256), entropy.below(256), entropy.below(256),
                                  entropy.below(256));
            break;
        case 1: {
            for (int i = 0; i < 8; ++i) at.host += fmt::format("{}{:x}", i == 0 ? "" : ":", entropy.below(65536));
            break;
        }
        default:
            at.host = random_label(entropy);
            for (auto n = entropy.below(4); n > 0; --n) at.host += "." + random_label(entropy);
    }
    return at;
}

ticket random_ticket(core::entropy& entropy) {
    ticket t;
    t.addresses.push_back(random_endpoint(entropy));
    if (entropy.below(5) == 0) return t;
    while (t.addresses.size() < max_ticket_addresses && entropy.below(3) != 0) {
        t.addresses.push_back(random_endpoint(entropy));
    }
    static constexpr std::string_view letters = "abcXYZ019._-";
    for (auto n = 1 + entropy.below(max_run_name); n > 0; --n) t.name += letters[entropy.below(letters.size())];
    t.key.emplace().run = entropy.key();
    if (entropy.below(2) == 0) {
        t.key->secret = entropy.key();
        t.key->token = entropy.key();
    }
    return t;
}

TEST_CASE("a ticket's text parses back to it") {
    core::seeded_entropy entropy(9);
    for (int i = 0; i < 3000; ++i) {
        const auto t = random_ticket(entropy);
        INFO(t.text());
        const auto parsed = parse_ticket(t.text());
        if (!parsed) INFO(parsed.error().message);
        REQUIRE(parsed);
        CHECK(*parsed == t);
        CHECK(parsed->text() == t.text());
    }
}

TEST_CASE("tickets as people write them") {
    const auto t =
        parse_ticket("longhaul://203.0.113.5,[2001:db8::1],[::1]:7401,node-1.example.org:80/tiny.gpt_2#" + run_key);
    REQUIRE(t);
    CHECK(t->addresses == std::vector<endpoint>{
                              {"203.0.113.5", 7400}, {"2001:db8::1", 7400}, {"::1", 7401}, {"node-1.example.org", 80}});
    CHECK(t->name == "tiny.gpt_2");
    CHECK(t->key->run.is_zero());
    CHECK_FALSE(t->key->secret);
    const auto invite = parse_ticket("longhaul://a/b#" + invite_key);
    REQUIRE(invite);
    CHECK(invite->key->token.has_value());
    const auto bare = parse_ticket("localhost");
    REQUIRE(bare);
    CHECK(bare->addresses == std::vector<endpoint>{{"localhost", 7400}});
    CHECK_FALSE(bare->key);
    CHECK(bare->text() == "localhost:7400");
    CHECK(parse_ticket("my_host:1")->addresses.front() == endpoint{"my_host", 1});
    CHECK(parse_ticket("[::ffff:192.0.2.1]")->addresses.front().host == "::ffff:192.0.2.1");
}

TEST_CASE("each malformed ticket is told what is wrong, with an example") {
    struct bad {
        std::string text, says;
    };
    const std::string secret_part = "SECRET" + std::string(30, 'x');
    const bad cases[] = {
        {"", "does not name a host"},
        {"longhaul://", "no key after '#'"},
        {"longhaul://192.0.2.1/my-run", "quote the ticket"},
        {"longhaul://192.0.2.1#" + run_key, "no run name"},
        {"longhaul://192.0.2.1/#" + run_key, "no run name"},
        {"longhaul://192.0.2.1/my run#" + run_key, "no run name"},
        {"longhaul://192.0.2.1/a/b#" + run_key, "no run name"},
        {"longhaul://192.0.2.1/" + std::string(65, 'n') + "#" + run_key, "no run name"},
        {"longhaul:///my-run#" + run_key, "does not name a host"},
        {"longhaul://192.0.2.1,/my-run#" + run_key, "does not name a host"},
        {"longhaul://192.0.2.1:/my-run#" + run_key, "port"},
        {"longhaul://192.0.2.1:0/my-run#" + run_key, "port"},
        {"longhaul://192.0.2.1:65536/my-run#" + run_key, "port"},
        {"longhaul://192.0.2.1:-1/my-run#" + run_key, "port"},
        {"longhaul://192.0.2.1:7400x/my-run#" + run_key, "port"},
        {"longhaul://192.0.2.300/my-run#" + run_key, "does not name a host"},
        {"longhaul://192.0.2/my-run#" + run_key, "does not name a host"},
        {"longhaul://2001:db8::1/my-run#" + run_key, "needs brackets"},
        {"longhaul://[2001:db8::1/my-run#" + run_key, "brackets"},
        {"longhaul://[192.0.2.1]/my-run#" + run_key, "brackets"},
        {"longhaul://[fe80::1%eth0]/my-run#" + run_key, "brackets"},
        {"longhaul://[::1]7400/my-run#" + run_key, "without ':'"},
        {"longhaul://-a/my-run#" + run_key, "does not name a host"},
        {"longhaul://a..b/my-run#" + run_key, "does not name a host"},
        {"longhaul://" + std::string(64, 'a') + "/my-run#" + run_key, "does not name a host"},
        {"longhaul://user@host/my-run#" + run_key, "does not name a host"},
        {"longhaul://a/my-run#", "43 or 128"},
        {"longhaul://a/my-run#" + run_key.substr(1), "(it has 42)"},
        {"longhaul://a/my-run#" + run_key + "A", "43 or 128"},
        {"longhaul://a/my-run#" + run_key + "=", "43 or 128"},
        {"longhaul://a/my-run#" + run_key.substr(1) + "+", "43 or 128"},
        {"longhaul://a/my-run#" + invite_key + "A", "43 or 128"},
        {"longhaul://a/my-run#" + invite_key + invite_key, "43 or 128"},
        {"longhaul://a/my-run#" + secret_part, "43 or 128"},
        {" longhaul://a/my-run#" + run_key, "starts with longhaul://"},
        {"http://a/my-run#" + run_key, "starts with longhaul://"},
        {"192.0.2.1,192.0.2.2", "only one HOST"},
        {"192.0.2.1/my-run", "only one HOST"},
        {"::1", "needs brackets"},
        {"host:port", "port"},
        {"host name", "does not name a host"},
        {std::string("host\0name", 9), "does not name a host"},
        {std::string("1.2.3.4\0", 8), "does not name a host"},
        {"\x1b[31m", "does not name a host"},
        {std::string(9000, 'a'), "at most 8192"},
    };
    for (const auto& c : cases) {
        INFO(c.text);
        const auto parsed = parse_ticket(c.text);
        REQUIRE_FALSE(parsed);
        INFO(parsed.error().message);
        CHECK(parsed.error().code == core::errc::usage);
        CHECK(parsed.error().message.find(c.says) != std::string::npos);
        const bool example = parsed.error().message.find("xample") != std::string::npos ||
                             parsed.error().message.find("as in") != std::string::npos;
        CHECK(example);
        CHECK(parsed.error().message.find('\x1b') == std::string::npos);
        CHECK(parsed.error().message.find("SECRET") == std::string::npos);
        CHECK(parsed.error().message.size() < 400);
    }
    std::string many = "longhaul://a";
    for (std::size_t i = 1; i < max_ticket_addresses; ++i) many += ",a";
    CHECK(parse_ticket(many + "/n#" + run_key)->addresses.size() == max_ticket_addresses);
    CHECK(parse_ticket(many + ",a/n#" + run_key).error().message.find("at most 16 addresses") != std::string::npos);
}

TEST_CASE("a ticket's key has one spelling") {
    // 43 characters hold 258 bits: the last two must be zero, or two texts would be one key.
    CHECK_FALSE(parse_ticket("longhaul://a/n#" + std::string(42, 'A') + "B"));
    CHECK(parse_ticket("longhaul://a/n#" + std::string(42, 'A') + "E"));
}

TEST_CASE("a DNS name has at most 253 characters") {
    const std::string label(63, 'a');
    const auto three = label + "." + label + "." + label + ".";
    CHECK(is_host(three + std::string(61, 'b')));
    CHECK_FALSE(is_host(three + std::string(62, 'b')));
    CHECK(is_host("a1"));
    CHECK(is_host("1a"));
    CHECK_FALSE(is_host("a.1"));
    CHECK_FALSE(is_host("a."));
    CHECK_FALSE(is_host(".a"));
}

TEST_CASE("addresses to listen on") {
    CHECK(parse_listen_endpoint("127.0.0.1:0").value() == endpoint{"127.0.0.1", 0});
    CHECK(parse_listen_endpoint(":7401").value() == endpoint{"", 7401});
    CHECK(parse_listen_endpoint("*:7401").value() == endpoint{"", 7401});
    CHECK(parse_listen_endpoint("*").value() == endpoint{"", default_port});
    CHECK(parse_listen_endpoint("[::1]").value() == endpoint{"::1", default_port});
    CHECK(parse_listen_endpoint("").error().code == core::errc::usage);
    CHECK_FALSE(parse_listen_endpoint("127.0.0.1:"));
    CHECK_FALSE(parse_listen_endpoint(":65536"));
    CHECK_FALSE(parse_endpoint("127.0.0.1:0"));
    CHECK(parse_endpoint("a", 9).value() == endpoint{"a", 9});
}

}  // namespace
}  // namespace longhaul::net

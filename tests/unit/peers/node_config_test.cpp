#include "peers/node_config.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using peers::node_config;

namespace {

core::result<std::vector<net::endpoint>> advertised(std::string listen, std::vector<std::string> names) {
    node_config c;
    c.listen = std::move(listen);
    c.advertise = std::move(names);
    return peers::advertised_endpoints(c, {"192.0.2.7", "2001:db8::7"});
}

}  // namespace

TEST_CASE("what a node advertises follows from where it listens") {
    // On all addresses: this machine's own, with the port that it listens on.
    CHECK(advertised(":7400", {}) == std::vector<net::endpoint>{{"192.0.2.7", 7400}, {"2001:db8::7", 7400}});
    CHECK(advertised("0.0.0.0:7401", {}) == std::vector<net::endpoint>{{"192.0.2.7", 7401}, {"2001:db8::7", 7401}});
    // On one: nothing to add, the peer says where it listens.
    CHECK(advertised("127.0.0.1:0", {})->empty());
    // Named: those, the port filled in.
    CHECK(advertised(":7402", {"node.example", "198.51.100.3:9000"}) ==
          std::vector<net::endpoint>{{"node.example", 7402}, {"198.51.100.3", 9000}});
}

TEST_CASE("addresses that are none are refused with the key's name") {
    node_config c;
    c.listen = "no port here:";
    auto bad = peers::validate(c);
    REQUIRE_FALSE(bad.has_value());
    CHECK(bad.error().code == core::errc::config);
    CHECK(bad.error().message.find("node.listen") != std::string::npos);
    c = {};
    c.advertise = {"a b"};
    bad = peers::validate(c);
    REQUIRE_FALSE(bad.has_value());
    CHECK(bad.error().message.find("node.advertise") != std::string::npos);
    c.advertise.assign(17, "127.0.0.1");
    CHECK_FALSE(peers::validate(c).has_value());
}

TEST_CASE("devices and names") {
    node_config c;
    for (const auto* good : {"auto", "cpu", "cuda:0", "cuda:15"}) {
        c.device = good;
        CHECK(peers::validate(c).has_value());
    }
    for (const auto* bad : {"", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:1234"}) {
        c.device = bad;
        CHECK_FALSE(peers::validate(c).has_value());
    }
    c = {};
    c.name = std::string(65, 'x');
    CHECK_FALSE(peers::validate(c).has_value());
    c.name = "a\x1b[2J";
    CHECK_FALSE(peers::validate(c).has_value());
}

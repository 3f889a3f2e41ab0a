#include "net/cipher_load.hpp"

#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::net;
using namespace std::chrono_literals;

TEST_CASE("workers help while ciphers take half of the time, until it is less than a third, and not after a pause") {
    cipher_load load;
    core::time_point now{1h};
    const auto go_on = [&](int milliseconds_in_ten, int tens) {
        for (int i = 0; i < tens; ++i) load.spent(now += 10ms, std::chrono::milliseconds(milliseconds_in_ten));
        return load.heavy();
    };
    CHECK_FALSE(go_on(4, 100));
    CHECK(go_on(6, 60));
    CHECK(go_on(4, 100));
    CHECK_FALSE(go_on(2, 60));
    CHECK(go_on(9, 60));
    now += 1h;
    CHECK_FALSE(go_on(9, 1));
    CHECK(go_on(9, 30));
}

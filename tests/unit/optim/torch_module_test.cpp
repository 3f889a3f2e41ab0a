#include <cstdlib>

#include "optim/trainer.hpp"
#include "tests/source_dir.hpp"
#include "tests/test.hpp"

using namespace longhaul;

TEST_CASE("a missing or foreign trainer module is one sentence with what to do") {
    const char* old = std::getenv("LONGHAUL_TORCH_MODULE");
    const std::string kept = old != nullptr ? old : "";
    ::setenv("LONGHAUL_TORCH_MODULE", "/nonexistent/module.so", 1);
    const auto missing = optim::make_torch_trainer({});
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == core::errc::unsupported);
    CHECK(missing.error().message.find("/nonexistent/module.so") != std::string::npos);
    CHECK(missing.error().message.find("scripts/setup") != std::string::npos);

    // A library that loads but is not ours.
    ::setenv("LONGHAUL_TORCH_MODULE", "/lib/x86_64-linux-gnu/libm.so.6", 1);
    const auto foreign = optim::make_torch_trainer({});
    REQUIRE_FALSE(foreign);
    CHECK(foreign.error().code == core::errc::unsupported);
    ::setenv("LONGHAUL_TORCH_MODULE", (longhaul::tests::source_dir() + "/LICENSE").c_str(), 1);
    const auto text = optim::make_torch_trainer({});
    REQUIRE_FALSE(text);
    CHECK(text.error().code == core::errc::unsupported);
    ::setenv("LONGHAUL_TORCH_MODULE", kept.c_str(), 1);
}

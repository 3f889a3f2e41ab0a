// Any bytes as log records, one after another, each behind its length: what parses is the same after another journey,
// and no sequence of records makes a ledger that its own snapshot does not give back.
#include "peers/ledger.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    core::byte_reader in({reinterpret_cast<const std::byte*>(data), size});
    peers::ledger ledger;
    while (in.remaining() > 0) {
        const auto length = in.u8();
        const auto body = in.take(std::min<std::size_t>(*length, in.remaining()));
        const auto r = peers::parse_record(*body);
        if (!r) continue;
        const auto again = peers::parse_record(peers::serialize(*r));
        FUZZ_CHECK(again && *again == *r);
        const auto committed = ledger.committed(), generation = ledger.generation();
        ledger.apply(*r);
        FUZZ_CHECK(ledger.generation() != generation || ledger.committed() <= committed + 1);
    }
    const auto reloaded = peers::ledger::from_snapshot(ledger.snapshot());
    FUZZ_CHECK(reloaded && *reloaded == ledger);
    return 0;
}

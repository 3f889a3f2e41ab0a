// Any bytes as a ledger's snapshot: refused, or a ledger that is whole: its numbers and keys find its members, its open
// round has known members, and its own snapshot gives it back.
#include "peers/ledger.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto l = peers::ledger::from_snapshot({reinterpret_cast<const std::byte*>(data), size});
    if (!l) return 0;
    FUZZ_CHECK(l->members().size() + 1 == l->next_number());
    for (const auto& [number, m] : l->members()) {
        FUZZ_CHECK(number < l->next_number() && l->find(m.admitted.key) == &m);
    }
    if (l->open()) {
        for (const auto n : l->open()->members) {
            FUZZ_CHECK(l->find(n) != nullptr);
        }
        for (const auto n : l->open()->contributors) {
            FUZZ_CHECK(l->find(n) != nullptr);
        }
    }
    const auto again = peers::ledger::from_snapshot(l->snapshot());
    FUZZ_CHECK(again && *again == *l);
    // It can go on.
    auto next = *l;
    if (l->open()) {
        peers::commit_record c;
        c.round = l->open()->round;
        c.attempt = l->open()->attempt;
        for (const auto n : l->open()->contributors) c.contributions.push_back({n, 1, 1, 0.0, {}});
        FUZZ_CHECK(next.apply(c) && next.committed() == l->committed() + 1);
    }
    return 0;
}

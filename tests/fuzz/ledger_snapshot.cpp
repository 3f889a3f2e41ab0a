// Any bytes as a ledger's snapshot, and a good snapshot with any bytes changed: refused, or a ledger that is whole. Its
// numbers and keys find its members, its open round has known members, its own snapshot gives it back, and it can go
// on.
#include "peers/ledger.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

namespace {

peers::commit_record commit_of_open(const peers::ledger& l) {
    peers::commit_record c;
    c.round = l.open()->round;
    c.attempt = l.open()->attempt;
    for (const auto n : l.open()->contributors) c.contributions.push_back({n, 1, 1, 0.0, {}});
    return c;
}

core::byte_vector good_snapshot() {
    peers::ledger l;
    for (peers::peer_number n = 1; n <= 3; ++n) {
        peers::admit_record a;
        a.number = n;
        a.key.bytes[0] = static_cast<std::byte>(n);
        a.addresses = {{"a", 1}};
        l.apply(a);
    }
    for (int i = 0; i < 3; ++i) {
        peers::round_record r;
        r.round = l.committed() + 1;
        r.attempt = 1;
        r.position = l.position();
        r.members = {1, 2, 3};
        r.contributors = {1, 3};
        r.eval_round = l.committed();
        FUZZ_CHECK(l.apply(r));
        if (i < 2) FUZZ_CHECK(l.apply(commit_of_open(l)));
    }
    return l.snapshot();
}

void check(core::const_bytes bytes) {
    const auto l = peers::ledger::from_snapshot(bytes);
    if (!l) return;
    FUZZ_CHECK(l->members().size() + 1 == l->next_number());
    for (const auto& [number, m] : l->members()) {
        FUZZ_CHECK(number < l->next_number() && l->find(m.admitted.key) == &m);
    }
    const auto again = peers::ledger::from_snapshot(l->snapshot());
    FUZZ_CHECK(again && *again == *l);
    if (!l->open()) return;
    for (const auto n : l->open()->members) FUZZ_CHECK(l->find(n) != nullptr);
    for (const auto n : l->open()->contributors) FUZZ_CHECK(l->find(n) != nullptr);
    auto next = *l;
    FUZZ_CHECK(next.apply(commit_of_open(*l)) && next.committed() == l->committed() + 1);
}

}  // namespace

FUZZ_TARGET(ledger_snapshot) {
    check({reinterpret_cast<const std::byte*>(data), size});
    static const auto good = good_snapshot();
    auto changed = good;
    fuzz_input in(data, size);
    while (!in.empty()) {
        const std::size_t at = in.byte() + 256U * in.byte();
        changed[at % changed.size()] = static_cast<std::byte>(in.byte());
    }
    check(changed);
}

// Log records: any bytes, and good records with any bytes changed, one after another. What parses is the same after
// another journey, rounds are committed one by one, and no sequence makes a ledger that its snapshot does not give
// back.
#include "peers/ledger.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

namespace {

/// A record that would be valid next, of the kind that `choice` names.
peers::record good_record(const peers::ledger& l, std::uint8_t choice) {
    if (choice % 8 == 0 || l.members().empty()) {
        peers::admit_record a;
        a.number = l.next_number();
        a.key.bytes[0] = static_cast<std::byte>(a.number);
        a.key.bytes[1] = static_cast<std::byte>(a.number >> 8U);
        return a;
    }
    if (choice % 8 == 1) return peers::depart_record{1, "left", false};
    if (choice % 8 == 2) return peers::run_state_record{peers::run_phase::paused, ""};
    if (choice % 8 == 3) {
        peers::generation_record g;
        g.generation = l.generation() + 1;
        g.round = l.committed() / 2;
        return g;
    }
    if (l.open() && choice % 8 > 4) {
        peers::commit_record c;
        c.round = l.open()->round;
        c.attempt = l.open()->attempt;
        for (const auto n : l.open()->contributors) c.contributions.push_back({n, 1, 1, 0.0, {}});
        return c;
    }
    peers::round_record r;
    r.round = l.committed() + 1;
    r.attempt = l.open() ? l.open()->attempt + 1 : 1;
    r.position = l.position();
    for (const auto& [number, m] : l.members()) r.members.push_back(number);
    r.contributors = l.open() ? l.open()->contributors : r.members;
    return r;
}

void take(peers::ledger& l, core::const_bytes bytes) {
    const auto r = peers::parse_record(bytes);
    if (!r) return;
    const auto again = peers::parse_record(peers::serialize(*r));
    FUZZ_CHECK(again && *again == *r);
    const auto committed = l.committed(), generation = l.generation();
    l.apply(*r);
    FUZZ_CHECK(l.generation() != generation || l.committed() - committed <= 1);
}

}  // namespace

FUZZ_TARGET(log_record) {
    fuzz_input in(data, size);
    peers::ledger l;
    while (!in.empty()) {
        const auto choice = in.byte();
        if (choice >= 240) {
            take(l, in.take(in.byte()));
            continue;
        }
        auto bytes = peers::serialize(good_record(l, choice));
        for (int changes = choice / 60; changes > 0; --changes) {
            bytes[in.byte() % bytes.size()] = static_cast<std::byte>(in.byte());
        }
        take(l, bytes);
    }
    const auto reloaded = peers::ledger::from_snapshot(l.snapshot());
    FUZZ_CHECK(reloaded && *reloaded == l);
}

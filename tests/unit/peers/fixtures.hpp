#pragma once
/// Records, ledgers and payloads for the tests of peers.

#include <map>
#include <string>
#include <vector>

#include "core/entropy.hpp"
#include "core/hash.hpp"
#include "net/identity.hpp"
#include "peers/ledger.hpp"

namespace longhaul::peers::testing {

using core::errc;

/// A digest that tells what it stands for.
inline core::digest digest_of(std::uint64_t n) {
    core::byte_writer out;
    out.u64(n);
    return core::hash(out.bytes());
}

inline admit_record admit_of(peer_number number, std::uint64_t key = 0) {
    admit_record r;
    r.key = digest_of(1000 + (key == 0 ? number : key));
    r.number = number;
    r.name = "peer-" + std::to_string(number);
    r.addresses = {{"10.0.0." + std::to_string(number % 250), 7400}};
    return r;
}

inline round_plan short_plan(std::uint64_t steps = 10) {
    round_plan p;
    p.inner_steps = steps;
    return p;
}

inline round_record round_of(const ledger& l, std::vector<peer_number> members, std::vector<peer_number> contributors,
                             std::uint32_t attempt = 1) {
    round_record r;
    r.round = l.committed() + 1;
    r.attempt = attempt;
    r.position = l.position();
    r.members = std::move(members);
    r.contributors = std::move(contributors);
    r.plan = short_plan();
    return r;
}

/// The id of the payload that `who` sends for a round.
inline core::digest payload_of(std::uint64_t generation, std::uint64_t round, peer_number who) {
    return digest_of(generation * 1'000'000 + round * 1'000 + who);
}

inline contribution contribution_of(const ledger& l, peer_number who, std::uint64_t tokens = 100) {
    contribution c;
    c.number = who;
    c.tokens = tokens;
    c.steps = 10;
    c.loss = 2.5;
    c.payload = payload_of(l.generation(), l.committed() + 1, who);
    return c;
}

/// What ends the open round as it should end.
inline commit_record commit_of_open(const ledger& l, std::uint64_t tokens = 100) {
    commit_record c;
    c.round = l.open()->round;
    c.attempt = l.open()->attempt;
    c.aggregate_root = digest_of(77 + c.round);
    c.state_root = digest_of(99 + c.round);
    for (const auto who : l.open()->contributors) c.contributions.push_back(contribution_of(l, who, tokens));
    return c;
}

inline ledger ledger_of(peer_number members) {
    ledger l;
    for (peer_number n = 1; n <= members; ++n) l.apply(admit_of(n));
    return l;
}

inline std::vector<peer_number> some_of(core::entropy& random, const std::vector<peer_number>& all) {
    std::vector<peer_number> out;
    for (const auto n : all) {
        if (random.below(4) != 0) out.push_back(n);
    }
    return out;
}

/// A record that may be valid on `l` or not: most are nearly right.
inline record random_record(core::entropy& random, const ledger& l) {
    std::vector<peer_number> known;
    for (const auto& [n, m] : l.members()) known.push_back(n);
    const auto off_by = [&] { return random.below(6) == 0 ? random.below(3) : 0; };
    switch (random.below(12)) {
        case 0:
        case 1: {
            auto r = admit_of(static_cast<peer_number>(l.next_number() + off_by()));
            if (!known.empty() && random.below(2) == 0) {
                r = admit_of(known[random.below(known.size())]);
                r.name += "-again";
                if (random.below(4) == 0) ++r.number;
            }
            return r;
        }
        case 2: {
            depart_record r;
            r.number = static_cast<peer_number>(random.below(known.size() + 2));
            r.revoked = random.below(8) == 0;
            r.reason = "left";
            return r;
        }
        case 3: {
            if (random.below(4) != 0) break;
            generation_record r;
            r.generation = l.generation() + 1 + off_by();
            r.round = l.committed() < 3 ? off_by() : l.committed() - random.below(3) + off_by();
            r.position = r.round * 10;
            r.tokens = r.round * 100;
            r.state_root = digest_of(r.round);
            r.reason = "lost";
            return r;
        }
        case 4: {
            run_state_record r;
            r.state = static_cast<run_phase>(random.below(3));
            return r;
        }
        default: break;
    }
    if (l.open() && random.below(3) != 0) {
        auto c = commit_of_open(l, 1 + random.below(1000));
        c.attempt += static_cast<std::uint32_t>(off_by());
        c.round += off_by();
        if (random.below(10) == 0 && !c.contributions.empty()) c.contributions.pop_back();
        return c;
    }
    auto members = l.open() ? some_of(random, l.open()->members) : some_of(random, known);
    auto contributors = some_of(random, l.open() ? l.open()->contributors : members);
    if (random.below(10) == 0) contributors = known;
    if (members.empty()) members = {1};
    auto r = round_of(l, members, contributors, l.open() ? l.open()->attempt + 1 : 1);
    r.round += off_by();
    r.attempt += static_cast<std::uint32_t>(off_by());
    r.position += off_by();
    r.eval_round = random.below(3) == 0 ? l.committed() + off_by() : 0;
    r.eval_loss = random.unit();
    return r;
}

}  // namespace longhaul::peers::testing

#pragma once
/// A ledger, its coordinator and members that say what a test wants, for the tests of rounds.

#include "peers/round.hpp"
#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

namespace longhaul::peers::testing {

using namespace std::chrono_literals;

constexpr peer_number self = 1;

/// A coordinator with its ledger: what it proposes is applied, as consensus would.
struct table {
    explicit table(peer_number members, std::uint64_t rounds = 1000, core::duration first_deadline = 100s)
        : table(members, rules(rounds, first_deadline)) {}
    table(peer_number members, round_rules r) : led(ledger_of(members)), coordinator(std::move(r), self) {
        coordinator.log_advanced(led, now);
        for (peer_number n = 1; n <= members; ++n) coordinator.caught_up(n, 1, 0, now);
    }

    static round_rules rules(std::uint64_t rounds, core::duration first_deadline) {
        round_rules r;
        r.grace = 2s;
        r.first_deadline = first_deadline;
        r.choices.first = short_plan();
        r.choices.exchange[r.choices.first.codec] = {exchange_planner::model{}};
        r.total_steps = rounds * r.choices.first.inner_steps;
        return r;
    }

    round_decision decide() const { return coordinator.decide(led, now); }

    /// Asks for a decision and applies it; the record must count.
    template <typename Record>
    Record step() {
        auto d = decide();
        REQUIRE(d.propose);
        REQUIRE(std::holds_alternative<Record>(*d.propose));
        // It travels and is logged: it must parse again.
        const auto parsed = parse_record(serialize(*d.propose));
        if (!parsed) FAIL(parsed.error().message);
        REQUIRE(led.apply(*d.propose));
        coordinator.log_advanced(led, now);
        return std::get<Record>(*d.propose);
    }

    /// Opens the next round with everybody who is there, when nobody is waited for any more.
    round_record open() {
        if (const auto d = decide(); !d.propose && d.wake_at) now = *d.wake_at;
        return step<round_record>();
    }

    bool waits() const { return !decide().propose; }

    ready_message ready_message_of(std::uint64_t root = 0) const {
        ready_message m;
        m.generation = led.generation();
        m.round = led.open()->round;
        m.attempt = led.open()->attempt;
        m.aggregate_root = digest_of(500 + root);
        m.state_root = digest_of(600);
        for (const auto c : led.open()->contributors) {
            m.contributions.push_back(contribution_of(led, c));
            m.contributions.back().loss = loss;
        }
        return m;
    }
    void ready(peer_number who, std::uint64_t root = 0) { coordinator.ready(who, ready_message_of(root), now); }

    void progress(peer_number who, std::vector<peer_number> payloads, std::uint32_t steps = 0,
                  std::uint64_t bytes = 0) {
        progress_message m;
        m.generation = led.generation();
        m.round = led.open()->round;
        m.steps = steps;
        m.verified_bytes = bytes;
        m.payloads = std::move(payloads);
        m.attempt = led.open()->attempt;
        coordinator.progress(who, m, now);
    }
    /// Everybody in `who` holds all payloads of `authors`.
    void delivered(const std::vector<peer_number>& who, const std::vector<peer_number>& authors) {
        for (const auto w : who) progress(w, authors);
    }
    /// One whole round of that length.
    void whole_round(core::duration length) {
        open();
        now += length;
        for (const auto m : led.open()->members) ready(m);
        step<commit_record>();
        for (const auto& [n, m] : led.members()) {
            if (coordinator.knows(n)) coordinator.caught_up(n, led.generation(), led.committed(), now);
        }
    }

    core::time_point now{1000s};
    double loss = 2.5;  ///< of all contributions
    ledger led;
    round_coordinator coordinator;
};

using numbers = std::vector<peer_number>;

}  // namespace longhaul::peers::testing

#pragma once
/// The coordinator's side of a round as a pure state machine: events in, at most one record to propose out.
/// It never waits and never sends; peers/coordinate.cpp performs what it decides. DESIGN §5, "A round".

#include <map>
#include <optional>
#include <set>

#include "core/clock.hpp"
#include "optim/controller.hpp"
#include "optim/plan_guard.hpp"
#include "peers/ledger.hpp"
#include "peers/messages.hpp"
#include "peers/plan_choices.hpp"

namespace longhaul::peers {

/// Constant during a run.
struct round_rules {
    std::uint64_t total_steps = 0;  ///< the run is complete after so many inner steps
    std::size_t per_round = 0;      ///< contributors of a round, drawn; 0: all who can
    std::size_t min_members = 1;    ///< before the first round
    core::duration grace{};
    core::duration first_deadline{};
    bool own_pace = true;  ///< H_i follows the members' speeds
    plan_choices choices;
};

/// What the coordinator decided, and when it wants to be asked again at the latest.
struct round_decision {
    std::optional<record> propose;
    std::optional<core::time_point> wake_at;
    std::string problem;                       ///< why no round begins or goes on, for people; empty: it does
    std::optional<optim::plan_decision> plan;  ///< of the round that begins, if a controller chose it
    bool stranded = false;                     ///< nobody who is here can be a member of a round, or go on with it
};

/// How long a round took, and what had been predicted.
struct round_outcome {
    std::uint64_t round = 0;
    double predicted_seconds = 0, seconds = 0;
};

class round_coordinator {
public:
    /// How long a coordinator that starts with a round open waits for members before it counts them as dead. They
    /// redial at least that often.
    static constexpr core::duration return_wait = std::chrono::seconds(12);

    round_coordinator(round_rules rules, peer_number self)
        : rules_(std::move(rules)), self_(self), planner_(rules_.choices.model_of(rules_.choices.first.codec, 1)) {}

    /// A peer is linked and holds the state of `applied` in `generation`. Repeated when it applied more.
    void caught_up(peer_number who, std::uint64_t generation, std::uint64_t applied, core::time_point now);
    /// A peer is dead or left: EOF and a failed redial, silence, or a goodbye.
    void gone(peer_number who);
    /// A peer started again: what it held and sent of the open round is lost, and it must not sign that round a second
    /// time. To be told before `caught_up`.
    void restarted(peer_number who);
    void progress(peer_number who, const progress_message& m, core::time_point now);
    /// What a member has measured of its line: for the next plan.
    void lines(peer_number who, const lines_message& m, core::time_point now) {
        planner_.heard(who, m, now);
        step_seconds_[who] = m.step_seconds;
    }
    void ready(peer_number who, const ready_message& m, core::time_point now);
    /// Ignored unless the round is committed and the loss finite.
    void evaluated(std::uint64_t round, double loss);
    /// After each applied log entry.
    void log_advanced(const ledger& l, core::time_point now);

    /// The next step, from all that was heard. Deterministic.
    round_decision decide(const ledger& l, core::time_point now) const;

    /// Members whose READY named another state than most (in doubt: than the coordinator's own): to be reported; they
    /// will catch up anew.
    std::vector<peer_number> diverged() const;
    /// Members whose READY named another sum than the last round's commit: to be reported.
    const std::vector<peer_number>& dissenters() const { return dissenters_; }
    /// Of the last round that took one attempt and had been predicted, steps and exchange.
    const std::optional<round_outcome>& outcome() const { return outcome_; }
    bool knows(peer_number who) const { return peers_.contains(who); }
    /// Whether it does not contribute to the next round because its last payloads did not arrive.
    bool sits_out(peer_number who) const;
    /// Whether two members can talk to each other, as far as they said.
    bool reach(peer_number a, peer_number b, core::time_point now) const { return planner_.reach(a, b, now); }

private:
    struct standing {
        std::uint64_t generation = 0;
        std::uint64_t applied = 0;
        core::time_point since{};  ///< when it said so
        /// The longest that an aggregate took it since it came; the default: not known.
        core::duration step{};
        /// Rounds that have begun without its work since it came.
        int passed_over = 0;
    };
    struct member_view {
        std::set<peer_number> payloads;
        std::vector<peer_number> behind;  ///< whom it waits for between exchanges
        std::uint32_t holds_from = 0;     ///< the attempt since which it has to hold what it does now
        std::uint32_t steps = 0;
        std::uint64_t verified_bytes = 0;
        core::time_point last_progress{};  ///< of anything; the default: nothing yet
        core::time_point last_receipt{};   ///< of others' payloads
        std::optional<ready_message> ready;
        core::time_point ready_at{};
        core::digest vouches_for;  ///< the aggregate and its contributions
    };
    /// Rounds one after another that began with a peer's payload and were committed without it.
    struct absence {
        unsigned rounds = 0;
        std::uint64_t until = 0;  ///< the first round that it contributes to again
    };
    struct agreement {
        commit_record commit;
        std::vector<peer_number> holding;
        core::time_point majority_at{};
    };
    std::vector<peer_number> candidates(const ledger& l) const;
    void note_absences(const commit_record& done);
    /// Those of the next round's members that train for it.
    std::vector<peer_number> able(const std::vector<peer_number>& members, const ledger& l) const;
    /// A tenth of what rounds take is saved up for waiting, and used.
    void save_up_waiting(core::duration round);
    void note_waiting(core::duration before_it_opened);
    /// With less time saved up than that, no round is held back: what passes before it opens is the log's time.
    core::duration worth_waiting() const;
    /// Whether it has what the next round begins with, or will in a moment.
    bool begins_with_others(peer_number who, const ledger& l) const;
    /// How long after the others it begins with the next round: a newcomer that is one aggregate behind fetches that
    /// first. Zero: with them, or not known.
    core::duration lateness(peer_number who, const ledger& l) const;
    /// Whether a newcomer that is one aggregate behind begins so soon that some of the time for steps is left to it, or
    /// where all do the same steps, that the others lose less by waiting for its work than the run gains by it.
    bool pays(peer_number who, std::size_t members) const;
    /// Whether a peer is so few commits behind that it would be among the members in a moment, and has been for some
    /// rounds: a run of short rounds would outrun it for ever.
    bool somebody_returns(const ledger& l, const std::vector<peer_number>& members) const;
    round_decision open_next(const ledger& l, core::time_point now) const;
    /// The next attempt of an open round: the same steps and plan, another way for the payloads.
    round_record next_attempt(const round_record& open, std::vector<peer_number> members,
                              std::vector<peer_number> contributors, std::string why, core::time_point now) const;
    /// The same, with no shard in the hands of those.
    round_record next_attempt(const round_record& open, std::vector<peer_number> members,
                              std::vector<peer_number> contributors, std::string why, core::time_point now,
                              const std::set<peer_number>& relieved) const;
    /// The next attempt, with the sums of those owners in other hands, in those of who is late itself only if nobody
    /// else is left; nothing when nobody is at all, or enough were relieved already.
    std::optional<round_record> relieve(const round_record& open, const std::vector<peer_number>& slow,
                                        const std::vector<peer_number>& late, core::time_point now) const;
    /// Owners that lack as many payloads, which others could send, as they have got from others, and more than one.
    std::vector<peer_number> slow_owners(const round_record& open) const;
    round_decision advance_open(const ledger& l, const round_record& open, core::time_point now) const;
    /// What a majority of the members and enough voters hold, if they do.
    std::optional<agreement> agreed(const ledger& l, const round_record& open) const;
    /// When contributor `c`, whose payload most members lack, leaves the contributors.
    core::time_point deadline_of(peer_number c, const round_record& open, core::duration limit) const;
    /// In a round of several exchanges those whom most members wait for, half of all at least: the others have given
    /// what they can.
    std::vector<peer_number> holding_up(const round_record& open) const;
    /// The way on when nobody is late and yet nothing can be committed.
    void unblock(const round_record& open, bool all_answered, core::time_point now, round_decision& d) const;
    /// The member's READY for the open attempt, or nullptr.
    const ready_message* ready_of(peer_number who) const;
    bool holds(peer_number who, peer_number author) const;
    /// Whether whoever sums the author's payload has all of it, and none of them is gone.
    bool delivered(const round_record& open, peer_number author, const std::vector<peer_number>& alive) const;
    /// Whether a payload is where it should be as far as a commit needs: in mode "gather" at a majority.
    bool arrived(const round_record& open, peer_number author) const;
    /// How many of `members` reported that they hold the author's whole payload.
    std::size_t holders(peer_number author, const std::vector<peer_number>& members) const;
    /// The plan of the next round and the way of its payloads, put into `r`; why, if a controller chose.
    std::optional<optim::plan_decision> choose_plan(round_record& r, const ledger& l, core::time_point now) const;
    /// H_i of those contributors that do not do H.
    std::vector<peer_steps> own_steps(const std::vector<peer_number>& contributors, std::uint64_t H,
                                      const ledger& l) const;
    std::vector<double> step_seconds_of(const std::vector<peer_number>& contributors) const;
    /// T_c of a round: of those in the middle, or of the slowest, if all do H.
    double pace_of(const std::vector<peer_number>& contributors) const;
    void note_plan(const round_record& opened);
    void note_outcome(core::duration took);
    core::duration allowance() const;
    /// When anybody last made or received something of the open round; long ago: nobody yet.
    core::time_point last_moved() const;

    round_rules rules_;
    peer_number self_;
    exchange_planner planner_;
    std::string last_mode_;
    std::map<peer_number, double> step_seconds_;  ///< as last reported; 0: not yet
    std::vector<peer_steps> last_steps_;          ///< of the last round, except of those who began it late
    std::optional<round_plan> present_;           ///< likewise
    std::uint64_t kept_for_ = 0;                  ///< rounds with this H and codec
    optim::pace_history pace_;
    optim::plan_guard guard_;
    std::optional<round_outcome> outcome_;
    std::vector<peer_number> last_members_;  ///< likewise; empty: this coordinator has seen none
    std::map<peer_number, absence> absences_;
    std::vector<peer_number> dissenters_;
    std::map<peer_number, standing> peers_;
    std::uint64_t committed_ = 0;
    std::uint64_t eval_round_ = 0;
    double eval_loss_ = 0;
    // Of the open round.
    std::uint64_t generation_ = 0, round_ = 0;
    std::uint32_t attempt_ = 0;
    bool saw_begin_ = false;  ///< it was opened under this coordinator
    bool forgetful_ = false;  ///< owners hold what they have summed only until the next attempt
    double predicted_steps_ = 0, predicted_exchange_ = 0;   ///< in seconds; 0: unknown
    bool coding_ends_it_ = false;                           ///< the exchange, and not a line
    core::time_point round_started_{}, attempt_started_{};  ///< while no round is open: since when
    core::time_point committed_at_{};                       ///< the last round
    core::duration to_wait_{};                              ///< for those who return; a tenth of what the rounds took
    core::duration last_in_vain_{};                         ///< a wait of that length helped nobody
    core::time_point deadlines_from_{};  ///< the round's start, or when its payloads were sent another way
    std::vector<peer_number> open_members_, open_contributors_;
    std::vector<peer_number> first_contributors_;  ///< of its first attempt
    std::vector<peer_number> owners_;              ///< of its shards
    std::set<peer_number> relieved_;               ///< members that owned some in an earlier attempt
    std::map<peer_number, member_view> views_;
    std::set<peer_number> lost_;           ///< members of the open round that started again meanwhile
    std::set<peer_number> awaited_;        ///< members of a round that this coordinator found open, not heard of yet
    std::vector<core::duration> history_;  ///< of the last rounds, start to commit (or to the last movement)
    int fruitless_ = 0;                    ///< so many of the last rounds had no contributors in the end
};

}  // namespace longhaul::peers

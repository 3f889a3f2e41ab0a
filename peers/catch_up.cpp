#include <algorithm>
#include <limits>

#include "peers/aggregate_download.hpp"
#include "peers/node.hpp"
#include "peers/state_download.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

constexpr auto offer_deadline = 30s;
constexpr auto retry_after = 500ms;
/// What is smaller says more of a donor's distance than of its line.
constexpr std::uint64_t tells_a_rate = 16 * 1024;
/// While the rest of an aggregate arrives.
constexpr auto look_again = 100ms;
/// After a commit its holders say within a moment that they hold the aggregate; then, a whole state is the way.
constexpr auto aggregate_patience = 3s;

core::task<core::result<void>> fails_when_stalled(node& n, shared_linked from, std::string tag) {
    std::uint64_t before = 0;
    bool first = true;
    for (;;) {
        auto slept = co_await n.env.clock.sleep_for(n.config().peers.silence_limit);
        LONGHAUL_CO_TRY(slept);
        const auto now = from->link->received_of(tag);
        if (!first && now == before)
            co_return fail(errc::timeout, "nothing arrived for {}",
                           core::format_duration(n.config().peers.silence_limit));
        first = false;
        before = now;
    }
}

/// Peers that may hold what we want, the fastest first; and before them those whose speed is not known yet, or a thin
/// line that once answered would be asked for ever.
std::vector<shared_linked> donors(const node& n, std::uint64_t generation, std::uint64_t at_least) {
    std::vector<shared_linked> out;
    for (const auto& [key, peer] : n.links) {
        const bool has = peer->caught_up && peer->generation == generation && peer->applied >= at_least;
        if (has && !peer->observer && n.led().find(key) != nullptr) out.push_back(peer);
    }
    const auto speed = [](const shared_linked& peer) {
        return peer->brought_per_second > 0 ? peer->brought_per_second : std::numeric_limits<double>::infinity();
    };
    std::ranges::stable_sort(out, std::greater{}, speed);
    return out;
}

/// So many rounds back from the newest commit, aggregates may still be had, and the log can check them.
std::uint64_t reach_back(const node& n) {
    const auto& l = n.led();
    const std::uint64_t kept =
        std::min<std::uint64_t>(retained_aggregates(n.parts().largest().tensors.elements()), l.committed());
    std::uint64_t back = 0;
    while (back < kept && l.commit_of(l.committed() - back) != nullptr) ++back;
    return back;
}

/// The aggregate of a committed round: our own sum, a sum of the payloads at hand, or a holder's copy.
core::task<core::result<shared_aggregate>> find_aggregate(node& n, committed_round done) {
    const auto generation = n.led().generation();
    if (n.candidate && n.candidate->root == done.commit.aggregate_root) co_return n.candidate;
    if (auto kept = n.held.find_aggregate(generation, done.commit.round);
        kept && kept->root == done.commit.aggregate_root) {
        co_return kept;
    }
    if (done.commit.contributions.empty()) {
        // Everybody knows the sum of nothing: nobody has to be alive who held it.
        core::result<aggregate> zero = fail(errc::internal, "nothing was made");
        const auto job = [&] { zero = sum_of_nothing(n.part_of(done.commit.round).tensors, generation, done.commit); };
        auto ran = co_await n.env.workers.run(job, 0s);
        LONGHAUL_CO_TRY(ran);
        LONGHAUL_CO_TRY(zero);
        co_return std::make_shared<const aggregate>(std::move(*zero));
    }
    // The rest of it may be on its way: as long as it moves, nothing is faster.
    while (n.held.arriving(generation, done.commit.round)) {
        auto woken = co_await n.changed.wait(n.env.clock, n.env.clock.now() + look_again);
        if (!woken && woken.error().code != errc::timeout) co_return fail(woken.error());
    }
    if (const auto ours = n.held.result(generation, done.commit.round, done.commit.attempt);
        ours && ours->root == done.commit.aggregate_root) {
        co_return ours;
    }
    const auto round = done.commit.round;
    donors_question holders = [&n, generation, round] { return donors(n, generation, round); };
    co_return co_await download_aggregate(n, std::move(holders), generation, std::move(done.commit));
}

core::task<core::result<void>> fetch_one_ahead(node& n, committed_round done, std::size_t turn) {
    const auto generation = n.led().generation();
    const auto round = done.commit.round;
    // Each of them from another donor, if there are several.
    donors_question holders = [&n, generation, round, turn] {
        auto all = donors(n, generation, round);
        if (!all.empty()) std::ranges::rotate(all, all.begin() + static_cast<std::ptrdiff_t>(turn % all.size()));
        return all;
    };
    auto found = co_await download_aggregate(n, std::move(holders), generation, std::move(done.commit));
    LONGHAUL_CO_TRY(found);
    n.held.retain(*found);
    co_return core::ok();
}

/// Who is several rounds behind asks for all that it lacks at once: one after another, each would take the round trips
/// of all, and short rounds go on meanwhile. Of large ones round trips are the least part, and memory would be short.
core::task<core::result<void>> fetch_ahead(node& n) {
    const auto& l = n.led();
    const auto generation = l.generation();
    const auto* next = l.commit_of(n.state->round + 1);
    const bool diverged = next != nullptr && next->commit.state_root != n.state->root;
    if (diverged || !goes_whole(n.parts().largest().tensors.elements())) co_return core::ok();
    core::scope fetching(n.env.executor);
    std::size_t turn = 0;
    const auto last = std::min(l.committed(), n.state->round + reach_back(n));
    for (auto round = n.state->round + 1; round <= last; ++round) {
        const auto* done = l.commit_of(round);
        const bool here = n.held.find_aggregate(generation, round) || n.held.arriving(generation, round) ||
                          (done != nullptr && n.candidate && n.candidate->root == done->commit.aggregate_root);
        if (done == nullptr || here || done->commit.contributions.empty()) continue;
        fetching.spawn_isolated("aggregate", fetch_one_ahead(n, *done, turn++));
    }
    co_return co_await fetching.join();
}

/// Applies the next committed round; errc::not_found when its aggregate cannot be had now.
core::task<core::result<void>> apply_next(node& n, committed_round done) {
    const auto before = n.state;
    if (before->root != done.commit.state_root) {
        co_return fail(errc::run_mismatch, "this node's state of round {} has root {}, the run's has {}", before->round,
                       before->root.brief(), done.commit.state_root.brief());
    }
    auto found = co_await find_aggregate(n, done);
    LONGHAUL_CO_TRY(found);
    const auto aggregate = *found;
    shared_state after;
    const auto& part = n.part_of(done.commit.round);
    const auto job = [&] { after = apply_round(part, *before, done.plan, done.commit, aggregate->values); };
    auto ran = co_await n.env.workers.run(job, 0s);
    LONGHAUL_CO_TRY(ran);
    // That took a while: a new generation may have been founded on another state.
    if (n.state != before || !n.log_known || n.led().generation() != before->generation) {
        co_return fail(errc::not_found, "round {} was overtaken by another generation", done.commit.round);
    }
    LONGHAUL_ENSURE(after->round == before->round + 1, "applied grows by exactly one (I2)");
    // One unit on the I/O thread: the state, what it did with our mass, and what we serve.
    n.state = after;
    forget_kept_states(n);
    n.held.retain(aggregate);
    n.candidate.reset();
    const auto merged =
        std::ranges::any_of(done.commit.contributions, [&n](const contribution& c) { return c.number == n.number; });
    if (!done.commit.contributions.empty()) n.mass.moved();
    settle_mass(n);
    co_return co_await after_apply(n, std::move(done), merged, before);
}

/// The log certifies the state before each recent commit, and what the newest one has counted; the root of the newest
/// is compared at the next commit. `s`: of a committed round.
bool matches_log(const ledger& l, const state_index& s) {
    if (s.generation != l.generation() || !l.descends_from(s)) return false;
    return s.round != l.committed() || (s.position == l.position() && s.tokens == l.tokens());
}

/// What this node's own log had learnt, when it was left for this one: once, also through a crash. So first the new
/// generation is on the disk, and with it nothing leads back to the old one.
core::task<core::result<void>> merge_left(node& n) {
    const auto left = *std::exchange(n.left, std::nullopt);
    const auto now = n.state;
    auto saved = co_await checkpoint_now(n);
    if (!saved) n.report(saved.error(), "a checkpoint before another log's model is merged, which it is not");
    if (!saved || !n.log_known || n.state != now) co_return core::ok();
    const auto& c = n.config();
    LONGHAUL_CO_TRY_ASSIGN(const auto codec, compress::find_codec(c.exchange.codec));
    const auto plan = configured_plan(c, *codec);
    const auto origins = n.led().origins();
    // Those of the last round, and this node.
    std::size_t contributors = 1;
    if (const auto* last = n.led().commit_of(n.led().committed())) {
        for (const auto& other : last->commit.contributions) contributors += other.number == n.number ? 0 : 1;
    }
    merged_log merged;
    const auto job = [&] { merged = merge_left_log(n.tensors(), plan, left, *now, origins, contributors); };
    auto ran = co_await n.env.workers.run(job, 0s);
    LONGHAUL_CO_TRY(ran);
    if (merged.mass.empty()) co_return core::ok();
    core::event e("log_merged");
    e.with("generation", left.state->generation).with("left_round", left.state->round).with("round", now->round);
    // With these rules of feedback a payload says what receivers lack, and nothing can be added to it; nor is a model
    // told by a payload of one fragment.
    const bool forgets = n.mass.rule().forgets || n.parts().count() > 1;
    e.with("tokens", merged.tokens).with("share", forgets ? 0.0 : merged.share);
    n.emit(std::move(e));
    if (!forgets) n.mass.restore(std::move(merged.mass));
    co_return core::ok();
}

core::task<core::result<void>> take_state(node& n) {
    const auto generation = n.led().generation();
    // A donor a little behind will do: the aggregates after it are asked for next. Never one behind ourselves.
    auto enough = n.led().committed() - reach_back(n);
    if (n.state && n.state->generation == generation) enough = std::max(enough, n.state->round + 1);
    const auto begun = n.env.clock.now();
    const auto would_do = [&n, generation, enough](const state_index& s) -> core::result<void> {
        const auto newest = n.led().committed();
        // A donor may be a moment ahead of the log here, or its word of a moment before it began anew.
        if (s.round < enough || s.round > newest) {
            return fail(errc::not_found, "the state of round {} is of no use between {} and {}", s.round, enough,
                        newest);
        }
        // Either end may hear of a new generation during the download.
        if (s.generation != generation || generation != n.led().generation()) {
            return fail(errc::not_found, "the state of round {} is of generation {:x}, and the log in {:x}", s.round,
                        s.generation, n.led().generation());
        }
        if (!matches_log(n.led(), s)) {
            return fail(errc::protocol, "the state of round {} does not match the log", s.round);
        }
        return core::ok();
    };
    const auto who_holds = [&n, generation, enough] { return donors(n, generation, enough); };
    auto downloaded = co_await download_state(n, who_holds, would_do);
    LONGHAUL_CO_TRY(downloaded);
    // What was trained ahead began from another state.
    auto idle = co_await stop_ahead(n);
    LONGHAUL_CO_TRY(idle);
    if (!n.log_known || generation != n.led().generation()) {
        co_return fail(errc::not_found, "the generation changed meanwhile");
    }
    if (!matches_log(n.led(), *downloaded->state)) {
        co_return fail(errc::protocol, "the state of round {} is not the one that was committed",
                       downloaded->state->round);
    }
    n.state = downloaded->state;
    const auto state = n.state;
    const auto number = n.number;
    const auto reset = [&n, &state, number] {
        n.trainer->reset_inner_state();
        if (n.trainer_number != number) assign_data(n, number, state->position);
    };
    auto was_reset = co_await n.env.workers.run(reset, 0s);
    LONGHAUL_CO_TRY(was_reset);
    n.trainer_is_cold = true;
    n.steps_since_reset = 0;
    n.local.reset();
    std::vector<std::string> names;
    for (const auto& key : downloaded->brought.donors) names.push_back(key.brief());
    core::event e("catch_up");
    e.with("generation", n.state->generation).with("round", n.state->round);
    e.with("from", fmt::format("{}", fmt::join(names, ", "))).with("donors", std::uint64_t{names.size()});
    e.with("bytes", std::uint64_t{(n.state->anchor.size() + n.state->momentum.size()) * sizeof(float)});
    e.with("wire_bytes", downloaded->brought.wire_bytes);
    e.with("seconds", core::to_seconds(n.env.clock.now() - begun)).with("root", n.state->root.hex());
    n.emit(std::move(e));
    if (!n.log_known || n.led().generation() != state->generation) co_return core::ok();
    if (n.left) {
        auto merged = co_await merge_left(n);
        LONGHAUL_CO_TRY(merged);
    }
    // From now on this node holds a copy of the run, whatever becomes of the others.
    if (!n.last_checkpoint) start_checkpoint(n);
    tell_applied(n);
    co_return core::ok();
}

}  // namespace

core::task<core::result<void>> receive_steadily(node& n, shared_linked from, std::string tag,
                                                core::mutable_bytes destination) {
    auto first = co_await core::race(from->link->receive_transfer(tag, destination), fails_when_stalled(n, from, tag));
    if (first.index() == 0) co_return std::get<0>(first);
    co_return std::get<1>(first);
}

core::task<core::result<core::byte_vector>> fetch(node& n, shared_linked from, fetch_message what,
                                                  std::uint64_t max_bytes) {
    const auto tag = tag_of(what);
    const auto key = from->link->remote().key;
    from->refusals.erase(tag);
    from->expected.insert(tag);
    const auto asked = n.env.clock.now();
    n.send(key, what);
    const auto answered = [from, tag] {
        return from->offers.contains(tag) || from->refusals.contains(tag) || !from->link->up();
    };
    auto waited = co_await core::wait_until(n.changed, answered, n.env.clock, n.env.clock.now() + offer_deadline);
    from->expected.erase(tag);
    if (!waited && !from->offers.contains(tag)) co_return fail(waited.error().within("waiting for an answer"));
    if (const auto refused = from->refusals.find(tag); refused != from->refusals.end()) {
        core::error why(errc::not_found, refused->second);
        from->refusals.erase(refused);
        co_return fail(std::move(why));
    }
    const auto offer = from->offers.find(tag);
    if (offer == from->offers.end()) co_return fail(errc::closed, "the link closed");
    const auto size = offer->second;
    from->offers.erase(offer);
    if (size > max_bytes) {
        from->link->refuse_transfer(tag, "larger than it can be");
        co_return fail(errc::protocol, "{} bytes were offered where {} are the most", size, max_bytes);
    }
    core::byte_vector bytes(size);
    auto received = co_await receive_steadily(n, from, tag, bytes);
    LONGHAUL_CO_TRY(received);
    if (size >= tells_a_rate) {
        const auto rate = static_cast<double>(size) / std::max(1e-6, core::to_seconds(n.env.clock.now() - asked));
        auto& usual = from->brought_per_second;
        usual += (rate - usual) / (usual > 0 ? 4 : 1);
    }
    co_return bytes;
}

core::task<core::result<void>> catch_up(node& n) {
    const auto& l = n.led();
    core::result<void> done = fail(errc::not_found, "nothing to apply");
    const auto reach = reach_back(n);
    const bool behind = n.state && n.state->generation == l.generation() && n.state->round < l.committed();
    const bool next_is_here = behind && n.held.find_aggregate(l.generation(), n.state->round + 1) != nullptr;
    const bool far = behind && !next_is_here && l.committed() - n.state->round > reach;
    // What nobody retains is not asked for while somebody has a whole state.
    const bool state_is_nearer = far && !donors(n, l.generation(), l.committed() - reach).empty();
    if (behind && !state_is_nearer) {
        if (!next_is_here && n.state->round + 1 < l.committed()) {
            auto fetched = co_await fetch_ahead(n);
            LONGHAUL_CO_TRY(fetched);
        }
        const bool current = n.state && n.state->generation == l.generation();
        const auto* next = current ? l.commit_of(n.state->round + 1) : nullptr;
        if (next != nullptr) {
            done = co_await apply_next(n, *next);
            if (done || done.error().code == errc::cancelled) co_return done;
            if (done.error().code == errc::run_mismatch) {
                n.report(done.error(), "this replica diverged and starts over from another's state");
                auto idle = co_await stop_ahead(n);
                LONGHAUL_CO_TRY(idle);
                n.state.reset();
                n.local.reset();
            }
        }
    } else if (n.state && n.state->generation != l.generation() && n.state->round == l.committed() &&
               n.state->root == l.generation_root()) {
        // A generation was founded on exactly what we hold.
        const bool goes_on = trainer_goes_on(n);
        n.state = in_generation(*n.state, l.generation());
        if (goes_on) n.local->generation = n.state->generation;
        tell_applied(n);
        co_return core::ok();
    }
    n.doing = member_state::catching_up;
    // A commit of a moment ago: who holds its aggregate will say so in a moment. A whole state is for larger gaps.
    const bool behind_by_little = n.state && n.state->generation == l.generation() && n.state->round <= l.committed() &&
                                  l.committed() - n.state->round <= reach;
    core::result<void> downloaded = fail(errc::not_found, "waiting for an aggregate");
    const auto now = n.env.clock.now();
    const auto lacking = n.state ? n.state->round + 1 : 0;
    if (n.lacking.first != lacking) n.lacking = {lacking, now};
    // After a restart of everybody nobody may hold it any more.
    const bool patient = behind_by_little && now - n.lacking.second < aggregate_patience;
    if (!patient || done.error().code == errc::run_mismatch) downloaded = co_await take_state(n);
    if (downloaded || downloaded.error().code == errc::cancelled) co_return downloaded;
    // Nobody can help right now: look again when something changes, and after a moment in any case.
    auto waited = co_await n.changed.wait(n.env.clock, n.env.clock.now() + retry_after);
    if (!waited && waited.error().code != errc::timeout) co_return waited;
    co_return core::ok();
}

}  // namespace longhaul::peers

#include "peers/state_download.hpp"

#include <algorithm>

#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using core::ok;
using core::result;
using core::task;
using namespace std::chrono_literals;

namespace {

/// So many are asked.
constexpr std::size_t most_asked = 8;
/// After the first donor has told its state, the others have as long again, twice, to tell theirs, and this at most:
/// most tell the same, and rounds go on meanwhile.
constexpr core::duration others_tell = 1s;

/// What a donor told.
struct told {
    shared_linked donor;
    std::optional<state_index> index;
    bool answered = false;
};

task<result<state_index>> ask_index(node& n, shared_linked donor) {
    fetch_message what;
    what.kind = fetch_kind::state_index;
    what.generation = n.led().generation();
    auto bytes = co_await fetch(n, std::move(donor), what, index_bytes(n.tensors()));
    LONGHAUL_CO_TRY(bytes);
    co_return parse_state_index(n.tensors(), *bytes);
}

task<result<void>> ask_one(node& n, std::shared_ptr<std::vector<told>> all, std::size_t i, index_question would_do) {
    auto index = co_await ask_index(n, (*all)[i].donor);
    auto& mine = (*all)[i];
    mine.answered = true;
    n.changed.notify();
    LONGHAUL_CO_TRY(index);
    if (const auto verdict = would_do(*index); verdict) {
        mine.index = std::move(*index);
    } else if (verdict.error().code == errc::protocol) {
        n.report(verdict.error().within("a state from " + mine.donor->link->remote().key.brief()), "catching up");
    }
    co_return ok();
}

/// The state that most of them hold; of equally many the newest.
std::optional<state_index> most_held(const std::vector<told>& all) {
    std::optional<state_index> best;
    std::size_t best_count = 0;
    for (const auto& t : all) {
        if (!t.index) continue;
        const auto same = [&t](const told& other) { return other.index && other.index->root == t.index->root; };
        const auto count = static_cast<std::size_t>(std::ranges::count_if(all, same));
        if (best && (count < best_count || (count == best_count && t.index->round <= best->round))) continue;
        best = t.index;
        best_count = count;
    }
    return best;
}

/// Until all who were asked have told their states, or enough. A child of `asking` itself.
task<result<void>> until_told(node& n, std::shared_ptr<std::vector<told>> all, core::scope& asking) {
    const auto begun = n.env.clock.now();
    const auto everybody = [&all] { return std::ranges::all_of(*all, &told::answered); };
    const auto somebody = [&] { return everybody() || most_held(*all).has_value(); };
    auto waited = co_await core::wait_until(n.changed, somebody);
    LONGHAUL_CO_TRY(waited);
    const auto now = n.env.clock.now();
    waited =
        co_await core::wait_until(n.changed, everybody, n.env.clock, now + std::min(others_tell, 2 * (now - begun)));
    if (!waited && waited.error().code != errc::timeout) co_return waited;
    asking.cancel();
    co_return ok();
}

}  // namespace

task<result<downloaded_state>> download_state(node& n, donors_question donors, index_question would_do) {
    const auto all = std::make_shared<std::vector<told>>();
    for (auto& donor : donors()) {
        if (all->size() < most_asked) all->push_back({std::move(donor), std::nullopt, false});
    }
    if (all->empty()) co_return fail(errc::not_found, "no linked peer holds a state that would do");
    core::scope asking(n.env.executor);
    for (std::size_t i = 0; i < all->size(); ++i) asking.spawn_isolated("index", ask_one(n, all, i, would_do));
    asking.spawn("waiting", until_told(n, all, asking));
    auto asked = co_await asking.join();
    LONGHAUL_CO_TRY(asked);
    const auto wanted = most_held(*all);
    if (!wanted) co_return fail(errc::not_found, "no linked peer has a state that would do");

    const auto state = std::make_shared<model_state>();
    static_cast<state_index&>(*state) = *wanted;
    const auto make_room = [&] {
        state->anchor.resize(n.tensors().elements());
        state->momentum.resize(n.tensors().elements());
    };
    auto made = co_await n.env.workers.run(make_room, 0s);
    LONGHAUL_CO_TRY(made);
    chunked c;
    c.name = fmt::format("the state of round {}", state->round);
    c.what.kind = fetch_kind::state_chunks;
    c.what.generation = state->generation;
    c.what.round = state->round;
    c.chunks = static_cast<std::uint32_t>(state->leaves.size());
    c.chunk_bytes = state_chunk_bytes;
    c.place = [state](std::uint32_t i) { return chunk_of(*state, i); };
    c.fits = [state](std::uint32_t i, core::const_bytes bytes) { return chunk_fits(*state, i, bytes); };
    // Who told it keeps it for us, also while a link is lost; whoever is at that round has it, too.
    std::set<net::peer_key> keepers;
    for (const auto& t : *all) {
        if (t.index && t.index->root == state->root) keepers.insert(t.donor->link->remote().key);
    }
    c.promised = [keepers](const net::peer_key& who) { return keepers.contains(who); };
    c.donors = [keepers, donors, state] {
        auto out = donors();
        std::erase_if(out, [&](const shared_linked& donor) {
            return donor->applied != state->round && !keepers.contains(donor->link->remote().key);
        });
        return out;
    };
    auto brought = co_await download(n, std::move(c));
    LONGHAUL_CO_TRY(brought);
    co_return downloaded_state{state, std::move(*brought)};
}

}  // namespace longhaul::peers

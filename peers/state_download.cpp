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

/// Pieces that one donor has under way for us: enough to fill its line while the next is asked for.
constexpr int lanes = 4;
/// Chunks of a piece of a large state; a small one goes chunk by chunk.
constexpr std::uint32_t chunks_per_piece = 4;
constexpr std::uint32_t large = 64;
constexpr std::size_t most_donors = 8;
/// After the first donor has told its state, the others have so long to tell theirs: most tell the same.
constexpr auto others_tell = 1s;
/// A donor that has nothing to bring looks again.
constexpr auto until_next_look = 250ms;

/// What a donor told.
struct told {
    shared_linked donor;
    std::optional<state_index> index;
    bool answered = false;
};

/// One download: what is wanted, and as much of it as has come.
struct download {
    download(node& n, state_index wanted)
        : state(std::make_shared<model_state>()),
          plan(static_cast<std::uint32_t>(wanted.leaves.size()), wanted.leaves.size() < large ? 1 : chunks_per_piece),
          changed(n.env.executor) {
        static_cast<state_index&>(*state) = std::move(wanted);
        state->anchor.resize(n.tensors().elements());
        state->momentum.resize(n.tensors().elements());
    }
    std::shared_ptr<model_state> state;
    download_plan plan;
    core::wakeup changed;  ///< a piece has arrived or was given up
    core::error last;      ///< why a donor stopped
    std::set<net::peer_key> brought;
};
using shared_download = std::shared_ptr<download>;

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

task<result<void>> until_here(shared_download d, state_piece piece) {
    while (!d->plan.has(piece)) {
        auto woken = co_await d->changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return ok();
}

/// Checks the chunks of a piece and puts them in their places. CPU work.
bool put(model_state& s, const state_piece& piece, core::const_bytes bytes) {
    for (auto i = piece.first; i < piece.first + piece.count; ++i) {
        const auto place = chunk_of(s, i);
        if (bytes.size() < place.size() || !chunk_fits(s, i, bytes.first(place.size()))) return false;
        std::ranges::copy(bytes.first(place.size()), place.begin());
        bytes = bytes.subspan(place.size());
    }
    return bytes.empty();
}

task<result<void>> bring(node& n, shared_download d, shared_linked donor, state_piece piece) {
    fetch_message what;
    what.kind = fetch_kind::state_chunks;
    what.generation = d->state->generation;
    what.round = d->state->round;
    what.first = piece.first;
    what.count = piece.count;
    // Another donor may be first: then the rest of it need not come.
    auto first = co_await core::race(fetch(n, donor, what, piece.count * state_chunk_bytes), until_here(d, piece));
    if (first.index() == 1) co_return std::get<1>(first);
    auto& bytes = std::get<0>(first);
    LONGHAUL_CO_TRY(bytes);
    if (d->plan.has(piece)) co_return ok();
    bool fits = false;
    const auto job = [&] { fits = put(*d->state, piece, *bytes); };
    auto ran = co_await n.env.workers.run(job, 0s);
    LONGHAUL_CO_TRY(ran);
    if (!fits) {
        co_return fail(errc::protocol, "chunks {} to {} of the state of round {} are not what was committed",
                       piece.first, piece.first + piece.count - 1, d->state->round);
    }
    d->brought.insert(donor->link->remote().key);
    d->plan.arrived(piece, n.env.clock.now());
    co_return ok();
}

/// One of a donor's lanes: piece after piece, until all are here or the donor fails.
task<result<void>> draw(node& n, shared_download d, shared_linked donor, std::uint32_t which) {
    while (!d->plan.complete()) {
        const auto piece = d->plan.next(which, n.env.clock.now());
        if (!piece) {
            auto woken = co_await d->changed.wait(n.env.clock, n.env.clock.now() + until_next_look);
            if (!woken && woken.error().code != errc::timeout) co_return woken;
            continue;
        }
        auto brought = co_await bring(n, d, donor, *piece);
        if (!brought) d->plan.given_up(which, *piece);
        d->changed.notify();
        if (brought) continue;
        d->last = brought.error().within(fmt::format("a state from {}", donor->link->remote().key.brief()));
        if (brought.error().code == errc::protocol) n.report(d->last, "catching up");
        co_return brought;
    }
    co_return ok();
}

/// A donor that was a little behind when it was asked, and comes to hold the state meanwhile.
task<result<void>> join_in_later(node& n, shared_download d, shared_linked donor, std::uint32_t which,
                                 core::scope& lanes_of_all) {
    while (donor->applied < d->state->round) {
        if (d->plan.complete() || !donor->link->up()) co_return ok();
        auto woken = co_await n.changed.wait(n.env.clock, n.env.clock.now() + until_next_look);
        if (!woken && woken.error().code != errc::timeout) co_return woken;
    }
    auto index = co_await ask_index(n, donor);
    if (!index || index->root != d->state->root) co_return ok();
    for (int lane = 0; lane < lanes; ++lane) lanes_of_all.spawn_isolated("download", draw(n, d, donor, which));
    co_return ok();
}

}  // namespace

task<result<downloaded_state>> download_state(node& n, std::vector<shared_linked> donors, index_question would_do) {
    if (donors.empty()) co_return fail(errc::not_found, "no linked peer holds a state that would do");
    if (donors.size() > most_donors) donors.resize(most_donors);
    const auto all = std::make_shared<std::vector<told>>();
    for (auto& d : donors) all->push_back({std::move(d), std::nullopt, false});
    core::scope asking(n.env.executor);
    for (std::size_t i = 0; i < all->size(); ++i) asking.spawn_isolated("index", ask_one(n, all, i, would_do));
    const auto everybody = [&all] { return std::ranges::all_of(*all, &told::answered); };
    const auto somebody = [&] { return everybody() || most_held(*all).has_value(); };
    auto waited = co_await core::wait_until(n.changed, somebody);
    if (waited) {
        waited = co_await core::wait_until(n.changed, everybody, n.env.clock, n.env.clock.now() + others_tell);
        if (!waited && waited.error().code == errc::timeout) waited = ok();
    }
    asking.cancel();
    auto asked = co_await asking.join();
    LONGHAUL_CO_TRY(waited);
    const auto wanted = most_held(*all);
    if (!wanted) co_return fail(errc::not_found, "no linked peer has a state that would do");

    const auto d = std::make_shared<download>(n, *wanted);
    core::scope drawing(n.env.executor);
    for (std::uint32_t which = 0; which < all->size(); ++which) {
        const auto& t = (*all)[which];
        if (t.index && t.index->root == wanted->root) {
            for (int lane = 0; lane < lanes; ++lane) {
                drawing.spawn_isolated("download", draw(n, d, t.donor, which));
            }
        } else if (t.index && t.index->round < wanted->round) {
            drawing.spawn_isolated("download", join_in_later(n, d, t.donor, which, drawing));
        }
    }
    auto drawn = co_await drawing.join();
    LONGHAUL_CO_TRY(drawn);
    if (!d->plan.complete()) co_return fail(d->last);
    downloaded_state out;
    out.state = d->state;
    out.bytes = (d->state->anchor.size() + d->state->momentum.size()) * sizeof(float);
    out.donors.assign(d->brought.begin(), d->brought.end());
    co_return out;
}

}  // namespace longhaul::peers

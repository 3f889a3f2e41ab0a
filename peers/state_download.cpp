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

/// Of a state with so many chunks a piece has so many, and one donor has so many pieces under way for us: enough to
/// fill its line while the next is asked for.
constexpr std::uint32_t large = 64, chunks_per_piece = 4, lanes = 4;
/// A small one goes chunk by chunk.
constexpr std::uint32_t small_lanes = 2;
constexpr std::size_t most_donors = 8;
/// After the first donor has told its state, the others have as long again, twice, to tell theirs, and this at most:
/// most tell the same, and rounds go on meanwhile.
constexpr core::duration others_tell = 1s;
/// A lane that has nothing to ask for looks again, and so does who looks for more donors.
constexpr auto until_next_look = 250ms;
/// Without any donor for so long, it is over.
constexpr auto desertion = 5s;

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
    }
    std::shared_ptr<model_state> state;
    download_plan plan;
    core::wakeup changed;                                                     ///< a piece has arrived or was given up
    unsigned drawing = 0;                                                     ///< lanes
    core::error last{errc::not_found, "nobody who holds the state is left"};  ///< why a donor stopped
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

/// Asks for a piece and waits until it is here, from that donor or another one.
task<result<void>> bring(node& n, shared_download d, shared_linked donor, std::uint32_t which, state_piece piece) {
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
    d->plan.arrived(which, piece, n.env.clock.now());
    co_return ok();
}

task<result<void>> draw_pieces(node& n, shared_download d, shared_linked donor, std::uint32_t which) {
    while (!d->plan.complete()) {
        const auto piece = d->plan.next(which, n.env.clock.now());
        if (!piece) {
            auto woken = co_await d->changed.wait(n.env.clock, n.env.clock.now() + until_next_look);
            if (!woken && woken.error().code != errc::timeout) co_return woken;
            continue;
        }
        auto brought = co_await bring(n, d, donor, which, *piece);
        if (!brought) d->plan.given_up(which, *piece);
        d->changed.notify();
        if (d->plan.complete()) n.changed.notify();
        LONGHAUL_CO_TRY(brought);
    }
    co_return ok();
}

/// One of a donor's lanes: piece after piece, until all are here or the donor fails.
task<result<void>> draw(node& n, shared_download d, shared_linked donor, std::uint32_t which) {
    ++d->drawing;
    const auto drawn = co_await draw_pieces(n, d, donor, which);
    --d->drawing;
    d->changed.notify();
    if (drawn) co_return ok();
    d->last = drawn.error().within(fmt::format("a state from {}", donor->link->remote().key.brief()));
    if (d->last.code == errc::protocol) n.report(d->last, "catching up");
    co_return drawn;
}

/// From those who keep that very state for us. Donors come and go while it lasts: a newcomer is linked with one of them
/// first. Whoever is at that round takes part, too; until nobody has been left for a while. A child of `drawing`
/// itself.
task<result<void>> keep_drawing(node& n, shared_download d, std::vector<shared_linked> holders, donors_question donors,
                                core::scope& drawing) {
    std::set<shared_linked> known;
    auto deserted = n.env.clock.now();
    while (!d->plan.complete()) {
        std::vector<std::pair<shared_linked, std::uint32_t>> fresh;
        for (auto& donor : donors()) {
            if (donor->applied == d->state->round) holders.push_back(std::move(donor));
        }
        for (auto& donor : std::exchange(holders, {})) {
            if (d->drawing >= most_donors * lanes || !known.insert(donor).second) continue;
            fresh.emplace_back(std::move(donor), static_cast<std::uint32_t>(known.size()));
        }
        // A lane of each in turn: a small state is shared, too.
        for (std::uint32_t lane = 0; lane < (d->state->leaves.size() < large ? small_lanes : lanes); ++lane) {
            for (const auto& [donor, which] : fresh) {
                drawing.spawn_isolated("download", draw(n, d, donor, which));
            }
        }
        const auto now = n.env.clock.now();
        if (d->drawing > 0) deserted = now;
        if (now - deserted > desertion) break;
        auto woken = co_await n.changed.wait(n.env.clock, now + until_next_look);
        if (!woken && woken.error().code != errc::timeout) co_return woken;
    }
    drawing.cancel();
    co_return ok();
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
        if (all->size() < most_donors) all->push_back({std::move(donor), std::nullopt, false});
    }
    if (all->empty()) co_return fail(errc::not_found, "no linked peer holds a state that would do");
    core::scope asking(n.env.executor);
    for (std::size_t i = 0; i < all->size(); ++i) asking.spawn_isolated("index", ask_one(n, all, i, would_do));
    asking.spawn("waiting", until_told(n, all, asking));
    auto asked = co_await asking.join();
    LONGHAUL_CO_TRY(asked);
    const auto wanted = most_held(*all);
    if (!wanted) co_return fail(errc::not_found, "no linked peer has a state that would do");

    const auto d = std::make_shared<download>(n, *wanted);
    const auto make_room = [&] {
        d->state->anchor.resize(n.tensors().elements());
        d->state->momentum.resize(n.tensors().elements());
    };
    auto made = co_await n.env.workers.run(make_room, 0s);
    LONGHAUL_CO_TRY(made);
    std::vector<shared_linked> holders;
    for (const auto& t : *all) {
        if (t.index && t.index->root == wanted->root) holders.push_back(t.donor);
    }
    core::scope drawing(n.env.executor);
    drawing.spawn("drawing", keep_drawing(n, d, std::move(holders), std::move(donors), drawing));
    auto drawn = co_await drawing.join();
    LONGHAUL_CO_TRY(drawn);
    if (!d->plan.complete()) co_return fail(d->last);
    downloaded_state out;
    out.state = d->state;
    out.donors.assign(d->brought.begin(), d->brought.end());
    co_return out;
}

}  // namespace longhaul::peers

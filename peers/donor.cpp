#include "compress/planes.hpp"
#include "peers/memory.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using namespace std::chrono_literals;

namespace {

/// Transfers that one peer may have running from us at the same time.
constexpr std::size_t max_serving = 8;
/// For a joiner that asks for nothing: its line may be cut, and it comes back for the rest.
constexpr auto kept_for = 60s;
/// Of what a member lacks to take part in the round that is open.
constexpr auto late_without = net::transfer_priority::payload;

core::task<core::result<void>> give(shared_linked to, std::string tag, std::shared_ptr<const core::byte_vector> bytes,
                                    net::transfer_priority priority = net::transfer_priority::state) {
    auto sent = co_await to->link->send_transfer(tag, std::move(bytes), nullptr, priority);
    to->serving.erase(tag);
    // A receiver that changed its mind or went away is no error of ours.
    if (!sent && (sent.error().code == errc::closed || sent.error().code == errc::not_admitted)) co_return core::ok();
    co_return sent;
}

/// What `make` packs, which is CPU work: one piece at a time for each peer, however many it asks for. Its turn comes as
/// soon as those before are packed, which takes as long as they have bytes.
core::task<core::result<void>> give_packed(node& n, shared_linked to, fetch_message what,
                                           std::function<core::byte_vector()> make, net::transfer_priority priority) {
    const auto its_turn = [to] { return !to->packing; };
    auto waited = co_await core::wait_until(n.changed, its_turn);
    LONGHAUL_CO_TRY(waited);
    to->packing = true;
    auto bytes = std::make_shared<core::byte_vector>();
    const auto job = [&] { *bytes = make(); };
    auto ran = co_await n.env.workers.run(job, 0s);
    to->packing = false;
    n.changed.notify();
    LONGHAUL_CO_TRY(ran);
    co_return co_await give(to, tag_of(what), bytes, priority);
}

core::byte_vector packed_chunks(const model_state& state, const fetch_message& what) {
    core::byte_vector bytes;
    for (auto i = what.first; i < what.first + what.count; ++i) {
        const auto chunk = chunk_of(state, i);
        bytes.insert(bytes.end(), chunk.begin(), chunk.end());
    }
    return compress::pack(bytes);
}

core::byte_vector packed_chunks(const aggregate& a, const fetch_message& what) {
    const auto grid = chunk_grid::of(a.values.size());
    const auto last = what.first + what.count - 1;
    const auto end = grid.first(last) + grid.size(last);
    return compress::pack(core::bytes_of(std::span(a.values).first(end).subspan(grid.first(what.first))));
}

/// This node's state of that round, if it has it: kept from now on for that peer. Nullptr also when too many are kept.
shared_state keep_for(node& n, const net::peer_key& who, std::uint64_t generation, std::uint64_t round) {
    forget_kept_states(n);
    const auto fits = [&](const shared_state& s) { return s && s->generation == generation && s->round == round; };
    shared_state found = fits(n.state) ? n.state : nullptr;
    std::set<shared_state> others;
    for (const auto& [key, kept] : n.kept_states) {
        if (fits(kept.state)) found = kept.state;
        if (key != who) others.insert(kept.state);
    }
    if (!found) return nullptr;
    others.insert(found);
    if (others.size() > max_kept_states) return nullptr;
    const auto now = n.env.clock.now();
    const auto since = n.kept_states.contains(who) ? n.kept_states[who].since : now;
    n.kept_states[who] = {found, since, now + kept_for};
    return found;
}

/// Also one that the run has just committed, and that is being applied here.
shared_aggregate committed_aggregate(const node& n, const fetch_message& what) {
    if (auto kept = n.held.find_aggregate(what.generation, what.round)) return kept;
    if (!n.log_known || what.generation != n.led().generation()) return nullptr;
    const auto* done = n.led().commit_of(what.round);
    const bool ours = done != nullptr && n.candidate && n.candidate->root == done->commit.aggregate_root;
    return ours ? n.candidate : nullptr;
}

}  // namespace

bool may_give_state(node& n, std::uint64_t bytes) {
    if (!n.held.uploading()) return true;
    const auto now = n.env.clock.now();
    core::duration waited{};
    for (const auto& [key, kept] : n.kept_states) waited = std::max<core::duration>(waited, now - kept.since);
    return n.donor_pace.take(bytes, n.line_up.with(n.held.sent()), waited, now);
}

void forget_kept_states(node& n) {
    const auto now = n.env.clock.now();
    std::erase_if(n.kept_states, [&n, now](const auto& entry) {
        const auto& [key, kept] = entry;
        // Who has it, or more, does not come back for the rest; and others may want the room.
        const auto peer = n.find(key);
        const bool has =
            peer && peer->caught_up && peer->generation == kept.state->generation && peer->applied >= kept.state->round;
        return has || kept.until < now;
    });
}

void serve_fetch(node& n, const shared_linked& to, const fetch_message& what) {
    const auto key = to->link->remote().key;
    const auto refuse = [&](std::string why) { n.send(key, fetch_refused{what, std::move(why)}); };
    const auto tag = tag_of(what);
    if (to->serving.contains(tag)) return;  // asked twice, answered once
    if (to->serving.size() >= max_serving) return refuse("busy serving you already: ask again");
    const auto start = [&](core::task<core::result<void>> giving) {
        to->serving.insert(tag);
        n.tasks.spawn_isolated("donor", std::move(giving));
    };
    switch (what.kind) {
        case fetch_kind::state_index: {
            // A peer that is not caught up is never a donor (DESIGN §5).
            if (!n.state || n.state->generation != what.generation) return refuse("no state of that generation here");
            const auto state = keep_for(n, key, n.state->generation, n.state->round);
            if (!state) return refuse("busy serving the states of other rounds: ask again");
            return start(give(to, tag, std::make_shared<const core::byte_vector>(serialize(*state))));
        }
        case fetch_kind::state_chunks: {
            const auto state = keep_for(n, key, what.generation, what.round);
            if (!state) return refuse("that state is not here any more");
            if (what.first + std::uint64_t{what.count} > state->leaves.size()) return refuse("no such chunks");
            auto chunks = [state, what] { return packed_chunks(*state, what); };
            return start(give_packed(n, to, what, std::move(chunks), net::transfer_priority::state));
        }
        case fetch_kind::aggregate_index: {
            const auto a = committed_aggregate(n, what);
            if (!a) return refuse("that aggregate is not here any more");
            return start(give(to, tag, std::make_shared<const core::byte_vector>(serialize_leaves(*a)), late_without));
        }
        case fetch_kind::aggregate_chunks: {
            const auto a = committed_aggregate(n, what);
            if (!a) return refuse("that aggregate is not here any more");
            if (what.first + std::uint64_t{what.count} > a->leaves.size()) return refuse("no such chunks");
            auto chunks = [a, what] { return packed_chunks(*a, what); };
            return start(give_packed(n, to, what, std::move(chunks), late_without));
        }
    }
}

}  // namespace longhaul::peers

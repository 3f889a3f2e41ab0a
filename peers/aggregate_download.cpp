#include "peers/aggregate_download.hpp"

#include "core/hash.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using core::result;
using core::task;
using namespace std::chrono_literals;

namespace {

/// From the first who has them: unlike a state's, they can be checked against the log.
task<result<aggregate>> ask_leaves(node& n, donors_question holders, std::uint64_t generation, commit_record commit) {
    core::error last(errc::not_found, "no linked peer holds it");
    fetch_message what;
    what.kind = fetch_kind::aggregate_index;
    what.generation = generation;
    what.round = commit.round;
    const auto everybody = holders();
    for (const auto& holder : everybody) {
        auto bytes = co_await fetch(n, holder, what, leaves_bytes(n.tensors()));
        if (!bytes) {
            last = bytes.error();
            if (last.code == errc::cancelled) co_return fail(last);
            continue;
        }
        auto parsed = parse_leaves(n.tensors(), generation, commit, *bytes);
        if (parsed) co_return parsed;
        n.report(parsed.error(), "an aggregate from " + holder->link->remote().key.brief());
        last = parsed.error();
    }
    co_return fail(last);
}

}  // namespace

task<result<shared_aggregate>> download_aggregate(node& n, donors_question holders, std::uint64_t generation,
                                                  commit_record commit) {
    auto told = co_await ask_leaves(n, holders, generation, commit);
    LONGHAUL_CO_TRY(told);
    const auto a = std::make_shared<aggregate>(std::move(*told));
    const auto make_room = [&] { a->values.resize(n.tensors().elements()); };
    auto made = co_await n.env.workers.run(make_room, 0s);
    LONGHAUL_CO_TRY(made);
    const auto grid = chunk_grid::of(a->values.size());
    chunked c;
    c.name = fmt::format("the aggregate of round {}", commit.round);
    c.what.kind = fetch_kind::aggregate_chunks;
    c.what.generation = generation;
    c.what.round = commit.round;
    c.chunks = grid.count();
    c.chunk_bytes = grid.elements * sizeof(float);
    c.place = [a, grid](std::uint32_t i) {
        return std::as_writable_bytes(std::span(a->values).subspan(grid.first(i), grid.size(i)));
    };
    c.fits = [a](std::uint32_t i, core::const_bytes bytes) { return core::hash(bytes) == a->leaves[i]; };
    c.donors = std::move(holders);
    auto brought = co_await download(n, std::move(c));
    LONGHAUL_CO_TRY(brought);
    co_return shared_aggregate(a);
}

}  // namespace longhaul::peers

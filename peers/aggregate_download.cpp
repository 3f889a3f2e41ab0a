#include "peers/aggregate_download.hpp"

#include "compress/planes.hpp"
#include "core/hash.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using core::result;
using core::task;
using namespace std::chrono_literals;

namespace {

/// From the first whose answer `parse` accepts: unlike a state's, it can be checked against the log.
task<result<aggregate>> ask(node& n, donors_question holders, fetch_message what, std::uint64_t most,
                            std::function<result<aggregate>(core::const_bytes)> parse) {
    core::error last(errc::not_found, "no linked peer holds it");
    const auto everybody = holders();
    for (const auto& holder : everybody) {
        auto bytes = co_await fetch(n, holder, what, most);
        if (!bytes) {
            last = bytes.error();
            if (last.code == errc::cancelled) co_return fail(last);
            continue;
        }
        result<aggregate> parsed = fail(errc::internal, "nothing was parsed");
        const auto job = [&] { parsed = parse(*bytes); };
        auto ran = co_await n.env.workers.run(job, 0s);
        LONGHAUL_CO_TRY(ran);
        if (parsed) co_return std::move(*parsed);
        const auto& key = holder->link->remote().key;
        cut_off(n, key, parsed.error(), "an aggregate from " + key.brief());
        last = parsed.error();
    }
    co_return fail(last);
}

}  // namespace

task<result<shared_aggregate>> download_aggregate(node& n, donors_question holders, std::uint64_t generation,
                                                  commit_record commit) {
    const auto& tensors = n.part_of(commit.round).tensors;
    const auto grid = chunk_grid::of(tensors.elements());
    const auto bytes = tensors.elements() * sizeof(float);
    fetch_message what;
    what.generation = generation;
    what.round = commit.round;
    // Whoever is behind must be faster than the rounds.
    if (goes_whole(tensors.elements()) && grid.count() <= max_fetched_chunks) {
        what.kind = fetch_kind::aggregate_chunks;
        what.count = grid.count();
        const auto opened = [&tensors, generation, &commit, bytes](core::const_bytes packed) -> result<aggregate> {
            core::byte_vector values(bytes);
            LONGHAUL_TRY(compress::unpack(packed, values));
            return parse_values(tensors, generation, commit, values);
        };
        std::function<result<aggregate>(core::const_bytes)> whole = opened;
        const auto most = bytes + compress::packed_overhead;
        auto told = co_await ask(n, std::move(holders), what, most, std::move(whole));
        LONGHAUL_CO_TRY(told);
        co_return std::make_shared<const aggregate>(std::move(*told));
    }
    what.kind = fetch_kind::aggregate_index;
    std::function<result<aggregate>(core::const_bytes)> leaves = [&tensors, generation, &commit](auto all) {
        return parse_leaves(tensors, generation, commit, all);
    };
    auto told = co_await ask(n, holders, what, leaves_bytes(tensors), std::move(leaves));
    LONGHAUL_CO_TRY(told);
    const auto a = std::make_shared<aggregate>(std::move(*told));
    const auto make_room = [&] { a->values.resize(tensors.elements()); };
    auto made = co_await n.env.workers.run(make_room, 0s);
    LONGHAUL_CO_TRY(made);
    chunked c;
    c.name = fmt::format("the aggregate of round {}", commit.round);
    c.what = what;
    c.what.kind = fetch_kind::aggregate_chunks;
    c.chunks = grid.count();
    c.chunk_bytes = grid.elements * sizeof(float);
    c.place = [a, grid](std::uint32_t i) {
        return std::as_writable_bytes(std::span(a->values).subspan(grid.first(i), grid.size(i)));
    };
    c.fits = [a](std::uint32_t i, core::const_bytes chunk) { return core::hash(chunk) == a->leaves[i]; };
    c.promised = [](const net::peer_key&) { return true; };  // the log names its leaves
    c.donors = std::move(holders);
    auto brought = co_await download(n, std::move(c));
    LONGHAUL_CO_TRY(brought);
    co_return shared_aggregate(a);
}

}  // namespace longhaul::peers

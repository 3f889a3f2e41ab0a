#include "peers/download.hpp"

#include <algorithm>

#include "compress/planes.hpp"
#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using core::ok;
using core::result;
using core::task;
using namespace std::chrono_literals;

namespace {

/// A piece has at most so many bytes, and one donor has so many pieces under way for us: enough to fill its line while
/// the next is asked for.
constexpr std::uint64_t piece_bytes = 4 << 20, small_piece_bytes = 1 << 20;
constexpr unsigned lanes = 4, small_lanes = 2;
/// What is smaller goes in small pieces, or one donor would have half of it.
constexpr std::uint64_t large = 64 << 20;
constexpr std::size_t most_donors = 8;
/// A lane that has nothing to ask for looks again, and so does who looks for more donors.
constexpr auto until_next_look = 250ms;
/// When no donor has been left for so long, it is over. But while nobody at all is linked, for as long as the second:
/// our own line may be cut, and they keep it for us for a while.
constexpr auto desertion = 5s, separation = 45s;

bool is_large(const chunked& c) { return c.chunks * c.chunk_bytes >= large; }

std::uint32_t chunks_per_piece(const chunked& c) {
    const auto bytes = is_large(c) ? piece_bytes : small_piece_bytes;
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(bytes / c.chunk_bytes, 1, max_fetched_chunks));
}

/// One download, and as much of it as has come.
struct ongoing {
    ongoing(node& n, chunked c)
        : wanted(std::move(c)),
          plan(wanted.chunks, chunks_per_piece(wanted)),
          changed(n.env.executor),
          last(errc::not_found, fmt::format("nobody who holds {} is left", wanted.name)) {}
    chunked wanted;
    download_plan plan;
    core::wakeup changed;  ///< a piece has arrived or was given up
    unsigned drawing = 0;  ///< lanes
    core::error last;      ///< why a donor stopped
    downloaded brought;
};
using shared_ongoing = std::shared_ptr<ongoing>;

task<result<void>> until_here(shared_ongoing d, chunk_span piece) {
    while (!d->plan.has(piece)) {
        auto woken = co_await d->changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return ok();
}

std::size_t bytes_of(const chunked& c, const chunk_span& piece) {
    std::size_t bytes = 0;
    for (auto i = piece.first; i < piece.first + piece.count; ++i) bytes += c.place(i).size();
    return bytes;
}

/// Goes through the chunks of a piece, of which these are the bytes: false as soon as `each` says so.
template <typename Each>
bool each_chunk(const chunked& c, const chunk_span& piece, core::const_bytes bytes, const Each& each) {
    for (auto i = piece.first; i < piece.first + piece.count; ++i) {
        const auto place = c.place(i);
        if (!each(i, place, bytes.first(place.size()))) return false;
        bytes = bytes.subspan(place.size());
    }
    return true;
}

/// Asks for a piece and waits until it is here, from that donor or another one.
task<result<void>> bring(node& n, shared_ongoing d, shared_linked donor, std::uint32_t which, chunk_span piece) {
    auto what = d->wanted.what;
    what.first = piece.first;
    what.count = piece.count;
    // Another donor may be first: then the rest of it need not come.
    const auto most = piece.count * d->wanted.chunk_bytes + compress::packed_overhead;
    auto first = co_await core::race(fetch(n, donor, what, most), until_here(d, piece));
    if (first.index() == 1) co_return std::get<1>(first);
    auto& packed = std::get<0>(first);
    LONGHAUL_CO_TRY(packed);
    const auto& wanted = d->wanted;
    const auto check = [&wanted](auto i, auto, auto chunk) { return wanted.fits(i, chunk); };
    core::byte_vector bytes;
    bool fits = false;
    const auto job = [&] {
        bytes.resize(bytes_of(wanted, piece));
        fits = compress::unpack(*packed, bytes) && each_chunk(wanted, piece, bytes, check);
    };
    auto ran = co_await n.env.workers.run(job, 0s);
    LONGHAUL_CO_TRY(ran);
    if (!fits) {
        const auto code = wanted.promised(donor->link->remote().key) ? errc::protocol : errc::not_found;
        co_return fail(code, "chunks {} to {} of {} are others there", piece.first, piece.first + piece.count - 1,
                       wanted.name);
    }
    if (d->plan.has(piece)) co_return ok();
    const auto copy = [](auto, auto place, auto chunk) {
        std::ranges::copy(chunk, place.begin());
        return true;
    };
    each_chunk(wanted, piece, bytes, copy);
    d->brought.donors.insert(donor->link->remote().key);
    d->brought.wire_bytes += packed->size();
    d->plan.arrived(which, piece, n.env.clock.now());
    co_return ok();
}

task<result<void>> draw_pieces(node& n, shared_ongoing d, shared_linked donor, std::uint32_t which) {
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
task<result<void>> draw(node& n, shared_ongoing d, shared_linked donor, std::uint32_t which) {
    ++d->drawing;
    const auto drawn = co_await draw_pieces(n, d, donor, which);
    --d->drawing;
    d->changed.notify();
    if (drawn) co_return ok();
    d->last = drawn.error().within(fmt::format("{} from {}", d->wanted.name, donor->link->remote().key.brief()));
    if (d->last.code == errc::protocol) cut_off(n, donor->link->remote().key, d->last, "catching up");
    co_return drawn;
}

/// From all who hold it, until nobody has been left for a while: a newcomer is linked with one of them first. A child
/// of `drawing` itself.
task<result<void>> keep_drawing(node& n, shared_ongoing d, core::scope& drawing) {
    const auto each = is_large(d->wanted) ? lanes : small_lanes;
    std::set<shared_linked> known;
    auto deserted = n.env.clock.now();
    std::optional<core::time_point> cut;  // since when nobody at all has been linked
    while (!d->plan.complete()) {
        std::vector<std::pair<shared_linked, std::uint32_t>> fresh;
        for (auto& donor : d->wanted.donors()) {
            if (d->drawing + fresh.size() * each >= most_donors * each || !known.insert(donor).second) continue;
            fresh.emplace_back(std::move(donor), static_cast<std::uint32_t>(known.size()));
        }
        // A lane of each in turn: what is small is shared, too.
        for (unsigned lane = 0; lane < each; ++lane) {
            for (const auto& [donor, which] : fresh) {
                drawing.spawn_isolated("download", draw(n, d, donor, which));
            }
        }
        const auto now = n.env.clock.now();
        if (!n.links.empty()) {
            cut.reset();
        } else if (!cut) {
            cut = now;
        }
        if (d->drawing > 0 || (cut && now - *cut < separation)) deserted = now;
        if (now - deserted > desertion) break;
        auto woken = co_await n.changed.wait(n.env.clock, now + until_next_look);
        if (!woken && woken.error().code != errc::timeout) co_return woken;
    }
    drawing.cancel();
    co_return ok();
}

}  // namespace

task<result<downloaded>> download(node& n, chunked wanted) {
    const auto d = std::make_shared<ongoing>(n, std::move(wanted));
    core::scope drawing(n.env.executor);
    drawing.spawn("drawing", keep_drawing(n, d, drawing));
    auto drawn = co_await drawing.join();
    LONGHAUL_CO_TRY(drawn);
    if (!d->plan.complete()) co_return fail(d->last);
    co_return std::move(d->brought);
}

}  // namespace longhaul::peers

#include "peers/chunk.hpp"

#include "core/hash.hpp"
#include "peers/exchange.hpp"
#include "tests/test.hpp"
#include "tests/unit/peers/fixtures.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;

namespace {

net::identity identity_of(peer_number who) {
    core::seeded_entropy random(who, "identity");
    return net::identity::generate(random);
}

chunk_header header_of(peer_number author) {
    chunk_header h;
    h.run = digest_of(1);
    h.stream = {3, 7, 0, stream_kind::contribution, 0, 2, author};
    h.index = 5;
    h.codec = 2;
    h.work = {640, 10, 2.5};
    return h;
}

/// A signed frame around `data`.
core::byte_vector frame_of(chunk_header h, const core::byte_vector& data) {
    core::byte_vector frame(chunk_header_bytes + data.size());
    std::ranges::copy(data, frame.begin() + chunk_header_bytes);
    h.hash = core::hash(data);
    seal_chunk(h, frame, identity_of(h.stream.author));
    return frame;
}

}  // namespace

TEST_CASE("every element is in one chunk, and chunks are 64 KiB to 1 MiB of f32") {
    core::seeded_entropy random(1);
    for (int i = 0; i < 2000; ++i) {
        const auto total = 1 + random.below(std::uint64_t{1} << (1 + random.below(40)));
        const auto g = chunk_grid::of(total);
        INFO(total);
        CHECK(g.elements >= 16 * 1024);
        CHECK(g.elements <= 256 * 1024);
        const auto last = g.count() - 1;
        CHECK(g.first(last) + g.size(last) == total);
        CHECK(g.size(last) > 0);
        if (last > 0) CHECK(g.size(last - 1) == g.elements);
    }
    // Coarse codecs cut parts that are whole numbers of these, so that leaves of a root are never halved.
    const auto& topk = **compress::find_codec("topk-64/4096");
    CHECK(chunk_grid::of(std::uint64_t{1} << 22, topk).elements == 8 * chunk_grid::of(std::uint64_t{1} << 22).elements);
    CHECK(chunk_grid::of(std::uint64_t{1} << 22, **compress::find_codec("int4")).count() == 64);
    CHECK(chunk_grid::of(1).count() == 1);
    CHECK(chunk_grid::of(std::uint64_t{1} << 22).count() == 64);
}

TEST_CASE("SparseLoCo's setting takes at most 0.152 bits a parameter on the wire, headers included") {
    const auto& topk = **compress::find_codec("topk-64/4096");
    for (const std::int64_t parameters : {10'000'000, 10'000'001, 17'000'000, 124'000'000, 1'000'000'000}) {
        const auto model = *core::tensor_manifest::make({{"w", {1, parameters}}});
        const auto l = stream_layout::of(model, topk, 0, chunk_grid::of(model.elements(), topk).count(), 0);
        CHECK(l.total() == payload_bytes(model, topk));
        const double bits = static_cast<double>(l.total()) * 8 / static_cast<double>(parameters);
        INFO(parameters << ": " << bits);
        CHECK(bits <= 0.152);
        CHECK(bits > 0.146);  // the binomial's bound and two bits a value
    }
}

TEST_CASE("frames lie one behind the other and every byte is in one") {
    for (const std::uint64_t total : {1ULL, 16384ULL, 16385ULL, 100000ULL}) {
        for (const std::size_t width : {2U, 4U}) {
            for (const std::size_t table : {std::size_t{0}, std::size_t{56}}) {
                const auto model = *core::tensor_manifest::make({{"w", {1, static_cast<std::int64_t>(total)}}});
                const auto grid = chunk_grid::of(total);
                const std::uint32_t first = grid.count() > 2 ? 1 : 0;
                const auto& codec = **compress::find_codec(width == 2 ? "bf16" : "f32");
                const auto l = stream_layout::of(model, codec, first, grid.count() - first, table);
                CHECK(l.first() == first);
                CHECK(l.count() == grid.count() - first);
                std::uint64_t at = 0;
                for (std::uint32_t f = 0; f < l.frames(); ++f) {
                    CHECK(l.offset(f) == at);
                    const auto size = chunk_header_bytes + l.data_bytes(f);
                    CHECK(l.frame_at(at) == f);
                    CHECK(l.frame_at(at + size - 1) == f);
                    at += size;
                }
                CHECK(l.total() == at);
                CHECK(at == (total - grid.first(first)) * width + table + l.frames() * chunk_header_bytes);
            }
        }
    }
}

TEST_CASE("a signed chunk opens with its author's key, and with one bit changed it does not") {
    core::byte_vector data(1000, std::byte{7});
    const auto frame = frame_of(header_of(4), data);
    const auto opened = open_chunk(frame, identity_of(4).key());
    REQUIRE(opened);
    CHECK(opened->stream == header_of(4).stream);
    CHECK(opened->index == 5);
    CHECK(opened->codec == 2);
    CHECK(opened->work == work_done{640, 10, 2.5});
    CHECK(opened->hash == core::hash(data));
    CHECK(opened->root.is_zero());
    CHECK_FALSE(open_chunk(frame, identity_of(5).key()));
    for (std::size_t at = 0; at < frame.size(); ++at) {
        auto bad = frame;
        bad[at] ^= std::byte{1};
        CHECK_FALSE(open_chunk(bad, identity_of(4).key()));
    }
    CHECK_FALSE(open_chunk(core::const_bytes(frame).first(chunk_header_bytes), identity_of(4).key()));
    CHECK_FALSE(open_chunk({}, identity_of(4).key()));
}

TEST_CASE("what an author must not claim is refused although it is signed") {
    const core::byte_vector data(10);
    const auto refused = [&data](const chunk_header& h) {
        return !open_chunk(frame_of(h, data), identity_of(4).key());
    };
    auto h = header_of(4);
    CHECK_FALSE(refused(h));
    for (const auto work : {work_done{0, 1, 0}, work_done{1, 0, 0}, work_done{~std::uint64_t{0}, 1, 0},
                            work_done{1, 1, std::numeric_limits<double>::infinity()}}) {
        h.work = work;
        CHECK(refused(h));
    }
    h = header_of(4);
    h.stream.kind = stream_kind::reduced;  // stands for nobody's work
    CHECK(refused(h));
    h.work = {};
    CHECK_FALSE(refused(h));
    h.stream.kind = static_cast<stream_kind>(3);
    CHECK(refused(h));
}

TEST_CASE("a stream's root names its author, its work and every chunk") {
    std::vector<core::digest> hashes{digest_of(1), digest_of(2)};
    const auto root = root_of_stream(header_of(4), hashes);
    auto other = header_of(4);
    other.index = 6;  // any of its chunks says the same
    CHECK(root_of_stream(other, hashes) == root);
    other.work.tokens = 641;
    CHECK(root_of_stream(other, hashes) != root);
    CHECK(root_of_stream(header_of(5), hashes) != root);
    std::swap(hashes[0], hashes[1]);
    CHECK(root_of_stream(header_of(4), hashes) != root);
}

TEST_CASE("tags of streams have one spelling") {
    core::seeded_entropy random(3);
    for (int i = 0; i < 500; ++i) {
        stream_name s;
        s.generation = random.below(1000);
        s.round = random.below(std::uint64_t{1} << 60);
        s.kind = random.below(2) == 0 ? stream_kind::contribution : stream_kind::reduced;
        s.attempt = static_cast<std::uint32_t>(random.below(~std::uint32_t{0}));
        s.shard = static_cast<std::uint32_t>(random.below(9));
        s.author = static_cast<peer_number>(random.below(1024));
        const auto tag = tag_of(s, 3);
        CHECK(tag.size() <= net::max_transfer_tag);
        const auto again = parse_stream_tag(tag);
        REQUIRE(again);
        CHECK(again->name == s);
        CHECK(again->attempt == 3);
    }
    CHECK(tag_of(header_of(4).stream, 2) == "x/3/7/0/1/0/2/4/2");
    for (const auto* bad : {"", "x/", "x/3/7/0/1/0/2/4", "x/3/7/0/1/0/2/4/", "x/3/7/0/1/0/2/4/2/", "x/03/7/0/1/0/2/4/2",
                            "x/3/7/0/0/0/2/4/2", "x/3/7/0/3/0/2/4/2", "x/-3/7/0/1/0/2/4/2", "x/3//0/1/0/2/4/2",
                            "x/3/7/0/1/0/2/4294967296/2", "x/99999999999999999999/7/0/1/0/2/4/2", "1/1/22"}) {
        INFO(bad);
        CHECK_FALSE(parse_stream_tag(bad));
    }
}

TEST_CASE("shares cover the model once, whatever the plan says") {
    core::seeded_entropy random(4);
    for (int i = 0; i < 2000; ++i) {
        exchange_plan plan;
        const auto chunks = static_cast<std::uint32_t>(1 + random.below(100));
        for (std::uint64_t n = random.below(6); n > 0; --n) {
            plan.shards.push_back(
                {1, static_cast<std::uint32_t>(random.below(random.below(20) == 0 ? 1U << 31U : 60))});
        }
        std::uint32_t next = 0;
        for (std::uint32_t s = 0; s < shards_of(plan); ++s) {
            const auto r = range_of(plan, s, chunks);
            CHECK(r.first == next);
            next += r.count;
        }
        CHECK(next == chunks);
    }
}

TEST_CASE("a tree reaches everybody once, through helpers where the plan has some, and never runs in a circle") {
    exchange_plan plan;
    const auto tree_for = [&plan](peer_number source, const std::vector<peer_number>& wanted) {
        return tree_of(plan, source, wanted);
    };
    CHECK(tree_for(1, {1, 2, 3}) == std::map<peer_number, peer_number>{{2, 1}, {3, 1}});
    plan.relays = {{1, 3, 2}, {1, 4, 3}};
    CHECK(tree_for(1, {1, 2, 3, 4}) == std::map<peer_number, peer_number>{{2, 1}, {3, 2}, {4, 3}});
    CHECK(tree_for(2, {1, 2, 3, 4}) == std::map<peer_number, peer_number>{{1, 2}, {3, 2}, {4, 2}});
    // A helper that is not wanted itself gets it all the same.
    CHECK(tree_for(1, {4}) == std::map<peer_number, peer_number>{{2, 1}, {3, 2}, {4, 3}});
    plan.relays = {{1, 3, 4}, {1, 4, 3}};
    CHECK(tree_for(1, {2, 3, 4}) == std::map<peer_number, peer_number>{{2, 1}, {3, 1}, {4, 1}});
    core::seeded_entropy random(5);
    for (int i = 0; i < 2000; ++i) {
        plan.relays.clear();
        for (std::uint64_t n = random.below(12); n > 0; --n) {
            relay r{1, static_cast<peer_number>(2 + random.below(6)), static_cast<peer_number>(2 + random.below(6))};
            if (r.to != r.via) plan.relays.push_back(r);
        }
        const auto tree = tree_for(1, {1, 2, 3, 4, 5, 6, 7});
        CHECK(tree.size() == 6);
        for (auto [to, from] : tree) {
            std::size_t steps = 0;
            for (; from != 1 && steps < 7; ++steps) from = tree.at(from);
            CHECK(from == 1);
        }
    }
}

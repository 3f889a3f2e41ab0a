/// Chunks that cannot be true, from their author or from a helper.

#include "tests/sim/exchange_world.hpp"

using namespace longhaul;
using namespace longhaul::peers;
using namespace longhaul::peers::testing;
using namespace std::chrono_literals;

namespace {

/// The frames of a payload, as an honest author makes them; `spoil` may change a header before it is signed, and its
/// data.
core::byte_vector frames_of(const hall& h, const exchange_terms& t, peer_number author,
                            const std::function<void(chunk_header&, core::mutable_bytes)>& spoil, bool spoil_the_last) {
    const auto& codec = **compress::find_codec(t.codec);
    const auto grid = chunk_grid::of(elements, codec);
    const auto m = model();
    const auto l = stream_layout::of(m, codec, 0, grid.count(), 0);
    core::byte_vector out(l.total());
    const auto values = values_of(author);
    std::vector<core::digest> hashes(l.count());
    for (std::uint32_t f = 0; f < l.count(); ++f) {
        const auto frame = core::mutable_bytes(out).subspan(l.offset(f), chunk_header_bytes + l.data_bytes(f));
        const auto data = frame.subspan(chunk_header_bytes);
        const auto part = std::span(values).subspan(grid.first(f), grid.size(f));
        REQUIRE(codec.encode(range_of_chunk(m, codec, f), part, {}, data));
        chunk_header header;
        header.stream.generation = t.generation;
        header.stream.round = t.round;
        header.stream.author = author;
        header.codec = codec.wire_id();
        header.work = work_of(author);
        header.index = f;
        const bool last = f + 1 == l.count();
        if (spoil_the_last ? last : f == 3) spoil(header, data);
        header.hash = hashes[f] = core::hash(data);
        if (last && header.root.is_zero()) header.root = root_of_stream(header, hashes);
        seal_chunk(header, frame, h.keys[author - 1]);
    }
    return out;
}

struct lie {
    std::string what, heard;
    std::function<void(chunk_header&, core::mutable_bytes)> before_signing = [](chunk_header&, core::mutable_bytes) {};
    std::function<void(core::mutable_bytes frame)> after_signing = [](core::mutable_bytes) {};
    bool in_the_last_chunk = false;
    std::size_t more_bytes = 0;
};

std::vector<lie> lies() {
    std::vector<lie> out(9);
    out[0].what = "another signature";
    out[0].heard = "sign";
    out[0].after_signing = [](core::mutable_bytes frame) { frame[chunk_header_bytes - 1] ^= std::byte{1}; };
    out[1].what = "other data than its hash";
    out[1].heard = "damaged";
    out[1].after_signing = [](core::mutable_bytes frame) { frame[chunk_header_bytes + 5] ^= std::byte{1}; };
    out[2].what = "another place";
    out[2].heard = "another run, stream or place";
    out[2].before_signing = [](chunk_header& c, core::mutable_bytes) { ++c.index; };
    out[3].what = "another round";
    out[3].heard = "another run, stream or place";
    out[3].before_signing = [](chunk_header& c, core::mutable_bytes) { ++c.stream.round; };
    out[4].what = "a value that is not finite";
    out[4].heard = "finite";
    out[4].before_signing = [](chunk_header&, core::mutable_bytes data) {
        for (std::size_t i = 0; i < 4; ++i) data[400 + i] = std::byte{0xff};
    };
    out[5].what = "other work than its first chunk";
    out[5].heard = "two versions";
    out[5].before_signing = [](chunk_header& c, core::mutable_bytes) { ++c.work.tokens; };
    out[6].what = "more steps than anybody may claim";
    out[6].heard = "inner steps";
    out[6].before_signing = [](chunk_header& c, core::mutable_bytes) { c.work.steps = 1'000'000; };
    out[7].what = "another root than that of its chunks";
    out[7].heard = "its root is not that of its chunks";
    out[7].before_signing = [](chunk_header& c, core::mutable_bytes) { c.root = core::hash({}); };
    out[7].in_the_last_chunk = true;
    out[8].what = "another size than it must have";
    out[8].heard = "bytes instead of";
    out[8].more_bytes = 1;
    return out;
}

core::task<core::result<void>> give(party& p, peer_number to, std::string tag,
                                    std::shared_ptr<const core::byte_vector> bytes) {
    auto sending = p.link_of(to)->send_transfer(std::move(tag), std::move(bytes));
    co_return co_await std::move(sending);
}

}  // namespace

TEST_CASE("a chunk that cannot be true is neither summed nor passed on, whoever sends it", "[sim]") {
    for (const bool by_author : {true, false}) {
        for (const auto& l : lies()) {
            // What a helper can change, and what its author once signed for another place.
            const bool forged = l.what == "another signature" || l.what == "other data than its hash";
            const bool repeated = l.what == "another place" || l.what == "another round";
            if (!by_author && !forged && !repeated) continue;
            INFO(l.what << (by_author ? ", from its author" : ", from a helper"));
            hall h(4);
            sim::world w(1);
            h.populate(w, usual_line);
            w.set_default_path({.delay = 10ms});
            exchange_plan plan;
            // 1 passes on to 2 what it gets.
            plan.relays = {{3, 2, 1}};
            if (!by_author) plan.relays.push_back({3, 1, 4});
            auto t = terms_for({1, 2, 3, 4}, "f32", plan);
            t.contributors = {1, 2, 3};
            t.max_steps = 1000;
            stream_name name;
            name.generation = name.round = 1;
            name.author = 3;
            auto bytes = std::make_shared<core::byte_vector>(frames_of(h, t, 3, l.before_signing, l.in_the_last_chunk));
            const auto layout =
                stream_layout::of(model(), **compress::find_codec(t.codec), 0, chunk_grid::of(elements).count(), 0);
            const auto frame = core::mutable_bytes(*bytes).subspan(layout.offset(3));
            l.after_signing(frame.first(chunk_header_bytes + layout.data_bytes(3)));
            bytes->resize(bytes->size() + l.more_bytes);
            const peer_number liar = by_author ? 3 : 4;
            w.at(2s, [&] {
                h.open(t);
                for (const peer_number n : {1U, 2U}) h.contribute(n);
                auto& p = *h.here[liar];
                p.tasks_.spawn_isolated("lie", give(p, 1, tag_of(name, 1), bytes));
            });
            w.run_until(6s);
            REQUIRE_FALSE(h.complaints.empty());
            for (const auto& c : h.complaints) {
                INFO(c);
                CHECK(c.starts_with("n1: "));  // nobody else ever sees it
                CHECK(c.find(l.heard) != std::string::npos);
            }
            for (const peer_number n : {1U, 2U}) CHECK_FALSE(h.here[n]->x.result(1, 1, 1));
            CHECK(h.caught == std::set{h.keys[liar - 1].key()});
            // Without it the round goes on; and what only a helper spoilt is still good from its author.
            auto next = t;
            next.attempt = 2;
            next.members = {1, 2, 3};
            next.plan.relays.clear();
            if (by_author) {
                next.members = next.contributors = {1, 2};
            }
            h.open(next);
            if (!by_author) h.contribute(3);
            REQUIRE(w.run_while([&] { return !h.all_have(next); }, 1min));
            h.check(next);
        }
    }
}

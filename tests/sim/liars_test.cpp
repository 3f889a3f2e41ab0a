/// Whole runs in virtual time with a peer that lies. It is cut off or left out, an event names it, and the others go on
/// as if it were not there.

#include "core/hash.hpp"
#include "peers/chunk.hpp"
#include "peers/messages.hpp"
#include "tests/sim/swarm.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::sim::testing;
using namespace std::chrono_literals;

namespace {

using core::result;
using core::task;
using shared_bytes = std::shared_ptr<const core::byte_vector>;

struct lie {
    std::string what;
    /// Of its own payload, on its way to one of the others: of one chunk.
    std::function<void(core::byte_vector& frame, const net::identity& liar, const net::peer_key& to)> payload;
    std::function<void(peers::message& m)> message;
    /// Of a state or an aggregate that somebody downloads from it.
    std::function<void(core::byte_vector& piece)> piece;
    bool is_proven = true;  ///< so that it is cut off
};

/// A link of the liar. All that it does not lie about goes as it is.
class lying_link final : public net::link {
public:
    lying_link(std::shared_ptr<net::link> real, net::identity self, const lie& l)
        : real_(std::move(real)), self_(std::move(self)), lie_(l) {}

    task<result<void>> send(core::byte_vector message) override {
        if (auto m = peers::parse_message(message); m && lie_.message) {
            lie_.message(*m);
            message = peers::serialize(*m);
        }
        return real_->send(std::move(message));
    }
    task<result<void>> send_transfer(std::string tag, shared_bytes data, std::shared_ptr<const std::uint64_t> ready,
                                     net::transfer_priority priority) override {
        const bool chunks = tag.starts_with(fmt::format("{}/", static_cast<int>(peers::fetch_kind::state_chunks)));
        if (chunks && lie_.piece) {
            const auto spoilt = std::make_shared<core::byte_vector>(*data);
            lie_.piece(*spoilt);
            return real_->send_transfer(std::move(tag), spoilt, std::move(ready), priority);
        }
        const auto stream = peers::parse_stream_tag(tag);
        const bool mine = stream && stream->name.kind == peers::stream_kind::contribution;
        if (!mine || !lie_.payload) return real_->send_transfer(std::move(tag), std::move(data), ready, priority);
        return lie_about(real_, self_, lie_, std::move(tag), std::move(data), std::move(ready));
    }

    const net::remote_peer& remote() const override { return real_->remote(); }
    bool dialled_here() const override { return real_->dialled_here(); }
    bool up() const override { return real_->up(); }
    const std::optional<net::link_end>& ended() const override { return real_->ended(); }
    task<result<core::byte_vector>> receive() override { return real_->receive(); }
    void hold_back_state(state_question may_go) override { real_->hold_back_state(std::move(may_go)); }
    std::uint64_t delivered_bytes() const override { return real_->delivered_bytes(); }
    bool queueing() const override { return real_->queueing(); }
    void data_ready() override { real_->data_ready(); }
    void on_offer(offer_handler handler) override { real_->on_offer(std::move(handler)); }
    task<result<void>> receive_transfer(std::string tag, core::mutable_bytes destination, arrival_handler on_arrival,
                                        held_question held, std::uint64_t used) override {
        return real_->receive_transfer(std::move(tag), destination, std::move(on_arrival), std::move(held), used);
    }
    void make_room(const std::string& tag, std::uint64_t used) override { real_->make_room(tag, used); }
    std::uint64_t received_of(const std::string& tag) const override { return real_->received_of(tag); }
    void refuse_transfer(const std::string& tag, std::string why) override {
        real_->refuse_transfer(tag, std::move(why));
    }
    void withdraw_transfer(const std::string& tag) override { real_->withdraw_transfer(tag); }
    void abandon_transfer(const std::string& tag) override { real_->abandon_transfer(tag); }
    void beat_often(bool often) override { real_->beat_often(often); }
    net::link_stats stats() const override { return real_->stats(); }
    void on_round_trip(round_trip_handler handler) override { real_->on_round_trip(std::move(handler)); }
    net::wire_count wire() const override { return real_->wire(); }
    void close(std::string reason) override { real_->close(std::move(reason)); }

private:
    static task<result<void>> lie_about(std::shared_ptr<net::link> real, net::identity self, lie l, std::string tag,
                                        shared_bytes data, std::shared_ptr<const std::uint64_t> ready) {
        // Offered at once, as an honest peer does, and spoilt as soon as the honest bytes are there: who reads them
        // reads them later.
        const auto spoilt = std::make_shared<core::byte_vector>(*data);
        if (!ready || *ready >= data->size()) {
            l.payload(*spoilt, self, real->remote().key);
        } else {
            co_return core::fail(core::errc::closed, "a payload is offered when it is made");
        }
        auto sending = real->send_transfer(tag, spoilt);
        co_return co_await std::move(sending);
    }

    std::shared_ptr<net::link> real_;
    net::identity self_;
    const lie& lie_;
};

/// Changes a frame, and signs it again.
void sign_again(core::byte_vector& frame, const net::identity& liar,
                const std::function<void(peers::chunk_header&, core::mutable_bytes data)>& change) {
    auto header = peers::open_chunk(frame, liar.key());
    REQUIRE(header);
    const auto data = core::mutable_bytes(frame).subspan(peers::chunk_header_bytes);
    change(*header, data);
    header->hash = core::hash(data);
    header->root = peers::root_of_stream(*header, std::vector{header->hash});
    peers::seal_chunk(*header, frame, liar);
}

std::vector<lie> lies() {
    std::vector<lie> out;
    out.push_back({.what = "data that are not those of its hash",
                   .payload = [](auto& frame, const auto&, const auto&) { frame.back() ^= std::byte{1}; }});
    out.push_back({.what = "another round", .payload = [](auto& frame, const auto& liar, const auto&) {
                       sign_again(frame, liar, [](auto& h, auto) { ++h.stream.round; });
                   }});
    out.push_back({.what = "another size",
                   .payload = [](auto& frame, const auto&, const auto&) { frame.push_back(std::byte{0}); }});
    out.push_back({.what = "somebody else's name", .payload = [](auto& frame, const auto& liar, const auto&) {
                       sign_again(frame, liar, [](auto& h, auto) { h.stream.author = h.stream.author == 1 ? 2U : 1U; });
                   }});
    out.push_back({.what = "values that are not finite", .payload = [](auto& frame, const auto& liar, const auto&) {
                       sign_again(frame, liar, [](auto&, auto data) { std::ranges::fill(data, std::byte{0xff}); });
                   }});
    // What each of the others has is a valid payload: only together they see that they differ.
    out.push_back({.what = "two payloads for one round",
                   .payload =
                       [](auto& frame, const auto& liar, const net::peer_key& to) {
                           sign_again(frame, liar, [&to](auto&, auto data) { data[0] ^= to.bytes[0]; });
                       },
                   .is_proven = false});
    out.push_back({.what = "another sum",
                   .message =
                       [](peers::message& m) {
                           if (auto* r = std::get_if<peers::ready_message>(&m)) r->aggregate_root = core::hash({});
                       },
                   .is_proven = false});
    out.push_back({.what = "another state",
                   .message =
                       [](peers::message& m) {
                           if (auto* r = std::get_if<peers::ready_message>(&m)) r->state_root = core::hash({});
                       },
                   .is_proven = false});
    return out;
}

constexpr std::uint64_t rounds = 40;

struct outcome {
    double seconds = 0;        ///< of all rounds but the first, at the founder
    std::size_t attempts = 0;  ///< that failed
    bool cut_off = false;
    std::string named;  ///< the events that do, one of each kind
    std::string problem;
    core::digest trace;
};

/// Four peers, of which n3 tells `l` all the time, if it is given.
outcome run_with(const lie* l, std::uint64_t seed, std::int64_t every = 0) {
    small_run r(seed);
    r.s.step_time = 50ms;
    if (l != nullptr) {
        r.s.liars["n3"] = [l](auto link, net::identity self) {
            return std::make_shared<lying_link>(std::move(link), std::move(self), *l);
        };
    }
    auto c = quadratic_run(static_cast<std::int64_t>(rounds), 4);
    c.exchange.every = every;
    c.exchange.staleness = every > 0 ? 1 : 0;
    r.start(c, 4, usual_line);
    outcome out;
    const auto over = [&r] {
        return newest_round(r.w["n0"]) == rounds && newest_round(r.w["n1"]) == rounds &&
               newest_round(r.w["n2"]) == rounds;
    };
    if (!r.w.run_while([&] { return !over(); }, 30min)) out.problem = "the others did not go on\n" + r.w.report();
    std::string liar_key, number;
    std::set<std::string> roots;
    for (const auto& [at, e] : r.w["n0"].events()) {
        const auto text = core::to_json_line(e, 0, "n0");
        if (e.name == "joined" && std::get<std::string>(*e.find("name")) == "n3") {
            liar_key = std::get<std::string>(*e.find("peer"));
            number = fmt::format("peer {}", std::get<std::uint64_t>(*e.find("number")));
        }
        if (e.name == "attempt_failed") ++out.attempts;
        if (e.name == "cut_off") out.cut_off = std::get<std::string>(*e.find("peer")) == liar_key;
        const bool tells =
            e.name == "error" || e.name == "attempt_failed" || e.name == "cut_off" || e.name == "sits_out";
        const bool names =
            text.find(liar_key.substr(0, 8)) != std::string::npos || text.find(number) != std::string::npos;
        if (tells && !liar_key.empty() && names && out.named.find(e.name) == std::string::npos) out.named += text;
    }
    const auto& events = r.w["n0"].events();
    const auto round_at = [&events](std::uint64_t round) {
        for (const auto& [at, e] : events) {
            if (e.name == "round_committed" && std::get<std::uint64_t>(*e.find("round")) == round)
                return core::to_seconds(at);
        }
        return 0.0;
    };
    out.seconds = round_at(rounds) - round_at(1);
    for (const auto* name : {"n0", "n1", "n2"}) {
        std::string root;
        for (const auto& [at, e] : r.w[name].events()) {
            if (e.name == "round_committed") root = std::get<std::string>(*e.find("root"));
        }
        roots.insert(root);
    }
    if (roots.size() != 1) out.problem += "the others have different roots\n";
    for (const auto& sentence : sim::check_invariants(r.w).broken) {
        // That somebody lies is told where it is found, as it should be.
        const bool found = sentence.starts_with("honesty") || sentence.find(number) != std::string::npos;
        if (l == nullptr || !found) out.problem += sentence + "\n";
    }
    out.trace = r.w.trace_hash();
    return out;
}

}  // namespace

TEST_CASE("a peer that lies is cut off or left out, is named, and costs the others no round", "[sim]") {
    const auto honest = run_with(nullptr, 1);
    CHECK(honest.problem.empty());
    CHECK(honest.named.empty());
    CHECK(honest.attempts == 0);
    REQUIRE(honest.seconds > static_cast<double>(rounds - 1) * 0.5);
    for (const auto& l : lies()) {
        INFO(l.what);
        const auto o = run_with(&l, 1);
        INFO(o.named);
        CHECK(o.problem.empty());
        CHECK_FALSE(o.named.empty());
        CHECK(o.cut_off == l.is_proven);
        // Each time that it may take part again it costs an attempt, and that is less and less often.
        CHECK(o.attempts <= 7);
        CHECK(o.seconds < 1.1 * honest.seconds + 2);
        const auto again = run_with(&l, 1);
        CHECK(again.trace == o.trace);
    }
}

TEST_CASE("a peer that lies in rounds of several exchanges is cut off or left out as well, and takes nobody with it",
          "[sim]") {
    const auto honest = run_with(nullptr, 1, 2);
    CHECK(honest.problem.empty());
    CHECK(honest.attempts == 0);
    for (const auto& l : lies()) {
        INFO(l.what);
        const auto o = run_with(&l, 1, 2);
        INFO(o.named);
        CHECK(o.problem.empty());
        CHECK_FALSE(o.named.empty());
        CHECK(o.cut_off == l.is_proven);
        CHECK(o.attempts <= 7);
        INFO(o.seconds << " s, honestly " << honest.seconds << " s");
        CHECK(o.seconds < 1.2 * honest.seconds + 2);
    }
}

TEST_CASE("a donor that lies is cut off, and the others bring what it should have", "[sim]") {
    const auto flips = [](std::uint64_t seed) {
        bool lies = false;
        lie l;
        l.piece = [&lies](core::byte_vector& piece) {
            if (lies) piece[piece.size() / 2] ^= std::byte{1};
        };
        small_run r(seed);
        r.s.step_time = 200ms;
        // Whom the newcomer meets first, who tells it the state, and who coordinates as well.
        r.s.liars["n0"] = [&l](auto link, net::identity self) {
            return std::make_shared<lying_link>(std::move(link), std::move(self), l);
        };
        auto c = quadratic_run(12, 4);
        c.model.width = 200'000;
        r.start(c, 4, usual_line);
        REQUIRE(r.until_ordered_by(3));
        REQUIRE(r.until_round(3));
        lies = true;
        r.w.add_node("n4", usual_line(4)).start(r.s.main_of("n4", std::nullopt));
        const auto problem = r.finish(12, "");
        std::size_t cut = 0, caught_up = 0;
        for (const auto& [at, e] : r.w["n4"].events()) {
            if (e.name == "cut_off") cut += std::get<std::string>(*e.find("name")) == "n0" ? 1 : 100;
            if (e.name == "catch_up") ++caught_up;
        }
        CHECK(cut >= 1);
        CHECK(cut < 5);
        CHECK(caught_up >= 1);
        std::string other;
        for (std::size_t at = 0; at < problem.size();) {
            const auto sentence = problem.substr(at, problem.find('\n', at) - at);
            at += sentence.size() + 1;
            if (!sentence.starts_with("honesty: n4 finds")) other += sentence + "\n";
        }
        INFO(other);
        CHECK(other.empty());
        return r.w.trace_hash();
    };
    CHECK(flips(1) == flips(1));
}

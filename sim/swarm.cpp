#include "sim/swarm.hpp"

#include <fmt/format.h>

#include <array>
#include <iterator>
#include <nlohmann/json.hpp>

#include "compress/codec.hpp"
#include "core/entropy.hpp"

namespace longhaul::sim {

namespace {

/// Everything is one of a few values, because numbers that libm computes differ between machines.
class drawer {
public:
    explicit drawer(std::uint64_t seed) : random_(seed, "swarm"), exchanges_(seed, "exchanges") {}
    std::string draw();

private:
    template <typename... T>
    auto one_of(T... values) {
        const std::array all{values...};
        return all[random_.below(all.size())];
    }
    bool chance(std::uint64_t percent) { return random_.below(100) < percent; }
    std::uint64_t between(std::uint64_t least, std::uint64_t most) { return least + random_.below(most - least + 1); }
    template <typename... T>
    void line(fmt::format_string<T...> text, T&&... values) {
        fmt::format_to(std::back_inserter(out_), text, std::forward<T>(values)...);
        out_ += '\n';
    }

    void run();
    void network();
    void peers();
    void faults();
    void fault();
    void bridge(std::uint64_t milliseconds);
    void flap();
    void blackout(std::uint64_t milliseconds);
    void forget();
    /// Who it befalls: whoever coordinates, or anybody.
    std::string victim() { return chance(30) ? "coordinator" : name(random_.below(peers_)); }
    std::string name(std::uint64_t peer) const { return fmt::format("p{}", peer); }
    bool slow() const { return step_milliseconds_ >= 10'000; }
    bool late(std::uint64_t peer) const { return peer >= peers_ - late_; }

    core::seeded_entropy random_;
    core::seeded_entropy exchanges_;  ///< of a round
    std::string out_;
    std::uint64_t peers_ = 0, late_ = 0;  ///< the last ones join late
    std::uint64_t steps_ = 0, step_milliseconds_ = 0;
    std::uint64_t span_ = 0;  ///< seconds in which faults begin
};

std::string drawer::draw() {
    steps_ = one_of(3u, 8u, 10u);
    step_milliseconds_ = one_of(50u, 500u, 10000u, 20000u, 20000u);
    // Long runs are of few peers, and runs of many short ones: what is simulated costs by the pair and the second.
    peers_ = slow() ? one_of(3u, 3u, 4u, 4u, 5u) : one_of(4u, 5u, 5u, 6u, 7u, 8u);
    late_ = chance(50) ? between(1, 2) : 0;
    late_ = std::min(late_, peers_ - 3);
    // Some tens of rounds, whatever they take.
    const auto rounds = slow() ? between(15, 35) : between(20, 60);
    span_ = rounds * (steps_ * step_milliseconds_ / 1000 + 2);
    run();
    network();
    peers();
    faults();
    line("[expect]");
    line("recovers_within = \"{} s\"", 600 + 20 * steps_ * step_milliseconds_ / 1000);
    line("within = \"{} s\"", 3 * span_ + 7200);
    return std::move(out_);
}

void drawer::run() {
    const auto names = compress::codec_names();
    const auto codec = compress::find_codec(names[random_.below(names.size())]).value();
    line("[run]");
    line("name = \"swarm\"");
    line("stop.rounds = 1000000");
    line(
        "inner = {{ optimizer = \"sgd\", lr = 0.05, weight_decay = 0.0, steps = {}, warmup = 0, "
        "schedule = \"constant\" }}",
        steps_);
    const auto width = one_of(64u, 1000u, 5120u, 30720u);
    line("model = {{ kind = \"quadratic\", width = {} }}", width);
    const bool sums = codec->fits_sums();
    // Only matrices can be cut, and what feedback keeps is of the whole model.
    const bool parts = width > 4096 && !codec->wants_feedback();
    const std::string mode = sums ? one_of("auto", "gather", "shard") : one_of("auto", "gather");
    const auto delay = one_of(0u, 0u, 1u);
    const auto aggregate = codec->wants_feedback() ? one_of("mean", "clip")
                                                   : one_of("mean", "mean", "clip", "trimmed_mean", "centered_clip");
    const auto fragments = parts ? one_of(1u, 2u, 3u, 7u) : 1u;
    line("exchange.codec = \"{}\"\nexchange.mode = \"{}\"\nexchange.aggregate = \"{}\"", codec->name(), mode,
         aggregate);
    line("exchange.feedback = \"{}\"", codec->wants_feedback() ? "ef" : "none");
    line("exchange.delay = {}\nexchange.fragments = {}", delay, fragments);
    const bool several = mode != "shard" && delay == 0 && fragments == 1 && !codec->goes_on();
    if (several && exchanges_.below(2) == 0) {
        line("exchange.every = {}", 1 + exchanges_.below(2));
        line("exchange.staleness = {}", exchanges_.below(2));
    }
    // Who trains for minutes listens for minutes, and costs less to simulate.
    line(
        "peers = {{ min = {}, silence_limit = \"{} s\", grace = \"{} s\", first_deadline = \"{} s\", on_quorum_loss = "
        "\"{}\" }}",
        between(1, 2), slow() ? one_of(30u, 60u, 120u) : one_of(5u, 10u, 30u), one_of(1u, 2u, 10u), one_of(60u, 300u),
        one_of("auto", "continue"));
    line("checkpoint = {{ every = {}, keep = {} }}", one_of(1u, 3u, 10u), between(1, 3));
    line("eval.every = {}", between(0, 1));
}

void drawer::network() {
    line("[links]");
    line("rtt = \"{} ms\"", one_of(1u, 20u, 80u, 200u));
    line("jitter = \"{} ms\"", one_of(0u, 0u, 5u, 30u));
    line("loss = \"{} %\"", one_of("0", "0", "0.1", "1"));
    if (!chance(30)) return;
    line("[[site]]");
    line("name = \"site\"");
    line("up = \"{} Mbit/s\"", one_of(5u, 50u));
    line("down = \"{} Mbit/s\"", one_of(20u, 100u));
}

void drawer::peers() {
    const bool site = out_.find("[[site]]") != std::string::npos;
    for (std::uint64_t i = 0; i < peers_; ++i) {
        line("[[peer]]");
        line("name = \"{}\"", name(i));
        const auto kind = random_.below(5);
        if (kind == 0) line("preset = \"{}\"", one_of("dsl", "cable", "fibre", "lte", "satellite"));
        if (kind == 1 && site) line("site = \"site\"");
        if (kind > 1) line("up = \"{} Mbit/s\"\ndown = \"{} Mbit/s\"", one_of(2u, 10u, 100u), one_of(5u, 50u, 100u));
        // Some are slower than others.
        line("step_time = \"{} ms\"", step_milliseconds_ * one_of(100u, 100u, 120u, 200u) / 100);
        line("restart_after = \"{} s\"", one_of(1u, 5u));
    }
}

void drawer::faults() {
    const auto count = between(6, 30);
    for (std::uint64_t i = 0; i < count; ++i) fault();
    // More voters than a majority can do without must not forget: then nobody can go on.
    if (chance(30)) forget();
    for (std::uint64_t i = 0; i < peers_; ++i) {
        if (late(i)) line("[[fault]]\nat = \"{} s\"\njoin = \"{}\"", between(1, span_), name(i));
    }
}

void drawer::fault() {
    const auto lasting = one_of(300u, 2'000u, 5'000u, 12'000u, 30'000u, 60'000u, 120'000u);
    const auto kind = random_.below(100);
    if (kind < 4) return bridge(lasting);
    if (kind < 8) return flap();
    if (kind < 11) return blackout(lasting);
    line("[[fault]]");
    line("at = \"{} ms\"", random_.below(span_ * 1000));
    // Whoever joins late does not exist until then: a restart would start it before.
    if (kind < 15) {
        line("restart = \"{}\"", name(random_.below(peers_ - late_)));
        return;
    }
    if (kind < 18) {
        line("reset = \"{}\"", victim());
        return;
    }
    if (kind >= 96) {
        line("disk = \"{}\"\nerror = \"fsync\"", victim());
        return;
    }
    line("for = \"{} ms\"", lasting);
    if (kind < 37) {
        line("kill = \"{}\"", victim());
    } else if (kind < 47) {
        line("power = \"{}\"", victim());
    } else if (kind < 63) {
        line("stop = \"{}\"", victim());
    } else if (kind < 70) {
        line("partition = \"{}\"", victim());
    } else if (kind < 75) {
        const auto first = random_.below(peers_);
        line("partition = [\"{}\", \"{}\"]", name(first), name((first + between(1, peers_ - 1)) % peers_));
    } else if (kind < 82) {
        const auto from = random_.below(peers_);
        line("one_way = [\"{}\", \"{}\"]", name(from), name((from + between(1, peers_ - 1)) % peers_));
    } else if (kind < 88) {
        line("rate = \"{}\"\nfactor = {}", victim(), one_of("0.01", "0.1", "0.5"));
    } else if (kind < 92) {
        line("clock = \"{}\"\ndrift = {}\noffset = \"{} s\"", victim(), one_of(-100000, -1000, 1000, 100000),
             one_of("-3600", "-5", "5", "3600"));
    } else if (kind < 94) {
        line("disk = \"{}\"\nerror = \"full\"", victim());
    } else {
        line("leave = \"{}\"", victim());
    }
}

/// One peer reaches everybody, and of all the others each only those of its side.
void drawer::bridge(std::uint64_t milliseconds) {
    const auto first = random_.below(peers_), a_side = between(1, peers_ - 2);
    std::string sides[2];
    for (std::uint64_t i = 1; i < peers_; ++i) {
        auto& side = sides[i <= a_side ? 0 : 1];
        side += fmt::format("{}\"{}\"", side.empty() ? "" : ", ", name((first + i) % peers_));
    }
    line("[[fault]]\nat = \"{} ms\"\nfor = \"{} ms\"", random_.below(span_ * 1000), milliseconds);
    line("partition = [{}]\nfrom = [{}]", sides[0], sides[1]);
}

/// A line that comes and goes.
void drawer::flap() {
    const auto who = name(random_.below(peers_));
    auto at = random_.below(span_ * 1000);
    for (auto times = between(3, 8); times > 0; --times) {
        const auto off = one_of(100u, 1'000u, 3'000u);
        line("[[fault]]\nat = \"{} ms\"\nfor = \"{} ms\"\npartition = \"{}\"", at, off, who);
        at += off + one_of(50u, 500u, 4'000u);
    }
}

/// Everybody who is there loses power at the same instant.
void drawer::blackout(std::uint64_t milliseconds) {
    std::string all;
    for (std::uint64_t i = 0; i < peers_ - late_; ++i) all += fmt::format("{}\"{}\"", all.empty() ? "" : ", ", name(i));
    line("[[fault]]\nat = \"{} ms\"\nfor = \"{} ms\"\npower = [{}]", random_.below(span_ * 1000), milliseconds, all);
}

/// Nobody reads a disk before the next start. It is one voter of three or more: where a majority has forgotten, a
/// person has to say `longhaul recover`.
void drawer::forget() {
    const auto who = name(random_.below(peers_ - late_));
    const auto at = between(span_ / 4, span_);
    const auto* how = one_of("rot", "rot", "lost");
    line("[[fault]]\nat = \"{} s\"\ndisk = \"{}\"\nerror = \"{}\"\nvoters = 3", at, who, how);
    line("[[fault]]\nat = \"{} s\"\nfor = \"{} s\"\npower = \"{}\"", at, between(1, 60), who);
}

}  // namespace

std::string draw_scenario(std::uint64_t seed) { return drawer(seed).draw(); }

void swarm_tally::add(const outcome& o) {
    ++seeds;
    rounds += o.rounds;
    commits += o.commits;
    faults += o.faults;
    virtual_seconds += o.seconds;
    if (o.ok) return;
    auto& f = failed.emplace_back();
    f.seed = o.seed;
    for (const auto* group : {&o.invariants, &o.expect}) {
        for (const auto& [name, verdict] : *group) {
            if (verdict != "ok") f.broken.push_back(fmt::format("{}: {}", name, verdict));
        }
    }
}

std::string to_json(const swarm_tally& t) {
    nlohmann::ordered_json j;
    j["seeds"] = t.seeds;
    j["virtual_hours"] = t.virtual_seconds / 3600;
    j["rounds"] = t.rounds;
    j["commits"] = t.commits;
    j["faults"] = t.faults;
    auto& failed = j["failed"] = nlohmann::ordered_json::array();
    for (const auto& f : t.failed) failed.push_back({{"seed", f.seed}, {"broken", f.broken}});
    j["ok"] = t.failed.empty();
    return j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string describe(const swarm_tally& t) {
    auto out = fmt::format("{} seeds: {:.1f} virtual hours, {} rounds, {} commits on nodes, {} faults; {} failed\n",
                           t.seeds, t.virtual_seconds / 3600, t.rounds, t.commits, t.faults, t.failed.size());
    for (const auto& f : t.failed) out += fmt::format("  seed {}: {}\n", f.seed, fmt::join(f.broken, "; "));
    return out;
}

std::string describe_drawn(const outcome& o) {
    return fmt::format("seed {}: {} peers, {} faults, {} rounds in {:.1f} virtual minutes: {}\n", o.seed,
                       o.peers.size(), o.faults, o.rounds, o.seconds / 60, o.ok ? "ok" : "NOT ok");
}

}  // namespace longhaul::sim

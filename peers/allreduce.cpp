#include "peers/allreduce.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "compress/codec.hpp"
#include "core/hash.hpp"
#include "net/mesh.hpp"
#include "peers/exchange.hpp"
#include "peers/planning.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using core::ok;
using core::result;
using core::task;
using namespace std::chrono_literals;

namespace {

using shared_link = std::shared_ptr<net::link>;

/// What the machines say to each other; the first byte of a message.
enum class word : std::uint8_t {
    setup = 1,  ///< host: who is who, and what is to be summed
    linked,     ///< guest: linked with everybody that it can reach, and its lines
    open,       ///< host: the next repetition's attempt
    prepared,   ///< guest: has room
    go,         ///< host: start after so many microseconds
    done,       ///< guest: its seconds, its root, its lines
    report,     ///< host: everybody's seconds; the end
};

constexpr std::uint64_t most_bytes = std::uint64_t{16} << 30;
constexpr std::uint32_t most_repeats = 10'000;
/// Members that cannot be reached directly in this time are reached through others.
constexpr auto dialling_time = 5s;
/// Offers of the next repetition are answered meanwhile.
constexpr auto settling_time = 200ms;

struct peer_entry {
    net::peer_key key;
    std::vector<net::endpoint> addresses;
};

struct received_word {
    word what = word::setup;
    core::byte_vector rest;
};

/// One machine's part: an exchange, a mesh and the others' words.
class machine_part final : public exchange_host {
public:
    machine_part(net::environment& env, const allreduce_wishes& wishes)
        : env_(env),
          self_key_(net::identity::generate(env.entropy)),
          wishes_(wishes),
          changed_(env.executor),
          tasks_(env.executor) {
        net::mesh_options o;
        o.run = core::hash(core::as_bytes("longhaul bench allreduce"));
        o.name = "bench";
        // Everybody must be reachable by somebody: where it listens, as the host sees it.
        o.advertised = {{wishes.listen.host, 0}};
        mesh_.emplace(
            env, self_key_, o, [](const net::remote_peer&, bool) { return ok(); },
            [this](shared_link l) { take_link(std::move(l)); });
    }

    net::environment& env() override { return env_; }
    const net::identity& identity() const override { return self_key_; }
    core::digest run() const override { return core::hash(core::as_bytes("longhaul bench allreduce")); }
    peer_number self() const override { return number; }
    const core::tensor_manifest& tensors(std::uint64_t /*round*/) const override { return manifest; }
    std::uint64_t most_elements() const override { return manifest.elements(); }
    shared_link link_of(peer_number who) const override {
        const auto* key = key_of(who);
        return key == nullptr ? nullptr : mesh_->find(*key);
    }
    const net::peer_key* key_of(peer_number who) const override {
        return who >= 1 && who <= table.size() ? &table[who - 1].key : nullptr;
    }
    core::scope& tasks() override { return tasks_; }
    core::wakeup& changed() override { return changed_; }
    void report(const core::error& e, std::string_view doing_what) override {
        if (e.code == errc::cancelled) return;
        failure = core::error(e.code, fmt::format("{}: {}", doing_what, e.message));
        changed_.notify();
    }
    void caught(const net::peer_key& who, const core::error& lie, std::string_view doing_what) override {
        report(lie, doing_what);
        if (const auto link = mesh_->find(who)) link->close("it sent what cannot be true");
    }
    void reconsider() override {
        for (const auto& l : mesh_->links()) consider_offers(l);
    }

    peer_number number_of(const net::peer_key& key) const {
        for (std::size_t i = 0; i < table.size(); ++i) {
            if (table[i].key == key) return static_cast<peer_number>(i + 1);
        }
        return 0;
    }
    std::vector<peer_number> everybody() const {
        std::vector<peer_number> out;
        for (peer_number n = 1; n <= table.size(); ++n) out.push_back(n);
        return out;
    }
    void count_traffic(allreduce_report& report) const {
        for (const auto& l : seen) {
            const auto stats = l->stats();
            report.wire_sent += stats.wire_sent;
            report.wire_received += stats.wire_received;
            report.padding_sent += stats.padding_sent;
        }
    }
    lines_message lines() const {
        lines_message m;
        m.up = line_up.with({});
        m.down = line_down.with({});
        for (const auto n : everybody()) {
            const auto l = n == number ? nullptr : link_of(n);
            if (!l) continue;
            const auto s = l->stats();
            m.links.push_back({n, static_cast<std::uint32_t>(core::to_seconds(s.rtt_min) * 1e6)});
        }
        return m;
    }
    result<void> take_setup(std::uint64_t bytes) {
        core::tensor_spec spec;
        spec.name = "synthetic";
        spec.shape = {1, static_cast<std::int64_t>(bytes / 4)};  // a matrix: codecs treat vectors with more care
        std::vector<core::tensor_spec> specs{spec};
        LONGHAUL_TRY_ASSIGN(manifest, core::tensor_manifest::make(std::move(specs)));
        number = number_of(self_key_.key());
        if (number == 0) return fail(errc::protocol, "the host's list does not name this machine");
        values.resize(manifest.elements());
        for (std::size_t i = 0; i < values.size(); ++i) {
            const auto mixed = (i * 2654435761U + number * 40503U) >> 8U;
            values[i] = static_cast<float>(mixed & 0xffffU) / 65536.0F - 0.5F;
        }
        exchanger.emplace(*this);
        return ok();
    }
    void take_link(shared_link l) {
        seen.push_back(l);
        const std::weak_ptr<net::link> weak = l;
        l->on_offer([this, weak](const std::string& tag, std::uint64_t bytes) {
            const auto from = weak.lock();
            if (!from || offers_.size() > 4096) return;
            offers_[{from->remote().key, tag}] = bytes;
            consider_offers(from);
        });
        tasks_.spawn_isolated("words", listen_to(*this, std::move(l)));
        changed_.notify();
    }
    void consider_offers(const shared_link& from) {
        if (!exchanger) return;
        const auto sender = number_of(from->remote().key);
        const auto all = offers_;
        for (const auto& [which, bytes] : all) {
            if (which.first != from->remote().key) continue;
            const auto verdict = exchanger->consider(from, sender, which.second, bytes);
            if (verdict != exchange::verdict::later) offers_.erase(which);
        }
    }
    static task<result<void>> listen_to(machine_part& m, shared_link from) {
        const auto key = from->remote().key;
        for (;;) {
            auto bytes = co_await from->receive();
            if (!bytes) {
                m.lost.insert(key);
                m.changed_.notify();
                co_return ok();
            }
            if (bytes->empty() || m.words[key].size() > 64) continue;
            received_word w;
            w.what = static_cast<word>((*bytes)[0]);
            w.rest.assign(bytes->begin() + 1, bytes->end());
            m.words[key].push_back(std::move(w));
            m.changed_.notify();
        }
    }
    task<result<void>> say(const shared_link& to, word what, core::byte_vector rest) {
        if (!to) co_return fail(errc::closed, "a machine left before the end");
        core::byte_writer out;
        out.u8(static_cast<std::uint8_t>(what)).raw(rest);
        auto saying = to->send(out.take());
        co_return co_await std::move(saying);
    }
    /// The next word of that machine, which must be `what`.
    task<result<core::byte_vector>> hear(net::peer_key from, word what) {
        auto& queue = words[from];
        const auto heard = [this, &queue, from] { return !queue.empty() || lost.contains(from) || failure; };
        auto waited = co_await core::wait_until(changed_, heard, env_.clock, env_.clock.now() + wishes_.patience);
        if (!waited) co_return fail(waited.error().within("waiting for another machine"));
        if (failure) co_return fail(*failure);
        if (queue.empty()) co_return fail(errc::closed, "a machine left before the end");
        auto w = std::move(queue.front());
        queue.pop_front();
        if (w.what != what) co_return fail(errc::protocol, "a machine said something unexpected");
        co_return std::move(w.rest);
    }

    net::environment& env_;
    net::identity self_key_;
    const allreduce_wishes& wishes_;
    std::optional<net::mesh> mesh_;
    core::tensor_manifest manifest;
    peer_number number = 0;
    std::vector<peer_entry> table;  ///< peer n at n − 1
    core::flat_buffer values;
    std::vector<shared_link> seen;
    std::map<net::peer_key, std::deque<received_word>> words;
    std::set<net::peer_key> lost;
    std::map<std::pair<net::peer_key, std::string>, std::uint64_t> offers_;
    std::optional<core::error> failure;
    line_rate line_up{line_rate::way::sends};
    line_rate line_down{line_rate::way::receives};
    std::optional<exchange> exchanger;
    core::wakeup changed_;
    core::scope tasks_;
};

/// One repetition on this machine: from the start to the sum. The seconds and the root.
struct finished {
    double seconds = 0;
    core::digest root;
};

task<result<finished>> sum_once(machine_part& m, const round_record& r) {
    const auto begun = m.env_.clock.now();
    work_done work;
    work.tokens = work.steps = 1;
    auto made = co_await m.exchanger->contribute(m.values, work);
    LONGHAUL_CO_TRY(made);
    const auto summed = [&m, &r] { return m.failure || m.exchanger->result(1, r.round, r.attempt); };
    auto waited = co_await core::wait_until(m.changed_, summed, m.env_.clock, begun + m.wishes_.patience);
    if (!waited) co_return fail(waited.error().within("waiting for the sum"));
    if (m.failure) co_return fail(*m.failure);
    finished f;
    f.seconds = core::to_seconds(m.env_.clock.now() - begun);
    f.root = m.exchanger->result(1, r.round, r.attempt)->root;
    m.line_up.take(m.exchanger->sent());
    m.line_down.take(m.exchanger->received());
    co_return f;
}

void open_round(machine_part& m, const round_record& r) {
    exchange_terms t;
    t.generation = 1;
    t.round = r.round;
    t.attempt = r.attempt;
    t.members = r.members;
    t.contributors = r.contributors;
    t.codec = r.plan.codec;
    t.plan = r.exchange;
    m.exchanger->open(std::move(t));
    m.exchanger->prepare();
    m.reconsider();
}

/// Dials everybody with a smaller number, and waits until they are linked or cannot be.
task<result<void>> link_with_all(machine_part& m) {
    const auto until = m.env_.clock.now() + dialling_time;
    for (;;) {
        bool all = true;
        for (peer_number n = 1; n <= m.table.size(); ++n) {
            if (n == m.number || m.link_of(n)) continue;
            all = false;
            if (n > m.number) continue;
            auto dialled = co_await m.mesh_->dial(m.table[n - 1].addresses, m.table[n - 1].key);
            if (!dialled && dialled.error().code == errc::cancelled) co_return fail(dialled.error());
        }
        if (all || m.env_.clock.now() > until) co_return ok();
        auto slept = co_await m.env_.clock.sleep_for(50ms);
        LONGHAUL_CO_TRY(slept);
    }
}

// ---- the host

core::byte_vector setup_words(const machine_part& m) {
    core::byte_writer out;
    out.u32(static_cast<std::uint32_t>(m.table.size()));
    for (const auto& p : m.table) {
        out.raw(p.key.bytes).u32(static_cast<std::uint32_t>(p.addresses.size()));
        for (const auto& a : p.addresses) out.sized(core::as_bytes(a.host)).u16(a.port);
    }
    out.u64(m.wishes_.bytes).u32(m.wishes_.repeat).sized(core::as_bytes(m.wishes_.codec));
    return out.take();
}

task<result<allreduce_report>> lead(machine_part& m, net::endpoint bound) {
    const auto& w = m.wishes_;
    const auto complete = [&m, &w] { return m.mesh_->links().size() + 1 >= w.peers; };
    auto came = co_await core::wait_until(m.changed_, complete, m.env_.clock, m.env_.clock.now() + w.patience);
    if (!came) co_return fail(came.error().within(fmt::format("waiting for {} machines", w.peers)));
    m.table.push_back({m.self_key_.key(), {bound}});
    for (const auto& l : m.mesh_->links()) {
        if (m.table.size() == w.peers) break;
        peer_entry e;
        e.key = l->remote().key;
        for (auto a : l->remote().advertised) {
            // Behind a wildcard address, the one that we see is the one that works.
            if (a.host == "0.0.0.0" || a.host == "::" || a.host.empty()) a.host = l->remote().observed.host;
            e.addresses.push_back(std::move(a));
        }
        m.table.push_back(std::move(e));
    }
    LONGHAUL_CO_TRY(m.take_setup(w.bytes));
    const auto guests = static_cast<peer_number>(m.table.size());
    for (peer_number n = 2; n <= guests; ++n) {
        auto said = co_await m.say(m.link_of(n), word::setup, setup_words(m));
        LONGHAUL_CO_TRY(said);
    }
    const auto codec = compress::find_codec(w.codec);
    LONGHAUL_CO_TRY(codec);
    exchange_planner planner({.chunks = chunk_grid::of(m.manifest.elements(), **codec).count(),
                              .payload_bytes = payload_bytes(m.manifest, **codec),
                              .may_shard = (*codec)->fits_sums(),
                              .mode = w.mode});
    const auto take_lines = [&m, &planner](peer_number who, core::const_bytes bytes) -> result<void> {
        LONGHAUL_TRY_ASSIGN(const auto said, parse_message(bytes));
        const auto* lines = std::get_if<lines_message>(&said);
        if (lines == nullptr) return fail(errc::protocol, "a machine told something else than its lines");
        planner.heard(who, *lines, m.env_.clock.now() - exchange_planner::time_to_link);
        return ok();
    };
    for (peer_number n = 2; n <= guests; ++n) {
        auto linked = co_await m.hear(m.table[n - 1].key, word::linked);
        LONGHAUL_CO_TRY(linked);
        LONGHAUL_CO_TRY(take_lines(n, *linked));
    }
    allreduce_report report;
    report.peers = w.peers;
    report.bytes = w.bytes;
    report.codec = w.codec;
    for (std::uint32_t i = 0; i < w.repeat; ++i) {
        planner.heard(1, m.lines(), m.env_.clock.now() - exchange_planner::time_to_link);
        round_record r;
        r.round = i + 1;
        r.attempt = 1;
        r.members = r.contributors = m.everybody();
        r.plan.codec = w.codec;
        auto choice = planner.plan(r.members, r.contributors, m.env_.clock.now(), report.mode);
        r.plan.mode = report.mode = choice.mode;
        r.exchange = std::move(choice.plan);
        report.reason = r.exchange.reason;
        report.predicted_seconds.push_back(r.exchange.predicted_seconds);
        core::duration farthest{};
        for (peer_number n = 2; n <= guests; ++n) {
            auto said = co_await m.say(m.link_of(n), word::open, serialize(record(r)));
            LONGHAUL_CO_TRY(said);
        }
        open_round(m, r);
        for (peer_number n = 2; n <= guests; ++n) {
            auto prepared = co_await m.hear(m.table[n - 1].key, word::prepared);
            LONGHAUL_CO_TRY(prepared);
            if (const auto l = m.link_of(n)) farthest = std::max(farthest, l->stats().rtt_min / 2);
        }
        // All start at the same moment, as near as round trips tell.
        for (peer_number n = 2; n <= guests; ++n) {
            const auto l = m.link_of(n);
            const auto wait = l ? farthest - l->stats().rtt_min / 2 : core::duration{};
            core::byte_writer out;
            out.u64(static_cast<std::uint64_t>(core::to_seconds(wait) * 1e6));
            auto said = co_await m.say(l, word::go, out.take());
            LONGHAUL_CO_TRY(said);
        }
        auto waited = co_await m.env_.clock.sleep_for(farthest);
        LONGHAUL_CO_TRY(waited);
        auto mine = co_await sum_once(m, r);
        LONGHAUL_CO_TRY(mine);
        double slowest = mine->seconds;
        for (peer_number n = 2; n <= guests; ++n) {
            auto done = co_await m.hear(m.table[n - 1].key, word::done);
            LONGHAUL_CO_TRY(done);
            core::byte_reader in(*done);
            const auto ns = in.u64();
            core::digest root;
            const auto got = in.copy_to(root.bytes);
            const auto rest = in.take(in.remaining());
            if (!ns || !got || !rest) co_return fail(errc::malformed, "a machine's result does not parse");
            LONGHAUL_CO_TRY(take_lines(n, *rest));
            if (root != mine->root) co_return fail(errc::protocol, "machine {} has another sum than this one", n);
            slowest = std::max(slowest, static_cast<double>(*ns) * 1e-9);
        }
        report.seconds.push_back(slowest);
        report.checksum = mine->root;
    }
    core::byte_writer out;
    out.sized(core::as_bytes(report.mode)).sized(core::as_bytes(report.reason));
    out.u32(static_cast<std::uint32_t>(report.seconds.size()));
    for (std::size_t i = 0; i < report.seconds.size(); ++i) {
        out.u64(static_cast<std::uint64_t>(report.seconds[i] * 1e9));
        out.u64(static_cast<std::uint64_t>(report.predicted_seconds[i] * 1e9));
    }
    for (peer_number n = 2; n <= guests; ++n) {
        auto said = co_await m.say(m.link_of(n), word::report, out.bytes());
        LONGHAUL_CO_TRY(said);
    }
    co_return report;
}

// ---- a guest

result<void> take_table(machine_part& m, core::const_bytes words, allreduce_report& report, std::uint32_t& repeat) {
    core::byte_reader in(words);
    LONGHAUL_TRY_ASSIGN(const auto count, in.u32());
    if (count < 2 || count > most_bench_peers) return fail(errc::limit, "an all-reduce of {} machines", count);
    for (std::uint32_t i = 0; i < count; ++i) {
        peer_entry e;
        LONGHAUL_TRY(in.copy_to(e.key.bytes));
        LONGHAUL_TRY_ASSIGN(const auto addresses, in.u32());
        if (addresses > max_addresses) return fail(errc::limit, "a machine with {} addresses", addresses);
        for (std::uint32_t a = 0; a < addresses; ++a) {
            LONGHAUL_TRY_ASSIGN(const auto host, in.sized(255));
            LONGHAUL_TRY_ASSIGN(const auto port, in.u16());
            e.addresses.push_back({std::string(core::as_text(host)), port});
        }
        m.table.push_back(std::move(e));
    }
    LONGHAUL_TRY_ASSIGN(report.bytes, in.u64());
    LONGHAUL_TRY_ASSIGN(repeat, in.u32());
    LONGHAUL_TRY_ASSIGN(const auto codec, in.sized(32));
    LONGHAUL_TRY(in.end());
    report.peers = count;
    report.codec = std::string(core::as_text(codec));
    LONGHAUL_TRY(compress::find_codec(report.codec));
    if (report.bytes < 4 || report.bytes % 4 != 0 || report.bytes > most_bytes || repeat > most_repeats) {
        return fail(errc::limit, "an all-reduce of {} bytes, {} times", report.bytes, repeat);
    }
    return m.take_setup(report.bytes);
}

task<result<allreduce_report>> follow(machine_part& m) {
    auto dialled = co_await m.mesh_->dial(m.wishes_.join);
    LONGHAUL_CO_TRY(dialled);
    const auto host = dialled->link;
    const auto key = host->remote().key;
    auto setup = co_await m.hear(key, word::setup);
    LONGHAUL_CO_TRY(setup);
    allreduce_report report;
    std::uint32_t repeat = 0;
    LONGHAUL_CO_TRY(take_table(m, *setup, report, repeat));
    auto linked = co_await link_with_all(m);
    LONGHAUL_CO_TRY(linked);
    auto told = co_await m.say(host, word::linked, serialize(message(m.lines())));
    LONGHAUL_CO_TRY(told);
    for (std::uint32_t i = 0; i < repeat; ++i) {
        auto opened = co_await m.hear(key, word::open);
        LONGHAUL_CO_TRY(opened);
        auto parsed = parse_record(*opened);
        LONGHAUL_CO_TRY(parsed);
        const auto* r = std::get_if<round_record>(&*parsed);
        if (r == nullptr || r->round != i + 1 || r->members != m.everybody() || r->contributors != r->members ||
            r->plan.codec != report.codec) {
            co_return fail(errc::protocol, "the host opens something else than the next repetition");
        }
        open_round(m, *r);
        auto settled = co_await m.env_.clock.sleep_for(settling_time);
        LONGHAUL_CO_TRY(settled);
        auto prepared = co_await m.say(host, word::prepared, {});
        LONGHAUL_CO_TRY(prepared);
        auto go = co_await m.hear(key, word::go);
        LONGHAUL_CO_TRY(go);
        core::byte_reader in(*go);
        const auto wait = in.u64();
        if (!wait || *wait > 60'000'000) co_return fail(errc::malformed, "the host's start does not parse");
        auto waited = co_await m.env_.clock.sleep_for(std::chrono::microseconds(*wait));
        LONGHAUL_CO_TRY(waited);
        auto mine = co_await sum_once(m, *r);
        LONGHAUL_CO_TRY(mine);
        report.checksum = mine->root;
        core::byte_writer out;
        out.u64(static_cast<std::uint64_t>(mine->seconds * 1e9)).raw(mine->root.bytes);
        out.raw(serialize(message(m.lines())));
        auto done = co_await m.say(host, word::done, out.take());
        LONGHAUL_CO_TRY(done);
    }
    auto end = co_await m.hear(key, word::report);
    LONGHAUL_CO_TRY(end);
    core::byte_reader in(*end);
    const auto mode = in.sized(32), reason = in.sized(max_reason);
    const auto count = in.u32();
    if (!mode || !reason || !count || *count != repeat) co_return fail(errc::malformed, "the host's report is none");
    report.mode = std::string(core::as_text(*mode));
    report.reason = std::string(core::as_text(*reason));
    for (std::uint32_t i = 0; i < *count; ++i) {
        const auto seconds = in.u64(), predicted = in.u64();
        if (!seconds || !predicted) co_return fail(errc::malformed, "the host's report is too short");
        report.seconds.push_back(static_cast<double>(*seconds) * 1e-9);
        report.predicted_seconds.push_back(static_cast<double>(*predicted) * 1e-9);
    }
    co_return report;
}

task<result<void>> take_part(machine_part& m, net::endpoint bound, std::optional<allreduce_report>& out) {
    result<allreduce_report> report = fail(errc::internal, "nothing was summed");
    if (!m.wishes_.join.empty()) {
        report = co_await follow(m);
    } else {
        report = co_await lead(m, bound);
    }
    if (report) {
        m.count_traffic(*report);
        out = std::move(*report);
        // The last words are still on their way.
        auto slept = co_await m.env_.clock.sleep_for(settling_time);
        LONGHAUL_CO_TRY(slept);
    }
    m.mesh_->close("the bench is over");
    m.tasks_.cancel();
    if (!report) co_return fail(report.error());
    co_return ok();
}

}  // namespace

task<result<allreduce_report>> allreduce(net::environment& env, allreduce_wishes wishes,
                                         std::function<void(const net::endpoint&)> on_listening) {
    machine_part m(env, wishes);
    net::endpoint at = wishes.listen;
    if (!wishes.join.empty()) at.port = 0;
    auto bound = m.mesh_->listen(at);
    LONGHAUL_CO_TRY(bound);
    if (on_listening) on_listening(*bound);
    std::optional<allreduce_report> report;
    m.tasks_.spawn("mesh", m.mesh_->serve());
    m.tasks_.spawn("all-reduce", take_part(m, *bound, report));
    auto ended = co_await m.tasks_.join();
    if (report) co_return *report;
    if (!ended) co_return fail(ended.error());
    co_return fail(errc::internal, "the all-reduce ended without a result");
}

}  // namespace longhaul::peers

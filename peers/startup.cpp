#include "compress/codec.hpp"
#include "core/counter_random.hpp"
#include "core/hash.hpp"
#include "peers/known_addresses.hpp"
#include "peers/memory.hpp"
#include "peers/node.hpp"
#include "peers/raft_consensus.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t max_small_file = 1 << 20;

/// A file of this node's own that does not read back.
tl::unexpected<core::error> damaged(std::string_view file, const core::error& e, std::string_view way_out) {
    return fail(errc::config, "the file '{}' of this state directory is damaged ({}): {}", file, e.message, way_out);
}

/// Each start of a node has a greater number than the one before: peers tell a restart from a second copy by it.
core::task<core::result<void>> count_incarnation(node& n) {
    auto saved = co_await n.env.storage.read("incarnation", 64);
    if (!saved && saved.error().code != errc::not_found) co_return fail(saved.error());
    if (saved) {
        core::byte_reader in(*saved);
        const auto before = in.u64();
        if (!before) co_return damaged("incarnation", before.error(), "remove it and start again");
        n.incarnation = *before + 1;
    }
    core::byte_writer out;
    out.u64(n.incarnation);
    co_return co_await core::put_bytes(n.env.storage, "incarnation", out.take());
}

core::byte_vector to_bytes(const run_secrets& s) {
    core::byte_writer out;
    out.raw(s.psk.bytes).u8(s.token ? 1 : 0);
    if (s.token) out.raw(s.token->bytes);
    return out.take();
}

core::result<run_secrets> secrets_from(core::const_bytes bytes) {
    core::byte_reader in(bytes);
    run_secrets s;
    LONGHAUL_TRY(in.copy_to(s.psk.bytes));
    LONGHAUL_TRY_ASSIGN(const auto has_token, in.u8());
    if (has_token != 0) {
        s.token.emplace();
        LONGHAUL_TRY(in.copy_to(s.token->bytes));
    }
    LONGHAUL_TRY(in.end());
    return s;
}

core::task<core::result<void>> save_run(node& n) {
    auto saved = co_await core::put_bytes(n.env.storage, "run/secrets", to_bytes(n.secrets));
    LONGHAUL_CO_TRY(saved);
    co_return co_await core::put_bytes(n.env.storage, "run/manifest", n.run->bytes);
}

/// The run that this state directory already takes part in, if any.
core::task<core::result<void>> load_run(node& n) {
    auto bytes = co_await n.env.storage.read("run/manifest", max_small_file);
    if (!bytes) {
        if (bytes.error().code == errc::not_found) co_return core::ok();
        co_return fail(bytes.error());
    }
    auto manifest = parse_manifest(*bytes, core::hash(*bytes));
    constexpr auto way_out = "restore it from a copy, or take part anew with another --state-dir";
    if (!manifest) co_return damaged("run/manifest", manifest.error(), way_out);
    auto saved = co_await n.env.storage.read("run/secrets", max_small_file);
    LONGHAUL_CO_TRY(saved);
    auto secrets = secrets_from(*saved);
    if (!secrets) co_return damaged("run/secrets", secrets.error(), way_out);
    n.secrets = *secrets;
    n.run = std::move(*manifest);
    auto known = co_await load_known_addresses(n.env.storage);
    LONGHAUL_CO_TRY(known);
    n.known_addresses = std::move(*known);
    co_return core::ok();
}

std::string canonical(const run_config& c) {
    run_config copy = c;
    core::config_binder binder;
    bind(binder, copy);
    return binder.canonical();
}

/// The first line in which two configurations differ, for a sentence.
std::string first_difference(const run_config& ours, const run_config& theirs, std::string_view section = {}) {
    const auto a = canonical(ours), b = canonical(theirs);
    std::size_t at_a = 0, at_b = 0;
    while (at_a < a.size() || at_b < b.size()) {
        const auto end_a = std::min(a.find('\n', at_a), a.size()), end_b = std::min(b.find('\n', at_b), b.size());
        const auto line_a = a.substr(at_a, end_a - at_a), line_b = b.substr(at_b, end_b - at_b);
        if (line_a != line_b && (section.empty() || line_a.starts_with(section) || line_b.starts_with(section))) {
            return fmt::format("'{}' here, '{}' in the run", line_a, line_b);
        }
        at_a = end_a + 1;
        at_b = end_b + 1;
    }
    return {};
}

core::task<core::result<void>> make_trainer(node& n, const run_config& config) {
    LONGHAUL_CO_TRY_ASSIGN(const auto rule, feedback_of(config));
    n.mass = settlement(rule, config.exchange.fragments > 1);
    optim::trainer_options o;
    o.model = config.model;
    o.data = config.data;
    o.inner = config.inner;
    o.data_path = n.options.data_path;
    o.device = n.options.device;
    o.threads = n.options.trainer_threads;
    o.fits = [&](const core::tensor_manifest& tensors) -> core::result<void> {
        LONGHAUL_TRY_ASSIGN(const auto declared, memory_needed(tensors, config, n.options.memory_limit));
        n.memory = declared.total;
        n.room = declared.room;
        return core::ok();
    };
    core::result<std::unique_ptr<optim::trainer>> made = fail(errc::internal, "no trainer was made");
    const auto job = [&] { made = n.options.make_trainer(o); };
    auto ran = co_await n.env.workers.run(job, 0s);
    LONGHAUL_CO_TRY(ran);
    LONGHAUL_CO_TRY(made);
    n.trainer = std::move(*made);
    co_return core::ok();
}

/// What every node compares before it trains: the model's layout and the data's hash.
core::result<void> check_against_manifest(const node& n) {
    const auto& m = n.run->manifest;
    if (const auto difference = n.trainer->manifest().first_difference(m.tensors); !difference.empty()) {
        return fail(errc::run_mismatch, "this node's model differs from the run's: {}", difference);
    }
    if (n.trainer->data_hash() != m.data_hash) {
        return fail(errc::run_mismatch,
                    "this node's training data ({}) is not the run's ({}): name a copy of it with --data, or copy the "
                    "founder's file",
                    n.trainer->data_description(), m.data_description);
    }
    return core::ok();
}

std::unique_ptr<raft_consensus> make_consensus(node& n) {
    return std::make_unique<raft_consensus>(raft_consensus_options{.executor = n.env.executor,
                                                                   .clock = n.env.clock,
                                                                   .storage = n.env.storage,
                                                                   .self = n.self(),
                                                                   .run = n.run->run_id,
                                                                   .seed = n.env.entropy.u64()});
}

/// From here on the log lives, with or without an order of this node's own.
void begin_log(node& n, std::unique_ptr<consensus> log) {
    n.log = std::move(log);
    n.log->send = [&n](const net::peer_key& to, const message& m) { n.send(to, m); };
    n.log->on_applied = [&n](const record* r) { log_advanced(n, r); };
    n.log->on_leader = [&n] { leader_changed(n); };
}

/// Whoever founds where there is a run already goes on with that one.
core::result<void> check_own_run(const node& n) {
    if (!n.options.found || !n.run || n.run->manifest.founder == n.self()) return core::ok();
    return fail(errc::config,
                "this state directory belongs to run '{}', which another node founded: use 'longhaul join', or another "
                "--state-dir",
                n.config().name);
}

core::result<void> check_same_settings(const node& n) {
    if (!n.options.found || !n.run) return core::ok();
    if (const auto difference = first_difference(n.options.found->config, n.config()); !difference.empty()) {
        return fail(errc::config,
                    "this state directory holds run '{}' with other settings ({}): a run's settings never change; use "
                    "another --state-dir to found a new run",
                    n.config().name, difference);
    }
    return core::ok();
}

/// Founds the run, or goes on with the one that this node founded.
core::task<core::result<void>> prepare_founder(node& n) {
    const auto& wanted = n.options.found->config;
    auto made = co_await make_trainer(n, wanted);
    LONGHAUL_CO_TRY(made);
    if (n.run) {
        LONGHAUL_CO_TRY(check_against_manifest(n));
    } else {
        run_manifest m;
        m.config = wanted;
        m.tensors = n.trainer->manifest();
        m.data_hash = n.trainer->data_hash();
        m.data_description = n.trainer->data_description();
        m.founder = n.self();
        m.nonce = n.env.entropy.key();
        if (wanted.peers.admission == "invite") {
            n.secrets.psk = n.env.entropy.key();
            n.secrets.token = n.env.entropy.key();
            m.token_hash = core::hash(n.secrets.token->bytes);
        }
        LONGHAUL_CO_TRY_ASSIGN(n.run, sign_manifest(m, n.options.self));
        auto saved = co_await save_run(n);
        LONGHAUL_CO_TRY(saved);
    }
    auto log = make_consensus(n);
    auto opened = co_await log->open();
    LONGHAUL_CO_TRY(opened);
    n.resumed = *opened;
    if (!n.resumed) {
        auto checkpoints = co_await n.env.storage.list("checkpoints/");
        LONGHAUL_CO_TRY(checkpoints);
        if (!checkpoints->empty() || !n.known_addresses.empty()) {
            co_return fail(errc::forgotten, "this state directory is of run '{}', and its log is gone",
                           n.config().name);
        }
        auto founded = co_await log->found();
        LONGHAUL_CO_TRY(founded);
    }
    begin_log(n, std::move(log));
    co_return core::ok();
}

/// Learns the run of a bare address from its cleartext hello: trust on first use.
core::task<core::result<void>> trust_on_first_use(node& n) {
    auto& ticket = n.options.join->ticket;
    core::error last(errc::unreachable, "no address");
    for (const auto& address : ticket.addresses) {
        auto hello = co_await net::mesh::probe(n.env, address, 10s);
        if (!hello) {
            last = hello.error();
            continue;
        }
        net::ticket_key key;
        key.run = hello->run;
        ticket.key = key;
        co_return core::ok();
    }
    co_return fail(last);
}

core::task<core::result<void>> prepare_joiner(node& n) {
    auto& ticket = n.options.join->ticket;
    if (!ticket.key && n.run) {
        net::ticket_key known;
        known.run = n.run->run_id;
        ticket.key = known;
    } else if (!ticket.key) {
        auto trusted = co_await trust_on_first_use(n);
        LONGHAUL_CO_TRY(trusted);
        n.trusted_on_first_use = true;
    }
    if (n.run && n.run->run_id != ticket.key->run) {
        co_return fail(errc::config,
                       "this state directory belongs to run '{}' ({}), the ticket is for run {}: use another "
                       "--state-dir",
                       n.config().name, n.run->run_id.brief(), ticket.key->run.brief());
    }
    // A bare address, or a ticket without the secret, does not unlearn what this node knows already.
    if (ticket.key->secret) n.secrets.psk = *ticket.key->secret;
    if (ticket.key->token) n.secrets.token = ticket.key->token;
    co_return core::ok();
}

}  // namespace

shared_state first_state(const node& n) {
    auto first = std::make_shared<model_state>();
    first->anchor.resize(n.tensors().elements());
    first->momentum.resize(n.tensors().elements());
    n.trainer->read(first->anchor);
    seal(*first);
    return first;
}

void log_advanced(node& n, const record* r) {
    const auto& l = n.led();
    const bool news = !n.log_known;
    if (news) {
        const auto* me = l.find(n.self());
        if (me == nullptr) return;
        n.log_known = true;
        n.number = me->admitted.number;
        n.found_stopped = l.phase() == run_phase::stopped && !n.moving;
        // A round that was open before this start may carry a payload of ours: signing another would be a lie.
        if (l.open()) n.produced_for = n.missed = {l.generation(), l.open()->round};
        // And what a checkpoint carried may be part of such a payload, or of one accepted since (DESIGN §5,
        // "Settlement").
        const bool exact = n.moving || (n.state && n.state->generation == l.generation() &&
                                        n.state->round == l.committed() && !l.open());
        if (!exact) discard_mass(n, "a checkpoint carried it, and the run has gone on since");
        n.moving = false;
        n.send_all(greeting_of(n));
    }
    if (l.phase() != run_phase::stopped) n.found_stopped = false;
    open_exchange(n);
    if (news) take_office(n);
    if (n.coordinator) n.coordinator->log_advanced(l, n.env.clock.now());
    if (l.open()) n.last_members = l.open()->members;
    const auto [round, loss] = l.evaluation();
    if (round > n.eval_seen) {
        n.eval_seen = round;
        n.eval_loss = loss;
        core::event e("eval");
        e.with("round", round).with("loss", loss).with("by", std::string("a member"));
        n.emit(std::move(e));
    }
    const auto& way = l.open() ? l.open()->exchange : n.last_way;
    if (l.open() && (n.last_plan != l.open()->plan || n.last_way.shards != way.shards ||
                     n.last_way.relays != way.relays || n.last_own_steps != l.open()->steps_of(n.number))) {
        n.last_plan = l.open()->plan;
        n.last_way = way;
        n.last_own_steps = l.open()->steps_of(n.number);
        core::event e("plan");
        e.with("H", std::uint64_t{n.last_plan->inner_steps})
            .with("own_H", n.last_own_steps)
            .with("tau_steps", n.last_plan->late_steps());
        e.with("tau_rounds", std::uint64_t{n.last_plan->delay}).with("codec", n.last_plan->codec).with("density", 1.0);
        e.with("mode", n.last_plan->mode).with("outer_lr", double{n.last_plan->outer_lr});
        e.with("outer_momentum", double{n.last_plan->outer_momentum});
        e.with("predicted_seconds", way.predicted_seconds).with("relays", std::uint64_t{way.relays.size()});
        std::uint64_t own = 0, all = 0;
        for (const auto& s : way.shards) {
            all += s.chunks;
            if (s.owner == n.number) own += s.chunks;
        }
        e.with("owned", all > 0 ? static_cast<double>(own) / static_cast<double>(all) : 0.0);
        e.with("reason", way.reason);
        n.emit(std::move(e));
    }
    if (r != nullptr) {
        if (std::holds_alternative<commit_record>(*r)) note_committed(n);
        if (const auto* left = std::get_if<depart_record>(r); left != nullptr && left->number != n.number) {
            core::event e("left");
            e.with("number", std::uint64_t{left->number}).with("reason", left->reason);
            n.emit(std::move(e));
        }
        if (std::holds_alternative<voters_record>(*r)) {
            std::string names;
            for (const auto& key : l.voters().voters) {
                const auto* m = l.find(key);
                names += (names.empty() ? "" : ", ") + (m == nullptr ? key.brief() : m->admitted.name);
            }
            core::event e("voters");
            e.with("count", std::uint64_t{l.voters().voters.size()}).with("names", std::move(names));
            n.emit(std::move(e));
        }
    }
    for (const auto& [key, peer] : n.links) consider_offers(n, peer);
    if (news || r == nullptr) repeat_standing(n);
    if (news) answer_early_joiners(n);
    // Who hears of a member for the first time is linked with it, or is not: the next plan needs to know. And links
    // that came up before were with nobody whom the log knew: without this report the coordinator would wait for ever
    // for a pair that cannot link.
    if (news || (r != nullptr && std::holds_alternative<admit_record>(*r))) tell_lines(n);
    n.to_dial.notify();
    n.changed.notify();
}

void leader_changed(node& n) {
    core::event e("coordinator");
    const auto leader = n.log->leader();
    e.with("peer", leader == net::peer_key{} ? std::string() : leader.hex()).with("self", n.log->leads());
    n.emit(std::move(e));
    // At once: what others say to the coordinator may already be here.
    take_office(n);
    n.send_all(greeting_of(n));
    if (n.log_known && !n.log->leads() && leader != net::peer_key{}) {
        // What we told the one before may have died with it.
        repeat_standing(n);
        tell_lines(n);
    }
    if (n.log_known) answer_early_joiners(n);
    n.to_dial.notify();
    n.changed.notify();
}

core::task<core::result<void>> start_network(node& n, const core::digest& run) {
    auto counted = co_await count_incarnation(n);
    LONGHAUL_CO_TRY(counted);
    core::event e("starting");
    e.with("incarnation", n.incarnation).with("key", n.self().hex());
    n.emit(std::move(e));
    net::mesh_options o;
    o.run = run;
    o.psk = n.secrets.psk;
    o.token = n.secrets.token;
    o.name = n.options.name;
    o.incarnation = n.incarnation;
    o.advertised = n.options.advertised;
    o.is_member = [&n](const net::peer_key& key) { return is_member(n, key); };
    if (n.run) o.silence_limit = n.config().peers.silence_limit;
    n.mesh = std::make_unique<net::mesh>(
        n.env, n.options.self, o,
        [&n](const net::remote_peer& who, bool they_dialled) { return admit_link(n, who, they_dialled); },
        [&n](std::shared_ptr<net::link> link) {
            if (n.options.links_through) link = n.options.links_through(std::move(link));
            n.tasks.spawn_isolated("link", serve_link(n, std::move(link)));
        });
    auto bound = n.mesh->listen(n.options.listen);
    if (!bound && (bound.error().code == errc::unreachable || bound.error().code == errc::io)) {
        co_return fail(errc::config, "{}; name an address of this machine and a port that is free with --listen",
                       bound.error().message);
    }
    if (!bound) co_return fail(bound.error());
    n.listen = *bound;
    n.tasks.spawn("network", n.mesh->serve());
    co_return core::ok();
}

/// A run on a file or folder: this node's own copy must be named, and the manifest knows which.
core::result<void> check_data_is_named(const node& n) {
    const auto& c = n.config();
    const bool images = c.model.kind == "mlp" || c.model.kind == "cnn";
    const bool needs_a_path = c.data.kind == "text" || c.data.kind == "tokens" || images;
    if (!needs_a_path || !n.options.data_path.empty()) return core::ok();
    return fail(
        errc::config,
        "the run trains on {}: name this node's copy of it with --data (or node.data in node.toml); the founder "
        "has it",
        n.run->manifest.data_description);
}

/// Whether this node's own checkpoint is of the run's last round.
bool holds_the_end(const node& n) { return n.state && n.state->position >= n.config().total_steps(); }

/// This node leads the log: it admits itself.
core::task<core::result<void>> admit_self(node& n) {
    const auto* me = n.led().find(n.self());
    auto r = own_admission(n, me != nullptr ? me->admitted.number : n.led().next_number());
    if (me == nullptr || !me->present || me->admitted != r) {
        auto admitted = co_await n.log->propose(std::move(r));
        LONGHAUL_CO_TRY(admitted);
    }
    n.admitted = true;
    co_return core::ok();
}

/// A stranger to the run is told at once that nobody answers; a node that took part before waits for the others to come
/// back, as it would have done had it not been restarted. Whoever is elected meanwhile needs nobody.
core::task<core::result<void>> be_admitted_patiently(node& n, bool was_known, core::duration patience) {
    const auto until = n.env.clock.now() + patience;
    core::time_point next_word = n.env.clock.now();
    for (;;) {
        core::result<void> admitted;
        if (n.log->alone()) {
            const auto leads = [&n] { return n.log->leads(); };
            admitted = co_await core::wait_until(n.changed, leads, n.env.clock, until);
        } else {
            admitted = co_await become_admitted(n);
        }
        if (n.log->leads()) admitted = co_await admit_self(n);
        const bool may_pass =
            !admitted && (admitted.error().code == errc::unreachable || admitted.error().code == errc::timeout ||
                          admitted.error().code == errc::closed || admitted.error().code == errc::quorum_lost);
        const auto now = n.env.clock.now();
        if (!was_known || !may_pass || n.leaving || now >= until) co_return admitted;
        if (holds_the_end(n)) {
            // The others have ended as well, or will: nothing is left to wait for.
            n.finished = true;
            co_return core::ok();
        }
        if (now >= next_word) {
            const auto left = std::chrono::ceil<std::chrono::seconds>(until - now);
            n.report(admitted.error(),
                     fmt::format("trying again for {} until others are back", core::format_duration(left)));
            next_word = now + 1min;
        }
        const auto wanted = [&n] { return n.leaving || n.log->leads() || n.wanted_recovery; };
        auto left = co_await core::wait_until(n.changed, wanted, n.env.clock, n.env.clock.now() + 2s);
        if (!left && left.error().code != errc::timeout) co_return left;
        if (n.leaving) co_return fail(errc::cancelled, "asked to leave");
        if (n.wanted_recovery) {
            auto recovered = co_await recover(n);
            if (!recovered || n.log->leads()) co_return recovered;
        }
    }
}

/// Admitted: now the log, first by whoever's log has this node.
core::task<core::result<void>> learn_log(node& n) {
    if (n.finished) co_return core::ok();
    if (n.admitted_by && n.find(*n.admitted_by)) n.log->link_up(*n.admitted_by);
    for (const auto& [key, peer] : n.links) {
        if (key != n.admitted_by && may_bring_log(n, key) && !is_elsewhere(n, *peer)) n.log->link_up(key);
    }
    const auto known = [&n] { return n.log_known || n.fatal; };
    auto waited = co_await core::wait_until(n.changed, known, n.env.clock, n.env.clock.now() + 30s);
    if (n.fatal) co_return fail(*n.fatal);
    if (!waited) co_return fail(waited.error().within("waiting for the run's log from its coordinator"));
    co_return core::ok();
}

/// A new run begins with the founder's own state.
void begin_run(node& n) {
    n.state = first_state(n);
    start_checkpoint(n);
    if (n.coordinator) n.coordinator->caught_up(n.number, n.state->generation, n.state->round, n.env.clock.now());
}

admit_record own_admission(const node& n, peer_number number) {
    admit_record r;
    r.key = n.self();
    r.number = number;
    r.name = n.options.name;
    r.addresses = n.advertised();
    if (n.secrets.token) r.token_hash = core::hash(n.secrets.token->bytes);
    return r;
}

/// The seed differs as well: there may be more peers than shards, and two that read the same rows would do the same
/// work twice.
void assign_data(node& n, peer_number number, std::uint64_t position) {
    const auto seed = core::combine_key(static_cast<std::uint64_t>(n.config().data.seed), number);
    n.trainer->assign(number, seed, position);
    n.trainer_number = number;
}

core::task<core::result<void>> learn_another_log(node& n, core::duration patience) {
    auto admitted = co_await be_admitted_patiently(n, true, patience);
    LONGHAUL_CO_TRY(admitted);
    co_return co_await learn_log(n);
}

namespace {

core::task<core::result<void>> start_founder(node& n) {
    auto prepared = co_await prepare_founder(n);
    LONGHAUL_CO_TRY(prepared);
    auto network = co_await start_network(n, n.run->run_id);
    LONGHAUL_CO_TRY(network);
    // Before the log speaks: with it this node decides what becomes of the mass that a checkpoint carried.
    auto restored = co_await restore(n);
    LONGHAUL_CO_TRY(restored);
    n.tasks.spawn("log", n.log->run());
    // Others have a say in what comes next: they need to know how to find this node.
    if (!n.log->alone()) n.tell_ready();
    auto admitted = co_await be_admitted_patiently(n, true, n.options.quorum_patience);
    LONGHAUL_CO_TRY(admitted);
    auto known = co_await learn_log(n);
    LONGHAUL_CO_TRY(known);
    if (!n.state && !n.finished && n.led().committed() == 0 && n.led().generation() == 1) begin_run(n);
    co_return core::ok();
}

core::task<core::result<void>> start_joiner(node& n) {
    auto prepared = co_await prepare_joiner(n);
    LONGHAUL_CO_TRY(prepared);
    auto network = co_await start_network(n, n.options.join->ticket.key->run);
    LONGHAUL_CO_TRY(network);
    const bool was_known = n.run.has_value();
    if (!n.run) {
        // First the manifest alone: nobody is admitted whose model or data differ.
        n.admission_wanted = false;
        auto told = co_await become_admitted(n);
        LONGHAUL_CO_TRY(told);
        n.admission_wanted = true;
        auto saved = co_await save_run(n);
        LONGHAUL_CO_TRY(saved);
    }
    if (const auto& expected = n.options.join->expected) {
        if (const auto difference = first_difference(*expected, n.config(), "model."); !difference.empty()) {
            co_return fail(errc::run_mismatch, "this is another model than the one that you expect: {}", difference);
        }
    }
    LONGHAUL_CO_TRY(check_data_is_named(n));
    auto made = co_await make_trainer(n, n.config());
    LONGHAUL_CO_TRY(made);
    LONGHAUL_CO_TRY(check_against_manifest(n));
    auto restored = co_await restore(n);
    LONGHAUL_CO_TRY(restored);
    n.resumed = n.state != nullptr;
    auto log = make_consensus(n);
    auto orders = co_await log->open();
    LONGHAUL_CO_TRY(orders);
    begin_log(n, std::move(log));
    n.tasks.spawn("log", n.log->run());
    for (const auto& [key, peer] : n.links) n.log->greet(key);
    auto admitted = co_await be_admitted_patiently(n, was_known, n.options.quorum_patience);
    LONGHAUL_CO_TRY(admitted);
    co_return co_await learn_log(n);
}

}  // namespace

core::task<core::result<void>> start(node& n) {
    if (n.options.found) LONGHAUL_CO_TRY(validate(n.options.found->config));
    auto loaded = co_await load_run(n);
    LONGHAUL_CO_TRY(loaded);
    auto founded_before = co_await was_founder(n);
    LONGHAUL_CO_TRY(founded_before);
    if (!*founded_before) LONGHAUL_CO_TRY(check_own_run(n));
    LONGHAUL_CO_TRY(check_same_settings(n));
    if (*founded_before) rejoin_own_run(n);
    if (n.options.found) co_return co_await start_founder(n);
    co_return co_await start_joiner(n);
}

}  // namespace longhaul::peers

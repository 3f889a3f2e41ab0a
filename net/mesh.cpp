#include "net/mesh.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "net/dialler.hpp"
#include "net/link_impl.hpp"
#include "net/secure.hpp"

namespace longhaul::net {

using core::errc;
using core::fail;
using core::ok;
using core::result;
using core::task;

namespace {

/// How long a connection that was turned away may take to read why.
constexpr auto linger_time = std::chrono::seconds(1);
/// After an accept that failed for want of descriptors or memory.
constexpr auto accept_pause = std::chrono::milliseconds(100);

refusal refusal_of(errc code) {
    switch (code) {
        case errc::run_mismatch: return refusal::run_mismatch;
        case errc::limit: return refusal::busy;
        case errc::closed: return refusal::closing;
        default: return refusal::not_admitted;
    }
}

verdict refused(refusal code, std::string sentence) {
    verdict v;
    v.code = code;
    v.sentence = std::move(sentence);
    return v;
}

}  // namespace

struct mesh::impl {
    impl(environment& e, const identity& own, mesh_options o, admission a, up_handler up)
        : env(e),
          self(own),
          options(std::move(o)),
          admit(std::move(a)),
          on_up(std::move(up)),
          keeper(options.door),
          changed(e.executor),
          children(e.executor) {}

    environment& env;
    const identity& self;
    mesh_options options;
    admission admit;
    up_handler on_up;

    std::unique_ptr<listener> door;
    std::map<peer_key, std::shared_ptr<link_impl>> links;
    std::map<session_id, std::shared_ptr<link_impl>> sessions;
    std::shared_ptr<cipher_load> ciphers = std::make_shared<cipher_load>(options.cipher_share);
    /// Peers to whom a dial of ours has sent its identity and waits for the verdict.
    std::set<peer_key> claims;
    doorkeeper keeper;
    std::map<doorkeeper::visitor, stream*> visitors;  ///< whose handshakes we answer
    bool closing = false;
    core::wakeup changed;  ///< links, claims or `closing`
    core::scope children;

    std::shared_ptr<link_impl> find(const peer_key& key) const {
        const auto it = links.find(key);
        return it != links.end() && it->second->up() ? it->second : nullptr;
    }
    self_description describe(side mine) const;
    bool is_member(const peer_key& key) const { return !options.is_member || options.is_member(key); }

    task<result<void>> stay();
    task<result<void>> accept_all();
    void show_out(std::optional<doorkeeper::visitor> who);
    void leaves(doorkeeper::visitor who);
    struct at_door;
    task<result<void>> answer(std::unique_ptr<stream> s, doorkeeper::visitor who);
    task<result<void>> answer_hello(raw_connection& c, doorkeeper::visitor who);
    task<result<void>> answer_control(raw_connection& c, const greeting& g, doorkeeper::visitor who);
    task<result<void>> answer_bulk(raw_connection& c, const greeting& g, doorkeeper::visitor who);
    verdict judge(const remote_peer& remote);
    verdict find_room(const remote_peer& remote);

    task<result<dialled>> dial(std::vector<endpoint> to, std::optional<peer_key> who);
    task<result<dialled>> dial_in_turn(std::vector<endpoint> to, std::optional<peer_key> who);
    task<result<std::shared_ptr<link>>> introduce(raw_connection& c);
    task<result<std::shared_ptr<link>>> await_link(peer_key key);
    std::shared_ptr<link_impl> add(link_setup setup);
    void see(const link_impl& l);
    task<result<void>> run_link(std::shared_ptr<link_impl> l);
    void close(const std::string& reason);
};

self_description mesh::impl::describe(side mine) const {
    self_description d;
    d.incarnation = options.incarnation;
    d.features = options.features;
    d.name = options.name;
    for (auto e : options.advertised) {
        if (e.port == 0 && door) e.port = door->local().port;
        if (e.port != 0 && !e.host.empty()) d.advertised.push_back(std::move(e));
    }
    if (mine == side::initiator) d.token = options.token;
    return d;
}

// ---- links

std::shared_ptr<link_impl> mesh::impl::add(link_setup setup) {
    const auto key = setup.remote.key;
    const auto session = session_of(setup.exporter);
    setup.silence_limit = options.silence_limit;
    setup.streams = options.streams;
    setup.warm = options.warm;
    setup.ciphers = ciphers;
    auto made = std::make_shared<link_impl>(env, std::move(setup));
    if (const auto old = links.find(key); old != links.end()) {
        old->second->fail({errc::closed, "a newer connection of the same peer replaced this one"});
    }
    links[key] = made;
    sessions[session] = made;
    see(*made);
    children.spawn_isolated("link", run_link(made));
    changed.notify();
    on_up(made);
    return made;
}

/// A member will come back from where it is. (It may have been a guest when its link came up.)
void mesh::impl::see(const link_impl& l) {
    if (is_member(l.remote().key)) keeper.member_seen(l.remote().observed.host);
}

task<result<void>> mesh::impl::run_link(std::shared_ptr<link_impl> l) {
    auto ran = co_await l->run();
    see(*l);
    if (const auto it = links.find(l->remote().key); it != links.end() && it->second == l) links.erase(it);
    std::erase_if(sessions, [&](const auto& s) { return s.second == l; });
    changed.notify();
    co_return ran;
}

/// Of two simultaneous dials one must go, and both ends must agree on which. The end with the smaller key decides
/// alone: it sees both. It turns the other's dial away while its own is under way (`claims`), and does not send its
/// identity on a dial of its own once it accepted the other's. The larger key accepts whatever the smaller one dials.
verdict mesh::impl::judge(const remote_peer& remote) {
    if (closing) return refused(refusal::closing, "this node is leaving");
    const bool ours_first = self.key() < remote.key;
    const auto old = find(remote.key);
    if (old && remote.incarnation < old->remote().incarnation) {
        return refused(refusal::not_admitted, "a later start of the same node is linked already: stop one of the two");
    }
    if (ours_first && claims.contains(remote.key)) {
        return refused(refusal::duplicate, "the other one of two simultaneous connections stays");
    }
    // Ours was first, and theirs began before they could know: crossed. Later it can only mean that they lost ours.
    if (ours_first && old && old->mine() == side::initiator && remote.incarnation == old->remote().incarnation &&
        env.clock.now() - old->since() <= options.handshake_deadline) {
        return refused(refusal::duplicate, "the other one of two simultaneous connections stays");
    }
    return old ? verdict{} : find_room(remote);
}

/// Members and guests have slots of their own, so that no number of guests keeps a member out.
verdict mesh::impl::find_room(const remote_peer& remote) {
    const bool member = is_member(remote.key);
    std::size_t same = 0;
    std::shared_ptr<link_impl> oldest;
    for (const auto& [key, l] : links) {
        if (!l->up() || is_member(key) != member) continue;
        ++same;
        if (!oldest || l->since() < oldest->since()) oldest = l;
    }
    if (same < (member ? options.max_links : options.max_guests)) return {};
    if (member || !oldest || env.clock.now() - oldest->since() < options.guest_time) {
        return refused(refusal::busy, fmt::format("this node has {} links with {}, its limit: try another member", same,
                                                  member ? "members" : "guests"));
    }
    oldest->close("others are waiting to ask, too");
    return {};
}

// ---- answering

task<result<void>> mesh::impl::stay() {
    while (!closing) {
        auto woken = co_await changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return ok();
}

task<result<void>> mesh::impl::accept_all() {
    while (!closing) {
        auto accepted = co_await door->accept();
        if (!accepted) {
            if (accepted.error().code != errc::io) break;
            auto slept = co_await env.clock.sleep_for(accept_pause);
            LONGHAUL_CO_TRY(slept);
            continue;
        }
        const auto entry = keeper.arrives((*accepted)->remote().host);
        show_out(entry.gives_way);
        visitors[entry.who] = accepted->get();
        children.spawn_isolated("handshake", answer(std::move(*accepted), entry.who));
    }
    co_return ok();
}

/// Ends the handshake of a visitor that has to make room.
void mesh::impl::show_out(std::optional<doorkeeper::visitor> who) {
    if (!who) return;
    if (const auto found = visitors.find(*who); found != visitors.end()) found->second->close();
}

/// A visitor's connection is about to end, or to become something that the door must not close.
void mesh::impl::leaves(doorkeeper::visitor who) {
    visitors.erase(who);
    keeper.leaves(who);
}

/// Lives no longer than the visitor's connection.
struct mesh::impl::at_door {
    impl& owner;
    doorkeeper::visitor who;
    ~at_door() { owner.leaves(who); }
};

task<result<void>> mesh::impl::answer(std::unique_ptr<stream> s, doorkeeper::visitor who) {
    raw_connection c(std::move(s));
    const at_door entry{*this, who};
    auto answering = core::with_deadline(env.clock, answer_hello(c, who), env.clock.now() + options.handshake_deadline);
    auto first = co_await core::race(std::move(answering), stay());
    co_return first.index() == 0 ? std::get<0>(first) : ok();
}

task<result<void>> mesh::impl::answer_hello(raw_connection& c, doorkeeper::visitor who) {
    const auto greeted = co_await answer_greeting(c, options.run);
    LONGHAUL_CO_TRY(greeted);
    const auto fits = compare(greeted->mine, greeted->theirs, side::responder);
    if (!fits || greeted->theirs.role == hello_role::probe) co_return co_await c.linger(env.clock, linger_time);
    if (greeted->theirs.role == hello_role::bulk) co_return co_await answer_bulk(c, *greeted, who);
    if (greeted->theirs.connection != 0) co_return fail(errc::protocol, "control connections are not resumed");
    co_return co_await answer_control(c, *greeted, who);
}

task<result<void>> mesh::impl::answer_control(raw_connection& c, const greeting& g, doorkeeper::visitor who) {
    control_handshake handshake(side::responder, self, describe(side::responder), options.run, g.prologue, options.psk,
                                env.entropy);
    auto stepped = co_await step(c, handshake);
    LONGHAUL_CO_TRY(stepped);
    // Message 1 opened: in a run by invitation it was made with the run's secret.
    if (!options.psk.is_zero()) show_out(keeper.vouched_for(who));
    while (!handshake.done()) {
        stepped = co_await step(c, handshake);
        LONGHAUL_CO_TRY(stepped);
    }
    auto remote = *handshake.remote();
    remote.observed = c.stream->remote();
    verdict said;
    if (const auto admitted = admit(remote, true); !admitted) {
        said = refused(refusal_of(admitted.error().code), admitted.error().message);
    } else {
        said = judge(remote);
    }
    auto keys = handshake.finish();
    core::byte_vector sealed(record_overhead + said.encode().size());
    const auto n = keys.sealer.seal(static_cast<std::uint8_t>(record_type::verdict), 0, said.encode(), sealed);
    LONGHAUL_CO_TRY(n);
    if (!said.accepted()) {
        const auto end = keys.sealer.seal_end("not admitted");
        LONGHAUL_CO_TRY(end);
        sealed.insert(sealed.end(), end->begin(), end->end());
        auto written = co_await c.write(sealed);
        LONGHAUL_CO_TRY(written);
        co_return co_await c.linger(env.clock, linger_time);
    }
    // From the verdict to the link's place in `links` nothing may wait: other dials would see neither.
    leaves(who);
    link_setup setup;
    setup.remote = std::move(remote);
    setup.mine = side::responder;
    setup.exporter = keys.exporter;
    setup.preface = std::move(sealed);
    setup.control = std::make_unique<channel>(std::move(c.stream), std::move(keys), c.count);
    add(std::move(setup));
    co_return ok();
}

task<result<void>> mesh::impl::answer_bulk(raw_connection& c, const greeting& g, doorkeeper::visitor who) {
    const auto found = sessions.find(g.theirs.session);
    if (found == sessions.end()) co_return fail(errc::not_found, "no link has this session");
    const auto owner = found->second;
    const auto key = owner->key_of_bulk(g.theirs.connection);
    LONGHAUL_CO_TRY(key);
    bulk_handshake handshake(side::responder, *key, g.prologue, env.entropy);
    auto stepped = co_await step(c, handshake);
    LONGHAUL_CO_TRY(stepped);
    // Message 1 opened: it was made with the session's secret. (Its id and the numbers pass in the clear.)
    show_out(keeper.vouched_for(who));
    c.stream->set_purpose(stream_purpose::bulk);
    while (!handshake.done()) {
        stepped = co_await step(c, handshake);
        LONGHAUL_CO_TRY(stepped);
    }
    auto secured = std::make_unique<channel>(std::move(c.stream), handshake.finish(), c.count);
    const at_door until_adopted{*this, who};  // `secured` ends before `answer` does
    // Message 1 may be a replay; a record that opens is not.
    auto first = co_await secured->next_record();
    LONGHAUL_CO_TRY(first);
    if (first->type != static_cast<std::uint8_t>(channel_record::idle)) {
        co_return fail(errc::protocol, "a bulk connection began with a record of type {}", first->type);
    }
    co_return owner->adopt_bulk(g.theirs.connection, std::move(secured));
}

// ---- dialling

task<result<mesh::dialled>> mesh::impl::dial(std::vector<endpoint> to, std::optional<peer_key> who) {
    const auto address = to.empty() ? std::string("no address") : to.front().text();
    auto first = co_await core::race(dial_in_turn(std::move(to), who), stay());
    if (first.index() == 0) co_return std::get<0>(std::move(first));
    if (!std::get<1>(first)) co_return fail(std::get<1>(first).error());
    co_return fail(errc::closed, "{}: this node is leaving", address);
}

task<result<mesh::dialled>> mesh::impl::dial_in_turn(std::vector<endpoint> to, std::optional<peer_key> who) {
    dialler addresses(env, std::move(to), stream_purpose::control, options.connect_deadline);
    std::optional<core::error> refused;
    for (;;) {
        auto connected = co_await addresses.next();
        // What somebody answered says more than that others did not.
        if (!connected) co_return fail(refused.value_or(connected.error()));
        const auto address = connected->asked.text();
        raw_connection c(std::move(connected->connection));
        auto made = co_await core::with_deadline(env.clock, introduce(c), env.clock.now() + options.handshake_deadline);
        if (made && (!who || (*made)->remote().key == *who)) {
            dialled out;
            out.link = std::move(*made);
            out.asked = std::move(connected->asked);
            co_return out;
        }
        if (made) {
            refused.emplace(errc::unreachable,
                            fmt::format("{} leads to another node, {}", address, (*made)->remote().name));
        } else if (made.error().code == errc::cancelled) {
            co_return fail(made.error());
        } else if (made.error().code == errc::timeout) {
            refused.emplace(errc::timeout,
                            fmt::format("{} accepted the connection but did not finish the handshake within {:.0f} s",
                                        address, core::to_seconds(options.handshake_deadline)));
        } else {
            refused = made.error().within(address);
        }
    }
}

task<result<std::shared_ptr<link>>> mesh::impl::introduce(raw_connection& c) {
    hello mine;
    mine.run = options.run;
    const auto greeted = co_await greet(c, mine);
    LONGHAUL_CO_TRY(greeted);
    control_handshake handshake(side::initiator, self, describe(side::initiator), options.run, greeted->prologue,
                                options.psk, env.entropy);
    while (!handshake.remote()) {
        auto stepped = co_await step(c, handshake);
        if (!stepped && stepped.error().code == errc::closed) {
            // The run is the right one, and it fell silent when it saw what our secret made.
            co_return fail(errc::not_admitted, "{}",
                           options.psk.is_zero() ? "it takes only invited nodes: join with the run's ticket"
                                                 : "the ticket's key does not fit this run: ask for a new ticket");
        }
        LONGHAUL_CO_TRY(stepped);
    }
    auto remote = *handshake.remote();
    remote.observed = c.stream->remote();
    const auto wanted = admit(remote, false);
    LONGHAUL_CO_TRY(wanted);
    if (const auto old = find(remote.key); old && remote.incarnation <= old->remote().incarnation) {
        co_return std::shared_ptr<link>(old);
    }
    if (claims.contains(remote.key)) co_return co_await await_link(remote.key);

    struct claim {
        impl& owner;
        peer_key key;
        bool held = true;
        void release() {
            if (!std::exchange(held, false)) return;
            owner.claims.erase(key);
            owner.changed.notify();
        }
        ~claim() { release(); }
    };
    claims.insert(remote.key);
    claim ours{*this, remote.key};

    while (!handshake.done()) {
        auto stepped = co_await step(c, handshake);
        LONGHAUL_CO_TRY(stepped);
    }
    auto keys = handshake.finish();
    const auto exporter = keys.exporter;
    auto control = std::make_unique<channel>(std::move(c.stream), std::move(keys), c.count);
    auto answered = co_await control->next_record();
    LONGHAUL_CO_TRY(answered);
    if (!answered->is(record_type::verdict)) {
        co_return fail(errc::protocol, "a record of type {} came instead of a verdict", answered->type);
    }
    const auto said = parse_verdict(answered->payload);
    LONGHAUL_CO_TRY(said);
    if (said->code == refusal::duplicate) {
        ours.release();
        control.reset();
        co_return co_await await_link(remote.key);
    }
    const auto accepted = said->as_result();
    LONGHAUL_CO_TRY(accepted);
    if (closing) co_return fail(errc::closed, "this node is leaving");
    ours.release();
    link_setup setup;
    setup.remote = std::move(remote);
    setup.mine = side::initiator;
    setup.exporter = exporter;
    setup.control = std::move(control);
    // The address that answered, not the name that was dialled: a name may mean several machines.
    setup.dial_bulk = [this, to = setup.remote.observed, exporter](std::uint32_t number) {
        return net::dial_bulk(env, to, options.run, exporter, number, options.connect_deadline,
                              options.handshake_deadline);
    };
    co_return std::shared_ptr<link>(add(std::move(setup)));
}

/// Another connection with this peer is being made: its link. The caller's deadline bounds the wait.
task<result<std::shared_ptr<link>>> mesh::impl::await_link(peer_key key) {
    for (;;) {
        if (auto found = find(key)) co_return std::shared_ptr<link>(std::move(found));
        if (closing) co_return fail(errc::closed, "this node is leaving");
        auto woken = co_await changed.wait();
        LONGHAUL_CO_TRY(woken);
    }
}

void mesh::impl::close(const std::string& reason) {
    if (closing) return;
    closing = true;
    if (door) door->close();
    for (const auto& [key, l] : links) l->close(reason);
    changed.notify();
}

// ---- the public face

mesh::mesh(environment& env, const identity& self, mesh_options options, admission admit, up_handler on_up)
    : impl_(std::make_shared<impl>(env, self, std::move(options), std::move(admit), std::move(on_up))) {}

mesh::~mesh() = default;

result<endpoint> mesh::listen(endpoint at) {
    LONGHAUL_ENSURE(!impl_->door, "a mesh listens on one address");
    LONGHAUL_TRY_ASSIGN(impl_->door, impl_->env.network.listen(std::move(at)));
    impl_->children.spawn("accept", impl_->accept_all());
    return impl_->door->local();
}

task<result<void>> mesh::serve() {
    const auto held = impl_;
    held->children.spawn("serve", held->stay());
    auto served = co_await held->children.join();
    held->close("this node stopped");
    co_return served;
}

task<result<mesh::dialled>> mesh::dial(std::vector<endpoint> to, std::optional<peer_key> who) {
    return impl_->dial(std::move(to), who);
}

task<result<std::shared_ptr<link>>> mesh::dial(endpoint to) {
    std::vector<endpoint> only;
    only.push_back(std::move(to));
    auto made = co_await impl_->dial(std::move(only), std::nullopt);
    LONGHAUL_CO_TRY(made);
    co_return std::move(made->link);
}

std::shared_ptr<link> mesh::find(const peer_key& key) const { return impl_->find(key); }

void mesh::set_silence_limit(core::duration limit) {
    impl_->options.silence_limit = limit;
    for (const auto& [key, l] : impl_->links) l->set_silence_limit(limit);
}

std::vector<std::shared_ptr<link>> mesh::links() const {
    std::vector<std::shared_ptr<link>> up;
    for (const auto& [key, l] : impl_->links) {
        if (l->up()) up.push_back(l);
    }
    return up;
}

door_report mesh::door() const { return {impl_->keeper.waiting(), impl_->keeper.turned_away()}; }

void mesh::close(std::string reason) { impl_->close(reason); }

namespace {

task<result<hello_report>> ask(environment& env, raw_connection& c) {
    hello mine;
    mine.role = hello_role::probe;
    const auto begun = env.clock.now();
    const auto greeted = co_await greet(c, mine);
    LONGHAUL_CO_TRY(greeted);
    hello_report report;
    report.wire_min = greeted->theirs.wire_min;
    report.wire_max = greeted->theirs.wire_max;
    report.run = greeted->theirs.run;
    report.rtt = env.clock.now() - begun;
    co_return report;
}

}  // namespace

task<result<hello_report>> mesh::probe(environment& env, endpoint to, core::duration deadline) {
    const auto until = env.clock.now() + deadline;
    const auto address = to.text();
    std::vector<endpoint> only;
    only.push_back(std::move(to));
    dialler addresses(env, std::move(only), stream_purpose::control, deadline);
    auto connected = co_await core::with_deadline(env.clock, addresses.next(), until);
    if (!connected && connected.error().code == errc::timeout) {
        co_return fail(errc::unreachable, "nobody answered at {} within {:.0f} s: check the address and the firewall",
                       address, core::to_seconds(deadline));
    }
    LONGHAUL_CO_TRY(connected);
    raw_connection c(std::move(connected->connection));
    auto report = co_await core::with_deadline(env.clock, ask(env, c), until);
    if (!report && report.error().code == errc::timeout) {
        co_return fail(errc::protocol, "{} accepted the connection but sent no hello: it is not longhaul", address);
    }
    if (!report && report.error().code != errc::cancelled) co_return fail(report.error().within(address));
    co_return report;
}

}  // namespace longhaul::net

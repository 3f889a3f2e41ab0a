#include "sim/play.hpp"

#include <algorithm>
#include <set>

#include "net/ticket.hpp"
#include "peers/peer.hpp"
#include "sim/durable_log.hpp"
#include "sim/recovery.hpp"
#include "sim/victims.hpp"

namespace longhaul::sim {

namespace {

constexpr std::uint16_t usual_port = 7400;
constexpr core::duration default_step_time = std::chrono::milliseconds(10);

void spoil(disk& d, const std::string& how, bool undo) {
    if (how == "full") d.set_capacity(undo ? 0 : std::max<std::uint64_t>(1, d.used()));
    if (undo) return;
    if (how == "fsync") d.fail_syncs(1);
    if (how == "rot") {
        d.rot("raft");
        d.rot("checkpoints/");
    }
    if (how == "lost") d.lose("raft");
}

class performance {
public:
    performance(const scenario& s, std::uint64_t seed, timed_trainer_factory make_trainer, event_listener listener)
        : scenario_(s),
          make_trainer_(std::move(make_trainer)),
          listener_(std::move(listener)),
          recovery_(s),
          world_(seed) {}
    outcome run();

private:
    node& at(std::uint32_t peer) { return *world_.nodes()[peer]; }
    void start(std::uint32_t peer);
    std::string somebodys_ticket(std::uint32_t joiner) const;
    void take_out(std::uint32_t peer, fault_kind how);
    void start_again_later(std::uint32_t peer);
    core::task<core::result<void>> live(net::environment& env, std::uint32_t peer);
    core::task<core::result<void>> live_managed(net::environment& env, std::uint32_t peer);
    void watch(std::uint32_t peer, const core::event& e);
    void begin(const fault& f);
    void end();
    void act(const fault& f, bool undo);
    void cut(const fault& f, bool undo);
    void stop(std::uint32_t peer, bool undo);
    void go_back(std::uint32_t peer, bool undo);
    bool somebody_lives() const;
    bool over() const;
    std::vector<const std::deque<seen_event>*> events() const;
    outcome conclude();

    const scenario& scenario_;
    timed_trainer_factory make_trainer_;
    event_listener listener_;
    std::map<std::uint32_t, std::string> tickets_;  ///< of everybody who was ready once
    std::set<std::uint32_t> taken_out_;
    std::set<std::uint32_t> returning_;             ///< as soon as they have left
    std::map<std::uint32_t, peers::peer*> living_;  ///< while `live` runs
    std::set<const fault*> at_rounds_;
    std::size_t starts_due_ = 0;  ///< timed steps that will start somebody
    victims victims_;
    std::map<std::pair<std::uint32_t, std::uint32_t>, int> cuts_;               ///< from, to: by how many faults
    std::map<std::uint32_t, int> stops_;                                        ///< likewise
    std::map<std::uint32_t, std::map<std::string, core::byte_vector>> copies_;  ///< of disks, to go back to
    std::size_t faults_left_ = 0;                                               ///< that have not ended
    std::uint64_t struck_ = 0;
    recovery recovery_;
    durable_logs logs_;
    std::optional<std::string> without_quorum_;  ///< the first commit that was
    world world_;                                // last: its tasks refer to all of the above
};

core::task<core::result<void>> performance::live(net::environment& env, std::uint32_t peer) {
    auto self = co_await kept_identity(env);
    LONGHAUL_CO_TRY(self);
    const auto& name = scenario_.net.peers[peer].name;
    const auto& spec = scenario_.peers[peer];
    const auto step_time = spec.step_time > core::duration{} ? spec.step_time : default_step_time;
    peers::peer_options o{.self = *self, .name = name, .listen = {name, usual_port}};
    o.make_trainer = [this, step_time](const optim::trainer_options& t) { return make_trainer_(t, step_time); };
    o.on_ready = [this, peer](const peers::ready_report& r) { tickets_[peer] = r.ticket; };
    if (peer == 0) {
        o.found = peers::founding{scenario_.run};
    } else {
        auto parsed = net::parse_ticket(somebodys_ticket(peer));
        LONGHAUL_CO_TRY(parsed);
        o.join = peers::joining{*parsed, std::nullopt};
    }
    peers::peer p(env, std::move(o));
    living_[peer] = &p;
    auto ended = co_await p.run();
    // After a kill the next life may have begun.
    if (const auto self_again = living_.find(peer); self_again != living_.end() && self_again->second == &p) {
        living_.erase(self_again);
    }
    co_return ended;
}

core::task<core::result<void>> performance::live_managed(net::environment& env, std::uint32_t peer) {
    const auto life = at(peer).lives();
    auto ended = co_await live(env, peer);
    const bool killed = !at(peer).running() || at(peer).lives() != life;
    if (killed) co_return ended;
    if (returning_.erase(peer) > 0) {
        world_.at(world_.now(), [this, peer] { start(peer); });
    } else if (!ended && scenario_.peers[peer].restart_after > core::duration{}) {
        start_again_later(peer);
    }
    co_return ended;
}

/// A person asks whoever takes part for a ticket; the founder, if nobody does.
std::string performance::somebodys_ticket(std::uint32_t joiner) const {
    for (const auto& [peer, ticket] : tickets_) {
        if (peer != joiner && living_.contains(peer)) return ticket;
    }
    const auto founders = tickets_.find(0);
    return founders == tickets_.end() ? std::string() : founders->second;
}

void performance::start_again_later(std::uint32_t peer) {
    ++starts_due_;
    world_.after(scenario_.peers[peer].restart_after, [this, peer] {
        --starts_due_;
        if (!at(peer).running() && !taken_out_.contains(peer)) start(peer);
    });
}

void performance::take_out(std::uint32_t peer, fault_kind how) {
    living_.erase(peer);
    taken_out_.insert(peer);
    how == fault_kind::power ? at(peer).vanish() : at(peer).kill();
}

void performance::start(std::uint32_t peer) {
    taken_out_.erase(peer);
    at(peer).start([this, peer](net::environment& env) { return live_managed(env, peer); });
}

void performance::watch(std::uint32_t peer, const core::event& e) {
    if (listener_) listener_(at(peer).name(), world_.now(), e);
    if (e.name == "started" && peer == 0) {
        // From outside of the process that reports: everybody else joins now.
        world_.at(world_.now(), [this] {
            for (std::uint32_t i = 1; i < scenario_.peers.size(); ++i) {
                if (!scenario_.peers[i].joins_later && !at(i).running() && at(i).lives() == 0) start(i);
            }
        });
    }
    recovery_.saw(peer, e);
    if (e.name != "round_committed") return;
    const auto round = field<std::uint64_t>(e, "round").value_or(0);
    const auto broken = logs_.applied(world_.nodes(), field<std::uint64_t>(e, "generation").value_or(0), round);
    if (broken && !without_quorum_) without_quorum_ = broken;
    std::erase_if(at_rounds_, [&](const fault* f) {
        if (f->round > round) return false;
        world_.at(world_.now(), [this, f] { begin(*f); });
        return true;
    });
}

void performance::begin(const fault& f) {
    ++struck_;
    act(victims_.strike(f, events()), false);
    if (f.lasting <= core::duration{}) {
        end();
        return;
    }
    const bool starts = f.what == fault_kind::kill || f.what == fault_kind::power || f.what == fault_kind::leave;
    if (starts) ++starts_due_;
    world_.after(f.lasting, [this, &f, starts] {
        if (starts) --starts_due_;
        act(victims_.struck(f), true);
        end();
    });
}

void performance::end() {
    if (--faults_left_ == 0) recovery_.faults_ended(world_.now());
}

std::vector<const std::deque<seen_event>*> performance::events() const {
    std::vector<const std::deque<seen_event>*> all;
    for (const auto& n : world_.nodes()) all.push_back(&n->events());
    return all;
}

void performance::cut(const fault& f, bool undo) {
    auto& n = world_.network();
    for (const auto from : f.peers) {
        for (const auto to : f.others) {
            if (from == to) continue;
            const auto set = [&](std::uint32_t a, std::uint32_t b) {
                auto& times = cuts_[{a, b}];
                times += undo ? -1 : 1;
                times > 0 ? n.set_cut(a, b) : n.heal(a, b);
            };
            set(from, to);
            if (f.what == fault_kind::partition) set(to, from);
        }
    }
}

void performance::stop(std::uint32_t peer, bool undo) {
    auto& times = stops_[peer];
    times += undo ? -1 : 1;
    times > 0 ? at(peer).pause() : at(peer).resume();
}

/// The machine is put back to a copy, as virtual machines are.
void performance::go_back(std::uint32_t peer, bool undo) {
    if (!undo) {
        copies_[peer] = at(peer).disk().copy();
        return;
    }
    if (taken_out_.contains(peer)) return;  // by another fault, which starts it again
    if (at(peer).running()) take_out(peer, fault_kind::power);
    at(peer).disk().put_back(std::move(copies_[peer]));
    start(peer);
}

void performance::act(const fault& f, bool undo) {
    if (f.what == fault_kind::partition || f.what == fault_kind::one_way) {
        cut(f, undo);
        return;
    }
    for (const auto peer : f.peers) {
        node& n = at(peer);
        switch (f.what) {
            case fault_kind::kill:
            case fault_kind::power:
                if (undo) {
                    if (!n.running()) start(peer);
                } else if (n.running()) {
                    take_out(peer, f.what);
                }
                break;
            case fault_kind::restart:
            case fault_kind::join:
                if (undo) break;
                if (n.running()) take_out(peer, f.what);
                start(peer);
                break;
            case fault_kind::stop: stop(peer, undo); break;
            case fault_kind::leave:
                if (undo) {
                    // It may still be saying goodbye.
                    if (!n.running())
                        start(peer);
                    else if (taken_out_.contains(peer))
                        returning_.insert(peer);
                } else if (const auto p = living_.find(peer); p != living_.end()) {
                    taken_out_.insert(peer);
                    p->second->leave("the scenario says so");
                }
                break;
            case fault_kind::reset:
                if (!undo) world_.network().reset_connections(peer);
                break;
            case fault_kind::rate: world_.network().set_factor(peer, undo ? 1 : f.factor); break;
            case fault_kind::clock:
                n.set_wall_offset(undo ? core::duration{} : f.offset);
                n.set_drift(undo ? 0 : f.drift);
                break;
            case fault_kind::disk: f.error == "older" ? go_back(peer, undo) : spoil(n.disk(), f.error, undo); break;
            case fault_kind::partition:
            case fault_kind::one_way: break;
        }
    }
}

bool performance::somebody_lives() const {
    const auto& nodes = world_.nodes();
    return starts_due_ > 0 || std::ranges::any_of(nodes, [](const auto& n) { return n->running(); });
}

bool performance::over() const { return recovery_.over(world_.now(), taken_out_) || !somebody_lives(); }

outcome performance::run() {
    build_network(world_, scenario_.net);
    for (std::uint32_t i = 0; i < scenario_.peers.size(); ++i) {
        at(i).on_event([this, i](const core::event& e) { watch(i, e); });
    }
    faults_left_ = scenario_.faults.size();
    for (const auto& f : scenario_.faults) {
        const bool starts = f.what == fault_kind::restart || f.what == fault_kind::join;
        if (f.round > 0) {
            at_rounds_.insert(&f);
            continue;
        }
        if (starts) ++starts_due_;
        world_.at(f.at, [this, &f, starts] {
            if (starts) --starts_due_;
            begin(f);
        });
    }
    if (scenario_.faults.empty()) recovery_.faults_ended({});
    start(0);
    world_.run_while([this] { return !over(); }, scenario_.expect.within);
    return conclude();
}

outcome performance::conclude() {
    std::vector<peer_end> ends;
    for (std::uint32_t i = 0; i < scenario_.peers.size(); ++i) {
        const node& n = at(i);
        peer_end end;
        end.events = &n.events();
        end.alive = !taken_out_.contains(i) && n.lives() > 0;
        if (taken_out_.contains(i)) {
            end.ended = "taken out by the scenario";
        } else if (n.lives() == 0) {
            end.ended = "never started";
        } else if (n.outcome() && !*n.outcome()) {
            end.ended = n.outcome()->error().message;
        }
        ends.push_back(std::move(end));
    }
    auto out = judge(scenario_, ends, world_.now(), recovery_);
    out.invariants["I7"] = without_quorum_.value_or("ok");
    out.ok = out.ok && !without_quorum_;
    out.faults = struck_;
    out.seed = world_.seed();
    out.trace_hash = world_.trace_hash().hex();
    out.in_virtual_time = true;
    return out;
}

/// Streams carry payload; lines are rated in IP packets.
core::bit_rate payload_rate(core::bit_rate rate, std::uint64_t mtu) {
    // IP, TCP and its timestamps, and as much again for every second packet of the other direction, which in an
    // exchange carries as many: its acknowledgement.
    constexpr double headers = 52 + 26;
    return {rate.bits_per_second * (static_cast<double>(mtu) - headers) / static_cast<double>(mtu)};
}

/// The share of packets that begin a burst: what is lost together is repaired together.
double loss_events(const loss_model& m) { return m.rate / m.burst; }

}  // namespace

void build_network(world& w, const topology& t) {
    auto& n = w.network();
    const auto waiting = [](std::uint64_t queue, core::bit_rate rate) {
        return rate.bits_per_second <= 0
                   ? never
                   : core::duration(static_cast<std::int64_t>(static_cast<double>(queue) * 8e9 / rate.bits_per_second));
    };
    for (std::uint32_t i = 0; i < t.peers.size(); ++i) {
        const auto& p = t.peers[i];
        node_options o;
        o.up = payload_rate(p.line.up, t.mtu);
        o.down = payload_rate(p.line.down, t.mtu);
        o.reachable = p.reachable;
        w.add_node(p.name, o);
        n.set_down_queue(i, waiting(t.queue_bytes(p.line.down_queue, p.line.down, t.longest_rtt(i)), p.line.down));
        for (const auto& c : p.line.changes) w.at(c.at, [&n, i, c] { n.set_trace_factor(i, c.factor); });
    }
    for (std::size_t s = 0; s < t.sites.size(); ++s) {
        const auto& l = t.sites[s].line;
        core::duration rtt{};
        for (std::uint32_t i = 0; i < t.peers.size(); ++i) {
            if (t.peers[i].site == static_cast<int>(s)) rtt = std::max(rtt, t.longest_rtt(i));
        }
        const int site = n.add_site(payload_rate(l.up, t.mtu), payload_rate(l.down, t.mtu),
                                    waiting(t.queue_bytes(l.up_queue, l.up, rtt), l.up));
        for (const auto& c : l.changes) w.at(c.at, [&n, site, c] { n.set_site_factor(site, c.factor); });
    }
    for (std::uint32_t i = 0; i < t.peers.size(); ++i) n.set_site(i, t.peers[i].site);
    n.set_path_source([&t](std::uint32_t from, std::uint32_t to) {
        const auto between = t.path(from, to);
        path_options o;
        o.delay = t.one_way(from, to);
        o.jitter = between.jitter + t.peers[from].line.jitter + t.peers[to].line.jitter;
        o.loss = loss_events(between.loss) + loss_events(t.peers[from].line.loss) + loss_events(t.peers[to].line.loss);
        if (t.same_site(from, to)) return o;
        for (const auto peer : {from, to}) {
            if (t.peers[peer].site < 0) continue;
            const auto& l = t.sites[static_cast<std::size_t>(t.peers[peer].site)].line;
            o.jitter += l.jitter;
            o.loss += loss_events(l.loss);
        }
        o.loss = std::min(o.loss, 0.9);
        return o;
    });
}

core::result<std::unique_ptr<optim::trainer>> simulated_trainer(const optim::trainer_options& o,
                                                                core::duration step_time) {
    if (o.model.kind != "quadratic") {
        return core::fail(core::errc::config,
                          "a simulation trains the quadratic: set run.model.kind = \"quadratic\" (it is {})",
                          o.model.kind);
    }
    return optim::make_quadratic_trainer(o, step_time);
}

core::task<core::result<net::identity>> kept_identity(net::environment& env) {
    auto saved = co_await env.storage.read(peers::identity_file, 256);
    if (!saved) {
        const auto fresh = net::identity::generate(env.entropy).serialize();
        auto put = co_await core::put_bytes(env.storage, peers::identity_file, fresh);
        LONGHAUL_CO_TRY(put);
        saved = fresh;
    }
    co_return net::identity::parse(*saved);
}

outcome play(const scenario& s, std::uint64_t seed, timed_trainer_factory make_trainer, event_listener listener) {
    return performance(s, seed, std::move(make_trainer), std::move(listener)).run();
}

}  // namespace longhaul::sim

// Connecting and accepting: the handshake of TCP as its two sides notice it.
//
//     dialler                          listener
//        │ ── SYN ──────────────────────► │  nobody listens: reset → errc::unreachable after one round trip
//        │                                │  backlog full, cut, no power: silence → SYN again after 1, 2, 4… s
//        │ ◄───────────────── SYN, ACK ── │
//     connect returns, may write          │
//        │ ── ACK, data… ───────────────► │  accept returns, 1.5 round trips after the start

#include "sim/fabric.hpp"
#include "sim/process.hpp"

namespace longhaul::sim {

namespace {

/// Linux's tcp_syn_retries: the last SYN after 63 s, and it gives up after 127 s.
constexpr unsigned syn_retries = 6;

}  // namespace

port::port(process& p) : owner(&p), arrived(p.executor()) {}

dial::dial(process& p, std::uint32_t to_host, std::uint16_t to_port)
    : owner(&p),
      from(p.on().index()),
      to(to_host),
      port(to_port),
      answered(std::make_unique<core::wakeup>(p.executor())) {}

std::uint16_t sim_network::fabric::free_port(host& h) {
    while (h.ports.contains(h.next_port)) h.next_port = h.next_port == 65535 ? 49152 : h.next_port + 1;
    const auto found = h.next_port;
    h.next_port = h.next_port == 65535 ? 49152 : h.next_port + 1;
    return found;
}

void sim_network::fabric::send_syn(const std::shared_ptr<dial>& d, unsigned attempt) {
    const path& way = between(d->from, d->to);
    if (entropy.unit() >= way.options.loss) {
        world_.schedule(now() + way.options.delay + draw_jitter(entropy, way.options.jitter),
                        [this, d] { syn_arrives(d); });
    }
    d->retry = world_.schedule(now() + std::chrono::seconds(1U << attempt), [this, d, attempt] {
        if (d->abandoned || d->outcome) return;
        if (attempt == syn_retries) {
            answer(*d, core::fail(core::errc::unreachable, "{}:{} does not answer", hosts[d->to].name, d->port));
            return;
        }
        send_syn(d, attempt + 1);
    });
}

void sim_network::fabric::syn_arrives(const std::shared_ptr<dial>& d) {
    host& to = hosts[d->to];
    if (d->abandoned || d->outcome || between(d->from, d->to).cut || !to.on || to.stopped) return;
    if (d->unheard || (!to.reachable && d->from != d->to)) return;
    const path& back = between(d->to, d->from);
    const auto listening = to.ports.find(d->port);
    if (!d->conn) {
        if (listening == to.ports.end()) {
            world_.schedule(now() + back.options.delay, [this, d] {
                if (d->abandoned || d->outcome || between(d->to, d->from).cut) return;
                world_.fold(action::refused, d->from, d->to);
                answer(*d, core::fail(core::errc::unreachable, "{}:{} refused the connection: nobody listens there",
                                      hosts[d->to].name, d->port));
            });
            return;
        }
        if (listening->second->backlog.size() >= options.backlog) return;
        auto c = std::make_shared<connection>();
        c->id = next_id++;
        c->listening_port = d->port;
        c->ends[0].node = d->from;
        c->ends[0].address = {hosts[d->from].name, free_port(hosts[d->from])};
        c->ends[1].node = d->to;
        c->ends[1].address = {to.name, d->port};
        c->paths = {&between(d->from, d->to), &between(d->to, d->from)};
        connections.emplace(c->id, c);
        d->conn = std::move(c);
    }
    world_.schedule(now() + back.options.delay + draw_jitter(entropy, back.options.jitter),
                    [this, d] { syn_ack_arrives(d); });
}

void sim_network::fabric::syn_ack_arrives(const std::shared_ptr<dial>& d) {
    if (d->abandoned || d->outcome || between(d->to, d->from).cut || !hosts[d->from].on) return;
    const auto c = d->conn;
    c->half_open = false;
    hand_over(*c, 0, *d->owner);
    world_.fold(action::connected, d->from, c->id);
    segment ack;
    ack.what = segment::kind::established;
    dispatch(c, 0, ack, now());
    answer(*d, core::ok());
}

void sim_network::fabric::answer(dial& d, core::result<void> outcome) {
    d.outcome = std::move(outcome);
    world_.cancel(d.retry);
    if (d.answered) d.answered->notify();
    world_.mark(d.from);
}

void sim_network::fabric::give_up(dial& d) {
    d.answered.reset();
    d.abandoned = true;
    world_.cancel(d.retry);
    // The listener's application has not heard of it.
    if (d.conn && d.conn->half_open) connections.erase(d.conn->id);
}

void sim_network::fabric::hand_over(connection& c, int side, process& p) {
    end& e = c.ends[side];
    e.owner = &p;
    e.readable = std::make_unique<core::wakeup>(p.executor());
    e.writable = std::make_unique<core::wakeup>(p.executor());
}

void sim_network::fabric::listener_closed(port& p) {
    if (p.closed) return;
    p.closed = true;
    // Those who were never accepted learn that nobody will.
    for (const auto& c : p.backlog) {
        c->ends[1].closed = true;
        send_reset(c, 1);
        forget_if_over(c);
    }
    p.backlog.clear();
}

}  // namespace longhaul::sim

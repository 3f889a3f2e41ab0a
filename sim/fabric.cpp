#include "sim/fabric.hpp"

#include <algorithm>

#include "sim/process.hpp"

namespace longhaul::sim {

namespace {

/// Linux gives up on a connection whose data nobody has acknowledged for so long (tcp_retries2 = 15).
constexpr core::duration give_up_after = std::chrono::seconds(924);

}  // namespace

path& sim_network::fabric::between(std::uint32_t from, std::uint32_t to) {
    const auto found = paths.find({from, to});
    if (found != paths.end()) return found->second;
    // A host reaches itself over loopback.
    path_options o;
    if (from != to) o = path_source ? path_source(from, to) : default_path;
    return paths.emplace(std::pair(from, to), path{o, false}).first->second;
}

// A stream that has something to send waits for its turn on its host's uplink.
void sim_network::fabric::enqueue(const std::shared_ptr<connection>& c, int side) {
    direction& way = c->ways[side];
    const end& self = c->ends[side];
    if (self.reset || self.gone) return;
    const bool fin_due = way.fin_wanted && !way.fin_sent;
    // What the other end does not acknowledge stops the sender: only the retransmission timer goes on.
    if (way.in_round || way.window_blocked || !way.held.empty() || (way.unsent == 0 && !fin_due)) return;
    way.in_round = true;
    hosts[c->ends[side].node].round.emplace_back(c, side);
}

void sim_network::fabric::activate(const std::shared_ptr<connection>& c, int side) {
    enqueue(c, side);
    pump(c->ends[side].node);
}

bool sim_network::fabric::carries(const connection& c, int side) const {
    const host& from = hosts[c.ends[side].node];
    const host& to = hosts[c.ends[1 - side].node];
    return !c.paths[side]->cut && to.on && !to.stopped && !from.stopped;
}

virtual_time sim_network::fabric::room_at(const connection& c, int side) const {
    const host& from = hosts[c.ends[side].node];
    const host& to = hosts[c.ends[1 - side].node];
    if (&from == &to) return {};
    virtual_time at{};
    const auto wait_for = [&at](const rate_line& line, core::duration queue) {
        if (queue != never) at = std::max(at, line.free_at() - queue);
    };
    wait_for(to.down, to.down_queue);
    if (!crosses_sites(c)) return at;
    if (from.site >= 0)
        wait_for(sites[static_cast<std::size_t>(from.site)].up, sites[static_cast<std::size_t>(from.site)].queue);
    if (to.site >= 0)
        wait_for(sites[static_cast<std::size_t>(to.site)].down, sites[static_cast<std::size_t>(to.site)].queue);
    return at;
}

void sim_network::fabric::pump(std::uint32_t h) {
    host& from = hosts[h];
    while (!from.round.empty() && !from.stopped) {
        virtual_time next = from.up.free_at();
        auto turn = from.round.end();
        if (next <= now()) {
            // In turn, but for streams whose bytes would only wait behind full queues further on.
            next = never;
            turn = std::find_if(from.round.begin(), from.round.end(), [&](const auto& entry) {
                const auto room = room_at(*entry.first, entry.second);
                next = std::min(next, room);
                return room <= now();
            });
        }
        if (turn == from.round.end()) {
            if (from.pump_scheduled) return;
            from.pump_scheduled = true;
            world_.schedule(next, [this, h] {
                hosts[h].pump_scheduled = false;
                pump(h);
            });
            return;
        }
        const auto [c, side] = std::move(*turn);
        from.round.erase(turn);
        c->ways[side].in_round = false;
        transmit(c, side);
        enqueue(c, side);  // again, behind the others, if it has more to send
    }
}

void sim_network::fabric::transmit(const std::shared_ptr<connection>& c, int side) {
    direction& way = c->ways[side];
    end& self = c->ends[side];
    if (self.reset || self.gone || !way.held.empty()) return;  // it had its turn for nothing
    host& from = hosts[self.node];
    const bool loopback = self.node == c->ends[1 - side].node;

    take_credits(way);
    const std::uint64_t room = options.receive_window - way.outstanding;
    const std::uint64_t n = std::min({way.unsent, room, loopback ? way.unsent : from.up.quantum()});
    if (n < std::min(way.unsent, least_credit())) {
        way.window_blocked = true;
        await_credit(c, side);
        return;
    }
    virtual_time sent = now();
    if (n > 0) {
        segment s;
        s.bytes = n;
        if (!loopback) sent = from.up.pass(now(), now(), n);
        s.span = sent - now();
        if (!loopback && from.site >= 0 && crosses_sites(*c)) {
            sent = sites[static_cast<std::size_t>(from.site)].up.pass(now(), sent, n);
        }
        way.unsent -= n;
        way.in_flight += n;
        way.outstanding += n;
        const auto lost = draw_loss(entropy, c->paths[side]->options.loss, n, way.unsent > 3 * packet_bytes, c->rtt());
        s.penalty = lost.delay;
        way.retransmits += lost.lost;
        dispatch(c, side, s, sent);
        wake_writer(self);
    }
    if (way.unsent == 0 && way.fin_wanted && !way.fin_sent) {
        way.fin_sent = true;
        segment s;
        s.what = segment::kind::fin;
        dispatch(c, side, s, sent);
    }
}

// Puts a segment on the path; its last byte has left the sender at `sent`.
void sim_network::fabric::dispatch(const std::shared_ptr<connection>& c, int side, segment s, virtual_time sent) {
    direction& way = c->ways[side];
    const path_options& p = c->paths[side]->options;
    way.last_arrival = std::max(way.last_arrival, sent + p.delay + draw_jitter(entropy, p.jitter));
    world_.schedule(way.last_arrival, [this, c, side, s] { arrive(c, side, s); });
}

void sim_network::fabric::arrive(const std::shared_ptr<connection>& c, int side, segment s) {
    direction& way = c->ways[side];
    end& dest = c->ends[1 - side];
    host& to = hosts[dest.node];
    if (!carries(*c, side) || !way.held.empty()) {
        hold(c, side, s);
        return;
    }
    virtual_time done = now();
    if (s.bytes > 0 && dest.node != c->ends[side].node) {
        if (to.site >= 0 && crosses_sites(*c)) {
            done = sites[static_cast<std::size_t>(to.site)].down.pass(now() - s.span, now(), s.bytes);
        }
        done = to.down.pass(done - s.span, done, s.bytes);
    }
    way.last_delivery = std::max(way.last_delivery, done + s.penalty);
    if (way.last_delivery == now()) {
        deliver(c, side, s);
        return;
    }
    world_.schedule(way.last_delivery, [this, c, side, s] { deliver(c, side, s); });
}

void sim_network::fabric::deliver(const std::shared_ptr<connection>& c, int side, segment s) {
    direction& way = c->ways[side];
    end& dest = c->ends[1 - side];
    way.in_flight -= s.bytes;
    if (dest.gone || dest.closed) {
        // The kernel knows nobody who would read this: it says so, except to the other's own orderly end.
        const bool stray_fin = s.what == segment::kind::fin && !dest.gone;
        if (!stray_fin) send_reset(c, 1 - side);
        forget_if_over(c);
        return;
    }
    switch (s.what) {
        case segment::kind::established: {
            host& to = hosts[dest.node];
            const auto at = to.ports.find(c->listening_port);
            if (at == to.ports.end() || at->second->closed || at->second->backlog.size() >= options.backlog) {
                dest.closed = true;
                send_reset(c, 1 - side);
                forget_if_over(c);
                return;
            }
            at->second->backlog.push_back(c);
            at->second->arrived.notify();
            world_.mark(dest.node);
            return;
        }
        case segment::kind::data:
            way.readable += s.bytes;
            way.delivered += s.bytes;
            hosts[dest.node].received += s.bytes;
            world_.fold(action::deliver, dest.node, c->id, s.bytes);
            break;
        case segment::kind::fin:
            if (way.in_flight + way.unsent > 0) {
                way.fin_sent = false;  // overtaken by bytes that are repeated: it comes again behind them
                activate(c, side);
                return;
            }
            dest.finished = true;
            world_.fold(action::deliver, dest.node, c->id, 0);
            break;
    }
    wake_reader(dest);
}

// TCP repeats what was not acknowledged, ever more slowly, and gives up after a quarter of an hour.
void sim_network::fabric::hold(const std::shared_ptr<connection>& c, int side, segment s) {
    direction& way = c->ways[side];
    if (way.held.empty()) {
        way.held_since = now();
        world_.schedule(now() + give_up_after, [this, c, side, since = now()] {
            direction& w = c->ways[side];
            if (w.held.empty() || w.held_since != since) return;
            for (const auto& lost : w.held) w.in_flight -= lost.bytes;
            w.held.clear();
            reset_end(c, side, "nothing was acknowledged for 924 s");
        });
    }
    way.held.push_back(s);
    way.held.back().penalty = {};
}

void sim_network::fabric::retry_held(const std::shared_ptr<connection>& c, int side) {
    direction& way = c->ways[side];
    if (way.held.empty() || way.retry_scheduled) return;
    way.retry_scheduled = true;
    world_.schedule(next_retry(way.held_since, now(), c->rtt()), [this, c, side] { resend_held(c, side); });
}

void sim_network::fabric::resend_held(const std::shared_ptr<connection>& c, int side) {
    direction& way = c->ways[side];
    way.retry_scheduled = false;
    // Cut again meanwhile: the next heal tries again.
    if (!carries(*c, side)) return;
    std::deque<segment> lost;
    lost.swap(way.held);
    way.retransmits += lost.size();
    for (const auto& s : lost) {
        // Back into the send buffer, over the uplink once more.
        way.in_flight -= s.bytes;
        way.outstanding -= s.bytes;
        way.unsent += s.bytes;
        if (s.what == segment::kind::fin) way.fin_sent = false;
        if (s.what == segment::kind::established) dispatch(c, side, s, now());
    }
    way.window_blocked = false;
    activate(c, side);
}

// The application took bytes: the sender may have as many more on their way, when it hears of it.
void sim_network::fabric::took(const std::shared_ptr<connection>& c, int side, std::uint64_t bytes) {
    direction& way = c->ways[1 - side];
    const path& back = *c->paths[side];
    const virtual_time heard = back.cut ? never : now() + back.options.delay;
    if (way.credits.empty() || way.credits.back().at != heard) {
        way.credits.push_back({heard, bytes});
        // Nobody looks while the sender is silent: keep the list short.
        if (way.credits.size() > 64) take_credits(way);
    } else {
        way.credits.back().bytes += bytes;
    }
    await_credit(c, 1 - side);
}

void sim_network::fabric::take_credits(direction& way) {
    while (!way.credits.empty() && way.credits.front().at <= now()) {
        way.outstanding -= way.credits.front().bytes;
        way.credits.pop_front();
    }
}

// A window opens by no less than a packet, as TCP avoids silly windows.
std::uint64_t sim_network::fabric::least_credit() const { return std::min(packet_bytes, options.receive_window); }

void sim_network::fabric::await_credit(const std::shared_ptr<connection>& c, int side) {
    direction& way = c->ways[side];
    if (!way.window_blocked || way.credit_scheduled) return;
    const std::uint64_t needed = std::min(way.unsent, least_credit());
    std::uint64_t room = options.receive_window - way.outstanding;
    for (const credit& more : way.credits) {
        room += more.bytes;
        if (more.at == never) return;
        if (room < needed) continue;
        way.credit_scheduled = true;
        world_.schedule(more.at, [this, c, side] {
            c->ways[side].credit_scheduled = c->ways[side].window_blocked = false;
            activate(c, side);
        });
        return;
    }
}

// After a heal: what the receiver wanted to say arrives now.
void sim_network::fabric::release_credits(const std::shared_ptr<connection>& c, int side) {
    for (credit& late : c->ways[side].credits) {
        if (late.at == never) late.at = now() + c->paths[1 - side]->options.delay;
    }
    await_credit(c, side);
}

void sim_network::fabric::apply_factor(std::uint32_t h) {
    host& line = hosts[h];
    const double factor = line.trace_factor * line.fault_factor;
    line.stopped = factor <= 0;
    if (line.stopped) return;
    line.up.set_rate({line.base_up.bits_per_second * factor});
    line.down.set_rate({line.base_down.bits_per_second * factor});
    for (const auto& [id, c] : connections) {
        for (int side = 0; side < 2; ++side) {
            if (c->ends[0].node == h || c->ends[1].node == h) retry_held(c, side);
        }
    }
    pump(h);
}

void sim_network::fabric::wake_reader(end& e) {
    if (!e.reading) return;
    e.reading = false;
    e.readable->notify();
    world_.mark(e.node);
}

void sim_network::fabric::wake_writer(end& e) {
    if (!e.writing) return;
    e.writing = false;
    e.writable->notify();
    world_.mark(e.node);
}

void sim_network::fabric::close_end(const std::shared_ptr<connection>& c, int side) {
    end& self = c->ends[side];
    if (self.closed) return;
    self.closed = true;
    direction& out = c->ways[side];
    world_.fold(action::close, self.node, c->id);
    wake_reader(self);
    wake_writer(self);
    if (!self.reset && !self.gone) {
        if (c->ways[1 - side].readable > 0) {
            // Bytes that nobody will read: TCP tells the sender by a reset, and forgets what was still to be sent.
            out.unsent = 0;
            send_reset(c, side);
        } else {
            out.fin_wanted = true;
            activate(c, side);
        }
    }
    forget_if_over(c);
}

// `side` tells the other end that the connection does not exist (any more).
void sim_network::fabric::send_reset(const std::shared_ptr<connection>& c, int side) {
    end& self = c->ends[side];
    if (self.reset_sent) return;
    self.reset_sent = true;
    direction& way = c->ways[side];
    way.last_arrival = std::max(way.last_arrival, now() + c->paths[side]->options.delay);
    world_.schedule(way.last_arrival, [this, c, side] {
        end& dest = c->ends[1 - side];
        if (c->paths[side]->cut || !hosts[dest.node].on) {
            // Nobody repeats a reset; the next segment from there provokes another.
            c->ends[side].reset_sent = false;
            return;
        }
        reset_end(c, 1 - side, "the connection was reset by the other end");
    });
}

void sim_network::fabric::reset_end(const std::shared_ptr<connection>& c, int side, std::string why) {
    end& self = c->ends[side];
    if (self.reset || self.gone) return;
    self.reset = true;
    self.why = std::move(why);
    c->ways[side].unsent = 0;
    if (!self.closed) world_.fold(action::reset, self.node, c->id);
    wake_reader(self);
    wake_writer(self);
    forget_if_over(c);
}

// The application does not hold this end any more; nothing may refer to its executor.
void sim_network::fabric::detach(end& e) {
    e.owner = nullptr;
    e.readable.reset();
    e.writable.reset();
    e.reading = e.writing = false;
}

void sim_network::fabric::forget_if_over(const std::shared_ptr<connection>& c) {
    for (int i = 0; i < 2; ++i) {
        const end& e = c->ends[i];
        if (!e.closed && !e.gone) return;
        if (c->ways[i].in_flight > 0 || !c->ways[i].held.empty()) return;
        if (c->ways[i].unsent > 0 && !e.gone) return;
    }
    // Events under way may keep it for longer than the processes' contexts live.
    for (end& e : c->ends) detach(e);
    connections.erase(c->id);
}

}  // namespace longhaul::sim

#include "sim/lab/emulator.hpp"

#include <algorithm>

namespace longhaul::sim::lab {

emulator::emulator(const topology& t, std::uint64_t seed, packet_sink& out)
    : peers_(static_cast<std::uint32_t>(t.peers.size())), out_(out), entropy_(seed, "emulator") {
    for (std::uint32_t i = 0; i < peers_; ++i) {
        const auto& p = t.peers[i];
        const auto rtt = t.longest_rtt(i);
        site_of_.push_back(p.site);
        add_line(p.line, true, t.queue_bytes(p.line.up_queue, p.line.up, rtt));
        add_line(p.line, false, t.queue_bytes(p.line.down_queue, p.line.down, rtt));
    }
    for (std::size_t s = 0; s < t.sites.size(); ++s) {
        core::duration rtt{};
        for (std::uint32_t i = 0; i < peers_; ++i) {
            if (site_of_[i] == static_cast<int>(s)) rtt = std::max(rtt, t.longest_rtt(i));
        }
        const auto& l = t.sites[s].line;
        add_line(l, true, t.queue_bytes(l.up_queue, l.up, rtt));
        add_line(l, false, t.queue_bytes(l.down_queue, l.down, rtt));
    }
    paths_.resize(std::size_t{peers_} * peers_);
    for (std::uint32_t a = 0; a < peers_; ++a) {
        for (std::uint32_t b = 0; b < peers_; ++b) {
            if (a == b) continue;
            auto& state = paths_[std::size_t{a} * peers_ + b];
            const auto between = t.path(a, b);
            state.delay = t.one_way(a, b);
            state.jitter = between.jitter + t.peers[a].line.jitter + t.peers[b].line.jitter;
            state.loss.model = between.loss;
            if (t.same_site(a, b)) continue;
            for (const auto peer : {a, b}) {
                if (site_of_[peer] >= 0) state.jitter += t.sites[static_cast<std::size_t>(site_of_[peer])].line.jitter;
            }
        }
    }
    counters_.resize(peers_);
    std::stable_sort(changes_.begin(), changes_.end(), [](const change& a, const change& b) { return a.at < b.at; });
    for (std::size_t i = 0; i < changes_.size(); ++i) {
        schedule(changes_[i].at, static_cast<std::uint32_t>(lines_.size() + paths_.size() + i));
    }
}

void emulator::add_line(const access_line& spec, bool up, std::uint64_t queue) {
    const auto index = static_cast<std::uint32_t>(lines_.size());
    line& l = lines_.emplace_back();
    l.base = (up ? spec.up : spec.down).bits_per_second;
    l.rate.set_rate({l.base});
    l.limit = queue;
    access_loss_.push_back({spec.loss, false});
    if (!up) return;
    for (const auto& c : spec.changes) changes_.push_back({c.at, index, c.factor});
}

void emulator::schedule(virtual_time at, std::uint32_t what) {
    heap_.push_back({at, order_++, what});
    std::push_heap(heap_.begin(), heap_.end());
}

void emulator::submit(virtual_time now, const packet& p) {
    advance(now);
    auto& count = counters_[p.from];
    ++count.sent_packets;
    count.sent_bytes += p.bytes;
    ++inside_;
    enter(now, lines_of_peer(p.from), p);
}

void emulator::advance(virtual_time now) {
    while (!heap_.empty() && heap_.front().at <= now) {
        std::pop_heap(heap_.begin(), heap_.end());
        const event e = heap_.back();
        heap_.pop_back();
        if (e.what < lines_.size()) {
            left_line(e.at, e.what);
            continue;
        }
        const auto path = e.what - lines_.size();
        if (path < paths_.size()) {
            auto& waiting = paths_[path].packets;
            const packet p = waiting.front().second;
            waiting.pop_front();
            if (!waiting.empty()) schedule(waiting.front().first, e.what);
            const bool through_site = site_of_[p.to] >= 0 && site_of_[p.to] != site_of_[p.from];
            enter(e.at, through_site ? lines_of_site(site_of_[p.to]) + 1 : lines_of_peer(p.to) + 1, p);
            continue;
        }
        const change& c = changes_[path - paths_.size()];
        for (const auto l : {c.first_line, c.first_line + 1}) {
            lines_[l].trace_factor = c.factor;
            set_rate(e.at, l);
        }
    }
}

void emulator::enter(virtual_time now, std::uint32_t line_index, const packet& p) {
    line& l = lines_[line_index];
    if (l.base <= 0 && !l.stopped) {
        pass_on(now, line_index, p);
        return;
    }
    if (l.queued + p.bytes > l.limit) {
        drop(p, drop_reason::queue);
        return;
    }
    l.queued += p.bytes;
    l.packets.push_back(p);
    if (!l.busy && !l.stopped) begin(now, line_index);
}

// The packet in front goes onto the wire.
void emulator::begin(virtual_time now, std::uint32_t line_index) {
    line& l = lines_[line_index];
    l.busy = true;
    schedule(l.rate.pass(now, now, l.packets.front().bytes), line_index);
}

void emulator::left_line(virtual_time now, std::uint32_t line_index) {
    line& l = lines_[line_index];
    const packet p = l.packets.front();
    l.packets.pop_front();
    l.queued -= p.bytes;
    l.busy = false;
    if (!l.packets.empty() && !l.stopped) begin(now, line_index);
    pass_on(now, line_index, p);
}

void emulator::pass_on(virtual_time now, std::uint32_t line_index, const packet& p) {
    const bool of_site = line_index >= lines_of_site(0);
    const bool up = line_index % 2 == 0;
    if (up) {
        const int s = site_of_[p.from];
        if (!of_site && s >= 0 && s != site_of_[p.to]) {
            enter(now, lines_of_site(s), p);
        } else {
            enter_path(now, p);
        }
        return;
    }
    if (of_site) {
        enter(now, lines_of_peer(p.to) + 1, p);
        return;
    }
    auto& count = counters_[p.to];
    ++count.received_packets;
    count.received_bytes += p.bytes;
    --inside_;
    out_.deliver(p, now);
}

void emulator::enter_path(virtual_time now, const packet& p) {
    path_state& state = path_of(p);
    if (state.cut) {
        drop(p, drop_reason::cut);
        return;
    }
    const bool between_sites = site_of_[p.from] != site_of_[p.to];
    bool gone = lost(access_loss_[lines_of_peer(p.from)]);
    gone |= lost(access_loss_[lines_of_peer(p.to) + 1]);
    if (between_sites && site_of_[p.from] >= 0) gone |= lost(access_loss_[lines_of_site(site_of_[p.from])]);
    if (between_sites && site_of_[p.to] >= 0) gone |= lost(access_loss_[lines_of_site(site_of_[p.to]) + 1]);
    gone |= lost(state.loss);
    if (gone) {
        drop(p, drop_reason::loss);
        return;
    }
    state.last = std::max(state.last, now + state.delay + draw_jitter(entropy_, state.jitter));
    state.packets.emplace_back(state.last, p);
    if (state.packets.size() == 1) {
        schedule(state.last, static_cast<std::uint32_t>(lines_.size() + std::size_t{p.from} * peers_ + p.to));
    }
}

bool emulator::lost(gilbert& chain) {
    const auto& m = chain.model;
    if (m.rate <= 0) return false;
    if (m.burst <= 1) return entropy_.unit() < m.rate;
    // The state of this packet decides on it; then the chain moves on.
    const bool gone = chain.bad;
    const double leave = chain.bad ? 1 / m.burst : m.rate / (m.burst * (1 - m.rate));
    if (entropy_.unit() < leave) chain.bad = !chain.bad;
    return gone;
}

void emulator::drop(const packet& p, drop_reason why) {
    auto& count = counters_[p.from];
    if (why == drop_reason::queue) ++count.dropped_queue;
    if (why == drop_reason::loss) ++count.dropped_loss;
    if (why == drop_reason::cut) ++count.dropped_cut;
    --inside_;
    out_.drop(p, why);
}

void emulator::set_cut(std::uint32_t from, std::uint32_t to, bool cut) {
    paths_[std::size_t{from} * peers_ + to].cut = cut;
}

void emulator::set_factor(virtual_time now, std::uint32_t peer, double factor) {
    advance(now);
    for (const auto l : {lines_of_peer(peer), lines_of_peer(peer) + 1}) {
        lines_[l].fault_factor = factor;
        set_rate(now, l);
    }
}

// The packet on the wire keeps its time.
void emulator::set_rate(virtual_time now, std::uint32_t line_index) {
    line& l = lines_[line_index];
    const double factor = l.trace_factor * l.fault_factor;
    l.stopped = factor <= 0;
    if (!l.stopped && l.base > 0) l.rate.set_rate({l.base * factor});
    if (l.stopped || l.busy || l.packets.empty()) return;
    if (l.base > 0) {
        begin(now, line_index);
        return;
    }
    // An unlimited line that was stopped lets go of everything.
    while (!l.packets.empty()) {
        const packet p = l.packets.front();
        l.packets.pop_front();
        l.queued -= p.bytes;
        pass_on(now, line_index, p);
    }
}

}  // namespace longhaul::sim::lab

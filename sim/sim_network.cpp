#include "sim/sim_network.hpp"

#include "sim/fabric.hpp"
#include "sim/process.hpp"

namespace longhaul::sim {

namespace {

using fabric = sim_network::fabric;

/// Ends an attempt with the coroutine that waits for it.
struct dial_guard {
    fabric& f;
    std::shared_ptr<dial> d;
    ~dial_guard() { f.give_up(*d); }
};

core::task<core::result<std::unique_ptr<net::stream>>> connect_to(fabric& f, process& p, net::endpoint to) {
    if (p.dead()) co_return core::fail(dying());
    const auto self = p.on().index();
    std::uint32_t target = self;
    if (to.host != "localhost" && to.host != "127.0.0.1" && to.host != "::1") {
        const auto found = f.names.find(to.host);
        if (found == f.names.end()) {
            co_return core::fail(core::errc::unreachable, "no host is called '{}'", to.host);
        }
        target = found->second;
    }
    f.world_.fold(action::connect, self, target, to.port);
    const auto d = std::make_shared<dial>(p, target, to.port);
    d->unheard = f.dark.contains(to.host);
    const dial_guard guard{f, d};
    std::erase_if(f.dials, [](const std::weak_ptr<dial>& old) { return old.expired(); });
    f.dials.push_back(d);
    f.send_syn(d, 0);
    while (!d->outcome) {
        auto woken = co_await d->answered->wait();
        LONGHAUL_CO_TRY(woken);
    }
    LONGHAUL_CO_TRY(*d->outcome);
    co_return make_stream(f, d->conn, 0);
}

core::task<core::result<std::unique_ptr<net::stream>>> accept_from(fabric& f, std::shared_ptr<port> at) {
    for (;;) {
        if (at->owner->dead()) co_return core::fail(dying());
        if (at->closed) co_return core::fail(core::errc::closed, "the listener was closed");
        if (!at->backlog.empty()) {
            auto c = std::move(at->backlog.front());
            at->backlog.pop_front();
            f.hand_over(*c, 1, *at->owner);
            f.world_.fold(action::accept, c->ends[1].node, c->id);
            co_return make_stream(f, std::move(c), 1);
        }
        auto woken = co_await at->arrived.wait();
        LONGHAUL_CO_TRY(woken);
    }
}

class sim_listener final : public net::listener {
public:
    sim_listener(fabric& f, std::uint32_t h, net::endpoint at, std::shared_ptr<port> p)
        : fabric_(f), host_(h), local_(std::move(at)), port_(std::move(p)) {}
    ~sim_listener() override { close(); }
    sim_listener(const sim_listener&) = delete;
    sim_listener& operator=(const sim_listener&) = delete;

    core::task<core::result<std::unique_ptr<net::stream>>> accept() override { return accept_from(fabric_, port_); }
    net::endpoint local() const override { return local_; }
    void close() override {
        if (port_->closed) return;
        fabric_.listener_closed(*port_);
        fabric_.hosts[host_].ports.erase(local_.port);
        port_->arrived.notify();
    }

private:
    fabric& fabric_;
    std::uint32_t host_;
    net::endpoint local_;
    std::shared_ptr<port> port_;
};

/// The network as one process sees it.
class process_network final : public net::network {
public:
    process_network(fabric& f, process& p) : fabric_(f), process_(p) {}

    core::task<core::result<std::vector<net::endpoint>>> resolve(net::endpoint of) override {
        if (process_.dead()) co_return core::fail(dying());
        std::vector<net::endpoint> found;
        const auto record = fabric_.records.find(of.host);
        if (record == fabric_.records.end()) {
            found.push_back(std::move(of));
        } else {
            for (const auto& address : record->second) found.push_back({address, of.port});
        }
        co_return found;
    }
    core::task<core::result<std::unique_ptr<net::stream>>> connect(net::endpoint to, net::stream_purpose) override {
        return connect_to(fabric_, process_, std::move(to));
    }
    core::result<std::unique_ptr<net::listener>> listen(net::endpoint at) override {
        if (process_.dead()) return core::fail(dying());
        const auto self = process_.on().index();
        host& here = fabric_.hosts[self];
        const auto named = fabric_.names.find(at.host);
        const bool ours = at.host.empty() || at.host == "0.0.0.0" || at.host == "::" || at.host == "localhost" ||
                          at.host == "127.0.0.1" || at.host == "::1" ||
                          (named != fabric_.names.end() && named->second == self);
        if (!ours)
            return core::fail(core::errc::io, "cannot listen on '{}': it is no address of this machine", at.host);
        if (at.port == 0) at.port = fabric_.free_port(here);
        if (here.ports.contains(at.port)) {
            return core::fail(core::errc::address_in_use, "port {} is in use; choose another or stop its owner",
                              at.port);
        }
        at.host = here.name;
        auto p = std::make_shared<port>(process_);
        here.ports.emplace(at.port, p);
        fabric_.world_.fold(action::listen, self, at.port);
        return std::make_unique<sim_listener>(fabric_, self, at, std::move(p));
    }

private:
    fabric& fabric_;
    process& process_;
};

}  // namespace

sim_network::sim_network(world& w, network_options options) : fabric_(std::make_unique<fabric>(w, options)) {}
sim_network::~sim_network() = default;

void sim_network::add_host(const std::string& name, core::bit_rate up, core::bit_rate down, bool reachable) {
    host h;
    h.name = name;
    h.base_up = up;
    h.base_down = down;
    h.up = rate_line(up);
    h.down = rate_line(down);
    h.reachable = reachable;
    add_name(name, static_cast<std::uint32_t>(fabric_->hosts.size()));
    fabric_->hosts.push_back(std::move(h));
}

void sim_network::add_name(std::string name, std::uint32_t host) { fabric_->names.emplace(std::move(name), host); }

void sim_network::set_dark(std::string address) { fabric_->dark.insert(std::move(address)); }

void sim_network::add_record(std::string name, std::vector<std::string> addresses) {
    fabric_->records[std::move(name)] = std::move(addresses);
}

void sim_network::set_rates(std::uint32_t host, core::bit_rate up, core::bit_rate down) {
    sim::host& h = fabric_->hosts[host];
    h.base_up = up;
    h.base_down = down;
    const double factor = h.trace_factor * h.fault_factor;
    if (factor <= 0) return;
    h.up.set_rate({up.bits_per_second * factor});
    h.down.set_rate({down.bits_per_second * factor});
}

void sim_network::set_default_path(path_options options) {
    fabric_->default_path = options;
    // Pairs that were only looked at keep nothing of the old default.
    for (auto& [pair, p] : fabric_->paths) {
        if (pair.first != pair.second && !p.chosen) p.options = options;
    }
}

void sim_network::set_path(std::uint32_t from, std::uint32_t to, path_options options) {
    path& p = fabric_->between(from, to);
    p.options = options;
    p.chosen = true;
}

path_options sim_network::path_of(std::uint32_t from, std::uint32_t to) { return fabric_->between(from, to).options; }

void sim_network::set_cut(std::uint32_t from, std::uint32_t to) {
    path& p = fabric_->between(from, to);
    if (p.cut) return;
    p.cut = true;
    fabric_->world_.fold(action::cut, from, to);
}

void sim_network::set_path_source(std::function<path_options(std::uint32_t, std::uint32_t)> source) {
    fabric_->path_source = std::move(source);
}

int sim_network::add_site(core::bit_rate up, core::bit_rate down, core::duration queue) {
    fabric_->sites.push_back({up, down, rate_line(up), rate_line(down), queue});
    return static_cast<int>(fabric_->sites.size()) - 1;
}

void sim_network::set_site(std::uint32_t host, int site) { fabric_->hosts[host].site = site; }

void sim_network::set_down_queue(std::uint32_t host, core::duration queue) { fabric_->hosts[host].down_queue = queue; }

void sim_network::set_trace_factor(std::uint32_t host, double factor) {
    fabric_->hosts[host].trace_factor = factor;
    fabric_->apply_factor(host);
}

void sim_network::set_factor(std::uint32_t host, double factor) {
    fabric_->hosts[host].fault_factor = factor;
    fabric_->apply_factor(host);
}

void sim_network::set_site_factor(int site, double factor) {
    site_line& l = fabric_->sites[static_cast<std::size_t>(site)];
    const double least = std::max(factor, 1e-3);
    l.up.set_rate({l.base_up.bits_per_second * least});
    l.down.set_rate({l.base_down.bits_per_second * least});
}

void sim_network::heal(std::uint32_t from, std::uint32_t to) {
    fabric& f = *fabric_;
    path& p = f.between(from, to);
    if (!p.cut) return;
    p.cut = false;
    f.world_.fold(action::heal, from, to);
    const auto all = f.connections;
    for (const auto& [id, c] : all) {
        for (int side = 0; side < 2; ++side) {
            if (c->ends[side].node != from || c->ends[1 - side].node != to) continue;
            if (f.hosts[to].on) f.retry_held(c, side);
            f.release_credits(c, side);
        }
    }
}

void sim_network::heal() {
    fabric& f = *fabric_;
    for (auto& [pair, p] : f.paths) {
        if (!p.cut) continue;
        p.cut = false;
        f.world_.fold(action::heal, pair.first, pair.second);
    }
    for (const auto& [id, c] : f.connections) {
        for (int side = 0; side < 2; ++side) {
            if (f.hosts[c->ends[1 - side].node].on) f.retry_held(c, side);
            f.release_credits(c, side);
        }
    }
}

std::unique_ptr<net::network> sim_network::attach(process& p) { return std::make_unique<process_network>(*fabric_, p); }

void sim_network::process_ended(std::uint32_t host, process* p) {
    fabric& f = *fabric_;
    for (const auto& weak : f.dials) {
        const auto d = weak.lock();
        if (d && d->owner == p) d->abandoned = true;
    }
    for (auto& [number, listening] : f.hosts[host].ports) f.listener_closed(*listening);
    f.hosts[host].ports.clear();
    // Closing may end connections: walk over a copy.
    const auto all = f.connections;
    for (const auto& [id, c] : all) {
        for (int side = 0; side < 2; ++side) {
            if (c->ends[side].owner != p) continue;
            f.close_end(c, side);
            f.detach(c->ends[side]);
        }
    }
}

void sim_network::reset_connections(std::uint32_t host) {
    const auto all = fabric_->connections;
    for (const auto& [id, c] : all) {
        const bool own = c->ends[0].node == host || c->ends[1].node == host;
        if (!own || c->ends[0].node == c->ends[1].node) continue;
        for (int side = 0; side < 2; ++side) fabric_->reset_end(c, side, "the connection was reset on the way");
    }
}

void sim_network::host_down(std::uint32_t host) {
    fabric& f = *fabric_;
    f.hosts[host].on = false;
    f.hosts[host].round.clear();
    for (const auto& weak : f.dials) {
        const auto d = weak.lock();
        if (d && d->from == host) d->abandoned = true;
    }
    for (auto& [number, listening] : f.hosts[host].ports) {
        listening->closed = true;
        listening->backlog.clear();
    }
    f.hosts[host].ports.clear();
    const auto all = f.connections;
    for (const auto& [id, c] : all) {
        for (int side = 0; side < 2; ++side) {
            end& e = c->ends[side];
            if (e.node != host) continue;
            e.gone = e.closed = true;
            c->ways[side].unsent = 0;
            c->ways[side].in_round = false;
            f.detach(e);
            f.forget_if_over(c);
        }
    }
}

void sim_network::host_up(std::uint32_t host) {
    fabric& f = *fabric_;
    if (f.hosts[host].on) return;
    f.hosts[host].on = true;
    for (const auto& [id, c] : f.connections) {
        for (int side = 0; side < 2; ++side) {
            if (c->ends[1 - side].node == host && !c->paths[side]->cut) f.retry_held(c, side);
        }
    }
}

std::size_t sim_network::open_connections() const { return fabric_->connections.size(); }
std::uint64_t sim_network::bytes_sent(std::uint32_t host) const { return fabric_->hosts[host].sent; }
std::uint64_t sim_network::bytes_received(std::uint32_t host) const { return fabric_->hosts[host].received; }

}  // namespace longhaul::sim

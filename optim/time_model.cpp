#include "optim/time_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>

#include "core/result.hpp"

namespace longhaul::optim {

namespace {

/// The slowest measured rate where one is missing: better late than never.
double rate_or(double measured, double otherwise) { return measured > 0 ? measured : otherwise; }

/// Bytes at every line, and how long the fullest one takes.
class ledger_of_lines {
public:
    explicit ledger_of_lines(const exchange_network& net)
        : net_(net), up_(net.size()), down_(net.size()), site_up_(net.sites.size()), site_down_(net.sites.size()) {
        slowest_ = std::numeric_limits<double>::infinity();
        for (const auto& p : net.peers) {
            for (const double r : {p.up, p.down}) {
                if (r > 0) slowest_ = std::min(slowest_, r);
            }
        }
        if (!std::isfinite(slowest_)) slowest_ = 0;
    }

    void add(std::size_t from, std::size_t to, double bytes) {
        if (net_.same_site(from, to)) return;
        up_[from] += bytes;
        down_[to] += bytes;
        if (net_.sites.empty()) return;
        site_up_[net_.peers[from].site] += bytes;
        site_down_[net_.peers[to].site] += bytes;
    }
    /// What the lines of that hop would take after it is added.
    double cost(std::size_t from, std::size_t to, double bytes) const {
        if (net_.same_site(from, to)) return 0;
        double t = std::max(time(up_[from] + bytes, net_.peers[from].up), time(down_[to] + bytes, net_.peers[to].down));
        if (net_.sites.empty()) return t;
        const auto a = net_.peers[from].site, b = net_.peers[to].site;
        t = std::max(t, site_time(site_up_[a] + bytes, net_.sites[a].up));
        return std::max(t, site_time(site_down_[b] + bytes, net_.sites[b].down));
    }
    double seconds() const {
        double t = 0;
        for (std::size_t i = 0; i < net_.size(); ++i) {
            t = std::max({t, time(up_[i], net_.peers[i].up), time(down_[i], net_.peers[i].down)});
        }
        for (std::size_t s = 0; s < net_.sites.size(); ++s) {
            t = std::max({t, site_time(site_up_[s], net_.sites[s].up), site_time(site_down_[s], net_.sites[s].down)});
        }
        return t;
    }
    bool measured() const { return slowest_ > 0; }

private:
    double time(double bytes, double rate) const {
        const double r = rate_or(rate, slowest_);
        return r > 0 ? bytes / r : 0;
    }
    static double site_time(double bytes, double rate) { return rate > 0 ? bytes / rate : 0; }

    const exchange_network& net_;
    std::vector<double> up_, down_, site_up_, site_down_;
    double slowest_ = 0;
};

bool contributes(const exchange_work& w, std::size_t i) { return w.contributes.empty() || w.contributes[i]; }

std::size_t contributors(const exchange_network& net, const exchange_work& w) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < net.size(); ++i) n += contributes(w, i) ? 1 : 0;
    return n;
}

double one_way(const exchange_network& net, std::size_t a, std::size_t b) { return std::max(0.0, net.rtt[a][b]) / 2; }

/// The longest way of a chunk, in seconds of latency, when `source` reaches everybody by `from` (to → from).
double depth_of(const exchange_network& net, const std::vector<std::size_t>& from, std::size_t source, double chunk) {
    double worst = 0;
    for (std::size_t m = 0; m < net.size(); ++m) {
        double way = 0;
        for (std::size_t at = m, steps = 0; at != source && steps < net.size(); at = from[at], ++steps) {
            if (from[at] == at) break;  // not reached
            way += one_way(net, from[at], at);
            // A helper has a whole chunk before it passes it on.
            if (from[at] != source)
                way += chunk / rate_or(net.peers[from[at]].up, std::numeric_limits<double>::infinity());
        }
        worst = std::max(worst, way);
    }
    return worst;
}

/// Members by their uplinks, the widest first: they may help those that come after them.
std::vector<std::size_t> widest_first(const exchange_network& net) {
    std::vector<std::size_t> order(net.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, [&net](auto a, auto b) { return net.peers[a].up > net.peers[b].up; });
    return order;
}

/// How long the lines must work in any case: every payload leaves its author and its site once, and enough comes to
/// everybody (`received` payloads).
double unavoidable(const exchange_network& net, const exchange_work& w, double received) {
    const auto over = [](double bytes, double rate) { return rate > 0 ? bytes / rate : 0; };
    double t = 0;
    std::vector<double> site(net.sites.size());
    double all = 0;
    for (std::size_t i = 0; i < net.size(); ++i) {
        const double own = contributes(w, i) ? w.bytes : 0;
        t = std::max(t, over(own, net.peers[i].up));
        // Members of a site can give each other what one of them got.
        const bool shares = !net.sites.empty() && net.sites[net.peers[i].site].down > 0;
        if (!shares) t = std::max(t, over(received * w.bytes, net.peers[i].down));
        if (!net.sites.empty()) site[net.peers[i].site] += own;
        all += own;
    }
    for (std::size_t s = 0; s < site.size(); ++s) {
        if (site[s] > 0 && all > site[s]) t = std::max(t, over(site[s], net.sites[s].up));
        t = std::max(t, over(std::min(received * w.bytes, all - site[s]), net.sites[s].down));
    }
    return t;
}

/// How `source` reaches every member in `wanted`: each from the source or from one that has it already, so that no line
/// works longer than it must (`enough` seconds are had anyway), and into each site once: members of a site take from
/// each other what one of them has. Between equals, the source. Writes to → from (itself: not reached) and books the
/// bytes.
std::vector<std::size_t> spread(const exchange_network& net, ledger_of_lines& lines, std::size_t source, double bytes,
                                double enough, const std::vector<std::size_t>& wanted) {
    std::vector<std::size_t> from(net.size());
    std::iota(from.begin(), from.end(), std::size_t{0});
    std::vector<std::size_t> have{source};
    auto left = wanted;
    std::erase(left, source);
    while (!left.empty()) {
        double best = std::numeric_limits<double>::infinity();
        std::size_t giver = 0, taker = left.size();
        // In the given order; the next one only if this cannot be reached yet. Into a site, by the member that suits
        // best.
        bool enters = false;
        for (std::size_t t = 0; t < left.size(); ++t) {
            if (taker != left.size() && !(enters && net.same_site(left[taker], left[t]))) continue;
            const auto near = [&](std::size_t g) { return net.reach(g, left[t]) && net.same_site(g, left[t]); };
            const bool is_inside = std::ranges::any_of(have, near);
            for (const auto g : have) {
                if (!net.reach(g, left[t]) || (is_inside && !near(g))) continue;
                const double cost = std::max(enough, lines.cost(g, left[t], bytes));
                if (taker == left.size() || cost < best) {
                    best = cost;
                    giver = g;
                    taker = t;
                    enters = !is_inside;
                }
            }
        }
        if (taker == left.size()) break;
        lines.add(giver, left[taker], bytes);
        from[left[taker]] = giver;
        have.push_back(left[taker]);
        left.erase(left.begin() + static_cast<std::ptrdiff_t>(taker));
    }
    return from;
}

void note_hops(exchange_forecast& f, const std::vector<std::size_t>& from, std::size_t source,
               const std::vector<std::size_t>& wanted) {
    for (const auto m : wanted) {
        if (m == source) continue;
        if (from[m] == m) {
            if (std::ranges::find(f.cut_off, m) == f.cut_off.end()) f.cut_off.push_back(m);
        } else if (from[m] != source) {
            f.hops.push_back({source, m, from[m]});
        }
    }
}

std::string seconds_text(double v) { return fmt::format("{:.2f} s", v); }

}  // namespace

double exchange_floor(const exchange_network& net, const exchange_work& work) {
    if (net.size() < 2 || contributors(net, work) == 0) return 0;
    double bytes = 0, nearest_of_farthest = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < net.size(); ++i) {
        const auto& p = net.peers[i];
        // The only contributor needs nobody's bytes.
        const bool receives = !(contributors(net, work) == 1 && contributes(work, i));
        if (contributes(work, i) && p.up > 0) bytes = std::max(bytes, work.bytes / p.up);
        if (receives && p.down > 0) bytes = std::max(bytes, work.bytes / p.down);
        double nearest = std::numeric_limits<double>::infinity();
        for (std::size_t j = 0; j < net.size(); ++j) {
            if (i != j && net.reach(i, j)) nearest = std::min(nearest, one_way(net, i, j));
        }
        nearest_of_farthest = std::min(nearest_of_farthest, nearest);
    }
    return bytes + (std::isfinite(nearest_of_farthest) ? nearest_of_farthest : 0);
}

std::vector<double> shard_shares(const exchange_network& net) {
    const auto n = net.size();
    std::vector<double> b(n), shares(n, 0.0);
    bool any = false;
    for (std::size_t i = 0; i < n; ++i) {
        b[i] = std::min(net.peers[i].up, net.peers[i].down);
        any = any || b[i] > 0;
    }
    if (!any || n <= 2) {
        std::ranges::fill(shares, n == 0 ? 0 : 1.0 / static_cast<double>(n));
        return shares;
    }
    // In units of S: s_i = (T·b_i − 1)/(N − 2) for those with b_i > 1/T. With the k widest as owners the sum is 1 at
    // T = (N − 2 + k) / Σ b; the right k is the one whose narrowest owner still gets something.
    auto widest = b;
    std::ranges::sort(widest, std::greater<>());
    double sum = 0, t = 0;
    for (std::size_t k = 1; k <= n && widest[k - 1] > 0; ++k) {
        sum += widest[k - 1];
        const double at = static_cast<double>(n - 2 + k) / sum;
        if (at * widest[k - 1] < 1) break;
        t = at;
    }
    double total = 0;
    for (std::size_t i = 0; i < n; ++i) {
        shares[i] = std::max(0.0, (t * b[i] - 1) / static_cast<double>(n - 2));
        total += shares[i];
    }
    for (auto& s : shares) s /= total;
    return shares;
}

double seconds_of_exchanges(std::uint64_t exchanges, double steps, double line, double latency,
                            std::uint32_t staleness) {
    std::deque<double> results;  // when those that are not waited for yet are here
    double now = 0, line_free = 0;
    for (std::uint64_t i = 0; i < exchanges; ++i) {
        if (results.size() > staleness) {
            now = std::max(now, results.front());
            results.pop_front();
        }
        now += steps;
        line_free = std::max(line_free, now) + line;
        results.push_back(line_free + latency);
    }
    return results.empty() ? 0 : results.back();
}

exchange_forecast forecast_gather(const exchange_network& net, const exchange_work& work) {
    exchange_forecast f;
    f.mode = exchange_mode::gather;
    ledger_of_lines lines(net);
    const auto order = widest_first(net);
    const double chunk = work.bytes / std::max<std::uint32_t>(1, work.chunks);
    double latency = 0;
    const auto payloads = static_cast<double>(contributors(net, work));
    const double enough = unavoidable(net, work, std::max(0.0, payloads - 1));
    // The thinnest first: they have no choice, and whoever has room helps them.
    for (auto it = order.rbegin(); it != order.rend(); ++it) {
        if (!contributes(work, *it)) continue;
        const auto from = spread(net, lines, *it, work.bytes, enough, order);
        note_hops(f, from, *it, order);
        latency = std::max(latency, depth_of(net, from, *it, chunk));
    }
    const double coding = coding_seconds(f.mode, work.encode_seconds, work.add_seconds, contributors(net, work));
    f.seconds = lines.measured() ? std::max(lines.seconds(), coding) + latency : 0;
    if (!lines.measured()) {
        f.reason = "gather: nobody has measured a line yet";
        return f;
    }
    f.reason =
        fmt::format("gather: every payload to every member in {}{}", seconds_text(f.seconds),
                    f.hops.empty() ? "" : fmt::format(", {} of them passed on by members with room", f.hops.size()));
    return f;
}

exchange_forecast forecast_shard(const exchange_network& net, const exchange_work& work) {
    exchange_forecast f;
    f.mode = exchange_mode::shard;
    const auto n = net.size();
    // Whole chunks, by the largest remainders.
    const auto shares = shard_shares(net);
    std::vector<std::pair<double, std::size_t>> rests;
    f.chunks.assign(n, 0);
    std::uint32_t given = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const double exact = shares[i] * work.chunks;
        f.chunks[i] = static_cast<std::uint32_t>(std::floor(exact));
        given += f.chunks[i];
        if (shares[i] > 0) rests.emplace_back(std::floor(exact) - exact, i);
    }
    std::ranges::sort(rests);
    for (std::size_t k = 0; given < work.chunks; k = (k + 1) % rests.size(), ++given) ++f.chunks[rests[k].second];

    ledger_of_lines lines(net);
    const auto order = widest_first(net);
    const double chunk = work.bytes / std::max<std::uint32_t>(1, work.chunks);
    const double enough = unavoidable(net, work, 1);
    double there = 0, back = 0;
    for (std::size_t owner = 0; owner < n; ++owner) {
        if (f.chunks[owner] == 0) continue;
        const double part = f.chunks[owner] * chunk;
        for (std::size_t i = 0; i < n; ++i) {
            if (i == owner || !contributes(work, i)) continue;
            if (net.reach(i, owner)) {
                lines.add(i, owner, part);
                there = std::max(there, one_way(net, i, owner));
                continue;
            }
            // Through the widest that both reach.
            const auto helper = std::ranges::find_if(
                order, [&](auto h) { return h != i && h != owner && net.reach(i, h) && net.reach(h, owner); });
            if (helper == order.end()) {
                f.cut_off.push_back(i);
                continue;
            }
            lines.add(i, *helper, part);
            lines.add(*helper, owner, part);
            f.hops.push_back({i, owner, *helper});
            there = std::max(there, one_way(net, i, *helper) + one_way(net, *helper, owner));
        }
        const auto from = spread(net, lines, owner, part, enough, order);
        for (const auto m : order) {
            if (m == owner || from[m] == m || from[m] == owner) continue;
            // One way for both directions of a pair: what a contribution takes already is kept.
            const auto taken =
                std::ranges::any_of(f.hops, [&](const auto& h) { return h.source == owner && h.to == m; });
            if (!taken) f.hops.push_back({owner, m, from[m]});
        }
        for (const auto m : order) {
            if (m != owner && from[m] == m && std::ranges::find(f.cut_off, m) == f.cut_off.end())
                f.cut_off.push_back(m);
        }
        back = std::max(back, depth_of(net, from, owner, chunk));
    }
    // The last chunk is summed when it has come from everybody, and then goes the second hop.
    const double coding = coding_seconds(f.mode, work.encode_seconds, work.add_seconds, contributors(net, work));
    f.seconds = lines.measured() ? std::max(lines.seconds(), coding) + there + back : 0;
    const auto owners = std::ranges::count_if(f.chunks, [](auto c) { return c > 0; });
    f.reason = fmt::format("shard: {} owners sum and return in {}", owners, seconds_text(f.seconds));
    return f;
}

exchange_forecast plan_exchange(const exchange_network& net, const exchange_work& work) {
    auto gather = forecast_gather(net, work);
    if (!work.may_shard || net.size() <= 2) return gather;
    auto shard = forecast_shard(net, work);
    if (gather.seconds <= 0) return gather;
    // A hop less is worth a little: what the model does not know grows with the hops.
    const bool sharded = shard.cut_off.size() <= gather.cut_off.size() && shard.seconds < 0.95 * gather.seconds;
    auto& best = sharded ? shard : gather;
    const auto& other = sharded ? gather : shard;
    best.reason += fmt::format("; {} would take {}", sharded ? "gather" : "shard", seconds_text(other.seconds));
    return best;
}

std::vector<bool> inside_site(const std::vector<double>& rtts) {
    std::vector<bool> inside(rtts.size());
    double widest = 0, farthest = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < rtts.size(); ++i) {
        inside[i] = rtts[i] > 0 && rtts[i] <= near_seconds;
        if (inside[i]) widest = std::max(widest, rtts[i]);
        if (!inside[i] && rtts[i] > 0) farthest = std::min(farthest, rtts[i]);
    }
    // All are near: a cluster, in which everybody has a line of its own.
    if (!std::isfinite(farthest) || farthest < apart_factor * widest) inside.assign(rtts.size(), false);
    return inside;
}

void infer_sites(exchange_network& net) {
    const auto n = net.size();
    const auto close = [&](std::size_t a, std::size_t b) {
        return a == b || (net.rtt[a][b] > 0 && net.rtt[a][b] <= near_seconds);
    };
    std::vector<std::size_t> site(n);
    std::iota(site.begin(), site.end(), std::size_t{0});
    for (std::size_t i = 0; i < n; ++i) {
        std::vector<std::size_t> group;
        double widest = 0, farthest = std::numeric_limits<double>::infinity();
        for (std::size_t j = 0; j < n; ++j) {
            if (close(i, j)) group.push_back(j);
        }
        for (const auto a : group) {
            for (std::size_t b = 0; b < n; ++b) {
                if (a == b) continue;
                const bool inside = std::ranges::find(group, b) != group.end();
                if (inside) widest = std::max(widest, net.rtt[a][b] > 0 ? net.rtt[a][b] : near_seconds);
                if (!inside && net.rtt[a][b] > 0) farthest = std::min(farthest, net.rtt[a][b]);
            }
        }
        if (group.size() > 1 && std::isfinite(farthest) && farthest >= apart_factor * widest) site[i] = group.front();
    }
    net.sites.assign(n, {});
    for (std::size_t i = 0; i < n; ++i) {
        net.peers[i].site = site[i];
        auto& line = net.sites[site[i]];
        line.up += net.peers[i].up;
        line.down += net.peers[i].down;
    }
    std::vector<std::size_t> size(n);
    for (const auto s : site) ++size[s];
    for (std::size_t s = 0; s < n; ++s) {
        if (size[s] < 2) net.sites[s] = {};  // its own line says it already
    }
}

}  // namespace longhaul::optim

#include "peers/planning.hpp"

#include <algorithm>

#include "peers/exchange.hpp"

namespace longhaul::peers {

namespace {

const line_report* link_with(const lines_message& m, peer_number who) {
    const auto it = std::ranges::lower_bound(m.links, who, {}, &line_report::peer);
    return it == m.links.end() || it->peer != who ? nullptr : &*it;
}

}  // namespace

void exchange_planner::heard(peer_number who, const lines_message& m, core::time_point now) {
    const auto [it, fresh] = reports_.try_emplace(who);
    auto& r = it->second;
    if (fresh) r.first = now;
    for (const auto& l : r.said.links) {
        if (link_with(m, l.peer) == nullptr) r.lost.try_emplace(l.peer, now);
    }
    for (const auto& l : m.links) r.lost.erase(l.peer);
    r.said = m;
}

exchange_planner exchange_planner::with(model m) const {
    auto other = *this;
    other.model_ = std::move(m);
    return other;
}

void exchange_planner::gone(peer_number who) { reports_.erase(who); }

std::optional<core::time_point> exchange_planner::apart_at(peer_number a, peer_number b) const {
    const auto of_a = reports_.find(a), of_b = reports_.find(b);
    if (a == b || of_a == reports_.end() || of_b == reports_.end()) return std::nullopt;
    if (link_with(of_a->second.said, b) != nullptr || link_with(of_b->second.said, a) != nullptr) return std::nullopt;
    // Everybody dials again what it lost: it has the same time for that.
    auto since = std::max(of_a->second.first, of_b->second.first);
    for (const auto& [r, other] : {std::pair(&of_a->second, b), std::pair(&of_b->second, a)}) {
        if (const auto lost = r->lost.find(other); lost != r->lost.end()) since = std::max(since, lost->second);
    }
    return since + time_to_link;
}

bool exchange_planner::reach(peer_number a, peer_number b, core::time_point now) const {
    const auto apart = apart_at(a, b);
    return !apart || now < *apart;
}

optim::exchange_network exchange_planner::network(const std::vector<peer_number>& members, core::time_point now) const {
    optim::exchange_network net;
    const auto n = members.size();
    net.peers.resize(n);
    net.rtt.assign(n, std::vector<double>(n, 0.0));
    for (std::size_t i = 0; i < n; ++i) {
        const auto of = reports_.find(members[i]);
        if (of == reports_.end()) continue;
        net.peers[i].up = of->second.said.up;
        net.peers[i].down = of->second.said.down;
        for (std::size_t j = 0; j < n; ++j) {
            if (const auto* l = link_with(of->second.said, members[j])) {
                net.rtt[i][j] = net.rtt[j][i] = std::max(net.rtt[i][j], l->rtt_us * 1e-6);
            }
        }
    }
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            if (!reach(members[i], members[j], now)) net.rtt[i][j] = -1;
        }
    }
    optim::infer_sites(net);
    return net;
}

std::optional<std::uint64_t> exchange_planner::room_of(peer_number who) const {
    const auto of = reports_.find(who);
    return of == reports_.end() || of->second.said.room == 0 ? std::nullopt : std::optional(of->second.said.room);
}

std::size_t exchange_planner::most_contributors(const std::vector<peer_number>& members,
                                                std::uint64_t bytes_of_each) const {
    // Those of the round before are kept, too.
    const auto of_one = std::max<std::uint64_t>(1, 2 * bytes_of_each);
    std::uint64_t most = members.size();
    for (const auto m : members) {
        if (const auto room = room_of(m)) most = std::min(most, 1 + *room / of_one);
    }
    return static_cast<std::size_t>(most);
}

void exchange_planner::fit_memory(exchange_plan& plan, std::size_t members) const {
    const auto chunks = std::max(1U, model_.chunks);
    const auto a_chunk = model_.payload_bytes / chunks + chunk_header_bytes;
    const std::uint64_t others = members - 1;
    std::map<peer_number, std::pair<std::uint64_t, std::uint64_t>> owned;  // chunks, shards
    for (const auto& s : plan.shards) {
        owned[s.owner].first += s.chunks;
        ++owned[s.owner].second;
    }
    std::string windows;
    for (auto& s : plan.shards) {
        s.window = 0;
        const auto room = room_of(s.owner);
        const auto [its_chunks, its_shards] = owned[s.owner];
        // Streams are kept through the round after theirs; beside them are the sums, of all shards.
        const auto sums = 2 * model_.payload_bytes;
        if (!room || its_chunks == 0 || sums + 2 * others * its_chunks * a_chunk <= *room) continue;
        const auto each = (*room > sums ? *room - sums : 0) / std::max<std::uint64_t>(1, others * its_shards);
        s.window = usual_window;
        while (s.window > 1 && window_bytes(a_chunk, s.window) > each) --s.window;
        windows += fmt::format("{}{} of {}", windows.empty() ? "" : ", ", s.owner, s.window);
    }
    if (!windows.empty()) plan.reason += "; for lack of memory a window of chunks a sender at peer " + windows;
    plan.reason = plan.reason.substr(0, max_reason);
}

exchange_planner::choice exchange_planner::plan(const std::vector<peer_number>& members,
                                                const std::vector<peer_number>& contributors, core::time_point now,
                                                std::string_view present) const {
    choice out;
    out.mode = model_.mode == "shard" ? "shard" : "gather";
    const auto net = network(members, now);
    optim::exchange_work work;
    work.chunks = std::max(1U, model_.chunks);
    work.bytes = static_cast<double>(model_.payload_bytes);
    work.may_shard = model_.may_shard;
    work.encode_seconds = model_.encode_seconds;
    work.add_seconds = model_.add_seconds;
    for (const auto m : members) work.contributes.push_back(has(contributors, m));
    optim::exchange_forecast f;
    if (model_.mode == "auto") {
        f = optim::plan_exchange(net, work);
        const auto name = f.mode == optim::exchange_mode::shard ? "shard" : "gather";
        const bool possible = present == "gather" || (present == "shard" && model_.may_shard);
        if (possible && present != name && f.seconds > 0) {
            auto kept = present == "shard" ? optim::forecast_shard(net, work) : optim::forecast_gather(net, work);
            if (kept.cut_off.size() <= f.cut_off.size() && kept.seconds <= 1.1 * f.seconds) {
                kept.reason += "; kept, since another would save less than a tenth";
                f = std::move(kept);
            }
        }
        const auto cramped = std::ranges::find_if(members, [&](peer_number m) {
            const auto room = room_of(m);
            return room && 2 * (members.size() - 1) * model_.payload_bytes > *room;
        });
        if (f.mode == optim::exchange_mode::gather && model_.may_shard && cramped != members.end()) {
            f = optim::forecast_shard(net, work);
            f.reason += fmt::format("; all payloads do not fit the memory of peer {}", *cramped);
        }
    } else {
        f = out.mode == "shard" ? optim::forecast_shard(net, work) : optim::forecast_gather(net, work);
        f.reason += "; exchange.mode asks for it";
    }
    out.mode = f.mode == optim::exchange_mode::shard ? "shard" : "gather";
    for (std::size_t i = 0; i < f.chunks.size(); ++i) {
        if (f.chunks[i] > 0) out.plan.shards.push_back({members[i], f.chunks[i], 0});
    }
    for (const auto& h : f.hops) {
        if (out.plan.relays.size() < max_relays) {
            out.plan.relays.push_back({members[h.source], members[h.to], members[h.via]});
        }
    }
    out.plan.predicted_seconds = f.seconds;
    out.plan.reason = std::move(f.reason);
    if (model_.in_turn) {
        auto near = net;
        for (auto& row : near.rtt)
            for (auto& rtt : row) rtt = std::min(rtt, 0.0);
        out.line_seconds = std::min(f.seconds, optim::forecast_gather(near, work).seconds);
    }
    fit_memory(out.plan, members.size());
    return out;
}

exchange_plan exchange_planner::replan(const round_record& next, core::time_point now,
                                       const std::set<peer_number>& relieved) const {
    if (next.exchange.shards.empty()) {
        auto gather = model_;
        gather.mode = "gather";
        auto again = with(gather).plan(next.members, next.contributors, now, {});
        again.plan.reason = "gather again, without those who left";
        if (model_.in_turn) again.plan.predicted_seconds = next.exchange.predicted_seconds;
        return again.plan;
    }
    exchange_plan out;
    out.shards = next.exchange.shards;
    std::map<peer_number, std::uint64_t> load;
    for (const auto m : next.members) {
        if (!relieved.contains(m)) load[m] = 0;
    }
    for (const auto m : load.empty() ? next.members : std::vector<peer_number>{}) load[m] = 0;
    for (const auto& s : out.shards) {
        if (load.contains(s.owner)) load[s.owner] += s.chunks;
    }
    for (auto& s : out.shards) {
        if (load.contains(s.owner)) continue;
        // Whoever owns something has room for more; the emptiest of them.
        std::optional<peer_number> best;
        for (const auto& [m, chunks] : load) {
            if (!best || (chunks > 0) > (load[*best] > 0) ||
                ((chunks > 0) == (load[*best] > 0) && chunks < load[*best])) {
                best = m;
            }
        }
        s.owner = *best;
        load[*best] += s.chunks;
    }
    for (const auto from : next.members) {
        for (const auto to : next.members) {
            if (from == to || reach(from, to, now)) continue;
            const auto helps = [&](peer_number h) {
                return h != from && h != to && reach(from, h, now) && reach(h, to, now);
            };
            const auto via = std::ranges::find_if(next.members, helps);
            if (via != next.members.end() && out.relays.size() < max_relays) out.relays.push_back({from, to, *via});
        }
    }
    out.predicted_seconds = next.exchange.predicted_seconds;
    out.reason = "the same shards, those of owners who left or took too long in other hands";
    fit_memory(out, next.members.size());
    return out;
}

std::optional<exchange_planner::missing_link> exchange_planner::missing(const round_record& r) const {
    // Nearly always everybody is linked with everybody: one look at each report.
    const auto lacks_nobody = [&](peer_number m) {
        const auto of = reports_.find(m);
        if (of == reports_.end()) return true;
        auto l = of->second.said.links.begin();
        const auto end = of->second.said.links.end();
        return std::ranges::all_of(r.members, [&](peer_number other) {
            if (other == m) return true;
            while (l != end && l->peer < other) ++l;
            return l != end && l->peer == other;
        });
    };
    if (std::ranges::all_of(r.members, lacks_nobody)) return std::nullopt;
    const auto apart = [&](peer_number a) {
        return std::ranges::any_of(r.members, [&](peer_number b) { return a < b && apart_at(a, b); });
    };
    if (std::ranges::none_of(r.members, apart)) return std::nullopt;
    std::optional<missing_link> first;
    const auto look = [&](peer_number source, const std::vector<peer_number>& wanted) {
        for (const auto& [to, from] : tree_of(r.exchange, source, wanted)) {
            const auto at = apart_at(from, to);
            if (at && (!first || *at < first->lost_at)) first = missing_link{from, to, *at};
        }
    };
    for (const auto c : r.contributors) {
        if (!has(r.members, c)) continue;  // what it sent is where it should be
        if (r.exchange.shards.empty()) look(c, r.members);
        for (const auto& s : r.exchange.shards) look(c, {s.owner});
    }
    for (const auto& s : r.exchange.shards) look(s.owner, r.members);
    return first;
}

}  // namespace longhaul::peers

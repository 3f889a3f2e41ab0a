#include "tests/unit/peers/raft_world.hpp"

#include <algorithm>

namespace longhaul::peers::raft::testing {

namespace {

voter_id id_of_machine(std::size_t i) {
    voter_id id;
    id.bytes[0] = static_cast<std::byte>(i + 1);
    return id;
}

core::byte_vector bytes_of(std::uint64_t n) {
    core::byte_writer w;
    return w.u64(n).take();
}

std::uint64_t number_in(core::const_bytes b) { return core::byte_reader(b).u64().value_or(0); }

}  // namespace

random_world::random_world(std::uint64_t seed) : dice_(seed * 7919 + 13), seed_(seed) {
    constexpr std::size_t machines = 6;
    const std::size_t sizes[] = {1, 2, 3, 3, 5};
    const auto voters = sizes[dice_.below(5)];
    configuration founded;
    for (std::size_t i = 0; i < voters; ++i) founded.voters.push_back(id_of_machine(i));
    for (std::size_t i = 0; i < machines; ++i) {
        machine m;
        m.id = id_of_machine(i);
        if (i < voters) m.disk.base.members = founded;
        m.disk.base.data = bytes_of(0);
        nodes_.push_back(std::move(m));
    }
    states_[0] = 0;
    committed_[0] = {0, 0};
    prefixes_[{0, 0}] = 0;
    // Each seed has its own weather, or all would be the same mixture.
    ordered_ = dice_.chance(0.5);
    const double often[] = {0, 0.02, 0.1, 0.3};
    drop_ = often[dice_.below(4)];
    twice_ = often[dice_.below(3)];
    crash_ = often[dice_.below(4)];
    change_ = often[dice_.below(4)];
    partition_ = often[dice_.below(4)];
    slow_disk_ = std::uint64_t{1} << dice_.below(8);
    trusting_ = dice_.chance(0.5);
}

std::string random_world::run() {
    for (std::size_t i = 0; i < nodes_.size(); ++i) start(i);
    at(ms(1, 20), [this] { client(); });
    at(ms(1, 100), [this] { fault(); });
    at(faults_until_, [this] { heal(); });
    const auto end = faults_until_ + std::chrono::seconds(8);
    while (!agenda_.empty() && broken_.empty() && agenda_.top().at < end) {
        auto next = agenda_.top();
        agenda_.pop();
        now_ = next.at;
        next.what();
    }
    if (!broken_.empty()) return fmt::format("seed {}: {}", seed_, broken_);
    // Faults have ceased: one leads, and all that follow it have all that was committed.
    std::optional<std::size_t> leader;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        if (nodes_[i].runs->role() != role::leader) continue;
        if (leader && nodes_[*leader].runs->term() > nodes_[i].runs->term()) continue;
        leader = i;
    }
    const auto everybody = [&] {
        std::string all;
        for (const auto& m : nodes_) {
            const auto& s = *m.runs;
            all +=
                fmt::format("\n  {}: role {}, term {}, commit {}, log {} to {} of term {}, {} voters:", index_of(m.id),
                            static_cast<int>(s.role()), s.term(), s.commit(), s.log().base().index,
                            s.log().last_index(), s.log().last_term(), s.members().voters.size());
            for (const auto& v : s.members().voters) all += fmt::format(" {}", index_of(v));
        }
        return all;
    };
    if (!leader) return fmt::format("seed {}: nobody leads long after the last fault{}", seed_, everybody());
    const auto& l = *nodes_[*leader].runs;
    if (l.term() != l.log().term_of(l.commit()))
        return fmt::format("seed {}: node {} leads and committed nothing{}", seed_, *leader, everybody());
    for (const auto& [id, f] : l.followers()) {
        const auto& m = nodes_[index_of(id)];
        if (m.applied + 20 < l.applied()) {
            return fmt::format("seed {}: {} applied {} of {}", seed_, id.brief(), m.applied, l.applied());
        }
    }
    return {};
}

std::size_t random_world::index_of(const voter_id& id) const { return std::to_integer<std::size_t>(id.bytes[0]) - 1; }

std::uint64_t random_world::hash_of(const entry& e) {
    auto h = mix(e.term, static_cast<std::uint64_t>(e.kind));
    for (const auto b : e.data) h = mix(h, std::to_integer<std::uint64_t>(b));
    for (const auto& v : e.members.voters) h = mix(h, std::to_integer<std::uint64_t>(v.bytes[0]));
    for (const auto& v : e.members.learners) h = mix(h, 100 + std::to_integer<std::uint64_t>(v.bytes[0]));
    return h;
}

void random_world::start(std::size_t i) {
    auto& m = nodes_[i];
    options o;
    o.self = m.id;
    o.heartbeat = std::chrono::milliseconds(60);
    o.election = std::chrono::milliseconds(300);
    o.seed = dice_.next();
    ++m.life;
    m.runs.emplace(o, m.disk, now());
    m.applied = m.disk.base.index;
    m.state = number_in(m.disk.base.data);
    m.prefix.clear();
    m.syncing = false;
    m.waking.reset();
    remember_log(m, {0, {}, m.disk.base, m.disk.base.index + 1, m.disk.entries});
    arrange_wake(i);
    for (std::size_t other = 0; other < nodes_.size(); ++other) {
        if (other == i || !nodes_[other].runs || cut_.contains({i, other}) || cut_.contains({other, i})) continue;
        (void)step(i, link_up{nodes_[other].id});
        (void)step(other, link_up{m.id});
    }
}

void random_world::crash(std::size_t i) {
    auto& m = nodes_[i];
    if (!m.runs) return;
    ++counts_.crashes;
    m.runs.reset();
    // Writes reach the disk in order: the first of those under way perhaps, and the others only behind it.
    for (auto survive = dice_.below(m.unsynced.size() + 1); survive > 0; --survive) {
        if (auto r = raft::apply(m.disk, m.unsynced.front()); !r) broke(r.error().message);
        m.unsynced.pop_front();
    }
    m.unsynced.clear();
    at(now_ + ms(1, 1500), [this, i] {
        if (!nodes_[i].runs) start(i);
    });
}

core::result<std::uint64_t> random_world::step(std::size_t i, event e) {
    auto& m = nodes_[i];
    const auto before = m.runs->role();
    const auto commit_before = m.runs->commit(), term_before = m.runs->term();
    auto a = m.runs->step(now(), std::move(e));
    if (!a) return core::fail(a.error());
    const auto proposed = a->proposed;
    if (a->write) remember_log(m, *a->write);
    perform(i, std::move(*a));
    check(i, before, term_before, commit_before);
    return proposed;
}

void random_world::perform(std::size_t i, actions a) {
    auto& m = nodes_[i];
    if (a.write) sync(i, std::move(*a.write));
    for (auto& o : a.send) carry(i, std::move(o));
    if (a.restore) {
        ++counts_.snapshots;
        const auto known = states_.find(a.restore->index);
        m.applied = a.restore->index;
        m.state = number_in(a.restore->data);
        if (known == states_.end() || known->second != m.state) broke("a snapshot is not what was applied");
    }
    for (const auto& c : a.apply) apply(m, c);
    arrange_wake(i);
}

void random_world::sync(std::size_t i, disk_write w) {
    auto& m = nodes_[i];
    m.unsynced.push_back(std::move(w));
    if (!m.syncing) write_out(i);
}

/// All that waits goes to the disk in one write, as a driver does it: else a slow disk falls behind for ever.
void random_world::write_out(std::size_t i) {
    auto& m = nodes_[i];
    m.syncing = !m.unsynced.empty();
    if (!m.syncing) return;
    at(now_ + ms(0, slow_disk_), [this, i, life = m.life, last = m.unsynced.back().number] {
        auto& then = nodes_[i];
        if (then.life != life || !then.runs) return;
        for (; !then.unsynced.empty() && then.unsynced.front().number <= last; then.unsynced.pop_front()) {
            if (auto r = raft::apply(then.disk, then.unsynced.front()); !r) broke(r.error().message);
        }
        (void)step(i, durable{last});
        write_out(i);
    });
}

void random_world::carry(std::size_t from, outgoing o) {
    const auto to = index_of(o.to);
    if (o.to == nodes_[from].id) broke("a message to itself left a node");
    if (!healed_ && dice_.chance(drop_)) return;
    for (int copies = !healed_ && dice_.chance(twice_) ? 2 : 1; copies > 0; --copies) {
        auto when = now_ + (dice_.chance(0.02) && !healed_ ? ms(1, 400) : ms(1, 15));
        if (ordered_ || healed_) {
            auto& last = last_arrival_[{from, to}];
            when = last = std::max(when, last);
        }
        // Nobody can tell old words from an old disk then: whatever comes late is listened to.
        if (trusting_) {
            o.what.own = {1, 1, 1};
            o.what.seen = {};
        }
        at(when, [this, from, to, m = o.what] {
            if (cut_.contains({from, to}) || !nodes_[to].runs) return;
            if (auto r = step(to, received{nodes_[from].id, m}); !r) broke(r.error().message);
        });
    }
}

void random_world::arrange_wake(std::size_t i) {
    auto& m = nodes_[i];
    const auto due = std::max(m.runs->wake_at().time_since_epoch(), now_ + core::duration(1));
    if (m.waking && *m.waking <= due && *m.waking > now_) return;
    m.waking = due;
    at(due, [this, i, life = m.life, due] {
        auto& then = nodes_[i];
        if (then.life != life || !then.runs || then.waking != due) return;
        then.waking.reset();
        (void)step(i, tick{});
    });
}

void random_world::remember_log(machine& m, const disk_write& w) {
    if (w.base) {
        const auto known = prefixes_.find({w.base->index, w.base->term});
        if (known == prefixes_.end()) {
            broke("a snapshot ends with an entry that nobody wrote");
            return;
        }
        m.prefix[w.base->index] = known->second;
    }
    if (w.first == 0) return;
    m.prefix.erase(m.prefix.lower_bound(w.first), m.prefix.end());
    auto index = w.first;
    for (const auto& e : w.entries) {
        const auto before = m.prefix.find(index - 1);
        if (before == m.prefix.end()) {
            broke("a log has a gap");
            return;
        }
        const auto h = mix(before->second, hash_of(e));
        const auto [known, fresh] = prefixes_.try_emplace({index, e.term}, h);
        if (!fresh && known->second != h) {
            broke(fmt::format("log matching: entry {} of term {} follows on two histories", index, e.term));
        }
        m.prefix[index++] = h;
    }
}

void random_world::apply(machine& m, const committed& c) {
    if (c.index != m.applied + 1) broke(fmt::format("entry {} is applied after {}", c.index, m.applied));
    m.applied = c.index;
    m.state = mix(m.state, hash_of(c.what));
    const auto [known, fresh] = states_.try_emplace(c.index, m.state);
    if (fresh) ++counts_.commits;
    if (!fresh && known->second != m.state) broke(fmt::format("state machine safety: entry {} differs", c.index));
}

void random_world::check(std::size_t i, raft::role before, std::uint64_t term_before, std::uint64_t commit_before) {
    auto& m = nodes_[i];
    const auto& s = *m.runs;
    const bool leads = s.role() == role::leader;
    if (s.commit() < commit_before) broke("the commit went back");
    if (s.commit() > commit_before) {
        const auto known = s.log().term_of(s.commit());
        const auto prefix = m.prefix.find(s.commit());
        if (!known || prefix == m.prefix.end()) {
            broke("an entry is committed that is not in the log");
            return;
        }
        const auto [it, fresh] = committed_.try_emplace(s.commit(), *known, prefix->second);
        if (!fresh && it->second != std::pair(*known, prefix->second)) {
            broke(fmt::format("entry {} was committed twice, and differs", s.commit()));
        }
        // Who was deposed learns of a commit like anybody else, with voters that were others then.
        if (leads || (before == role::leader && s.term() == term_before)) {
            std::size_t copies = 0;
            for (const auto& v : s.members().voters) {
                const auto& d = nodes_[index_of(v)].disk;
                if (d.base.index >= s.commit()) {
                    ++copies;
                } else if (const auto at = s.commit() - d.base.index; at <= d.entries.size()) {
                    copies += d.entries[at - 1].term == *known;
                }
            }
            if (copies < s.members().quorum()) {
                broke(fmt::format("entry {} is committed and on {} disks", s.commit(), copies));
            }
        }
    }
    if (!leads || before == role::leader) return;
    ++counts_.leaders;
    const auto [it, fresh] = leaders_.try_emplace(s.term(), i, m.life);
    if (!fresh) broke(fmt::format("election safety: nodes {} and {} lead in term {}", it->second.first, i, s.term()));
    const auto& [index, last] = *committed_.rbegin();
    if (!s.log().matches(index, last.first)) {
        broke(fmt::format("leader completeness: node {} leads in term {} without entry {}", i, s.term(), index));
    }
}

void random_world::client() {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        auto& m = nodes_[i];
        if (!m.runs || m.runs->role() != role::leader) continue;
        for (auto n = dice_.below(4); n > 0; --n) (void)step(i, propose{bytes_of(++proposals_)});
        if (!healed_ && dice_.chance(change_)) {
            change c{static_cast<change::kind>(dice_.below(4)), {nodes_[dice_.below(nodes_.size())].id}};
            // Who decides alone lets all standbys vote at once, as it does in a run.
            const auto& now = m.runs->members();
            if (now.decides_alone(m.id) && now.learners.size() >= 2 && dice_.chance(0.5))
                c = {change::kind::promote, now.learners};
            if (step(i, c)) ++counts_.changes;
        }
        if (!healed_ && dice_.chance(0.02)) {
            if (step(i, transfer{nodes_[dice_.below(nodes_.size())].id})) ++counts_.transfers;
        }
    }
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        auto& m = nodes_[i];
        if (m.runs && m.applied > m.runs->log().base().index && dice_.chance(0.05)) {
            (void)step(i, compact{m.applied, bytes_of(m.state)});
        }
    }
    at(now_ + ms(5, 60), [this] { client(); });
}

void random_world::fault() {
    if (healed_) return;
    if (dice_.chance(crash_)) {
        std::optional<std::size_t> leader;
        for (std::size_t i = 0; i < nodes_.size(); ++i) {
            if (nodes_[i].runs && nodes_[i].runs->role() == role::leader) leader = i;
        }
        crash(leader && dice_.chance(0.4) ? *leader : dice_.below(nodes_.size()));
    }
    if (dice_.chance(partition_)) {
        cut_.clear();
        const auto sides = dice_.below(1U << nodes_.size());
        const bool one_way = dice_.chance(0.3), told = dice_.chance(0.5);
        for (std::size_t a = 0; a < nodes_.size(); ++a) {
            for (std::size_t b = 0; b < nodes_.size(); ++b) {
                if (((sides >> a) & 1) == ((sides >> b) & 1) || (one_way && ((sides >> a) & 1) == 0)) continue;
                cut_.insert({a, b});
                if (told && nodes_[b].runs) (void)step(b, link_down{nodes_[a].id, std::chrono::milliseconds(20)});
            }
        }
    } else if (dice_.chance(0.2)) {
        for (const auto& [a, b] : std::exchange(cut_, {})) {
            if (nodes_[b].runs) (void)step(b, link_up{nodes_[a].id});
        }
    }
    at(now_ + ms(20, 120), [this] { fault(); });
}

void random_world::heal() {
    healed_ = true;
    cut_.clear();
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        if (!nodes_[i].runs) start(i);
    }
    for (std::size_t a = 0; a < nodes_.size(); ++a) {
        for (const auto& n : nodes_) (void)step(a, link_up{n.id});
    }
}

}  // namespace longhaul::peers::raft::testing

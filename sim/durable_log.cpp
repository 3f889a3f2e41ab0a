#include "sim/durable_log.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/hash.hpp"
#include "peers/ledger.hpp"

namespace longhaul::sim {

namespace raft = peers::raft;

namespace {

/// The configuration as of an entry, and all that this disk knows to have come later: by which of them the entry was
/// committed is not on it.
std::vector<raft::configuration> configurations_from(const raft::durable_state& disk, std::uint64_t index) {
    std::vector<raft::configuration> out{disk.base.members};
    for (std::size_t i = 0; i < disk.entries.size(); ++i) {
        if (disk.entries[i].kind != raft::entry_kind::membership) continue;
        if (disk.base.index + i + 1 <= index) out.clear();
        out.push_back(disk.entries[i].members);
    }
    return out;
}

}  // namespace

/// Where each generation begins, among the entries from `first` on; 0: there are none.
void durable_logs::note_generations(reading& r, std::uint64_t first) {
    if (first == 0) return;
    r.begins.erase(r.begins.lower_bound(first), r.begins.end());
    const auto base = r.content.base.index;
    for (auto i = std::max(first, base + 1); i <= base + r.content.entries.size(); ++i) {
        const auto& e = r.content.entries[i - base - 1];
        if (e.kind != raft::entry_kind::record) continue;
        const auto record = peers::parse_record(e.data);
        if (const auto* g = record ? std::get_if<peers::generation_record>(&*record) : nullptr) {
            r.begins[i] = g->generation;
        }
    }
}

/// The index of the COMMIT of that round in that generation, or of a snapshot behind it.
std::optional<std::uint64_t> durable_logs::find_commit(const reading& r, std::uint64_t generation,
                                                       std::uint64_t round) {
    const auto base = r.content.base.index;
    // The entries of that generation: behind the record that began it, and before those of later ones.
    auto last = base + r.content.entries.size(), first = base + 1;
    for (const auto& [index, begun] : r.begins) {
        if (begun <= generation) first = std::max(first, index + 1);
        if (begun > generation) last = std::min(last, index - 1);
    }
    for (auto i = last; i >= first; --i) {
        const auto& e = r.content.entries[i - base - 1];
        if (e.kind != raft::entry_kind::record) continue;
        const auto record = peers::parse_record(e.data);
        const auto* commit = record ? std::get_if<peers::commit_record>(&*record) : nullptr;
        if (commit != nullptr && commit->round == round) return i;
    }
    const auto ledger = peers::ledger::from_snapshot(r.content.base.data);
    if (!ledger || ledger->generation() < generation) return std::nullopt;
    const bool behind = ledger->generation() > generation || ledger->committed() >= round;
    return behind ? std::optional(base) : std::nullopt;
}

const durable_logs::reading* durable_logs::read(const node& n, const std::string& folder) {
    const auto& files = n.disk().files();
    const auto state = files.find(folder + "/state");
    if (state == files.end()) return nullptr;
    auto& r = readings_[{n.name(), folder}];
    const auto hash = core::hash(state->second);
    auto log = files.find(fmt::format("{}/log-{:012}", folder, r.number));
    const bool goes_on = r.state == hash && log != files.end() && log->second.size() >= r.log_bytes &&
                         std::equal(r.last_bytes.rbegin(), r.last_bytes.rend(),
                                    log->second.rend() - static_cast<std::ptrdiff_t>(r.log_bytes));
    if (!goes_on) {
        auto parsed = raft::parse_disk_state(state->second);
        if (!parsed) return nullptr;
        r = {hash, parsed->number, 0, 0, {}, parsed->self, std::move(parsed->content), {}};
        note_generations(r, 1);
        log = files.find(fmt::format("{}/log-{:012}", folder, r.number));
        if (log == files.end()) return nullptr;
    }
    for (;;) {
        const auto rest = core::const_bytes(log->second).subspan(r.log_bytes);
        auto next = raft::next_frame(r.state, r.frames, rest);
        if (!next) return nullptr;
        if (!*next) return &r;
        for (const auto& w : (*next)->writes) {
            if (!raft::apply(r.content, w)) return nullptr;
            note_generations(r, w.first);
        }
        const auto frame = rest.first((*next)->bytes);
        const auto kept = frame.last(std::min<std::size_t>(frame.size(), 32));
        r.last_bytes.assign(kept.begin(), kept.end());
        ++r.frames;
        r.log_bytes += frame.size();
    }
}

std::optional<std::string> durable_logs::applied(std::span<const std::unique_ptr<node>> nodes, std::uint64_t generation,
                                                 std::uint64_t round) {
    if (!seen_.emplace(generation, round).second) return std::nullopt;
    const auto branch = peers::branch_of(generation);
    const auto folder = peers::raft::folder_of(branch);
    std::map<raft::voter_id, bool> has;
    std::vector<raft::configuration> possible;
    for (const auto& n : nodes) {
        const auto* disk = read(*n, folder);
        if (disk == nullptr) continue;
        const auto index = find_commit(*disk, generation, round);
        has[disk->self] = index.has_value();
        if (!index) continue;
        const auto more = configurations_from(disk->content, *index);
        possible.insert(possible.end(), more.begin(), more.end());
    }
    std::size_t most = 0;
    for (const auto& c : possible) {
        const auto holding = static_cast<std::size_t>(std::ranges::count_if(c.voters, [&](const auto& v) {
            const auto known = has.find(v);
            return known == has.end() || known->second;
        }));
        // The removal of a voter counts as soon as who leads has thought of it: it may be on no disk yet. Of an even
        // number half is a majority then.
        if (holding >= (c.voters.size() + 1) / 2) return std::nullopt;
        most = std::max(most, holding);
    }
    return fmt::format("round {} of generation {:x} was applied, and its commit is on the disks of {} voters", round,
                       generation, most);
}

}  // namespace longhaul::sim

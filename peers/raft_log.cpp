#include "peers/raft_log.hpp"

#include <algorithm>

namespace longhaul::peers::raft {

log::log(snapshot base, std::vector<entry> entries) : base_(std::move(base)) {
    for (auto& e : entries) append(std::move(e));
}

std::optional<std::uint64_t> log::term_of(std::uint64_t index) const {
    if (index == base_.index) return base_.term;
    if (index < base_.index || index > last_index()) return std::nullopt;
    return at(index).term;
}

const entry& log::at(std::uint64_t index) const {
    LONGHAUL_ENSURE(index > base_.index && index <= last_index(), "an entry that is not in the log");
    return entries_[index - base_.index - 1];
}

std::vector<entry> log::from(std::uint64_t first, std::uint64_t last) const {
    std::vector<entry> out;
    std::size_t bytes = 0;
    for (auto i = first; i <= std::min(last, last_index()) && out.size() < max_append_entries; ++i) {
        bytes += size_of(at(i));
        if (!out.empty() && bytes > max_append_bytes) break;
        out.push_back(at(i));
    }
    return out;
}

bool log::up_to_date(std::uint64_t last_index, std::uint64_t last_term) const {
    return std::pair(last_term, last_index) >= std::pair(this->last_term(), this->last_index());
}

std::pair<std::uint64_t, std::uint64_t> log::last_below(std::uint64_t index, std::uint64_t term) const {
    for (auto i = std::min(index, last_index()); i >= base_.index && i > 0; --i) {
        if (const auto here = *term_of(i); here <= term) return {i, here};
    }
    return {0, 0};
}

const configuration& log::members() const { return members_at(last_index()); }

const configuration& log::members_at(std::uint64_t index) const {
    LONGHAUL_ENSURE(index >= base_.index && index <= last_index(), "a configuration that is not in the log");
    const auto later = std::ranges::upper_bound(changes_, index);
    return later == changes_.begin() ? base_.members : at(*std::prev(later)).members;
}

void log::append(entry e) {
    if (e.kind == entry_kind::membership) changes_.push_back(last_index() + 1);
    entries_.push_back(std::move(e));
}

void log::truncate(std::uint64_t first) {
    LONGHAUL_ENSURE(first > base_.index, "a snapshot cannot be truncated");
    if (first > last_index()) return;
    entries_.resize(first - base_.index - 1);
    while (!changes_.empty() && changes_.back() >= first) changes_.pop_back();
}

void log::reset(snapshot s) {
    base_ = std::move(s);
    entries_.clear();
    changes_.clear();
}

void log::compact(std::uint64_t index, core::byte_vector data) {
    LONGHAUL_ENSURE(index > base_.index && index <= last_index(), "a snapshot of what is not in the log");
    snapshot s{index, at(index).term, members_at(index), std::move(data)};
    entries_.erase(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(index - base_.index));
    std::erase_if(changes_, [&](std::uint64_t i) { return i <= index; });
    base_ = std::move(s);
}

}  // namespace longhaul::peers::raft

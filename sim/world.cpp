#include "sim/world.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>

#include "sim/process.hpp"

namespace longhaul::sim {

world::world(std::uint64_t seed, world_options options)
    : seed_(seed),
      exceptions_at_start_(std::uncaught_exceptions()),
      trace_(options.trace_lines),
      entropy_(seed, "world"),
      network_(*this, options.network) {}

world::~world() {
    if (std::uncaught_exceptions() > exceptions_at_start_) std::fputs(report().c_str(), stderr);
    for (auto& n : nodes_) n->end_silently();
    reap();
}

node& world::add_node(std::string name, node_options options) {
    const auto index = static_cast<std::uint32_t>(nodes_.size());
    const bool fresh = names_.emplace(name, index).second;
    LONGHAUL_ENSURE(fresh, fmt::format("two nodes are called '{}'", name));
    network_.add_host(name, options.up, options.down, options.reachable);
    nodes_.push_back(std::make_unique<node>(*this, index, std::move(name), options));
    marked_.push_back(false);
    return *nodes_.back();
}

std::uint32_t world::index_of(std::string_view name) const {
    const auto found = names_.find(name);
    LONGHAUL_ENSURE(found != names_.end(), fmt::format("no node is called '{}'", name));
    return found->second;
}

node& world::operator[](std::string_view name) { return *nodes_[index_of(name)]; }

event_queue::ticket world::schedule(virtual_time at, event_queue::action what) {
    return queue_.add(std::max(at, now_), std::move(what));
}

void world::at(virtual_time when, std::function<void()> what) {
    schedule(when, [this, act = std::move(what)] {
        act();
        // Whatever it touched may have work now.
        mark_all();
    });
}

void world::mark_all() {
    for (std::uint32_t i = 0; i < nodes_.size(); ++i) mark(i);
}

void world::bury(std::unique_ptr<process> p) { graveyard_.push_back(std::move(p)); }

void world::reap() {
    // Unwinding runs code of the dead, which may end others.
    while (!graveyard_.empty()) {
        auto next = std::move(graveyard_.front());
        graveyard_.erase(graveyard_.begin());
        next->unwind();
    }
}

void world::settle() {
    while (marks_ > 0 || !graveyard_.empty()) {
        reap();
        if (marks_ == 0) continue;
        const auto n = std::distance(marked_.begin(), std::ranges::find(marked_, true));
        marked_[n] = false;
        --marks_;
        nodes_[n]->poll();
    }
}

bool world::fire(virtual_time limit) {
    if (queue_.empty() || queue_.next() > limit) return false;
    now_ = queue_.next();
    const auto what = queue_.pop();
    what();
    settle();
    return true;
}

void world::run_until(virtual_time until) {
    mark_all();
    settle();
    while (fire(until)) {
    }
    now_ = std::max(now_, until);
}

bool world::run_while(const std::function<bool()>& condition, core::duration limit) {
    const auto until = now_ + limit;
    mark_all();
    settle();
    while (condition()) {
        if (fire(until)) continue;
        now_ = until;
        return !condition();
    }
    return true;
}

void world::set_path(std::string_view from, std::string_view to, path_options options) {
    network_.set_path(index_of(from), index_of(to), options);
}

void world::set_paths(std::string_view a, std::string_view b, path_options options) {
    set_path(a, b, options);
    set_path(b, a, options);
}

void world::set_delay(std::string_view a, std::string_view b, core::duration one_way) {
    const auto x = index_of(a), y = index_of(b);
    auto there = network_.path_of(x, y), back = network_.path_of(y, x);
    there.delay = back.delay = one_way;
    network_.set_path(x, y, there);
    network_.set_path(y, x, back);
}

void world::cut_one_way(const std::vector<std::string>& from, const std::vector<std::string>& to) {
    for (const auto& a : from) {
        for (const auto& b : to) {
            if (a != b) network_.set_cut(index_of(a), index_of(b));
        }
    }
}

void world::cut(const std::vector<std::string>& a, const std::vector<std::string>& b) {
    cut_one_way(a, b);
    cut_one_way(b, a);
}

void world::heal() { network_.heal(); }

void world::note(std::string_view text) { fold(action::note, trace::no_node, 0, 0, core::as_bytes(text)); }

std::string world::report() const {
    std::vector<std::string> names;
    for (const auto& n : nodes_) names.push_back(n->name());
    return fmt::format("simulated world: seed {}, virtual time {} s, {} actions, trace {}\n{}", seed_,
                       core::to_seconds(now_), trace_.size(), trace_hash().hex(), trace_.text(names));
}

}  // namespace longhaul::sim

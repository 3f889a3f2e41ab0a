#include "sim/node.hpp"

#include <algorithm>

#include "sim/process.hpp"
#include "sim/world.hpp"

namespace longhaul::sim {

node::node(world& w, std::uint32_t index, std::string name, node_options options)
    : world_(w), index_(index), name_(std::move(name)), options_(options), disk_(w, index, options.disk) {}

node::~node() = default;

void node::start(main_function main) {
    LONGHAUL_ENSURE(!process_, "a node runs one process at a time");
    main_ = std::move(main);
    outcome_.reset();
    paused_ = false;
    world_.fold(action::start, index_, ++lives_);
    world_.network().host_up(index_);
    process_ = std::make_unique<process>(world_, *this, main_, lives_);
    world_.mark(index_);
}

void node::finish(ending how, core::result<void> outcome) {
    if (!process_) return;
    const auto what = how == ending::returned ? action::end : how == ending::killed ? action::kill : action::vanish;
    world_.fold(what, index_);
    outcome_ = std::move(outcome);
    process_->die();
    if (how == ending::vanished) {
        world_.network().host_down(index_);
    } else {
        world_.network().process_ended(index_, process_.get());
    }
    disk_.crash();
    world_.bury(std::move(process_));
}

void node::kill() { finish(ending::killed, core::fail(core::errc::cancelled, "killed")); }

void node::vanish() {
    if (!process_) world_.network().host_down(index_);
    finish(ending::vanished, core::fail(core::errc::cancelled, "power loss"));
}

void node::restart() {
    LONGHAUL_ENSURE(main_ != nullptr, "a node that was never started cannot be restarted");
    kill();
    auto again = main_;
    start(std::move(again));
}

void node::pause() {
    if (!process_ || paused_) return;
    paused_ = true;
    world_.fold(action::pause, index_);
}

void node::resume() {
    if (!paused_) return;
    paused_ = false;
    world_.fold(action::resume, index_);
    world_.mark(index_);
}

net::environment& node::environment() {
    LONGHAUL_ENSURE(process_ != nullptr, "the node runs no process");
    return process_->environment();
}

void node::set_rates(core::bit_rate up, core::bit_rate down) {
    options_.up = up;
    options_.down = down;
    world_.network().set_rates(index_, up, down);
}

void node::set_drift(std::int64_t parts_per_million) {
    drift_ = parts_per_million;
    if (process_) process_->time().set_drift(world_.now(), parts_per_million);
}

std::size_t node::count_events(std::string_view name) const {
    return static_cast<std::size_t>(
        std::count_if(events_.begin(), events_.end(), [name](const seen_event& e) { return e.event.name == name; }));
}

void node::poll() {
    if (!process_ || paused_) return;
    process_->poll();
    // The process may have killed itself in the meantime.
    if (process_ && process_->outcome()) {
        auto outcome = std::move(*process_->outcome());
        finish(ending::returned, std::move(outcome));
    }
}

void node::record(const core::event& e) {
    const auto line = core::to_json_line(e, core::to_seconds(world_.now() + wall_offset_), name_);
    world_.fold(action::event, index_, 0, 0, core::as_bytes(line));
    if (events_.size() == max_events) events_.pop_front();
    events_.push_back({world_.now(), e});
    for (const auto& l : listeners_) l(e);
}

void node::end_silently() {
    if (!process_) return;
    process_->die();
    world_.network().host_down(index_);
    world_.bury(std::move(process_));
}

}  // namespace longhaul::sim

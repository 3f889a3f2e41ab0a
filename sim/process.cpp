#include "sim/process.hpp"

#include <algorithm>
#include <asio/this_coro.hpp>

#include "sim/world.hpp"

namespace longhaul::sim {

namespace {

/// Handlers that may run at one instant of virtual time, and calls that a dead process may make: more is a loop that
/// never waits.
constexpr std::uint64_t spin_limit = 20'000'000;
constexpr std::uint64_t dead_limit = 1'000'000;

/// A scheduled event that ends with its owner.
class timer final : public core::alarm {
public:
    timer(world& w, virtual_time at, event_queue::action what) : world_(w), ticket_(w.schedule(at, std::move(what))) {}
    ~timer() override { world_.cancel(ticket_); }
    timer(const timer&) = delete;
    timer& operator=(const timer&) = delete;

private:
    world& world_;
    event_queue::ticket ticket_;
};

class virtual_clock final : public core::clock {
public:
    explicit virtual_clock(process& p) : process_(p) {}
    core::time_point now() const override { return process_.time().local(process_.in().now()); }
    double wall_seconds() const override { return core::to_seconds(process_.in().now() + process_.on().wall_offset()); }
    std::unique_ptr<core::alarm> call_at(core::time_point when, std::function<void()> what) override {
        const auto at = process_.time().virtual_at(when);
        // Nothing rings for the dead, nor after the end of time: only a cancellation ends such a wait.
        if (process_.dead() || at == never) return nullptr;
        return std::make_unique<timer>(process_.in(), at, [this, call = std::move(what)] {
            call();
            process_.in().mark(process_.on().index());
            process_.in().fold(action::timer, process_.on().index());
        });
    }

private:
    process& process_;
};

/// Runs jobs inline, at once, and charges their modelled time to the node's cores.
class inline_workers final : public core::workers {
public:
    explicit inline_workers(process& p) : process_(p) {}
    core::task<core::result<void>> run(std::function<void()> job, core::duration modelled) override {
        if (process_.dead()) co_return core::fail(core::errc::cancelled, "the process is being killed");
        process_.in().fold(action::job, process_.on().index(), static_cast<std::uint64_t>(modelled.count()));
        job();
        const auto until = process_.occupy_core(modelled);
        co_return co_await process_.finish(until);
    }
    unsigned concurrency() const override { return process_.on().options().cores; }
    bool full() const override { return false; }

private:
    process& process_;
};

class recording_sink final : public core::event_sink {
public:
    explicit recording_sink(process& p) : process_(p) {}
    void emit(const core::event& e) override {
        if (!process_.dead()) process_.on().record(e);
    }

private:
    process& process_;
};

}  // namespace

process::process(world& w, node& n, node::main_function main, std::uint64_t life)
    : world_(w),
      node_(n),
      main_(std::move(main)),
      // Monotonic clocks of different nodes and lives have nothing in common, and zero is nobody's now.
      clock_(w.now(), core::time_point(std::chrono::hours(1 + n.index()) + std::chrono::minutes(life))),
      io_(ASIO_CONCURRENCY_HINT_UNSAFE),
      open_(io_.get_executor()),
      cores_(std::max(1U, n.options().cores), w.now()),
      finished_(std::make_unique<core::wakeup>(io_.get_executor())),
      root_(std::make_unique<core::scope>(io_.get_executor())),
      clock_seam_(std::make_unique<virtual_clock>(*this)),
      entropy_(std::make_unique<core::seeded_entropy>(w.seed(), fmt::format("process {} {}", n.name(), life))),
      network_(w.network().attach(*this)),
      storage_(n.disk().attach(*this)),
      workers_(std::make_unique<inline_workers>(*this)),
      events_(std::make_unique<recording_sink>(*this)),
      environment_(new net::environment{io_.get_executor(), *clock_seam_, *entropy_, *network_, *storage_, *workers_,
                                        *events_}) {
    clock_.set_drift(w.now(), n.drift());
    root_->spawn_isolated("main", run_main());
}

process::~process() = default;

core::task<core::result<void>> process::run_main() {
    auto body = main_(*environment_);
    outcome_ = co_await core::detail::guarded(std::move(body));
    co_return core::ok();
}

void process::poll() {
    for (std::uint64_t i = 0; !dead_ && io_.poll_one() > 0; ++i) {
        if (i == spin_limit) {
            std::fputs(world_.report().c_str(), stderr);
            core::invariant_failed(
                "poll ends", __FILE__, __LINE__,
                fmt::format("node '{}' never waits: its tasks wake each other for ever", node_.name()));
        }
    }
}

void process::die() { dead_ = true; }

void process::unwind() {
    LONGHAUL_ENSURE(dead_, "a living process cannot be unwound");
    // Cancellation reaches a task at its next wait; one that has not started yet has none, so repeat.
    for (int round = 0; root_->size() > 0; ++round) {
        if (round == 1000) {
            std::fputs(world_.report().c_str(), stderr);
            core::invariant_failed("unwind ends", __FILE__, __LINE__,
                                   fmt::format("a task of node '{}' ignores its cancellation", node_.name()));
        }
        root_->cancel();
        finished_->notify();
        for (std::uint64_t i = 0; i < spin_limit && io_.poll_one() > 0; ++i) {
        }
    }
    while (io_.poll_one() > 0) {
    }
}

bool process::dead() {
    if (!dead_) return false;
    if (++asked_dead_ > dead_limit) {
        core::invariant_failed("cancelled tasks end", __FILE__, __LINE__,
                               fmt::format("a task of node '{}' goes on although it is cancelled", node_.name()));
    }
    return true;
}

core::task<core::result<void>> process::finish(virtual_time until) {
    if (dead()) co_return core::fail(core::errc::cancelled, "the process is being killed");
    if (until <= world_.now()) co_return core::ok();
    const bool throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    bool fired = false;
    timer t(world_, until, [this, &fired] {
        fired = true;
        finished_->notify();
        world_.mark(node_.index());
    });
    while (!fired && !dead_) {
        auto woken = co_await finished_->wait();
        (void)woken;  // cancelled or not, the job goes on
    }
    co_await asio::this_coro::throw_if_cancelled(throws);
    if (!fired) co_return core::fail(core::errc::cancelled, "the process is being killed");
    co_return core::ok();
}

virtual_time process::occupy_core(core::duration d) {
    const auto first_free = std::min_element(cores_.begin(), cores_.end());
    *first_free = std::max(*first_free, world_.now()) + std::max(d, core::duration::zero());
    return *first_free;
}

}  // namespace longhaul::sim

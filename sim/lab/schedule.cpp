#include "sim/lab/schedule.hpp"

#include <sys/signalfd.h>

#include <algorithm>
#include <ctime>

namespace longhaul::sim::lab {

namespace {

sigset_t ending_signals() {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGINT);
    ::sigaddset(&set, SIGTERM);
    return set;
}

}  // namespace

fault_schedule::fault_schedule(std::span<const fault> faults) {
    for (const auto& f : faults) {
        if (f.round > 0) {
            at_rounds_.push_back(&f);
        } else {
            add(f, f.at);
        }
    }
}

void fault_schedule::add(const fault& f, core::duration at) {
    const auto insert = [this](entry e) {
        const auto place = std::upper_bound(steps_.begin(), steps_.end(), e.at,
                                            [](core::duration t, const entry& other) { return t < other.at; });
        steps_.insert(place, e);
    };
    insert({at, {&f, false}});
    if (f.lasting > core::duration{}) insert({at + f.lasting, {&f, true}});
}

std::vector<fault_step> fault_schedule::due(core::duration now) {
    std::vector<fault_step> out;
    while (!steps_.empty() && steps_.front().at <= now) {
        out.push_back(steps_.front().step);
        steps_.erase(steps_.begin());
    }
    return out;
}

void fault_schedule::reached(std::uint64_t round, core::duration now) {
    std::erase_if(at_rounds_, [&](const fault* f) {
        if (f->round > round) return false;
        add(*f, now);
        return true;
    });
}

core::duration fault_schedule::next() const { return steps_.empty() ? never : steps_.front().at; }

void apply_to_network(network& net, const fault_step& step) {
    const fault& f = *step.what;
    if (f.what == fault_kind::rate) {
        for (const auto peer : f.peers) net.set_factor(peer, step.undo ? 1 : f.factor);
        return;
    }
    if (f.what != fault_kind::partition && f.what != fault_kind::one_way) return;
    for (const auto from : f.peers) {
        for (const auto to : f.others) {
            if (from == to) continue;
            net.set_cut(from, to, !step.undo);
            if (f.what == fault_kind::partition) net.set_cut(to, from, !step.undo);
        }
    }
}

deferred_signals::deferred_signals() {
    const auto set = ending_signals();
    ::sigprocmask(SIG_BLOCK, &set, &before_);
    fd_ = core::file_descriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

deferred_signals::~deferred_signals() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }

void deferred_signals::restore() {
    const auto set = ending_signals();
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

core::duration real_time() {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

int poll_milliseconds(core::duration next, core::duration now) {
    constexpr core::duration longest = std::chrono::seconds(1);
    if (next == never || next - now > longest) return 1000;
    return next <= now ? 0 : static_cast<int>((next - now).count() / 1'000'000 + 1);
}

}  // namespace longhaul::sim::lab

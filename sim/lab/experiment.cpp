#include "sim/lab/experiment.hpp"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <csignal>
#include <set>

#include "sim/lab/daemons.hpp"
#include "sim/lab/schedule.hpp"
#include "sim/recovery.hpp"
#include "sim/victims.hpp"

namespace longhaul::sim::lab {

using core::errc;
using core::fail;
using core::result;

namespace {

constexpr core::duration look_every = std::chrono::milliseconds(50);

class experiment {
public:
    experiment(const scenario& s, const experiment_options& o, network& net)
        : scenario_(s),
          net_(net),
          daemons_(s, net, o.binary, o.folder),
          faults_(s.faults),
          recovery_(s),
          seen_(s.peers.size()),
          seed_(o.seed) {}
    result<outcome> run();

private:
    result<void> act(const fault_step& due);
    result<void> start_joiners();
    result<void> manage_services(core::duration now);
    void see();
    bool over(core::duration now) const;
    outcome conclude(core::duration took);

    const scenario& scenario_;
    network& net_;
    daemons daemons_;
    fault_schedule faults_;
    recovery recovery_;
    std::vector<std::size_t> seen_;                       ///< of each peer, how many of its events recovery_ saw
    std::map<std::uint32_t, core::duration> starts_due_;  ///< of those that ended by an error
    deferred_signals signals_;
    std::uint64_t seed_;
    bool joined_ = false;
    victims victims_;
    std::set<std::uint32_t> taken_out_;  ///< by a kill or a leave of the scenario
};

result<void> experiment::act(const fault_step& due) {
    std::vector<const std::deque<seen_event>*> events;
    for (std::uint32_t i = 0; i < scenario_.peers.size(); ++i) events.push_back(&daemons_.events(i));
    const fault f = due.undo ? victims_.struck(*due.what) : victims_.strike(*due.what, events);
    const fault_step step{&f, due.undo};
    apply_to_network(net_, step);
    for (const auto peer : f.peers) {
        const auto start = [&]() -> result<void> {
            daemons_.kill(peer);
            taken_out_.erase(peer);
            return daemons_.start(peer);
        };
        switch (f.what) {
            case fault_kind::kill:
                if (step.undo) {
                    LONGHAUL_TRY(start());
                } else {
                    daemons_.kill(peer);
                    taken_out_.insert(peer);
                }
                break;
            case fault_kind::restart:
            case fault_kind::join:
                if (!step.undo) LONGHAUL_TRY(start());
                break;
            case fault_kind::stop: daemons_.signal(peer, step.undo ? SIGCONT : SIGSTOP); break;
            case fault_kind::leave:
                if (step.undo) {
                    LONGHAUL_TRY(start());
                } else {
                    daemons_.signal(peer, SIGTERM);
                    taken_out_.insert(peer);
                }
                break;
            default: break;
        }
    }
    return core::ok();
}

result<void> experiment::start_joiners() {
    joined_ = true;
    for (std::uint32_t i = 1; i < scenario_.peers.size(); ++i) {
        if (!scenario_.peers[i].joins_later && !daemons_.running(i)) LONGHAUL_TRY(daemons_.start(i));
    }
    return core::ok();
}

/// Starts those again that ended by an error, as a service manager would.
result<void> experiment::manage_services(core::duration now) {
    for (std::uint32_t i = 0; i < scenario_.peers.size(); ++i) {
        const auto after = scenario_.peers[i].restart_after;
        const auto code = daemons_.exit_code(i);
        const bool failed = !daemons_.running(i) && code && *code != 0 && !taken_out_.contains(i);
        if (!failed || after <= core::duration{}) {
            starts_due_.erase(i);
        } else if (now >= starts_due_.try_emplace(i, now + after).first->second) {
            LONGHAUL_TRY(daemons_.start(i));
        }
    }
    return core::ok();
}

void experiment::see() {
    for (std::uint32_t i = 0; i < seen_.size(); ++i) {
        const auto& events = daemons_.events(i);
        while (seen_[i] < events.size()) recovery_.saw(i, events[seen_[i]++].event);
    }
}

bool experiment::over(core::duration now) const {
    if (recovery_.over(now, taken_out_)) return true;
    // Faults at a round that nobody reaches any more will not happen.
    return starts_due_.empty() && daemons_.running() == 0 && (joined_ || daemons_.exit_code(0)) &&
           faults_.next() == never;
}

result<outcome> experiment::run() {
    const auto began = real_time();
    LONGHAUL_TRY(daemons_.start(0));
    core::duration now{};
    for (;;) {
        now = real_time() - began;
        if (daemons_.look()) {
            faults_.reached(daemons_.newest_round(), now);
            see();
        }
        LONGHAUL_TRY(manage_services(now));
        if (!joined_ && daemons_.founded()) LONGHAUL_TRY(start_joiners());
        if (joined_ || !daemons_.running(0)) {
            for (const auto& step : faults_.due(now)) LONGHAUL_TRY(act(step));
        }
        if (faults_.empty()) recovery_.faults_ended(now);
        if (over(now) || now > scenario_.expect.within) break;
        pollfd polled[] = {{.fd = net_.relay_fd(), .events = POLLIN, .revents = 0},
                           {.fd = signals_.fd(), .events = POLLIN, .revents = 0}};
        const int n = ::poll(polled, 2, poll_milliseconds(std::min(faults_.next(), now + look_every), now));
        if (n <= 0) continue;
        if (polled[0].revents != 0) return fail(errc::internal, "the lab's relay has died");
        return fail(errc::cancelled, "interrupted");
    }
    auto out = conclude(now);
    LONGHAUL_TRY_ASSIGN(out.network, net_.stats());
    return out;
}

outcome experiment::conclude(core::duration took) {
    std::vector<peer_end> ends;
    for (std::uint32_t i = 0; i < scenario_.peers.size(); ++i) {
        peer_end end;
        end.events = &daemons_.events(i);
        const auto code = daemons_.exit_code(i);
        end.alive = !taken_out_.contains(i) && (code || daemons_.running(i));
        if (taken_out_.contains(i)) {
            end.ended = "taken out by the scenario";
        } else if (code && *code != 0) {
            end.ended = fmt::format("exit code {}: {}", *code, daemons_.complaint(i));
        } else if (!code && !daemons_.running(i)) {
            end.ended = "never started";
        }
        ends.push_back(std::move(end));
    }
    auto out = judge(scenario_, ends, took, recovery_);
    out.seed = seed_;
    return out;
}

}  // namespace

result<outcome> run_experiment(const scenario& s, const experiment_options& o) {
    for (const auto& f : s.faults) {
        if (f.what == fault_kind::clock || f.what == fault_kind::disk || f.what == fault_kind::power ||
            f.what == fault_kind::reset) {
            return fail(errc::unsupported,
                        "the lab has this machine's kernel, disk and power, and cannot do a {} fault: use longhaul sim",
                        name_of(f.what));
        }
    }
    core::config_binder binder;
    auto run = s.run;
    peers::bind(binder, run);
    const auto text = binder.canonical();
    const auto file = core::open_file(o.folder + "/run.toml", O_WRONLY | O_CREAT | O_TRUNC);
    std::size_t written = 0;
    if (!file || core::write_fully(file.get(), core::as_bytes(text), written) != 0) {
        return fail(core::system_error(errno, "write " + o.folder + "/run.toml"));
    }
    LONGHAUL_TRY_ASSIGN(auto net, network::start(s.net, o.seed));
    experiment e(s, o, net);
    return e.run();
}

}  // namespace longhaul::sim::lab

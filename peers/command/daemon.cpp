#include "peers/command/daemon.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/event_file.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "core/posix_storage.hpp"
#include "core/units.hpp"
#include "net/paced_network.hpp"
#include "peers/checkpoint_tools.hpp"
#include "peers/command/console.hpp"
#include "peers/command/control.hpp"
#include "peers/command/facts.hpp"
#include "peers/command/files.hpp"
#include "peers/command/fit_budget.hpp"
#include "peers/command/world.hpp"
#include "peers/memory.hpp"

namespace longhaul::peers::command {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

/// One for the trainer, one for files, one for codecs and hashes.
constexpr unsigned worker_threads = 3;
constexpr auto leave_grace = 30s;
constexpr std::uint64_t max_manifest_bytes = 1 << 20;

class daemon {
public:
    daemon(arguments a, resolved r, std::optional<founding> found, std::optional<joining> join)
        : arguments_(std::move(a)),
          settings_(std::move(r)),
          found_(std::move(found)),
          join_(std::move(join)),
          stop_changed_(host_.io.get_executor()) {}

    core::result<int> run();

private:
    core::result<void> open();
    core::task<core::result<void>> live();
    core::task<core::result<void>> work(core::scope& beside);
    core::task<core::result<void>> fit_to_budget();
    core::result<peer_options> options();
    core::task<core::result<void>> watch_signals();
    core::task<core::result<void>> watch_launcher();
    core::task<core::result<void>> watch_grace();
    void request_stop(std::string reason);
    core::result<void> act(const std::string& what);
    std::string status_json() const;
    void announce(const ready_report& r);
    void announce_end(const core::event& left);
    int trainer_threads() const;
    std::uint64_t memory_limit() const;

    const arguments arguments_;
    resolved settings_;
    std::optional<founding> found_;
    std::optional<joining> join_;
    machine host_{worker_threads};
    std::optional<net::paced_network> network_;
    std::unique_ptr<core::posix_storage> storage_;
    std::unique_ptr<core::event_file> file_;
    std::optional<console> console_;
    std::optional<core::event_log> log_;
    std::optional<net::environment> env_;
    std::optional<net::identity> self_;
    core::wakeup stop_changed_;
    bool stop_requested_ = false;
    bool ready_ = false;
    control_handlers handlers_;
    std::optional<peer> peer_;
    std::optional<core::event> left_;  ///< this node's last word, with its reason
};

core::result<void> daemon::open() {
    if (const int fd = arguments_.die_with_fd; fd >= 0 && ::fcntl(fd, F_GETFD) < 0) {
        return fail(errc::usage, "--die-with-fd {}: this process inherited no such file descriptor; name another", fd);
    }
    raise_descriptor_limit();
    auto& node = settings_.node;
    if (node.name.empty()) node.name = host_name();
    auto storage = core::posix_storage::open(settings_.state_dir, host_.workers);
    if (!storage && (storage.error().code == errc::io || storage.error().code == errc::not_found)) {
        return fail(errc::config, "{}; name a folder that this node may write with --state-dir",
                    storage.error().message);
    }
    if (!storage) return fail(storage.error());
    storage_ = std::move(*storage);
    LONGHAUL_TRY_ASSIGN(self_, load_or_create_identity(settings_.state_dir));
    console_.emplace(host_.clock, node.name, node.log_format, ::isatty(STDERR_FILENO) == 1);
    LONGHAUL_TRY_ASSIGN(file_, core::event_file::open(settings_.state_dir + "/" + events_name, [this](const auto& e) {
                            console_->complain(e.message + "; training goes on without events");
                        }));
    log_.emplace(host_.clock, node.name, [this](std::string_view line) { file_->write(line); });
    log_->listen([this](const core::event& e) {
        console_->show(e);
        if (e.name == "left" && e.find("number") == nullptr) left_ = e;
    });
    host_.network.set_congestion_control(node.congestion_control);
    network_.emplace(host_.network, host_.clock, node.up_limit, node.down_limit);
    env_.emplace(net::environment{host_.io.get_executor(), host_.clock, host_.entropy, *network_, *storage_,
                                  host_.workers, *log_});
    handlers_.status_json = [this] { return status_json(); };
    handlers_.act = [this](const std::string& what) { return act(what); };
    return core::ok();
}

core::result<int> daemon::run() {
    LONGHAUL_TRY(open());
    auto outcome = host_.run(live());
    console_->end_line();
    if (!outcome && outcome.error().code == errc::cancelled && stop_requested_) return 0;
    if (!outcome) {
        core::event e("error");
        e.with("code", std::string(core::name_of(outcome.error().code))).with("message", outcome.error().message);
        // The sentence on stderr is main's.
        file_->write(core::to_json_line(e, host_.clock.wall_seconds(), settings_.node.name));
        return fail(std::move(outcome).error());
    }
    if (left_) announce_end(*left_);
    return 0;
}

core::task<core::result<void>> daemon::live() {
    core::scope beside(env_->executor);
    beside.spawn_isolated("signals", watch_signals());
    beside.spawn_isolated("grace", watch_grace());
    if (arguments_.die_with_fd >= 0) beside.spawn_isolated("launcher", watch_launcher());
    auto outcome = co_await work(beside);
    beside.cancel();
    (void)co_await beside.join();
    co_return outcome;
}

core::task<core::result<void>> daemon::work(core::scope& beside) {
    if (found_) {
        auto fitted = co_await fit_to_budget();
        LONGHAUL_CO_TRY(fitted);
    }
    if (stop_requested_) co_return core::ok();
    LONGHAUL_CO_TRY_ASSIGN(auto wanted, options());
    peer_.emplace(*env_, std::move(wanted));
    LONGHAUL_CO_TRY_ASSIGN(auto control, listen_for_control(*env_, settings_.state_dir));
    beside.spawn_isolated("control", serve_control(*env_, std::move(control), handlers_),
                          [this](const core::error& e) { console_->complain(e.message); });
    // A peer that is not ready has nothing to finish; a ready one leaves by itself when it is asked.
    auto ended = co_await core::race(peer_->run(),
                                     core::wait_until(stop_changed_, [this] { return stop_requested_ && !ready_; }));
    if (ended.index() == 1) co_return core::ok();
    co_return std::move(std::get<0>(ended));
}

core::task<core::result<void>> daemon::fit_to_budget() {
    if (arguments_.fit_budget.empty()) co_return core::ok();
    auto budget = core::parse_duration(arguments_.fit_budget);
    if (!budget) co_return fail(errc::usage, "--fit-budget: {}", budget.error().message);
    if (*budget <= core::duration{}) co_return fail(errc::usage, "--fit-budget must be longer than nothing");
    auto exchange = core::parse_duration(arguments_.fit_exchange);
    if (!exchange) co_return fail(errc::usage, "--fit-exchange: {}", exchange.error().message);
    auto& config = found_->config;
    auto saved = co_await storage_->read("run/manifest", max_manifest_bytes);
    if (saved) {
        // The run exists: what was chosen then stays, however fast the machine is today.
        const auto manifest = parse_manifest(*saved, core::hash(*saved));
        if (manifest) {
            config.stop.rounds = manifest->manifest.config.stop.rounds;
            config.inner.steps = manifest->manifest.config.inner.steps;
            config.inner.warmup = manifest->manifest.config.inner.warmup;
        }
        co_return core::ok();
    }
    optim::trainer_options o;
    o.model = config.model;
    o.data = config.data;
    o.inner = config.inner;
    o.data_path = settings_.node.data;
    o.device = settings_.node.device;
    o.threads = trainer_threads();
    o.fits = [&](const core::tensor_manifest& tensors) -> core::result<void> {
        LONGHAUL_TRY(memory_needed(tensors, config, memory_limit()));
        return core::ok();
    };
    auto timing = co_await time_steps(*env_, trainer_factory(arguments_.trainer), o);
    LONGHAUL_CO_TRY(timing);
    const sharing with{.peers = arguments_.fit_peers,
                       .threads = trainer_threads(),
                       .cores = usable_cores(),
                       .exchange_seconds = core::to_seconds(*exchange)};
    config = fit(config, *timing, with, core::to_seconds(*budget));
    console_->say(fmt::format(
        "a step takes {:.1f} ms here: {} rounds of {} inner steps, about {:.0f} s with {} peers on {} cores",
        timing->step_seconds * 1e3, config.stop.rounds, config.inner.steps, expected_seconds(config, *timing, with),
        with.peers, with.cores));
    co_return core::ok();
}

core::result<peer_options> daemon::options() {
    const auto& node = settings_.node;
    LONGHAUL_TRY_ASSIGN(auto listen, listen_endpoint(node));
    LONGHAUL_TRY_ASSIGN(auto advertised, advertised_endpoints(node, own_addresses()));
    peer_options o{.self = *self_,
                   .name = node.name,
                   .listen = std::move(listen),
                   .advertised = std::move(advertised),
                   .found = found_,
                   .join = join_,
                   .make_trainer = trainer_factory(arguments_.trainer),
                   .data_path = node.data,
                   .device = node.device,
                   .trainer_threads = trainer_threads(),
                   .step_time = node.step_time,
                   .memory_limit = memory_limit()};
    if (o.found && !o.found->config.data.path.empty()) {
        // The manifest holds hashes, never paths: the path is this node's own matter.
        if (o.data_path.empty()) o.data_path = o.found->config.data.path;
        o.found->config.data.path.clear();
    }
    o.on_ready = [this](const ready_report& r) { announce(r); };
    return o;
}

int daemon::trainer_threads() const {
    return settings_.node.threads > 0 ? static_cast<int>(settings_.node.threads) : usable_cores();
}

std::uint64_t daemon::memory_limit() const {
    return settings_.node.memory > 0 ? settings_.node.memory : usable_memory() / 4 * 3;
}

void daemon::announce(const ready_report& r) {
    ready_ = true;
    if (arguments_.json_ready) {
        nlohmann::ordered_json j;
        j["ready"] = true;
        j["ticket"] = r.ticket;
        j["listen"] = r.listen.text();
        j["state_dir"] = settings_.state_dir;
        j["key"] = r.key.hex();
        j["run"] = r.run.hex();
        j["resumed"] = r.resumed;
        j["trust_on_first_use"] = r.trust_on_first_use;
        std::puts(j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    } else {
        const auto what = found_ ? (r.resumed ? "goes on with" : "founded") : (r.resumed ? "is back in" : "joined");
        if (r.trust_on_first_use) {
            fmt::print("trusting run {} because this address says so; compare it with the founder's\n", r.run.hex());
        }
        fmt::print("{} {} run {}, listening on {}\n", settings_.node.name, what, r.run.brief(), r.listen.text());
        fmt::print("others join with:\n\n    longhaul join '{}'\n\n", r.ticket);
        fmt::print("state, events and checkpoints: {}\n", settings_.state_dir);
    }
    std::fflush(stdout);
}

/// Where the run ended for this node, how good the model is, and where it is.
void daemon::announce_end(const core::event& left) {
    const auto status = peer_->status();
    const auto* reason = left.find("reason");
    const auto why = reason == nullptr ? std::string() : std::get<std::string>(*reason);
    const bool complete = status.rounds_total > 0 && status.applied >= status.rounds_total;
    const auto checkpoint = checkpoint_folder_of(settings_.state_dir);
    if (arguments_.json_ready) {
        const auto or_null = [](const auto& v) {
            return v ? nlohmann::ordered_json(*v) : nlohmann::ordered_json(nullptr);
        };
        nlohmann::ordered_json j;
        j["ended"] = true;
        j["reason"] = why;
        j["complete"] = complete;
        j["round"] = status.applied;
        j["rounds_total"] = status.rounds_total;
        j["eval_loss"] = or_null(status.eval_loss);
        j["train_loss"] = or_null(status.train_loss);
        j["root"] = status.root.hex();
        j["checkpoint"] = or_null(checkpoint);
        std::puts(j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    } else {
        auto line = fmt::format("{} after round {} of {}", complete ? "complete" : "stopped", status.applied,
                                status.rounds_total);
        if (status.eval_loss) line += fmt::format(", held-out loss {:.4f}", *status.eval_loss);
        if (status.train_loss) line += fmt::format(", training loss {:.4f}", *status.train_loss);
        std::puts(line.c_str());
        if (checkpoint) fmt::print("checkpoint: {}\n", *checkpoint);
        if (!complete && peer_->status().run_stopped) {
            std::puts(
                found_
                    ? "the run is stopped for everybody: the same command goes on from there, and then the others' do"
                    : "the run is stopped for everybody: when others go on, the same command rejoins it");
        } else if (!complete) {
            std::puts("the same command goes on from there");
        }
    }
    std::fflush(stdout);
}

void daemon::request_stop(std::string reason) {
    if (stop_requested_) return;
    stop_requested_ = true;
    console_->say(fmt::format("stopping: {}; a second Ctrl-C ends at once", reason));
    if (peer_) peer_->leave(std::move(reason));
    stop_changed_.notify();
}

core::result<void> daemon::act(const std::string& what) {
    if (what == "stop") return peer_->stop_run("asked by a person");
    if (what == "pause") return peer_->pause_run(true);
    if (what == "resume") return peer_->pause_run(false);
    if (what == "recover") return peer_->recover();
    request_stop("asked by a person");
    return core::ok();
}

std::string daemon::status_json() const {
    const auto status = peer_->status();
    auto parsed = core::parse_json(to_json(status), 8 << 20, 8);
    if (!parsed) return "{}";
    // Only this node's own user may see the ticket: it is an invitation.
    (*parsed)["ticket"] = status.ticket;
    (*parsed)["state_dir"] = settings_.state_dir;
    return core::json_text(*parsed);
}

core::task<core::result<void>> daemon::watch_signals() {
    net::signals signals(env_->executor);
    auto first = co_await signals.next();
    LONGHAUL_CO_TRY(first);
    const char* why = *first == SIGINT   ? "interrupted"
                      : *first == SIGHUP ? "its terminal closed"
                                         : "asked to terminate";
    request_stop(why);
    // A terminal that closes may tell it twice: the shell does, and the kernel.
    auto second = co_await signals.next();
    while (second && *second == SIGHUP) second = co_await signals.next();
    LONGHAUL_CO_TRY(second);
    console_->end_line();
    // As if it had never been caught: whoever waits for this process sees the signal.
    std::signal(*second, SIG_DFL);
    std::raise(*second);
    co_return core::ok();
}

core::task<core::result<void>> daemon::watch_launcher() {
    asio::posix::stream_descriptor lifeline(env_->executor, ::dup(arguments_.die_with_fd));
    std::array<char, 64> ignored{};
    for (;;) {
        asio::error_code e;
        auto token = asio::redirect_error(asio::use_awaitable, e);
        co_await lifeline.async_read_some(asio::buffer(ignored), token);
        if (e == asio::error::operation_aborted) co_return fail(errc::cancelled, "cancelled");
        if (e) break;
    }
    request_stop("the launcher ended");
    co_return core::ok();
}

core::task<core::result<void>> daemon::watch_grace() {
    auto asked = co_await core::wait_until(stop_changed_, [this] { return stop_requested_; });
    LONGHAUL_CO_TRY(asked);
    auto slept = co_await env_->clock.sleep_for(leave_grace);
    LONGHAUL_CO_TRY(slept);
    console_->end_line();
    std::fprintf(stderr, "longhaul: did not stop within %lld s and ends at once; the last checkpoint is in %s\n",
                 static_cast<long long>(leave_grace.count()), settings_.state_dir.c_str());
    std::fflush(stdout);
    std::_Exit(core::exit_code_of(errc::internal));
}

}  // namespace

optim::trainer_factory trainer_factory(const std::string& choice) {
    return [choice](const optim::trainer_options& o) -> core::result<std::unique_ptr<optim::trainer>> {
        const bool analytic = o.model.kind == "quadratic";
        if (choice == "quadratic" && !analytic) {
            return fail(errc::config,
                        "--trainer quadratic has no model of kind {}: set model.kind = \"quadratic\", or use --trainer "
                        "auto",
                        o.model.kind);
        }
        if (choice == "torch" && analytic) {
            return fail(errc::config, "--trainer torch has no model of kind quadratic: use --trainer auto");
        }
        return analytic ? optim::make_quadratic_trainer(o) : optim::make_torch_trainer(o);
    };
}

core::result<int> run_daemon(const arguments& a, resolved r, std::optional<founding> found,
                             std::optional<joining> join) {
    daemon d(a, std::move(r), std::move(found), std::move(join));
    return d.run();
}

}  // namespace longhaul::peers::command

#include "peers/command/control.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "core/units.hpp"

namespace longhaul::peers::command {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t max_request = 4096;
constexpr std::size_t max_depth = 8;
constexpr std::size_t max_clients = 32;
constexpr auto idle_limit = 60s;
constexpr auto answer_limit = 5s;

/// Reads up to and without the next newline; `rest` holds what came after it, for the next call.
core::task<core::result<std::string>> read_line(net::stream& s, std::string& rest, std::size_t limit) {
    std::array<std::byte, 4096> buffer;
    std::size_t searched = 0;
    for (;;) {
        const auto end = rest.find('\n', searched);
        if (end != std::string::npos) {
            auto line = rest.substr(0, end);
            rest.erase(0, end + 1);
            co_return line;
        }
        if (rest.size() > limit) co_return fail(errc::limit, "a line of more than {} bytes", limit);
        searched = rest.size();
        const core::mutable_bytes into(buffer);
        auto n = co_await s.read_some(into);
        LONGHAUL_CO_TRY(n);
        if (*n == 0) co_return fail(errc::closed, "the other end closed");
        rest.append(core::as_text(core::const_bytes(into.first(*n))));
    }
}

std::string refusal(const core::error& e) {
    nlohmann::json j;
    j["ok"] = false;
    j["code"] = core::name_of(e.code);
    j["message"] = e.message;
    return core::json_text(j);
}

std::string answer_to(const std::string& line, const control_handlers& handlers) {
    const auto request = core::parse_json(line, max_request, max_depth);
    if (!request) return refusal(request.error());
    const auto what = core::json_string(*request, "do");
    if (!what) return refusal(what.error());
    // Assembled as text: the status is JSON already.
    if (*what == "status") return "{\"ok\":true,\"status\":" + handlers.status_json() + "}";
    for (const auto* known : {"stop", "pause", "resume", "leave", "recover"}) {
        if (*what != known) continue;
        const auto done = handlers.act(*what);
        return done ? "{\"ok\":true}" : refusal(done.error());
    }
    return refusal({errc::usage,
                    fmt::format("\"{}\" is none of status, stop, pause, resume, leave, recover", what->substr(0, 64))});
}

core::task<core::result<void>> serve_client(net::environment& env, std::unique_ptr<net::stream> s,
                                            const control_handlers& handlers) {
    std::string rest;
    for (;;) {
        auto line =
            co_await core::with_deadline(env.clock, read_line(*s, rest, max_request), env.clock.now() + idle_limit);
        const bool too_long = !line && line.error().code == errc::limit;
        if (!line && !too_long) break;
        const auto text = (too_long ? refusal(line.error()) : answer_to(*line, handlers)) + "\n";
        auto written = co_await core::with_deadline(env.clock, net::write_all(*s, core::as_bytes(text)),
                                                    env.clock.now() + answer_limit);
        if (!written || too_long) break;
    }
    s->close();
    co_return core::ok();
}

core::task<core::result<void>> accept_clients(net::environment& env, net::listener& at, core::scope& clients,
                                              const control_handlers& handlers) {
    for (;;) {
        auto accepted = co_await at.accept();
        LONGHAUL_CO_TRY(accepted);
        if (clients.size() > max_clients) {
            (*accepted)->close();
            continue;
        }
        clients.spawn_isolated("control client", serve_client(env, std::move(*accepted), handlers));
    }
}

/// The daemon's answer, or the error that it answers with.
core::result<std::string> open_envelope(const std::string& line) {
    LONGHAUL_TRY_ASSIGN(const auto j, core::parse_json(line, max_answer, max_depth));
    const auto ok = j.is_object() ? j.find("ok") : j.end();
    if (ok == j.end() || !ok->is_boolean()) return fail(errc::protocol, "the daemon's answer is not understood");
    if (ok->get<bool>()) {
        const auto status = j.find("status");
        return status == j.end() ? std::string() : core::json_text(*status);
    }
    LONGHAUL_TRY_ASSIGN(const auto code, core::json_string(j, "code"));
    LONGHAUL_TRY_ASSIGN(auto message, core::json_string(j, "message"));
    for (int i = 0; i <= static_cast<int>(errc::internal); ++i) {
        if (core::name_of(static_cast<errc>(i)) == code)
            return fail(core::error(static_cast<errc>(i), std::move(message)));
    }
    return fail(core::error(errc::internal, std::move(message)));
}

core::task<core::result<std::string>> exchange(net::environment& env, std::string path, std::string what) {
    net::endpoint at;
    at.host = std::move(path);
    auto s = co_await env.network.connect(std::move(at), net::stream_purpose::control);
    LONGHAUL_CO_TRY(s);
    const auto request = "{\"do\":\"" + what + "\"}\n";
    auto written = co_await net::write_all(**s, core::as_bytes(request));
    LONGHAUL_CO_TRY(written);
    std::string rest;
    auto line = co_await read_line(**s, rest, max_answer);
    LONGHAUL_CO_TRY(line);
    co_return open_envelope(*line);
}

/// Folders below the default place that have a control socket, the newest first.
std::vector<std::string> candidates(const std::string& home) {
    std::vector<std::pair<std::filesystem::file_time_type, std::string>> found;
    std::error_code e;
    for (auto it = std::filesystem::directory_iterator(home, e); !e && it != std::filesystem::directory_iterator();
         it.increment(e)) {
        std::error_code missing;
        const auto when = std::filesystem::last_write_time(it->path() / control_socket_name, missing);
        if (!missing) found.emplace_back(when, it->path().string());
    }
    std::sort(found.rbegin(), found.rend());
    std::vector<std::string> out;
    for (auto& [when, folder] : found) out.push_back(std::move(folder));
    return out;
}

}  // namespace

core::result<std::unique_ptr<control_socket>> listen_for_control(net::environment& env, const std::string& state_dir) {
    auto socket = std::make_unique<control_socket>(state_dir);
    net::endpoint at;
    at.host = socket->path.text();
    auto listening = env.network.listen(at);
    if (!listening) return fail(listening.error().within("the control socket of this node"));
    socket->listener = std::move(*listening);
    return socket;
}

core::task<core::result<void>> serve_control(net::environment& env, std::unique_ptr<control_socket> socket,
                                             const control_handlers& handlers) {
    core::scope clients(env.executor);
    clients.spawn("control socket", accept_clients(env, *socket->listener, clients, handlers));
    auto joined = co_await clients.join();
    socket->listener->close();
    co_return joined;
}

core::task<core::result<std::string>> ask_daemon(net::environment& env, std::string state_dir, std::string what) {
    const short_path path(state_dir, control_socket_name);
    auto answer = co_await core::with_deadline(env.clock, exchange(env, path.text(), std::move(what)),
                                               env.clock.now() + answer_limit);
    if (!answer && answer.error().code == errc::unreachable) {
        co_return fail(errc::unreachable,
                       "no longhaul runs in {}: start one with \"longhaul run\" or \"longhaul join\", or name another "
                       "--state-dir",
                       state_dir);
    }
    if (!answer && answer.error().code == errc::timeout) {
        co_return fail(errc::timeout, "the longhaul in {} does not answer within {}", state_dir,
                       core::format_duration(answer_limit));
    }
    co_return answer;
}

core::task<core::result<std::string>> find_daemon(net::environment& env, std::string asked) {
    const char* set = std::getenv("LONGHAUL_STATE_DIR");
    if (!asked.empty() || set != nullptr) co_return command::state_dir(asked, "");
    LONGHAUL_CO_TRY_ASSIGN(const auto home, default_state_home());
    for (const auto& folder : candidates(home)) {
        auto answer = co_await ask_daemon(env, folder, "status");
        if (answer) co_return folder;
    }
    co_return fail(errc::unreachable,
                   "no longhaul runs on this machine (none answers below {}): start one, name its --state-dir, or give "
                   "the address of a member",
                   home);
}

}  // namespace longhaul::peers::command

#pragma once
/// The control socket of a daemon: a Unix socket in its state folder (mode 0600). Requests and answers are JSON, one a
/// line: {"do":"status"} → {"ok":true,"status":{…}} or {"ok":false,"code":"usage","message":"…"}.

#include <functional>
#include <memory>
#include <string>

#include "core/task.hpp"
#include "net/environment.hpp"
#include "peers/command/files.hpp"

namespace longhaul::peers::command {

/// Of an answer, the status above all.
inline constexpr std::size_t max_answer = 8 << 20;

/// What a daemon does when it is asked.
struct control_handlers {
    std::function<std::string()> status_json;
    /// stop, pause, resume, leave or recover.
    std::function<core::result<void>(const std::string& what)> act;
};

/// The bound socket. The file goes with it.
struct control_socket {
    explicit control_socket(const std::string& state_dir) : path(state_dir, control_socket_name) {}
    short_path path;  ///< outlives the listener, which removes the file by this name
    std::unique_ptr<net::listener> listener;
};

/// Listens in `state_dir`. errc::io, errc::address_in_use.
core::result<std::unique_ptr<control_socket>> listen_for_control(net::environment& env, const std::string& state_dir);
/// Serves until cancelled. `handlers` must outlive it.
core::task<core::result<void>> serve_control(net::environment& env, std::unique_ptr<control_socket> socket,
                                             const control_handlers& handlers);

/// Asks the daemon of `state_dir` to do `what`; its answer without the envelope ("" for a request, the status as JSON
/// for "status"). errc::unreachable when no daemon runs there; otherwise the daemon's own error.
core::task<core::result<std::string>> ask_daemon(net::environment& env, std::string state_dir, std::string what);

/// The state folder of the daemon that is meant: `asked` (or LONGHAUL_STATE_DIR) if given, else of those in the default
/// place the one that started last and answers. errc::unreachable with what to do.
core::task<core::result<std::string>> find_daemon(net::environment& env, std::string asked);

}  // namespace longhaul::peers::command

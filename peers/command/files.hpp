#pragma once
/// Where a node's files are, and the few that the command itself reads and writes.

#include <optional>
#include <string>
#include <vector>

#include "core/bytes.hpp"
#include "net/identity.hpp"

namespace longhaul::peers::command {

/// The whole of a small file; errc::not_found, errc::limit, errc::io. `what` names it in the error: "RUN.toml".
core::result<std::string> read_file(const std::string& path, std::size_t max_bytes, std::string_view what);

/// XDG_STATE_HOME/longhaul, else ~/.local/state/longhaul; errc::config without either.
core::result<std::string> default_state_home();
/// The folder of a node: `asked` if not empty, then LONGHAUL_STATE_DIR, then <default_state_home>/<name>. Absolute.
core::result<std::string> state_dir(const std::string& asked, const std::string& name);

/// A path for a socket or a test of one, short enough for sockaddr_un: a long folder is reached through /proc/self/fd.
class short_path {
public:
    short_path(const std::string& folder, const std::string& file);
    ~short_path();
    short_path(const short_path&) = delete;
    short_path& operator=(const short_path&) = delete;
    const std::string& text() const { return text_; }

private:
    int folder_ = -1;
    std::string text_;
};

inline constexpr const char* control_socket_name = "control.sock";
inline constexpr const char* events_name = "events.jsonl";

/// Writes a new identity to `path` (mode 0600, synced); errc::config when the file exists.
core::result<net::identity> create_identity(const std::string& path);
/// The identity of a node, drawn on its first start. errc::malformed names the file and the way out.
core::result<net::identity> load_or_create_identity(const std::string& folder);

}  // namespace longhaul::peers::command

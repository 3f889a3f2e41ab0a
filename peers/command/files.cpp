#include "peers/command/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/posix_file.hpp"
#include "peers/peer.hpp"

namespace longhaul::peers::command {

namespace {

/// sockaddr_un holds 108 bytes with the final zero.
constexpr std::size_t max_socket_path = 107;
constexpr std::size_t identity_size = 64;

}  // namespace

core::result<std::string> read_file(const std::string& path, std::size_t max_bytes, std::string_view what) {
    const auto file = core::open_file(path, O_RDONLY);
    if (!file) return core::fail(core::system_error(errno, fmt::format("read {} ({})", path, what)));
    std::string out;
    char buffer[16384];
    while (true) {
        const auto n = ::read(file.get(), buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return core::fail(core::system_error(errno, fmt::format("read {} ({})", path, what)));
        if (n == 0) return out;
        out.append(buffer, static_cast<std::size_t>(n));
        if (out.size() > max_bytes) {
            return core::fail(core::errc::limit, "{} is larger than {} bytes: this is not {}", path, max_bytes, what);
        }
    }
}

core::result<std::string> default_state_home() {
    if (const char* xdg = std::getenv("XDG_STATE_HOME"); xdg != nullptr && *xdg == '/') {
        return std::string(xdg) + "/longhaul";
    }
    if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
        return std::string(home) + "/.local/state/longhaul";
    }
    return core::fail(core::errc::config, "neither XDG_STATE_HOME nor HOME is set: name a folder with --state-dir");
}

core::result<std::string> state_dir(const std::string& asked, const std::string& name) {
    std::string chosen = asked;
    if (chosen.empty()) {
        if (const char* set = std::getenv("LONGHAUL_STATE_DIR"); set != nullptr) chosen = set;
    }
    if (chosen.empty()) {
        LONGHAUL_TRY_ASSIGN(const auto home, default_state_home());
        chosen = home + "/" + name;
    }
    std::error_code e;
    const auto absolute = std::filesystem::absolute(chosen, e);
    if (e)
        return core::fail(core::errc::config, "the state folder \"{}\" has no absolute path: {}", chosen, e.message());
    auto text = absolute.lexically_normal().string();
    if (text.size() > 1 && text.ends_with('/')) text.pop_back();
    return text;
}

short_path::short_path(const std::string& folder, const std::string& file) : text_(folder + "/" + file) {
    if (text_.size() <= max_socket_path) return;
    folder_ = ::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder_ >= 0) text_ = fmt::format("/proc/self/fd/{}/{}", folder_, file);
}

short_path::~short_path() {
    if (folder_ >= 0) ::close(folder_);
}

core::result<net::identity> create_identity(const std::string& path) {
    core::system_entropy entropy;
    auto made = net::identity::generate(entropy);
    auto saved = made.serialize();
    // Complete before it has its name: a crash leaves no half of an identity behind.
    const auto temporary = path + ".new";
    ::unlink(temporary.c_str());
    const auto file = core::open_file(temporary, O_WRONLY | O_CREAT | O_EXCL);
    if (!file) return core::fail(core::system_error(errno, "create the identity " + path));
    std::size_t written = 0;
    int failed = core::write_fully(file.get(), saved, written);
    std::ranges::fill(saved, std::byte{0});
    if (failed == 0 && ::fsync(file.get()) != 0) failed = errno;
    if (failed == 0 && ::link(temporary.c_str(), path.c_str()) != 0) failed = errno;
    ::unlink(temporary.c_str());
    if (failed == EEXIST) {
        return core::fail(core::errc::config,
                          "{} exists already and is not replaced: it is a node's identity for life; name another file "
                          "or remove it",
                          path);
    }
    if (failed != 0) return core::fail(core::system_error(failed, "write the identity " + path));
    return made;
}

core::result<net::identity> load_or_create_identity(const std::string& folder) {
    const auto path = folder + "/" + identity_file;
    auto saved = read_file(path, identity_size, "the identity of this node");
    if (!saved && saved.error().code == core::errc::not_found) return create_identity(path);
    if (!saved && saved.error().code != core::errc::limit) return core::fail(std::move(saved).error());
    if (struct stat s{}; ::stat(path.c_str(), &s) == 0 && (s.st_mode & 077) != 0) {
        return core::fail(core::errc::config,
                          "{} can be read by others: run \"chmod 600 {}\" if that was a mistake, "
                          "or remove it to get a new identity",
                          path, path);
    }
    auto parsed = saved ? net::identity::parse(core::as_bytes(*saved))
                        : core::result<net::identity>(core::fail(core::errc::malformed, "too long"));
    if (!parsed) {
        return core::fail(core::errc::malformed,
                          "{} is not an identity ({}): restore it from a backup, or remove it to go on as a new node",
                          path, parsed.error().message);
    }
    return parsed;
}

}  // namespace longhaul::peers::command

#include "core/posix_storage.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>

namespace longhaul::core {

namespace {

constexpr std::string_view own_folder = ".storage";
constexpr std::size_t max_listed = 1'000'000;

/// Of an absolute path.
std::string parent_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == 0 ? "/" : path.substr(0, slash);
}

/// A checked path without the '/' that may end a folder's name.
result<std::string> checked(std::string_view path) {
    if (path.ends_with('/')) path.remove_suffix(1);
    LONGHAUL_TRY(check_storage_path(path));
    if (path.substr(0, path.find('/')) == own_folder)
        return fail(errc::malformed, "\"{}\" is not a path of a state directory: {} is reserved", path, own_folder);
    return std::string(path);
}

result<void> sync_folder(const std::string& folder) {
    const auto fd = open_file(folder, O_RDONLY | O_DIRECTORY);
    if (!fd) return fail(system_error(errno, "open " + folder));
    // Some file systems have nothing to sync for a folder, and say EINVAL.
    if (::fsync(fd.get()) != 0 && errno != EINVAL) return fail(system_error(errno, "sync " + folder));
    return ok();
}

/// Makes `folder` and those above it, and syncs each into the one above it.
result<void> make_folders(const std::string& folder) {
    struct stat s{};
    if (::stat(folder.c_str(), &s) == 0) {
        if (S_ISDIR(s.st_mode)) return ok();
        return fail(errc::io, "{} is not a folder", folder);
    }
    if (errno != ENOENT) return fail(system_error(errno, "look at " + folder));
    const auto above = parent_of(folder);
    LONGHAUL_TRY(make_folders(above));
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
        return fail(system_error(errno, "make the folder " + folder));
    return sync_folder(above);
}

result<void> write_and_sync(const file_descriptor& fd, const std::vector<const_bytes>& pieces,
                            const std::string& name) {
    for (const auto piece : pieces) {
        std::size_t written = 0;
        if (const int e = write_fully(fd.get(), piece, written)) return fail(system_error(e, "write " + name));
    }
    if (::fsync(fd.get()) != 0) return fail(system_error(errno, "sync " + name));
    return ok();
}

result<void> put_file(const std::string& temporary, const std::string& path, const std::vector<const_bytes>& pieces) {
    LONGHAUL_TRY(make_folders(parent_of(path)));
    result<void> outcome = ok();
    {
        const auto fd = open_file(temporary, O_WRONLY | O_CREAT | O_EXCL);
        if (!fd) return fail(system_error(errno, "write " + path));
        outcome = write_and_sync(fd, pieces, path);
    }
    if (outcome && ::rename(temporary.c_str(), path.c_str()) != 0) outcome = fail(system_error(errno, "write " + path));
    if (!outcome) {
        ::unlink(temporary.c_str());
        return outcome;
    }
    return sync_folder(parent_of(path));
}

result<void> append_file(const std::string& path, const_bytes data) {
    auto fd = open_file(path, O_WRONLY | O_APPEND);
    const bool is_new = !fd && errno == ENOENT;
    if (is_new) {
        LONGHAUL_TRY(make_folders(parent_of(path)));
        fd = open_file(path, O_WRONLY | O_APPEND | O_CREAT);
    }
    if (!fd) return fail(system_error(errno, "open " + path));
    LONGHAUL_TRY(write_and_sync(fd, {data}, path));
    return is_new ? sync_folder(parent_of(path)) : ok();
}

result<std::vector<std::string>> list_folder(const std::string& folder, bool is_root) {
    std::vector<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder.c_str()), [](DIR* d) { return ::closedir(d); });
    if (!dir) {
        if (errno == ENOENT) return names;
        return fail(system_error(errno, "list " + folder));
    }
    for (;;) {
        errno = 0;
        const auto* entry = ::readdir(dir.get());
        if (entry == nullptr) break;
        std::string name = entry->d_name;
        // What somebody else left here under a name that no path can have is not ours.
        if (!check_storage_path(name) || (is_root && name == own_folder)) continue;
        struct stat s{};
        if (::fstatat(::dirfd(dir.get()), entry->d_name, &s, 0) != 0) continue;
        if (S_ISDIR(s.st_mode)) name += '/';
        if (names.size() == max_listed) return fail(errc::limit, "{} holds more than {} files", folder, max_listed);
        names.push_back(std::move(name));
    }
    if (errno != 0) return fail(system_error(errno, "list " + folder));
    std::ranges::sort(names);
    return names;
}

result<void> remove_path(const std::string& path) {
    std::error_code failed;
    const auto removed = std::filesystem::remove_all(path, failed);
    if (failed) return fail(system_error(failed.value(), "remove " + path));
    return removed > 0 ? sync_folder(parent_of(path)) : ok();
}

result<void> rename_path(const std::string& from, const std::string& to) {
    LONGHAUL_TRY(make_folders(parent_of(to)));
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0) {
        if (errno != EINVAL && errno != ENOSYS)
            return fail(system_error(errno, fmt::format("rename {} to {}", from, to)));
        // A file system without that flag. Nobody else writes here: the folder is locked.
        struct stat s{};
        if (::lstat(to.c_str(), &s) == 0) return fail(system_error(EEXIST, fmt::format("rename {} to {}", from, to)));
        if (::rename(from.c_str(), to.c_str()) != 0)
            return fail(system_error(errno, fmt::format("rename {} to {}", from, to)));
    }
    LONGHAUL_TRY(sync_folder(parent_of(to)));
    return parent_of(from) == parent_of(to) ? ok() : sync_folder(parent_of(from));
}

/// Runs `call` on a worker and gives its result.
template <typename T>
task<result<T>> offload(workers& on, std::function<result<T>()> call) {
    result<T> out = fail(errc::internal, "the job did not run");
    std::function<void()> job = [&out, &call] { out = call(); };
    auto ran = co_await on.run(std::move(job), duration::zero());
    LONGHAUL_CO_TRY(ran);
    co_return out;
}

}  // namespace

result<std::unique_ptr<posix_storage>> posix_storage::open(std::string folder, workers& workers) {
    while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
    std::error_code failed;
    auto root = std::filesystem::absolute(folder, failed).string();
    if (failed || folder.empty()) return fail(errc::config, "\"{}\" is not a folder for state", folder);
    const auto own = root + "/" + std::string(own_folder);
    LONGHAUL_TRY(make_folders(own));
    auto lock = open_file(own + "/lock", O_RDWR | O_CREAT);
    if (!lock) return fail(system_error(errno, "open " + own + "/lock"));
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return fail(system_error(errno, "lock " + own + "/lock"));
        return fail(
            errc::config,
            "the state directory {} is in use by another longhaul process; stop it, or choose another --state-dir",
            root);
    }
    std::filesystem::remove_all(own + "/tmp", failed);
    LONGHAUL_TRY(make_folders(own + "/tmp"));
    return std::unique_ptr<posix_storage>(new posix_storage(std::move(root), workers, std::move(lock)));
}

task<result<byte_vector>> posix_storage::read(std::string path, std::uint64_t max_bytes) {
    LONGHAUL_CO_TRY_ASSIGN(const auto name, checked(path));
    std::function<result<byte_vector>()> call = [file = root_ + "/" + name, max_bytes] {
        return read_file(file, max_bytes);
    };
    co_return co_await offload(workers_, std::move(call));
}

task<result<void>> posix_storage::put(std::string path, std::vector<const_bytes> pieces) {
    LONGHAUL_CO_TRY_ASSIGN(const auto name, checked(path));
    const auto temporary = fmt::format("{}/{}/tmp/{}", root_, own_folder, temporaries_++);
    std::function<result<void>()> call = [&pieces, &temporary, file = root_ + "/" + name] {
        return put_file(temporary, file, pieces);
    };
    co_return co_await offload(workers_, std::move(call));
}

task<result<void>> posix_storage::append(std::string path, const_bytes data) {
    LONGHAUL_CO_TRY_ASSIGN(const auto name, checked(path));
    std::function<result<void>()> call = [data, file = root_ + "/" + name] { return append_file(file, data); };
    co_return co_await offload(workers_, std::move(call));
}

task<result<std::vector<std::string>>> posix_storage::list(std::string folder) {
    const bool is_root = folder.empty();
    auto path = root_;
    if (!is_root) {
        LONGHAUL_CO_TRY_ASSIGN(const auto name, checked(folder));
        path += "/" + name;
    }
    std::function<result<std::vector<std::string>>()> call = [path, is_root] { return list_folder(path, is_root); };
    co_return co_await offload(workers_, std::move(call));
}

task<result<void>> posix_storage::remove(std::string path) {
    LONGHAUL_CO_TRY_ASSIGN(const auto name, checked(path));
    std::function<result<void>()> call = [file = root_ + "/" + name] { return remove_path(file); };
    co_return co_await offload(workers_, std::move(call));
}

task<result<void>> posix_storage::rename(std::string from, std::string to) {
    LONGHAUL_CO_TRY_ASSIGN(const auto source, checked(from));
    LONGHAUL_CO_TRY_ASSIGN(const auto target, checked(to));
    std::function<result<void>()> call = [a = root_ + "/" + source, b = root_ + "/" + target] {
        return rename_path(a, b);
    };
    co_return co_await offload(workers_, std::move(call));
}

}  // namespace longhaul::core

#include "core/posix_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace longhaul::core {

file_descriptor::~file_descriptor() {
    if (fd_ >= 0) ::close(fd_);
}

error system_error(int number, std::string_view doing) {
    const auto words = std::generic_category().message(number);
    switch (number) {
        case ENOSPC:
        case EDQUOT: return {errc::no_space, fmt::format("cannot {}: {}; free some space there", doing, words)};
        case ENOENT: return {errc::not_found, fmt::format("cannot {}: {}", doing, words)};
        default: return {errc::io, fmt::format("cannot {}: {}", doing, words)};
    }
}

file_descriptor open_file(const std::string& path, int flags) {
    for (;;) {
        const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
        if (fd >= 0 || errno != EINTR) return file_descriptor(fd);
    }
}

int write_fully(int fd, const_bytes data, std::size_t& written) {
    while (!data.empty()) {
        // Linux writes at most 2 GiB at once.
        const auto n = ::write(fd, data.data(), std::min<std::size_t>(data.size(), 1U << 30U));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        written += static_cast<std::size_t>(n);
        data = data.subspan(static_cast<std::size_t>(n));
    }
    return 0;
}

result<byte_vector> read_file(const std::string& path, std::uint64_t max_bytes) {
    const auto fd = open_file(path, O_RDONLY | O_NONBLOCK);  // a pipe must not block
    if (!fd) return fail(system_error(errno, "open " + path));
    struct stat s{};
    if (::fstat(fd.get(), &s) != 0) return fail(system_error(errno, "look at " + path));
    if (!S_ISREG(s.st_mode)) return fail(errc::io, "{} is not a file", path);
    const auto size = static_cast<std::uint64_t>(s.st_size);
    if (size > max_bytes) return fail(errc::limit, "{} has {} bytes, more than {}", path, size, max_bytes);
    byte_vector out(size);
    std::size_t have = 0;
    while (have < out.size()) {
        const auto n = ::read(fd.get(), out.data() + have, std::min<std::size_t>(out.size() - have, 1U << 30U));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(system_error(errno, "read " + path));
        if (n == 0) break;
        have += static_cast<std::size_t>(n);
    }
    out.resize(have);
    return out;
}

}  // namespace longhaul::core

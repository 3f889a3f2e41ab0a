#include "core/posix_file.hpp"

#include <fcntl.h>
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

}  // namespace longhaul::core

#pragma once
/// The least of POSIX files: an owned descriptor, complete writes, whole files.

#include <string_view>
#include <utility>

#include "core/bytes.hpp"

namespace longhaul::core {

/// Owns a file descriptor; closes it.
class file_descriptor {
public:
    file_descriptor() = default;
    explicit file_descriptor(int fd) : fd_(fd) {}
    file_descriptor(file_descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    file_descriptor& operator=(file_descriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~file_descriptor();
    explicit operator bool() const { return fd_ >= 0; }
    int get() const { return fd_; }

private:
    int fd_ = -1;
};

/// `errno` as an error: errc::not_found, errc::no_space, else errc::io; "cannot {doing}: {the system's words}".
error system_error(int number, std::string_view doing);

/// open(2) with O_CLOEXEC and mode 0600, again after EINTR. The descriptor is invalid on error, with errno set.
file_descriptor open_file(const std::string& path, int flags);

/// Writes all of `data`, again after EINTR and short writes. Returns 0 or errno; `written` counts the bytes.
int write_fully(int fd, const_bytes data, std::size_t& written);

/// The whole of a regular file; errc::not_found, errc::limit if it is larger than `max_bytes`, errc::io. Blocks.
result<byte_vector> read_file(const std::string& path, std::uint64_t max_bytes);

}  // namespace longhaul::core

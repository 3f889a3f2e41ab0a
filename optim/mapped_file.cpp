#include "optim/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace longhaul::optim {

core::result<std::shared_ptr<const mapped_file>> mapped_file::open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return core::fail(core::errc::config, "cannot read the data file {}: {}; name your copy with --data", path,
                          std::strerror(errno));
    struct ::stat info{};
    const bool known = ::fstat(fd, &info) == 0;
    if (!known || !S_ISREG(info.st_mode) || info.st_size <= 0) {
        ::close(fd);
        return core::fail(core::errc::config, "the data file {} is {}", path,
                          known && S_ISREG(info.st_mode) ? "empty" : "not a file; name a file with --data");
    }
    const auto size = static_cast<std::size_t>(info.st_size);
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    const int why = errno;
    ::close(fd);
    if (address == MAP_FAILED)
        return core::fail(core::errc::io, "cannot map the data file {}: {}", path, std::strerror(why));
    return std::shared_ptr<const mapped_file>(new mapped_file({static_cast<const std::byte*>(address), size}));
}

mapped_file::~mapped_file() { ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

std::string data_file_name(const std::string& path) {
    auto name = std::filesystem::path(path).filename().string().substr(0, 100);
    for (char& c : name)
        if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
    return name;
}

std::string describe_data(const std::string& what, const std::string& size, const core::digest& hash) {
    return fmt::format("{} ({}; hash {})", what, size, hash.brief());
}

}  // namespace longhaul::optim

#include "core/event_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace longhaul::core {

result<std::unique_ptr<event_file>> event_file::open(std::string path, std::function<void(const error&)> on_error) {
    auto file = open_file(path, O_RDWR | O_APPEND | O_CREAT);
    if (!file) return fail(system_error(errno, "open " + path));
    char last = '\n';
    const auto size = ::lseek(file.get(), 0, SEEK_END);
    if (size > 0 && ::pread(file.get(), &last, 1, size - 1) != 1) return fail(system_error(errno, "read " + path));
    return std::unique_ptr<event_file>(
        new event_file(std::move(path), std::move(on_error), std::move(file), last != '\n'));
}

void event_file::write(std::string_view line) {
    std::string text;
    text.reserve(line.size() + 2);
    if (torn_) text += '\n';
    text += line;
    text += '\n';
    std::size_t written = 0;
    const int failed = write_fully(file_.get(), as_bytes(text), written);
    if (failed == 0) {
        torn_ = false;
        return;
    }
    if (written > 0) torn_ = text[written - 1] != '\n';
    if (reported_) return;
    reported_ = true;
    if (on_error_) on_error_(system_error(failed, "write " + path_).within("events are being lost"));
}

}  // namespace longhaul::core

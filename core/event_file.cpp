#include "core/event_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace longhaul::core {

result<std::unique_ptr<event_file>> event_file::open(std::string path, std::function<void(const error&)> on_error,
                                                     std::uint64_t most_bytes) {
    std::unique_ptr<event_file> out(new event_file(std::move(path), std::move(on_error), most_bytes));
    LONGHAUL_TRY(out->open_newest());
    return out;
}

result<void> event_file::open_newest() {
    auto file = open_file(path_, O_RDWR | O_APPEND | O_CREAT);
    if (!file) return fail(system_error(errno, "open " + path_));
    char last = '\n';
    const auto size = ::lseek(file.get(), 0, SEEK_END);
    if (size > 0 && ::pread(file.get(), &last, 1, size - 1) != 1) return fail(system_error(errno, "read " + path_));
    file_ = std::move(file);
    size_ = size > 0 ? static_cast<std::uint64_t>(size) : 0;
    torn_ = last != '\n';
    return ok();
}

/// The full file steps back. Where that is not possible, it grows on: rather too long than silent.
void event_file::rotate() {
    if (std::rename(path_.c_str(), (path_ + ".1").c_str()) != 0) {
        return complain(system_error(errno, "rename " + path_));
    }
    if (const auto opened = open_newest(); !opened) complain(opened.error());
}

void event_file::complain(const error& why) {
    if (reported_) return;
    reported_ = true;
    if (on_error_) on_error_(why);
}

void event_file::write(std::string_view line) {
    if (size_ > 0 && size_ + line.size() + 1 > most_bytes_) rotate();
    std::string text;
    text.reserve(line.size() + 2);
    if (torn_) text += '\n';
    text += line;
    text += '\n';
    std::size_t written = 0;
    const int failed = write_fully(file_.get(), as_bytes(text), written);
    size_ += written;
    if (failed == 0) {
        torn_ = false;
        return;
    }
    if (written > 0) torn_ = text[written - 1] != '\n';
    complain(system_error(failed, "write " + path_).within("events are being lost"));
}

}  // namespace longhaul::core

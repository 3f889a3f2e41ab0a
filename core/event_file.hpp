#pragma once
/// Lines of events.jsonl on disk.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "core/posix_file.hpp"

namespace longhaul::core {

/// Appends lines to a file, each with one write, so that a reader that follows the file sees whole lines. Not synced:
/// events are a record, not state. A torn last line (a crash, a full disk) ends where it tore: the next line starts
/// fresh. A write that fails loses its line and is reported once, however many follow.
///
/// A run may last for months: a file that would exceed `most_bytes` becomes `PATH.1`, in place of the one before, and a
/// new one begins. So the two together are bounded, and hold the latest events.
class event_file {
public:
    static constexpr std::uint64_t default_most_bytes = 64 << 20;
    /// The folder must exist. errc::not_found, errc::io, errc::no_space. `on_error` gets the first failed write.
    static result<std::unique_ptr<event_file>> open(std::string path, std::function<void(const error&)> on_error,
                                                    std::uint64_t most_bytes = default_most_bytes);
    /// Writes `line` and a newline.
    void write(std::string_view line);

private:
    event_file(std::string path, std::function<void(const error&)> on_error, std::uint64_t most_bytes)
        : path_(std::move(path)), on_error_(std::move(on_error)), most_bytes_(most_bytes) {}
    result<void> open_newest();
    void rotate();
    void complain(const error& why);

    std::string path_;
    std::function<void(const error&)> on_error_;
    std::uint64_t most_bytes_;
    file_descriptor file_;
    std::uint64_t size_ = 0;
    bool torn_ = false;
    bool reported_ = false;
};

}  // namespace longhaul::core

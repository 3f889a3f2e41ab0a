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
class event_file {
public:
    /// The folder must exist. errc::not_found, errc::io, errc::no_space. `on_error` gets the first failed write.
    static result<std::unique_ptr<event_file>> open(std::string path, std::function<void(const error&)> on_error);
    /// Writes `line` and a newline.
    void write(std::string_view line);

private:
    event_file(std::string path, std::function<void(const error&)> on_error, file_descriptor file, bool torn)
        : path_(std::move(path)), on_error_(std::move(on_error)), file_(std::move(file)), torn_(torn) {}

    std::string path_;
    std::function<void(const error&)> on_error_;
    file_descriptor file_;
    bool torn_;
    bool reported_ = false;
};

}  // namespace longhaul::core

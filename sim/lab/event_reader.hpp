#pragma once
/// Follows the events.jsonl of a daemon that writes it.

#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "core/posix_file.hpp"
#include "sim/node.hpp"

namespace longhaul::sim::lab {

class event_reader {
public:
    explicit event_reader(std::string path) : path_(std::move(path)) {}
    /// Appends what was written since the last call; whether there was any. A file that stepped back for a new one
    /// (core/event_file) is read to its end first.
    bool poll(std::deque<seen_event>& into);

private:
    bool replaced() const;
    void read_on(std::deque<seen_event>& into);

    std::string path_;
    core::file_descriptor file_;
    std::string partial_;  ///< a line that is not whole yet
};

/// A line of events.jsonl as an event; nothing where it is none.
std::optional<seen_event> parse_event_line(std::string_view line);

}  // namespace longhaul::sim::lab

#pragma once
/// What a person or a log collector sees of a running node, on stderr; derived from its events alone.

#include <memory>
#include <optional>
#include <string>

#include "core/clock.hpp"
#include "core/events.hpp"

namespace spdlog {
class logger;
}

namespace longhaul::peers::command {

/// console: sentences, and one line a round ("round=42 peers=5/6 loss=3.412 …"), which on a terminal is rewritten in
/// place; logfmt and json: every event, one a line.
class console {
public:
    /// `format` is node.log_format. `clock` must outlive the console.
    console(const core::clock& clock, std::string node, std::string format, bool terminal);
    ~console();
    void show(const core::event& e);
    /// A sentence of this node itself.
    void say(const std::string& sentence);
    void complain(const std::string& sentence);
    /// Ends the line that is being rewritten.
    void end_line();

private:
    void round(const core::event& e);
    void rewrite(const std::string& line);

    const core::clock& clock_;
    std::string node_, format_;
    bool terminal_;
    bool line_open_ = false;
    std::string status_line_;
    std::optional<double> eval_loss_;
    std::uint64_t tokens_before_ = 0;
    std::optional<core::time_point> round_before_;
    std::shared_ptr<spdlog::logger> log_;
};

}  // namespace longhaul::peers::command

#include "peers/command/console.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "core/units.hpp"
#include "peers/generation.hpp"

namespace longhaul::peers::command {

namespace {

double number(const core::event& e, std::string_view key) {
    const auto* v = e.find(key);
    if (v == nullptr) return 0;
    if (const auto* d = std::get_if<double>(v)) return *d;
    if (const auto* u = std::get_if<std::uint64_t>(v)) return static_cast<double>(*u);
    if (const auto* i = std::get_if<std::int64_t>(v)) return static_cast<double>(*i);
    return 0;
}

std::string text(const core::event& e, std::string_view key) {
    const auto* v = e.find(key);
    if (v == nullptr) return {};
    if (const auto* s = std::get_if<std::string>(v)) return *s;
    return fmt::format("{}", number(e, key));
}

/// "18.2k", "3.1M": three digits are enough on a line that goes by.
std::string compact(double value) {
    for (const auto* unit : {"", "k", "M", "G"}) {
        if (value < 999.5)
            return value < 10 && *unit != 0 ? fmt::format("{:.1f}{}", value, unit)
                                            : fmt::format("{:.0f}{}", value, unit);
        value /= 1000;
    }
    return fmt::format("{:.1f}T", value);
}

/// Names come from strangers, and a terminal obeys control characters.
std::string clean(std::string s) {
    for (auto& c : s) {
        if ((c >= 0 && c < ' ') || c == 0x7f) c = '?';
    }
    return s;
}

std::string who(const core::event& e) {
    for (const auto* key : {"name", "peer", "number"}) {
        if (auto t = text(e, key); !t.empty()) return t.size() > 32 ? t.substr(0, 8) : t;
    }
    return "a peer";
}

std::string generation_of(const core::event& e) {
    return generation_name(static_cast<std::uint64_t>(number(e, "generation")));
}

/// The sentence for an event that people want to hear of; empty for the others.
std::string sentence_of(const core::event& e) {
    const auto round = number(e, "round");
    if (e.name == "started") {
        return fmt::format("training with {}; data: {}; buffers: {}", text(e, "trainer"), text(e, "data"),
                           core::format_bytes(static_cast<std::uint64_t>(number(e, "memory"))));
    }
    if (e.name == "joined") return fmt::format("{} joined the run", who(e));
    if (e.name == "left")
        return fmt::format("{} left: {}", e.find("number") ? "peer " + who(e) : "this node", text(e, "reason"));
    if (e.name == "waiting") return text(e, "reason");
    if (e.name == "reach") return text(e, "reason");
    if (e.name == "peer_up") return fmt::format("{} is connected", who(e));
    if (e.name == "peer_silent") return fmt::format("nothing comes from {}: the round goes on without it", who(e));
    if (e.name == "peer_down") return fmt::format("{} is gone: {}", who(e), text(e, "reason"));
    if (e.name == "attempt_failed") {
        return fmt::format("round {}: attempt {} failed: {}", round, number(e, "attempt"), text(e, "reason"));
    }
    if (e.name == "catch_up") {
        return fmt::format("caught up to round {} from {}: {}B in {:.1f} s", round, text(e, "from"),
                           compact(number(e, "bytes")), number(e, "seconds"));
    }
    if (e.name == "generation") {
        return fmt::format("the run goes on from round {} as generation {}: {}", round, generation_of(e),
                           text(e, "reason"));
    }
    if (e.name == "leaving_log") {
        return fmt::format("leaving generation {}: {}", generation_of(e), text(e, "reason"));
    }
    return {};
}

std::string logfmt_of(const core::event& e, double t) {
    auto line = fmt::format("t={:.3f} event={}", t, e.name);
    for (const auto& [key, value] : e.fields) {
        auto shown = std::visit(
            [](const auto& v) -> std::string {
                using T = std::decay_t<decltype(v)>;
                if constexpr (std::is_same_v<T, std::string>) {
                    return v;
                } else if constexpr (std::is_same_v<T, std::vector<std::string>> ||
                                     std::is_same_v<T, std::vector<double>>) {
                    return fmt::format("{}", fmt::join(v, ","));
                } else {
                    return fmt::format("{}", v);
                }
            },
            value);
        shown = clean(std::move(shown));
        if (shown.find_first_of(" \"=") != std::string::npos || shown.empty()) {
            std::string quoted = "\"";
            for (const char c : shown) {
                if (c == '"' || c == '\\') quoted += '\\';
                quoted += c;
            }
            shown = quoted + "\"";
        }
        line += fmt::format(" {}={}", key, shown);
    }
    return line;
}

}  // namespace

console::console(const core::clock& clock, std::string node, std::string format, bool terminal)
    : clock_(clock),
      node_(std::move(node)),
      format_(std::move(format)),
      terminal_(terminal && format_ == "console"),
      log_(std::make_shared<spdlog::logger>("longhaul", std::make_shared<spdlog::sinks::stderr_sink_st>())) {
    log_->set_pattern(format_ == "console" ? "%H:%M:%S %v" : "%v");
    log_->flush_on(spdlog::level::info);
}

console::~console() { end_line(); }

void console::end_line() {
    if (!line_open_) return;
    std::fputs("\n", stderr);
    line_open_ = false;
}

void console::rewrite(const std::string& line) {
    // A line that wraps could not be rewritten.
    winsize size{};
    const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    std::fprintf(stderr, "\r\x1b[K%s", known ? line.substr(0, size.ws_col - 1U).c_str() : line.c_str());
    std::fflush(stderr);
    status_line_ = line;
    line_open_ = true;
}

void console::say(const std::string& sentence) {
    if (format_ != "console") return;
    // The line that is being rewritten makes room and comes back below.
    const bool redraw = line_open_;
    if (redraw) std::fputs("\r\x1b[K", stderr);
    log_->info("{}", clean(sentence));
    if (redraw) rewrite(status_line_);
}

void console::complain(const std::string& sentence) {
    if (format_ == "console") {
        say("error: " + sentence);
        return;
    }
    core::event e("error");
    e.with("message", sentence);
    show(e);
}

void console::show(const core::event& e) {
    const auto t = clock_.wall_seconds();
    if (format_ == "json") {
        log_->info("{}", core::to_json_line(e, t, node_));
    } else if (format_ == "logfmt") {
        log_->info("{}", logfmt_of(e, t));
    } else if (e.name == "round_committed") {
        round(e);
    } else if (e.name == "eval") {
        eval_loss_ = number(e, "loss");
    } else if (e.name == "error") {
        say("error: " + text(e, "message"));
    } else if (const auto sentence = sentence_of(e); !sentence.empty()) {
        if (e.name == "left" && e.find("number") == nullptr) end_line();  // the last round stays above the last word
        say(sentence);
    }
}

void console::round(const core::event& e) {
    const auto now = clock_.now();
    const auto tokens = static_cast<std::uint64_t>(number(e, "tokens"));
    const auto seconds = round_before_ ? core::to_seconds(now - *round_before_) : number(e, "seconds");
    const auto fresh =
        tokens > tokens_before_ && (round_before_ || number(e, "round") <= 1) ? tokens - tokens_before_ : 0;
    tokens_before_ = tokens;
    round_before_ = now;
    const auto sent = number(e, "wire_sent");
    auto line = fmt::format("round={:.0f} peers={:.0f}/{:.0f} loss={:.3f}", number(e, "round"), number(e, "merged"),
                            number(e, "members"), number(e, "loss"));
    if (eval_loss_) line += fmt::format(" eval={:.3f}", *eval_loss_);
    if (fresh > 0 && seconds > 0) line += fmt::format(" tok/s={}", compact(static_cast<double>(fresh) / seconds));
    line += fmt::format(" up={}B down={}B", compact(sent), compact(number(e, "wire_received")));
    if (sent > 0 && number(e, "raw_bytes") > 0) line += fmt::format(" ratio={:.0f}x", number(e, "raw_bytes") / sent);
    line += fmt::format(" sync={:.1f}s", number(e, "exchange_seconds"));
    if (terminal_) {
        rewrite(line);
    } else {
        log_->info("{}", line);
    }
}

}  // namespace longhaul::peers::command

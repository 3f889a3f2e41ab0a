#include <charconv>

#include "sim/scenario.hpp"

namespace longhaul::sim {

namespace {

constexpr std::size_t max_lines = 100'000;
constexpr double longest_seconds = 1e7;

bool number(std::string_view text, double min, double max, double& out) {
    while (text.starts_with(' ')) text.remove_prefix(1);
    while (text.ends_with(' ') || text.ends_with('\r')) text.remove_suffix(1);
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), out);
    return code == std::errc{} && end == text.data() + text.size() && out >= min && out <= max;
}

}  // namespace

core::result<rate_trace> parse_rate_trace(std::string_view text, const std::string& file_name) {
    rate_trace out;
    for (std::size_t line = 1; !text.empty(); ++line) {
        const auto end = std::min(text.find('\n'), text.size());
        const auto row = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (row.empty() || row == "\r" || row.front() == '#') continue;
        if (line > max_lines)
            return core::fail(core::errc::config, "{}: more than {} lines in a trace", file_name, max_lines);
        const auto comma = row.find(',');
        double seconds = 0, factor = 0;
        const bool valid = comma != std::string_view::npos &&
                           number(row.substr(0, comma), 0, longest_seconds, seconds) &&
                           number(row.substr(comma + 1), 0, 1000, factor);
        if (!valid) {
            if (line == 1 && row.starts_with("seconds")) continue;
            return core::fail(
                core::errc::config,
                "{}:{}: a trace's line is \"seconds,factor\", for example \"2.5,0.1\"; factors are from 0 "
                "to 1000",
                file_name, line);
        }
        const core::duration at(static_cast<std::int64_t>(seconds * 1e9));
        if (!out.empty() && at <= out.back().at)
            return core::fail(core::errc::config, "{}:{}: times in a trace grow from line to line", file_name, line);
        out.push_back({at, factor});
    }
    if (out.empty()) return core::fail(core::errc::config, "{}: the trace is empty", file_name);
    return out;
}

}  // namespace longhaul::sim

#include "sim/lab/event_reader.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>

#include "core/json.hpp"

namespace longhaul::sim::lab {

namespace {

constexpr std::size_t longest_line = 1 << 20;

std::optional<core::event_value> value_of(const nlohmann::json& v) {
    if (v.is_string()) return v.get<std::string>();
    if (v.is_boolean()) return v.get<bool>();
    if (v.is_number_unsigned()) return v.get<std::uint64_t>();
    if (v.is_number_integer()) return v.get<std::int64_t>();
    if (v.is_number_float()) return v.get<double>();
    return std::nullopt;
}

}  // namespace

std::optional<seen_event> parse_event_line(std::string_view line) {
    constexpr std::size_t deepest = 4;
    const auto parsed = core::parse_json(line, longest_line, deepest);
    if (!parsed || !parsed->is_object()) return std::nullopt;
    const auto name = parsed->find("event");
    const auto time = parsed->find("t");
    if (name == parsed->end() || !name->is_string() || time == parsed->end() || !time->is_number()) return std::nullopt;
    seen_event out{core::duration(static_cast<std::int64_t>(time->get<double>() * 1e9)),
                   core::event(name->get<std::string>())};
    for (const auto& [key, v] : parsed->items()) {
        if (key == "v" || key == "t" || key == "node" || key == "event") continue;
        if (auto value = value_of(v)) out.event.with(key, std::move(*value));
    }
    return out;
}

bool event_reader::poll(std::deque<seen_event>& into) {
    const auto before = into.size();
    for (;;) {
        if (!file_) {
            file_ = core::open_file(path_, O_RDONLY);
            if (!file_) break;
        }
        // Asked first: nobody writes to what was replaced, so this reads all of it.
        const bool last = replaced();
        read_on(into);
        if (!last) break;
        file_ = core::file_descriptor();
        partial_.clear();
    }
    return into.size() > before;
}

/// Whether the path leads to another file by now.
bool event_reader::replaced() const {
    struct ::stat own{}, newest{};
    return ::fstat(file_.get(), &own) == 0 && ::stat(path_.c_str(), &newest) == 0 && own.st_ino != newest.st_ino;
}

void event_reader::read_on(std::deque<seen_event>& into) {
    std::array<char, 65'536> buffer;
    for (;;) {
        const auto got = ::read(file_.get(), buffer.data(), buffer.size());
        if (got <= 0) return;
        partial_.append(buffer.data(), static_cast<std::size_t>(got));
        std::size_t from = 0;
        for (auto end = partial_.find('\n'); end != std::string::npos; end = partial_.find('\n', from)) {
            if (auto e = parse_event_line(std::string_view(partial_).substr(from, end - from))) {
                into.push_back(std::move(*e));
            }
            from = end + 1;
        }
        partial_.erase(0, from);
        // A line without an end is nobody's event.
        if (partial_.size() > longest_line) partial_.clear();
    }
}

}  // namespace longhaul::sim::lab

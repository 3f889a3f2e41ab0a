#include "core/events.hpp"

#include <nlohmann/json.hpp>

namespace longhaul::core {

const event_value* event::find(std::string_view key) const {
    for (const auto& [name_of_field, value] : fields)
        if (name_of_field == key) return &value;
    return nullptr;
}

std::string to_json_line(const event& e, double t, std::string_view node) {
    nlohmann::ordered_json line;
    line["v"] = 1;
    line["t"] = t;
    line["node"] = node;
    line["event"] = e.name;
    for (const auto& [key, value] : e.fields)
        std::visit([&line, &name = key](const auto& v) { line.emplace(name, v); }, value);
    // NaN and infinities are null in nlohmann's output.
    return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

event_log::event_log(const clock& clock, std::string node, line_writer write)
    : clock_(clock), node_(std::move(node)), write_(std::move(write)) {}

void event_log::emit(const event& e) {
    if (write_) write_(to_json_line(e, clock_.wall_seconds(), node_));
    for (const auto& l : listeners_) l(e);
}

}  // namespace longhaul::core

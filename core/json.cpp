#include "core/json.hpp"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace longhaul::core {

using nlohmann::json;

namespace {

/// Thrown out of the parser, and caught beside it, when a document is refused half-way.
struct refusal {
    error why;
};

}  // namespace

result<json> parse_json(std::string_view text, std::size_t max_bytes, std::size_t max_depth) {
    if (text.size() > max_bytes) return fail(errc::limit, "JSON of {} bytes exceeds {}", text.size(), max_bytes);
    std::vector<std::set<std::string>> keys;  // of each open object or array
    const auto watch = [&](int /*depth*/, json::parse_event_t event, json& parsed) {
        switch (event) {
            case json::parse_event_t::object_start:
            case json::parse_event_t::array_start:
                if (keys.size() >= max_depth)
                    throw refusal{{errc::limit, fmt::format("JSON is nested more than {} deep", max_depth)}};
                keys.emplace_back();
                break;
            case json::parse_event_t::object_end:
            case json::parse_event_t::array_end: keys.pop_back(); break;
            case json::parse_event_t::key:
                if (!keys.back().insert(parsed.get<std::string>()).second)
                    throw refusal{{errc::malformed, "JSON has the same key twice in one object"}};
                break;
            case json::parse_event_t::value: break;
        }
        return true;
    };
    try {
        return json::parse(text.begin(), text.end(), watch);
    } catch (const refusal& r) {
        return fail(r.why);
    } catch (const json::parse_error& e) {
        return fail(errc::malformed, "not JSON at byte {}", e.byte);
    } catch (const json::exception&) {
        return fail(errc::malformed, "JSON with a number out of range");
    }
}

std::string json_text(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

result<std::uint64_t> json_u64(const json& object, const std::string& key) {
    const auto it = object.find(key);
    if (it == object.end() || !it->is_number_unsigned())
        return fail(errc::malformed, "\"{}\" is not a whole number", key);
    return it->get<std::uint64_t>();
}

result<std::string> json_string(const json& object, const std::string& key) {
    const auto it = object.find(key);
    if (it == object.end() || !it->is_string()) return fail(errc::malformed, "\"{}\" is not a text", key);
    return it->get<std::string>();
}

}  // namespace longhaul::core

#pragma once
/// JSON from outside, bounded. Users that look inside include <nlohmann/json.hpp> in their .cpp.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "core/result.hpp"

namespace longhaul::core {

/// Parses one JSON value. errc::limit beyond `max_bytes` or `max_depth` (nested objects and arrays; a scalar has depth
/// 0); errc::malformed for anything that is not JSON in UTF-8, and for an object with the same key twice.
result<nlohmann::json> parse_json(std::string_view text, std::size_t max_bytes, std::size_t max_depth);

/// One line of JSON. Bytes that are not UTF-8 become U+FFFD.
std::string json_text(const nlohmann::json& value);

/// The member `key` of an object, of the wanted type; errc::malformed names the key.
result<std::uint64_t> json_u64(const nlohmann::json& object, const std::string& key);
result<std::string> json_string(const nlohmann::json& object, const std::string& key);

}  // namespace longhaul::core

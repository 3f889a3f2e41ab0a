#include "core/storage.hpp"

#include <algorithm>

namespace longhaul::core {

result<void> check_storage_path(std::string_view path) {
    constexpr std::size_t max_path = 1024;
    constexpr std::size_t max_part = 200;
    const auto refuse = [&](std::string_view why) {
        return fail(errc::malformed, "\"{}\" is not a path of a state directory: {}", path.substr(0, 80), why);
    };
    if (path.size() > max_path) return refuse("it is too long");
    const auto allowed = [](char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
               c == '-';
    };
    for (std::size_t at = 0; at <= path.size();) {
        const auto end = std::min(path.find('/', at), path.size());
        const auto part = path.substr(at, end - at);
        if (part.empty()) return refuse("it has an empty part");
        if (part == "." || part == "..") return refuse("it has a part that points elsewhere");
        if (part.size() > max_part) return refuse("a part of it is too long");
        if (!std::ranges::all_of(part, allowed)) return refuse("only letters, digits, '.', '_' and '-' are allowed");
        at = end + 1;
    }
    return ok();
}

task<result<void>> put_bytes(storage& to, std::string path, byte_vector bytes) {
    std::vector<const_bytes> pieces;
    pieces.emplace_back(bytes);
    co_return co_await to.put(std::move(path), std::move(pieces));
}

}  // namespace longhaul::core

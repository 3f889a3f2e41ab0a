// The only file that sees toml++.
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include <algorithm>

#include "core/config.hpp"

namespace longhaul::core {

namespace {

// A manifest's configuration comes from other peers. toml++ destroys nested tables recursively, and only a dotted key
// ("a.a.a.a") nests beyond its own limit of 256: bounding the dots bounds the stack.
constexpr std::size_t max_text = 256 << 10;
constexpr std::ptrdiff_t max_dots = 4096;
constexpr int max_depth = 8;

using value_map = std::map<std::string, config_values::value>;

bool plain_key(std::string_view key) {
    return !key.empty() && std::ranges::all_of(key, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    });
}

std::optional<std::string> scalar_text(const toml::node& node) {
    if (const auto* s = node.as_string()) return s->get();
    if (const auto* i = node.as_integer()) return fmt::format("{}", i->get());
    if (const auto* f = node.as_floating_point()) return fmt::format("{}", f->get());
    if (const auto* b = node.as_boolean()) return b->get() ? "true" : "false";
    return std::nullopt;
}

struct flattener {
    const std::string& file;
    value_map& out;

    std::string place(const toml::node& node) const { return fmt::format("{}:{}", file, node.source().begin.line); }

    result<void> table(const toml::table& t, const std::string& prefix, int depth) const {
        for (const auto& [key, node] : t) {
            if (!plain_key(key.str()))
                return fail(errc::config, "{}: the key \"{}\" has characters other than letters, digits, '_' and '-'",
                            place(node), key.str().substr(0, 80));
            const auto path = prefix + std::string(key.str());
            if (const auto* below = node.as_table()) {
                if (depth == max_depth)
                    return fail(errc::config, "{}: keys of more than {} parts are not used here", place(node), depth);
                LONGHAUL_TRY(table(*below, path + ".", depth + 1));
            } else {
                LONGHAUL_TRY(leaf(node, path));
            }
        }
        return ok();
    }

    result<void> leaf(const toml::node& node, const std::string& path) const {
        config_values::value v;
        v.origin.text = place(node);
        if (const auto* list = node.as_array()) {
            v.is_list = true;
            for (const auto& element : *list) {
                auto text = scalar_text(element);
                if (!text) return fail(errc::config, "{}: {} may hold texts and numbers only", place(element), path);
                v.items.push_back(std::move(*text));
            }
        } else {
            auto text = scalar_text(node);
            if (!text)
                return fail(errc::config, "{}: {} is a date or a time, which nothing here takes", place(node), path);
            v.text = std::move(*text);
        }
        out.emplace(path, std::move(v));
        return ok();
    }
};

}  // namespace

result<config_values> config_values::from_toml(std::string_view text, std::string file_name) {
    if (text.size() > max_text)
        return fail(errc::config, "{}: {} bytes are too many for a configuration; at most {} are read", file_name,
                    text.size(), max_text);
    if (std::ranges::count(text, '.') > max_dots)
        return fail(errc::config, "{}: more than {} dots are too many for a configuration", file_name, max_dots);
    const auto parsed = toml::parse(text, std::string_view(file_name));
    if (!parsed)
        return fail(errc::config, "{}:{}: {}", file_name, parsed.error().source().begin.line,
                    parsed.error().description());
    config_values out;
    const flattener walk{file_name, out.values_};
    LONGHAUL_TRY(walk.table(parsed.table(), "", 1));
    return out;
}

}  // namespace longhaul::core

// The only file that sees toml++. Its errors are exceptions: without them its parser goes on behind an error and runs
// into its own assertions.
#define TOML_EXCEPTIONS 1
// Version 3.3 asserts what the input has not promised ("[!]" stops the process). Where its code goes on to report that
// input properly, the assertion is skipped; any other one refuses the text.
#define TOML_ASSERT(expr) (longhaul_toml_reports_it(#expr) || (expr) ? static_cast<void>(0) : longhaul_toml_refuse())
namespace {
struct longhaul_toml_assertion {};
[[noreturn]] void longhaul_toml_refuse() { throw longhaul_toml_assertion(); }
constexpr bool longhaul_toml_reports_it(const char* expression) {
    const char* known = "is_bare_key_character(*cp) || is_string_delimiter(*cp)";
    while (*known != '\0' && *known == *expression) ++known, ++expression;
    return *known == *expression;
}
}  // namespace
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include <algorithm>

#include "core/config.hpp"
#include "core/utf8.hpp"

namespace longhaul::core {

namespace {

// A manifest's configuration comes from other peers. toml++ destroys nested tables recursively, and only a dotted key
// ("a.a.a.a") nests beyond its own limit of 256: bounding the dots bounds the stack.
constexpr std::size_t max_text = 256 << 10;
constexpr int max_dots = 4096;
constexpr int max_depth = 8;

/// The same TOML in ASCII alone, line by line: strings get escapes (literal ones become ordinary ones), comments lose
/// what they say. Elsewhere other characters are refused: toml++ 3.3 runs into undefined behaviour when it classifies
/// them. Where this and toml++ could disagree on what is a string, toml++ has met an error before.
result<std::string> to_ascii(std::string_view text, const std::string& file) {
    std::string out;
    out.reserve(text.size() + text.size() / 8);
    int line = 1, dots = 0;
    std::string_view open;  // the delimiter of the string or comment that we are in; empty outside
    const auto emit_delimiter = [&] { out.append(open.size(), '"'); };
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    while (!text.empty()) {
        const auto [code, length] = first_utf8(text);
        if (length == 0) return fail(errc::config, "{}:{}: these bytes are no text in UTF-8", file, line);
        const char c = length == 1 ? text[0] : '\0';
        const auto whole = text;
        text.remove_prefix(length);
        if (c == '\n') {
            ++line;
            if (open.size() == 1) open = {};  // comments and single-line strings end here
            out += c;
        } else if (open == "#") {
            out += length == 1 ? c : '?';
        } else if (open.empty()) {
            if (length > 1)
                return fail(errc::config, "{}:{}: only strings and comments may hold other than ASCII characters", file,
                            line);
            if (c == '.' && ++dots > max_dots)
                return fail(errc::config, "{}:{}: more than {} dots are too many for a configuration", file, line,
                            max_dots);
            if (c == '"' || c == '\'') {
                open = whole.substr(0, whole.starts_with(std::string(3, c)) ? 3 : 1);
                text = whole.substr(open.size());
                emit_delimiter();
                continue;
            }
            if (c == '#') open = whole.substr(0, 1);
            out += c;
        } else if (whole.starts_with(open)) {
            text = whole.substr(open.size());
            // A long string may end with two quotes of its own. Those of a literal one need no escape here, and those
            // of an ordinary one stand as they did.
            for (int more = 0; open.size() == 3 && more < 2 && text.starts_with(c); ++more, text.remove_prefix(1))
                out += c;
            emit_delimiter();
            open = {};
        } else if (open[0] == '"' && c == '\\') {
            // What is escaped closes nothing. A character beyond ASCII behind a backslash is an error for toml++.
            out += c;
            if (!text.empty() && static_cast<unsigned char>(text[0]) < 0x80 && text[0] != '\n') {
                out += text[0];
                text.remove_prefix(1);
            }
        } else if (open[0] == '\'' && (c == '\\' || c == '"')) {
            out += '\\';
            out += c;
        } else if (length > 1) {
            out += fmt::format("\\U{:08X}", static_cast<std::uint32_t>(code));
        } else {
            out += c;
        }
    }
    return out;
}

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
    config_values& out;

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
        out.set(path, std::move(v));
        return ok();
    }
};

}  // namespace

namespace {

constexpr std::size_t max_tables = 10'000;

/// `document` is null where arrays of tables are not taken.
result<config_values> parse(std::string_view text, const std::string& file_name, config_document* document) {
    if (text.size() > max_text)
        return fail(errc::config, "{}: {} bytes are too many for a configuration; at most {} are read", file_name,
                    text.size(), max_text);
    LONGHAUL_TRY_ASSIGN(const auto ascii, to_ascii(text, file_name));
    config_values out;
    try {
        auto parsed = toml::parse(ascii, std::string_view(file_name));
        std::vector<std::string> arrays;
        std::size_t count = 0;
        for (const auto& [key, node] : parsed) {
            const auto* list = node.as_array();
            if (document == nullptr || list == nullptr || !list->is_array_of_tables()) continue;
            const flattener keys{file_name, out};
            if (!plain_key(key.str()))
                return fail(errc::config, "{}: a table's name has other characters than letters, digits, '_' and '-'",
                            keys.place(node));
            auto& tables = document->tables[std::string(key.str())];
            for (const auto& element : *list) {
                if (++count > max_tables)
                    return fail(errc::config, "{}: more than {} tables", keys.place(element), max_tables);
                const flattener walk{file_name, tables.emplace_back()};
                LONGHAUL_TRY(walk.table(*element.as_table(), "", 1));
            }
            arrays.emplace_back(key.str());
        }
        for (const auto& name : arrays) parsed.erase(name);
        const flattener walk{file_name, out};
        LONGHAUL_TRY(walk.table(parsed, "", 1));
    } catch (const toml::parse_error& e) {
        return fail(errc::config, "{}:{}: {}", file_name, e.source().begin.line, e.description());
    } catch (const longhaul_toml_assertion&) {
        return fail(errc::config, "{}: not TOML", file_name);
    }
    return out;
}

}  // namespace

result<config_values> config_values::from_toml(std::string_view text, std::string file_name) {
    return parse(text, file_name, nullptr);
}

result<config_document> config_document::from_toml(std::string_view text, std::string file_name) {
    config_document out;
    LONGHAUL_TRY_ASSIGN(out.values, parse(text, file_name, &out));
    return out;
}

}  // namespace longhaul::core

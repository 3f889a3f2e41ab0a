#include "core/config.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "core/utf8.hpp"

namespace longhaul::core {

namespace {

std::string shown(std::string_view s) {
    return s.size() <= 80 ? fmt::format("\"{}\"", s) : fmt::format("\"{}…\"", s.substr(0, 80));
}

/// Edit distance with insertion, deletion, substitution and exchange of neighbours.
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> before, above(b.size() + 1), row(b.size() + 1);
    std::iota(above.begin(), above.end(), std::size_t{0});
    for (std::size_t i = 1; i <= a.size(); ++i) {
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = std::min(row[j], before[j - 2] + 1);
        }
        before = above;
        above = row;
    }
    return above[b.size()];
}

std::string_view last_part(std::string_view key) {
    const auto dot = key.rfind('.');
    return dot == std::string_view::npos ? key : key.substr(dot + 1);
}
std::string_view section_of(std::string_view key) {
    const auto dot = key.rfind('.');
    return dot == std::string_view::npos ? std::string_view() : key.substr(0, dot);
}

std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    return out + '"';
}

std::string quoted_list(const std::vector<std::string>& items) {
    std::string out = "[";
    for (const auto& item : items) out += (out.size() > 1 ? ", " : "") + quoted(item);
    return out + "]";
}

/// `short_text` when it means exactly the value, else `exact_text`.
std::string exact_or(const std::string& short_text, bool is_exact, const std::string& exact_text) {
    return quoted(is_exact ? short_text : exact_text);
}

template <typename T>
std::string range_text(std::string_view kind, T min, T max) {
    const bool open_below = min == std::numeric_limits<T>::lowest();
    const bool open_above = max == std::numeric_limits<T>::max() || static_cast<double>(max) == HUGE_VAL;
    if (open_below && open_above) return std::string(kind);
    if (open_above) return fmt::format("{} of at least {}", kind, min);
    if (open_below) return fmt::format("{} of at most {}", kind, max);
    return fmt::format("{} from {} to {}", kind, min, max);
}

error refused(const std::string& key, const config_values::value& v, std::string_view accepted) {
    if (v.is_list) return {errc::config, fmt::format("{}: {} is a list; it takes {}", v.origin.text, key, accepted)};
    return {errc::config, fmt::format("{}: {} is {}; it takes {}", v.origin.text, key, shown(v.text), accepted)};
}

template <typename T>
bool parse_number(const std::string& text, T min, T max, T& out) {
    const auto* last = text.data() + text.size();
    const auto [end, code] = std::from_chars(text.data(), last, out);
    return code == std::errc{} && end == last && !text.empty() && out >= min && out <= max;
}

constexpr std::string_view environment_prefix = "LONGHAUL_";

std::string environment_name(std::string_view key) {
    std::string out(environment_prefix);
    for (char c : key) {
        if (c >= 'a' && c <= 'z')
            out += static_cast<char>(c - 'a' + 'A');
        else
            out += c == '.' || c == '-' ? '_' : c;
    }
    return out;
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
    constexpr std::size_t longest = 128;  // nobody mistypes more, and the work is the product of the lengths
    if (word.size() > longest) return {};
    const std::string* best = nullptr;
    std::size_t best_distance = std::numeric_limits<std::size_t>::max();
    // A third of the word may be wrong. Scores are doubled, so that a tie goes to the whole key.
    const auto consider = [&](const std::string& candidate, std::string_view a, std::string_view b,
                              std::size_t penalty) {
        const auto d = distance(a, b);
        if (d > (std::max(a.size(), b.size()) + 1) / 3 || 2 * d + penalty >= best_distance) return;
        best = &candidate;
        best_distance = 2 * d + penalty;
    };
    for (const auto& candidate : known) {
        consider(candidate, word, candidate, 0);
        consider(candidate, last_part(word), last_part(candidate), section_of(word) == section_of(candidate) ? 0 : 1);
    }
    return best == nullptr ? std::string() : *best;
}

config_values config_values::from_environment(const std::vector<std::string>& environment,
                                              const std::vector<std::string>& known_keys) {
    config_values out;
    for (const auto& key : known_keys) {
        const auto name = environment_name(key);
        for (const auto& entry : environment)
            if (entry.size() > name.size() && entry[name.size()] == '=' && entry.starts_with(name))
                out.set(key, entry.substr(name.size() + 1), name);
    }
    return out;
}

result<void> config_values::check_environment(const std::vector<std::string>& environment,
                                              const std::vector<std::string>& known_keys,
                                              const std::vector<std::string>& other_names) {
    // Without the prefix, which would count as agreement.
    const auto without_prefix = [](std::string_view name) {
        return std::string(name.substr(environment_prefix.size()));
    };
    std::vector<std::string> known;
    for (const auto& key : known_keys) known.push_back(without_prefix(environment_name(key)));
    for (const auto& name : other_names) known.push_back(without_prefix(name));
    for (const auto& entry : environment) {
        const auto name = entry.substr(0, entry.find('='));
        if (!name.starts_with(environment_prefix) || std::ranges::find(known, without_prefix(name)) != known.end())
            continue;
        const auto near = nearest(without_prefix(name), known);
        if (near.empty())
            return fail(errc::config, "the environment sets {}, which longhaul does not know: unset it", shown(name));
        return fail(errc::config,
                    "the environment sets {}, which longhaul does not know; did you mean {}{}? Rename or unset it",
                    shown(name), environment_prefix, near);
    }
    return ok();
}

void config_values::set(std::string key, std::string text, std::string origin) {
    value v;
    v.text = std::move(text);
    v.origin.text = std::move(origin);
    values_.insert_or_assign(std::move(key), std::move(v));
}

void config_values::merge(const config_values& over) {
    for (const auto& [key, v] : over.values_) values_.insert_or_assign(key, v);
}

const config_values::value* config_values::find(std::string_view key) const {
    const auto it = values_.find(std::string(key));
    return it == values_.end() ? nullptr : &it->second;
}

void config_binder::add(std::string key, std::string help, parser parse, std::function<std::string()> show) {
    for (const auto& e : entries_) LONGHAUL_ENSURE(e.key != key, "a configuration key is bound twice");
    entry e;
    e.key = std::move(key);
    e.help = std::move(help);
    e.parse = std::move(parse);
    e.show = std::move(show);
    entries_.push_back(std::move(e));
}

void config_binder::bind(std::string key, std::string& field, std::string help) {
    const auto parse = [key, &field](const config_values::value& v) -> result<commit> {
        if (v.is_list) return fail(refused(key, v, "a text"));
        if (!is_printable_utf8(v.text)) return fail(errc::config, "{}: {} is not printable text", v.origin.text, key);
        return commit([&field, text = v.text] { field = text; });
    };
    add(key, std::move(help), parse, [&field] { return quoted(field); });
}

void config_binder::bind(std::string key, bool& field, std::string help) {
    const auto parse = [key, &field](const config_values::value& v) -> result<commit> {
        const bool yes = v.text == "true" || v.text == "1" || v.text == "yes" || v.text == "on";
        const bool no = v.text == "false" || v.text == "0" || v.text == "no" || v.text == "off";
        if (v.is_list || !(yes || no)) return fail(refused(key, v, "true or false"));
        return commit([&field, yes] { field = yes; });
    };
    add(key, std::move(help), parse, [&field] { return std::string(field ? "true" : "false"); });
}

void config_binder::bind(std::string key, std::int64_t& field, std::string help, std::int64_t min, std::int64_t max) {
    const auto parse = [key, &field, min, max](const config_values::value& v) -> result<commit> {
        std::int64_t n = 0;
        if (v.is_list || !parse_number(v.text, min, max, n))
            return fail(refused(key, v, range_text("a whole number", min, max)));
        return commit([&field, n] { field = n; });
    };
    add(key, std::move(help), parse, [&field] { return fmt::format("{}", field); });
}

void config_binder::bind(std::string key, double& field, std::string help, double min, double max) {
    const auto parse = [key, &field, min, max](const config_values::value& v) -> result<commit> {
        double x = 0;
        if (v.is_list || !parse_number(v.text, min, max, x) || !std::isfinite(x))
            return fail(refused(key, v, range_text("a number", min, max)));
        return commit([&field, x] { field = x; });
    };
    add(key, std::move(help), parse, [&field] { return fmt::format("{}", field); });
}

void config_binder::bind(std::string key, std::optional<double>& field, std::string help, double min, double max) {
    const auto parse = [key, &field, min, max](const config_values::value& v) -> result<commit> {
        if (!v.is_list && v.text == "auto") return commit([&field] { field.reset(); });
        double x = 0;
        if (v.is_list || !parse_number(v.text, min, max, x) || !std::isfinite(x))
            return fail(refused(key, v, range_text("auto, or a number", min, max)));
        return commit([&field, x] { field = x; });
    };
    add(key, std::move(help), parse, [&field] { return field ? fmt::format("{}", *field) : quoted("auto"); });
}

void config_binder::bind(std::string key, duration& field, std::string help) {
    const auto parse = [key, &field](const config_values::value& v) -> result<commit> {
        if (v.is_list) return fail(refused(key, v, "a time like \"80 ms\""));
        const auto parsed = parse_duration(v.text);
        if (!parsed) return fail(errc::config, "{}: {}: {}", v.origin.text, key, parsed.error().message);
        return commit([&field, d = *parsed] { field = d; });
    };
    add(key, std::move(help), parse, [&field] {
        const auto text = format_duration(field);
        return exact_or(text, parse_duration(text) == field, fmt::format("{} ns", field.count()));
    });
}

void config_binder::bind(std::string key, bit_rate& field, std::string help) {
    const auto parse = [key, &field](const config_values::value& v) -> result<commit> {
        if (v.is_list) return fail(refused(key, v, "a rate like \"50 Mbit/s\""));
        const auto parsed = parse_rate(v.text);
        if (!parsed) return fail(errc::config, "{}: {}: {}", v.origin.text, key, parsed.error().message);
        return commit([&field, r = *parsed] { field = r; });
    };
    add(key, std::move(help), parse, [&field] {
        const auto text = format_rate(field);
        return exact_or(text, parse_rate(text) == field, fmt::format("{} bit/s", field.bits_per_second));
    });
}

void config_binder::bind_bytes(std::string key, std::uint64_t& field, std::string help) {
    const auto parse = [key, &field](const config_values::value& v) -> result<commit> {
        if (v.is_list) return fail(refused(key, v, "a size like \"64 MiB\""));
        const auto parsed = parse_bytes(v.text);
        if (!parsed) return fail(errc::config, "{}: {}: {}", v.origin.text, key, parsed.error().message);
        return commit([&field, n = *parsed] { field = n; });
    };
    add(key, std::move(help), parse, [&field] {
        const auto text = format_bytes(field);
        return exact_or(text, parse_bytes(text) == field, fmt::format("{} B", field));
    });
}

void config_binder::bind_share(std::string key, double& field, std::string help, double max) {
    const auto parse = [key, &field, max](const config_values::value& v) -> result<commit> {
        if (v.is_list) return fail(refused(key, v, "a share like \"0.5 %\""));
        const auto parsed = parse_share(v.text);
        if (!parsed) return fail(errc::config, "{}: {}: {}", v.origin.text, key, parsed.error().message);
        if (*parsed > max) return fail(refused(key, v, fmt::format("a share of at most {} %", max * 100)));
        return commit([&field, x = *parsed] { field = x; });
    };
    add(key, std::move(help), parse, [&field] { return fmt::format("{}", field); });
}

void config_binder::bind(std::string key, std::vector<std::string>& field, std::string help) {
    const auto parse = [key, &field](const config_values::value& v) -> result<commit> {
        auto items = v.items;
        // The environment and flags have no lists: there, commas separate.
        for (std::string_view rest = v.is_list ? "" : std::string_view(v.text); !rest.empty();) {
            const auto comma = std::min(rest.find(','), rest.size());
            auto item = rest.substr(0, comma);
            rest.remove_prefix(std::min(comma + 1, rest.size()));
            while (item.starts_with(' ')) item.remove_prefix(1);
            while (item.ends_with(' ')) item.remove_suffix(1);
            if (!item.empty()) items.emplace_back(item);
        }
        for (const auto& item : items)
            if (!is_printable_utf8(item))
                return fail(errc::config, "{}: {} holds something that is not printable text", v.origin.text, key);
        return commit([&field, items] { field = items; });
    };
    add(key, std::move(help), parse, [&field] { return quoted_list(field); });
}

void config_binder::bind_choice(std::string key, std::string& field, std::vector<std::string> choices,
                                std::string help) {
    const auto parse = [key, &field, choices](const config_values::value& v) -> result<commit> {
        if (!v.is_list && std::ranges::find(choices, v.text) != choices.end())
            return commit([&field, text = v.text] { field = text; });
        std::string accepted = "one of ";
        for (const auto& c : choices) accepted += (&c == &choices.front() ? "" : ", ") + c;
        const auto near = v.is_list ? std::string() : nearest(v.text, choices);
        if (!near.empty()) accepted += fmt::format("; did you mean \"{}\"?", near);
        return fail(refused(key, v, accepted));
    };
    add(key, std::move(help), parse, [&field] { return quoted(field); });
}

std::vector<std::string> config_binder::keys() const {
    std::vector<std::string> out;
    for (const auto& e : entries_) out.push_back(e.key);
    return out;
}

error config_binder::unknown(const std::string& key, const config_values::value& v) const {
    const auto known = keys();
    auto sentence = fmt::format("{}: unknown key {}", v.origin.text, shown(key));
    if (const auto near = nearest(key, known); !near.empty())
        return {errc::config, fmt::format("{}; did you mean \"{}\"?", sentence, near)};
    std::set<std::string> sections, beside;
    for (const auto& k : known) {
        sections.insert(section_of(k).empty() ? k : fmt::format("[{}]", section_of(k)));
        if (section_of(k) == section_of(key)) beside.emplace(last_part(k));
    }
    const bool section_is_known = !section_of(key).empty() && !beside.empty();
    std::string list;
    for (const auto& k : section_is_known ? beside : sections) list += (list.empty() ? "" : ", ") + k;
    return {errc::config, section_is_known ? fmt::format("{}; [{}] takes {}", sentence, section_of(key), list)
                                           : fmt::format("{}; there are {}", sentence, list)};
}

result<void> config_binder::apply(const config_values& values) {
    std::vector<std::pair<entry*, const config_values::value*>> given;
    for (const auto& [key, v] : values.values()) {
        const auto it = std::ranges::find(entries_, key, &entry::key);
        if (it == entries_.end()) return fail(unknown(key, v));
        given.emplace_back(&*it, &v);
    }
    std::vector<commit> commits;
    for (const auto& [e, v] : given) {
        LONGHAUL_TRY_ASSIGN(auto c, e->parse(*v));
        commits.push_back(std::move(c));
    }
    for (const auto& c : commits) c();
    for (const auto& [e, v] : given) e->origin = v->origin.text;
    return ok();
}

std::string config_binder::print() const {
    // Keys without a section must come first: what follows a [section] belongs to it.
    std::vector<std::string_view> sections{""};
    for (const auto& e : entries_)
        if (std::ranges::find(sections, section_of(e.key)) == sections.end()) sections.push_back(section_of(e.key));
    std::string out;
    for (const auto section : sections) {
        if (!section.empty()) out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
        for (const auto& e : entries_)
            if (section_of(e.key) == section)
                out += fmt::format("{:<40} # {}\n", fmt::format("{} = {}", last_part(e.key), e.show()), e.origin);
    }
    return out;
}

std::string config_binder::canonical() const {
    std::map<std::string, std::string> lines;
    for (const auto& e : entries_) lines.emplace(e.key, e.show());
    std::string out;
    for (const auto& [key, text] : lines) out += fmt::format("{} = {}\n", key, text);
    return out;
}

}  // namespace longhaul::core

#include "sim/scenario.hpp"

#include <fcntl.h>
#include <algorithm>
#include <charconv>
#include <map>

#include "core/posix_file.hpp"

namespace longhaul::sim {

using core::config_binder;
using core::config_values;
using core::errc;
using core::fail;
using core::result;

namespace {

constexpr auto longest_delay = std::chrono::minutes(1);
constexpr std::uint64_t largest_queue = 1 << 30;
constexpr double fastest = 1e12;
constexpr std::size_t max_rules = 1000;

/// Where a table begins, for errors about what it lacks.
std::string place(const config_values& table, const std::string& file) {
    return table.values().empty() ? file : table.values().begin()->second.origin.text;
}

bool good_name(std::string_view name) {
    return !name.empty() && name.size() <= 32 && std::ranges::all_of(name, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    });
}

/// [[peer]] and [[site]] share what a line is.
struct line_fields {
    access_line line;
    std::string preset, trace;
    std::uint64_t queue = 0;

    void bind(config_binder& b) {
        b.bind("up", line.up, "from here to the internet");
        b.bind("down", line.down, "from the internet to here");
        b.bind("delay", line.delay, "of the line, one way");
        b.bind("jitter", line.jitter, "packets take up to this much longer");
        b.bind_share("loss", line.loss.rate, "of packets, each way", 0.9);
        b.bind("burst", line.loss.burst, "packets lost in a row, on average", 1, 10'000);
        b.bind_bytes("queue", queue, "bytes that wait for the line before more are dropped");
        b.bind("trace", trace, "a file with lines \"seconds,factor\"");
    }
};

class parser {
public:
    parser(const std::string& file, const file_reader& read) : file_(file), read_(read) {}

    result<scenario> parse(std::string_view text);

private:
    result<void> general(const config_values& values);
    result<void> add_site(const config_values& table);
    result<void> add_peers(const config_values& table);
    result<void> add_link(const config_values& table);
    result<void> add_fault(const config_values& table);
    result<void> finish_line(line_fields& f, const config_values& table);
    result<void> name_free(const std::string& name, const config_values& table);
    result<std::vector<std::uint32_t>> find(const std::vector<std::string>& names, const std::string& where) const;
    result<void> check_path(const path_between& p, const std::string& where) const;

    const std::string& file_;
    const file_reader& read_;
    scenario out_;
    std::map<std::string, std::vector<std::uint32_t>> names_;  // of peers, groups and sites: the peers
};

result<void> parser::general(const config_values& values) {
    config_values rest;
    for (const auto& [key, v] : values.values()) {
        if (key.starts_with("run.")) {
            out_.run_values.set(key.substr(4), v);
        } else {
            rest.set(key, v);
        }
    }
    config_binder b;
    auto& path = out_.net.default_path;
    b.bind("links.rtt", path.rtt, "between any two sites or peers, beyond their lines");
    b.bind("links.jitter", path.jitter, "packets take up to this much longer");
    b.bind_share("links.loss", path.loss.rate, "of packets, each way", 0.9);
    b.bind("links.burst", path.loss.burst, "packets lost in a row, on average", 1, 10'000);
    b.bind_bytes("links.queue", out_.net.queue, "of every line that does not say; else one bandwidth-delay product");
    std::int64_t mtu = 1500;
    b.bind("links.mtu", mtu, "bytes of the largest IP packet", 1280, 9000);
    b.bind("expect.rounds", out_.expect.rounds, "committed by everybody who lives", 0, 1'000'000'000);
    b.bind("expect.alive", out_.expect.alive, "peers that live at the end, at least", 0, 10'000);
    b.bind("expect.within", out_.expect.within, "from the start");
    b.bind("expect.recovers_within", out_.expect.recovers_within,
           "of the last fault's end: everybody who lives has committed three more rounds, and that is the end");
    LONGHAUL_TRY(b.apply(rest));
    out_.net.mtu = static_cast<std::uint64_t>(mtu);
    LONGHAUL_TRY(check_path(path, file_ + ": [links]"));
    if (out_.net.queue > largest_queue) return fail(errc::config, "{}: links.queue is above 1 GiB", file_);
    if (out_.expect.within <= core::duration{} || out_.expect.within > std::chrono::hours(24 * 30)) {
        return fail(errc::config, "{}: expect.within must be from a moment to a month", file_);
    }
    config_binder run;
    peers::bind(run, out_.run);
    LONGHAUL_TRY(run.apply(out_.run_values));
    return peers::validate(out_.run);
}

result<void> parser::check_path(const path_between& p, const std::string& where) const {
    if (p.rtt <= 2 * longest_delay && p.jitter <= longest_delay) return core::ok();
    return fail(errc::config, "{}: delays are at most a minute", where);
}

result<void> parser::finish_line(line_fields& f, const config_values& table) {
    const auto where = place(table, file_);
    auto& l = f.line;
    if (l.delay > longest_delay || l.jitter > longest_delay)
        return fail(errc::config, "{}: delays are at most a minute", where);
    if (l.up.bits_per_second > fastest || l.down.bits_per_second > fastest)
        return fail(errc::config, "{}: rates are at most 1 Tbit/s", where);
    if (f.queue > largest_queue) return fail(errc::config, "{}: queue is above 1 GiB", where);
    if (f.queue > 0) l.up_queue = l.down_queue = f.queue;
    if (f.trace.empty()) return core::ok();
    LONGHAUL_TRY_ASSIGN(const auto text, read_(f.trace));
    LONGHAUL_TRY_ASSIGN(l.changes, parse_rate_trace(text, f.trace));
    return core::ok();
}

result<void> parser::name_free(const std::string& name, const config_values& table) {
    if (!good_name(name))
        return fail(errc::config, "{}: the name \"{}\" is not made of 1 to 32 letters, digits, '_' and '-'",
                    place(table, file_), name.substr(0, 80));
    if (names_.contains(name)) return fail(errc::config, "{}: \"{}\" is named twice", place(table, file_), name);
    if (name == "coordinator")
        return fail(errc::config, "{}: \"coordinator\" is whoever coordinates: give another name", place(table, file_));
    return core::ok();
}

result<void> parser::add_site(const config_values& table) {
    site s;
    line_fields f;
    s.rtt = std::chrono::milliseconds(1);
    config_binder b;
    b.bind("name", s.name, "for [[peer]], [[link]] and [[fault]]");
    b.bind("rtt", s.rtt, "between its peers");
    f.bind(b);
    LONGHAUL_TRY(b.apply(table));
    LONGHAUL_TRY(name_free(s.name, table));
    LONGHAUL_TRY(check_path({.rtt = s.rtt}, place(table, file_)));
    LONGHAUL_TRY(finish_line(f, table));
    s.line = std::move(f.line);
    names_[s.name];
    out_.net.sites.push_back(std::move(s));
    return core::ok();
}

result<void> parser::add_peers(const config_values& table) {
    std::string name, site;
    std::int64_t count = 1;
    peer_place p;
    peer_spec spec;
    line_fields f;
    std::vector<std::string> presets;
    for (const auto& known : line_presets()) presets.emplace_back(known.name);
    // What the table says itself is laid over the preset.
    if (const auto* v = table.find("preset"); v != nullptr) {
        const auto known = std::ranges::find_if(line_presets(), [&](const auto& k) { return k.name == v->text; });
        if (known != line_presets().end()) f.line = known->line;
    }
    config_binder b;
    b.bind("name", name, "for [[link]] and [[fault]]; with a count: name-1, name-2, …");
    b.bind("count", count, "peers like this", 1, static_cast<std::int64_t>(max_scenario_peers));
    b.bind("site", site, "whose line it shares");
    b.bind_choice("preset", f.preset, presets, "what kind of line it has");
    b.bind("step_time", spec.step_time, "of one inner step");
    b.bind("restart_after", spec.restart_after, "a service manager starts it again when it ended by an error");
    b.bind("reachable", p.reachable, "false: a firewall lets nobody connect to it");
    f.bind(b);
    LONGHAUL_TRY(b.apply(table));
    LONGHAUL_TRY(name_free(name, table));
    LONGHAUL_TRY(finish_line(f, table));
    if (spec.step_time > std::chrono::hours(1) || spec.restart_after > std::chrono::hours(1))
        return fail(errc::config, "{}: step_time and restart_after are at most an hour", place(table, file_));
    if (!site.empty()) {
        const auto at = std::ranges::find(out_.net.sites, site, &site::name);
        if (at == out_.net.sites.end()) {
            std::vector<std::string> known;
            for (const auto& s : out_.net.sites) known.push_back(s.name);
            const auto near = core::nearest(site, known);
            return fail(errc::config, "{}: no [[site]] is called \"{}\"{}", place(table, file_), site.substr(0, 80),
                        near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
        }
        p.site = static_cast<int>(at - out_.net.sites.begin());
    }
    if (out_.net.peers.size() + static_cast<std::size_t>(count) > max_scenario_peers)
        return fail(errc::config, "{}: more than {} peers", place(table, file_), max_scenario_peers);
    p.line = std::move(f.line);
    const bool many = table.find("count") != nullptr;
    for (std::int64_t i = 1; i <= count; ++i) {
        p.name = many ? fmt::format("{}-{}", name, i) : name;
        if (many && i == 1) names_[name];
        if (names_.contains(p.name))
            return fail(errc::config, "{}: \"{}\" is named twice", place(table, file_), p.name);
        const auto index = static_cast<std::uint32_t>(out_.net.peers.size());
        names_[p.name].push_back(index);
        if (many) names_[name].push_back(index);
        if (p.site >= 0) names_[site].push_back(index);
        out_.net.peers.push_back(p);
        out_.peers.push_back(spec);
    }
    return core::ok();
}

result<std::vector<std::uint32_t>> parser::find(const std::vector<std::string>& names, const std::string& where) const {
    std::vector<std::uint32_t> found;
    for (const auto& name : names) {
        const auto at = names_.find(name);
        if (at == names_.end()) {
            std::vector<std::string> known;
            for (const auto& [k, peers] : names_) known.push_back(k);
            const auto near = core::nearest(name, known);
            return fail(errc::config, "{}: no [[peer]] or [[site]] is called \"{}\"{}", where, name.substr(0, 80),
                        near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
        }
        found.insert(found.end(), at->second.begin(), at->second.end());
    }
    std::ranges::sort(found);
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
}

result<void> parser::add_link(const config_values& table) {
    const auto where = place(table, file_);
    path_rule rule;
    rule.path = out_.net.default_path;
    std::vector<std::string> between;
    config_binder b;
    b.bind("between", between, "two peers, groups or sites");
    b.bind("rtt", rule.path.rtt, "beyond their lines");
    b.bind("jitter", rule.path.jitter, "packets take up to this much longer");
    b.bind_share("loss", rule.path.loss.rate, "of packets, each way", 0.9);
    b.bind("burst", rule.path.loss.burst, "packets lost in a row, on average", 1, 10'000);
    LONGHAUL_TRY(b.apply(table));
    if (between.size() != 2)
        return fail(errc::config, "{}: a [[link]] is between two: between = [\"a\", \"b\"]", where);
    LONGHAUL_TRY(check_path(rule.path, where));
    LONGHAUL_TRY_ASSIGN(rule.a, find({between[0]}, where));
    LONGHAUL_TRY_ASSIGN(rule.b, find({between[1]}, where));
    if (out_.net.rules.size() == max_rules) return fail(errc::config, "{}: more than {} [[link]]s", where, max_rules);
    out_.net.rules.push_back(std::move(rule));
    return core::ok();
}

/// A time that may be before: "-5 min".
result<core::duration> signed_duration(std::string_view text) {
    const bool minus = text.starts_with('-');
    LONGHAUL_TRY_ASSIGN(const auto d, core::parse_duration(minus ? text.substr(1) : text));
    return minus ? -d : d;
}

result<void> parser::add_fault(const config_values& table) {
    const auto where = place(table, file_);
    fault f;
    std::int64_t round = 0;
    std::string offset = "0 s";
    std::map<fault_kind, std::vector<std::string>> whom;
    config_binder b;
    b.bind("at", f.at, "since the founder was started");
    b.bind("round", round, "instead of `at`: when that round was committed", 1, 1'000'000'000);
    b.bind("for", f.lasting, "then it is undone");
    b.bind("voters", f.voters, "only while at least so many order records", 0, 7);
    b.bind("factor", f.factor, "rate: of the lines' rates", 0, 1000);
    b.bind("offset", offset, "clock: of the wall clock");
    b.bind("drift", f.drift, "clock: parts per million", -100'000, 100'000);
    b.bind_choice("error", f.error, {"full", "fsync", "rot", "lost", "older"}, "disk: what is wrong with it");
    std::vector<std::string> from;
    b.bind("from", from, "partition: only from these, whom the others go on to reach");
    std::string kinds;
    for (int k = 0; k <= static_cast<int>(fault_kind::leave); ++k) {
        const auto kind = static_cast<fault_kind>(k);
        b.bind(std::string(name_of(kind)), whom[kind], "peers, groups or sites, or \"coordinator\": who is it then");
        kinds += (k == 0 ? "" : ", ") + std::string(name_of(kind));
    }
    LONGHAUL_TRY(b.apply(table));
    f.round = static_cast<std::uint64_t>(round);
    std::erase_if(whom, [&table](const auto& entry) { return table.find(name_of(entry.first)) == nullptr; });
    if (whom.size() != 1) return fail(errc::config, "{}: a [[fault]] has exactly one of {}", where, kinds);
    f.what = whom.begin()->first;
    auto names = whom.begin()->second;
    if ((table.find("at") != nullptr) == (table.find("round") != nullptr))
        return fail(errc::config, "{}: a [[fault]] says when: either `at` or `round`", where);
    constexpr auto longest = std::chrono::hours(24 * 30);
    if (f.at > longest || f.lasting > longest)
        return fail(errc::config, "{}: a fault's times are at most a month", where);
    auto parsed = signed_duration(offset);
    if (!parsed || *parsed > longest || *parsed < -longest)
        return fail(errc::config, "{}: offset is a time like \"5 min\" or \"-5 min\", at most a month", where);
    f.offset = *parsed;

    const auto needs = [&](fault_kind kind, const char* key) { return f.what == kind && table.find(key) == nullptr; };
    if (needs(fault_kind::rate, "factor")) return fail(errc::config, "{}: a rate fault needs a factor", where);
    if (needs(fault_kind::disk, "error"))
        return fail(errc::config,
                    "{}: a disk fault needs an error: \"full\", \"fsync\", \"rot\", \"lost\" or \"older\"", where);
    if (f.error == "older" && f.lasting == core::duration{})
        return fail(errc::config, "{}: an older disk needs `for`: how old it is when it comes back", where);
    if (needs(fault_kind::clock, "offset") && needs(fault_kind::clock, "drift"))
        return fail(errc::config, "{}: a clock fault needs an offset or a drift", where);
    for (const auto& [key, kind] : {std::pair("factor", fault_kind::rate), std::pair("error", fault_kind::disk),
                                    std::pair("offset", fault_kind::clock), std::pair("drift", fault_kind::clock),
                                    std::pair("from", fault_kind::partition)}) {
        if (table.find(key) != nullptr && f.what != kind)
            return fail(errc::config, "{}: {} belongs to a {} fault", where, key, name_of(kind));
    }
    if (names == std::vector<std::string>{"coordinator"}) {
        if (f.what == fault_kind::one_way || f.what == fault_kind::join || !from.empty())
            return fail(errc::config, "{}: a {} fault names its peers", where, name_of(f.what));
        f.coordinator = true;
        out_.faults.push_back(std::move(f));
        return core::ok();
    }
    if (f.what == fault_kind::one_way) {
        if (names.size() != 2) return fail(errc::config, "{}: one_way = [\"from\", \"to\"] has two names", where);
        LONGHAUL_TRY_ASSIGN(f.others, find({names[1]}, where));
        names.pop_back();
    }
    LONGHAUL_TRY_ASSIGN(f.peers, find(names, where));
    if (f.peers.empty()) return fail(errc::config, "{}: this fault befalls nobody", where);
    if (f.what == fault_kind::partition) f.others = all_but(f.peers, static_cast<std::uint32_t>(out_.net.peers.size()));
    if (!from.empty()) {
        LONGHAUL_TRY_ASSIGN(f.others, find(from, where));
    }
    if (f.what == fault_kind::join) {
        for (const auto i : f.peers) {
            if (i == 0) return fail(errc::config, "{}: the first peer founds the run and cannot join it", where);
            out_.peers[i].joins_later = true;
        }
    }
    out_.faults.push_back(std::move(f));
    return core::ok();
}

result<scenario> parser::parse(std::string_view text) {
    LONGHAUL_TRY_ASSIGN(const auto document, core::config_document::from_toml(text, file_));
    const std::vector<std::string> known{"site", "peer", "link", "fault"};
    for (const auto& [name, tables] : document.tables) {
        if (std::ranges::find(known, name) != known.end()) continue;
        const auto near = core::nearest(name, known);
        return fail(errc::config, "{}: unknown table [[{}]]{}", place(tables.front(), file_), name.substr(0, 80),
                    near.empty() ? "" : fmt::format("; did you mean [[{}]]?", near));
    }
    LONGHAUL_TRY(general(document.values));
    const auto each = [&](const char* name, auto what) -> result<void> {
        const auto at = document.tables.find(name);
        if (at == document.tables.end()) return core::ok();
        for (const auto& table : at->second) LONGHAUL_TRY((this->*what)(table));
        return core::ok();
    };
    LONGHAUL_TRY(each("site", &parser::add_site));
    LONGHAUL_TRY(each("peer", &parser::add_peers));
    if (out_.net.peers.empty()) return fail(errc::config, "{}: a scenario needs at least one [[peer]]", file_);
    LONGHAUL_TRY(each("link", &parser::add_link));
    LONGHAUL_TRY(each("fault", &parser::add_fault));
    return std::move(out_);
}

}  // namespace

std::string_view name_of(fault_kind k) {
    switch (k) {
        case fault_kind::kill: return "kill";
        case fault_kind::power: return "power";
        case fault_kind::restart: return "restart";
        case fault_kind::stop: return "stop";
        case fault_kind::partition: return "partition";
        case fault_kind::one_way: return "one_way";
        case fault_kind::reset: return "reset";
        case fault_kind::rate: return "rate";
        case fault_kind::clock: return "clock";
        case fault_kind::disk: return "disk";
        case fault_kind::join: return "join";
        case fault_kind::leave: return "leave";
    }
    return "";
}

std::vector<std::uint32_t> all_but(const std::vector<std::uint32_t>& some, std::uint32_t count) {
    std::vector<std::uint32_t> others;
    for (std::uint32_t i = 0; i < count; ++i) {
        if (!std::ranges::binary_search(some, i)) others.push_back(i);
    }
    return others;
}

result<scenario> parse_scenario(std::string_view text, const std::string& file_name, const file_reader& read) {
    return parser(file_name, read).parse(text);
}

result<scenario> load_scenario(const std::string& path) {
    constexpr std::uint64_t largest = 8 << 20;
    const auto slash = path.rfind('/');
    const auto folder = slash == std::string::npos ? std::string() : path.substr(0, slash + 1);
    const auto name = slash == std::string::npos ? path : path.substr(slash + 1);
    const auto read = [](const std::string& file) -> result<std::string> {
        auto bytes = core::read_file(file, largest);
        if (!bytes) return fail(std::move(bytes).error());
        return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
    };
    LONGHAUL_TRY_ASSIGN(const auto text, read(path));
    const auto beside = [&](const std::string& file) { return file.starts_with('/') ? file : folder + file; };
    const auto read_trace = [&](const std::string& file) -> result<std::string> {
        auto trace = read(beside(file));
        if (!trace) return fail(errc::config, "{}: trace: {}", name, trace.error().message);
        return trace;
    };
    LONGHAUL_TRY_ASSIGN(auto s, parse_scenario(text, name, read_trace));
    if (!s.run.data.path.empty()) s.run.data.path = beside(s.run.data.path);
    return s;
}

}  // namespace longhaul::sim

#include "core/units.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>

namespace longhaul::core {

namespace {

struct unit {
    std::string_view name;
    double factor;
};

constexpr std::array<unit, 9> duration_units{{{"ns", 1},
                                              {"us", 1e3},
                                              {"\xC2\xB5s", 1e3},
                                              {"ms", 1e6},
                                              {"s", 1e9},
                                              {"min", 60e9},
                                              {"h", 3600e9},
                                              {"d", 86400e9},
                                              {"days", 86400e9}}};
constexpr std::array<unit, 11> byte_units{{{"B", 1},
                                           {"kB", 1e3},
                                           {"KB", 1e3},
                                           {"MB", 1e6},
                                           {"GB", 1e9},
                                           {"TB", 1e12},
                                           {"KiB", 0x1p10},
                                           {"kiB", 0x1p10},
                                           {"MiB", 0x1p20},
                                           {"GiB", 0x1p30},
                                           {"TiB", 0x1p40}}};
constexpr std::array<unit, 20> rate_units{{{"bit/s", 1},
                                           {"kbit/s", 1e3},
                                           {"Kbit/s", 1e3},
                                           {"Mbit/s", 1e6},
                                           {"Gbit/s", 1e9},
                                           {"Tbit/s", 1e12},
                                           {"bps", 1},
                                           {"kbps", 1e3},
                                           {"Kbps", 1e3},
                                           {"Mbps", 1e6},
                                           {"Gbps", 1e9},
                                           {"B/s", 8},
                                           {"kB/s", 8e3},
                                           {"KB/s", 8e3},
                                           {"MB/s", 8e6},
                                           {"GB/s", 8e9},
                                           {"KiB/s", 8 * 0x1p10},
                                           {"MiB/s", 8 * 0x1p20},
                                           {"GiB/s", 8 * 0x1p30},
                                           {"Tbps", 1e12}}};

std::string_view trimmed(std::string_view s) {
    while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
    while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
    return s;
}

// What is shown of a refused text: bounded, since it may come from anywhere.
std::string excerpt(std::string_view s) {
    return s.size() <= 40 ? fmt::format("\"{}\"", s) : fmt::format("\"{}…\"", s.substr(0, 40));
}

struct quantity {
    double number = 0;
    std::string_view digits;  ///< the number as written
    double factor = 1;
};

/// A number and one of `units`. `kind` and `example` make the sentence of the error.
result<quantity> parse_quantity(std::string_view text, std::span<const unit> units, std::string_view kind,
                                std::string_view example) {
    const auto s = trimmed(text);
    if (s.starts_with('-'))
        return fail(errc::malformed, "{} is negative; write {} like {}", excerpt(text), kind, example);
    quantity q;
    // from_chars also takes "inf" and "nan", which have no place here.
    const bool number_like = !s.empty() && ((s.front() >= '0' && s.front() <= '9') || s.front() == '.');
    const auto [end, code] = std::from_chars(s.data(), s.data() + s.size(), q.number);
    if (!number_like || code != std::errc{})
        return fail(errc::malformed, "{} does not start with a number; write {} like {}", excerpt(text), kind, example);
    q.digits = s.substr(0, static_cast<std::size_t>(end - s.data()));
    const auto name = trimmed(s.substr(q.digits.size()));
    if (name.empty()) return fail(errc::malformed, "{} has no unit; write {} like {}", excerpt(text), kind, example);
    for (const auto& u : units) {
        if (u.name != name) continue;
        q.factor = u.factor;
        return q;
    }
    return fail(errc::malformed, "{} has an unknown unit; write {} like {}", excerpt(text), kind, example);
}

/// Four significant digits, without trailing zeros.
std::string short_number(double v) { return fmt::format("{:.4g}", v); }

}  // namespace

result<duration> parse_duration(std::string_view text) {
    LONGHAUL_TRY_ASSIGN(const auto q, parse_quantity(text, duration_units, "a time", "\"80 ms\" or \"2 min\""));
    const double ns = q.number * q.factor;
    if (!(ns < 0x1p63)) return fail(errc::malformed, "{} is too long; at most 292 years fit", excerpt(text));
    return duration(static_cast<std::int64_t>(std::nearbyint(ns)));
}

result<std::uint64_t> parse_bytes(std::string_view text) {
    LONGHAUL_TRY_ASSIGN(const auto q, parse_quantity(text, byte_units, "a size", "\"64 MiB\" or \"10 kB\""));
    const auto too_large = [&] { return fail(errc::malformed, "{} is too large; at most 16 EiB fit", excerpt(text)); };
    // Whole numbers are exact to the last byte; a double would round beyond 2^53.
    std::uint64_t whole = 0;
    const auto* last = q.digits.data() + q.digits.size();
    if (const auto [end, code] = std::from_chars(q.digits.data(), last, whole); end == last) {
        if (code != std::errc{}) return too_large();
        const auto factor = static_cast<std::uint64_t>(q.factor);
        if (whole > std::numeric_limits<std::uint64_t>::max() / factor) return too_large();
        return whole * factor;
    }
    const double bytes = q.number * q.factor;
    if (!(bytes < 0x1p64)) return too_large();
    return static_cast<std::uint64_t>(std::nearbyint(bytes));
}

result<bit_rate> parse_rate(std::string_view text) {
    LONGHAUL_TRY_ASSIGN(const auto q, parse_quantity(text, rate_units, "a rate", "\"50 Mbit/s\" or \"12 MB/s\""));
    return bit_rate{q.number * q.factor};
}

result<double> parse_share(std::string_view text) {
    constexpr std::string_view example = "write a share like \"0.5 %\" or \"0.005\"";
    auto s = trimmed(text);
    const bool percent = s.ends_with('%');
    if (percent) s = trimmed(s.substr(0, s.size() - 1));
    double v = 0;
    const bool number_like = !s.empty() && ((s.front() >= '0' && s.front() <= '9') || s.front() == '.');
    const auto [end, code] = std::from_chars(s.data(), s.data() + s.size(), v);
    if (!number_like || code != std::errc{} || end != s.data() + s.size())
        return fail(errc::malformed, "{} is not a share; {}", excerpt(text), example);
    if (percent) v /= 100;
    if (v > 1) return fail(errc::malformed, "{} is more than the whole; {}", excerpt(text), example);
    return v;
}

std::string format_duration(duration d) {
    const auto ns = static_cast<double>(d.count());
    if (ns < 1e3) return fmt::format("{} ns", d.count());
    if (ns < 1e6) return short_number(ns / 1e3) + " us";
    if (ns < 1e9) return short_number(ns / 1e6) + " ms";
    if (ns < 120e9) return short_number(ns / 1e9) + " s";
    if (ns < 7200e9) return short_number(ns / 60e9) + " min";
    if (ns < 2 * 86400e9) return short_number(ns / 3600e9) + " h";
    return fmt::format("{:.6g} d", ns / 86400e9);
}

std::string format_bytes(std::uint64_t bytes) {
    const auto b = static_cast<double>(bytes);
    if (b < 0x1p10) return fmt::format("{} B", bytes);
    if (b < 0x1p20) return short_number(b / 0x1p10) + " KiB";
    if (b < 0x1p30) return short_number(b / 0x1p20) + " MiB";
    if (b < 0x1p40) return short_number(b / 0x1p30) + " GiB";
    return fmt::format("{:.6g} TiB", b / 0x1p40);
}

std::string format_rate(bit_rate rate) {
    const double r = rate.bits_per_second;
    if (r < 1e3) return short_number(r) + " bit/s";
    if (r < 1e6) return short_number(r / 1e3) + " kbit/s";
    if (r < 1e9) return short_number(r / 1e6) + " Mbit/s";
    return short_number(r / 1e9) + " Gbit/s";
}

}  // namespace longhaul::core
